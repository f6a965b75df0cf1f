"""Documents of large text files stay in the file: the same data as in memory, in little memory."""

from __future__ import annotations

import copy
import io
import os
import pickle
import tracemalloc
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flambeau import Learner
from flambeau.errors import InputError
from flambeau_text import LanguageModelData, LanguageOptions
from flambeau_text.language import documents, lazy_texts, token_store
from flambeau_text.language.documents import read_documents
from flambeau_text.language.lazy_texts import StoredTexts, copies_as_groups, file_version
from flambeau_text.tokenization import vocab_tokenizer

LINES = [
    "\ufefffirst line", "", "  ", "second\x0bline\x85", "a\u2028b <unk> </s>", "", "é" * 5, "x\r",
    *(f"line {at % 9} of the text" for at in range(40)), "", " \t", "the end",
]  # fmt: skip


def write(path: Path, end: str = "\n", last: str = "\n") -> Path:
    path.write_bytes((end.join(LINES) + last).encode())
    return path


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LARGE", 0)


@pytest.mark.parametrize("unit", [None, "file", "paragraph", "line"])
@pytest.mark.parametrize(("end", "last"), [("\n", "\n"), ("\r\n", ""), ("\n", "\n\n \n")])
def test_large_files_give_the_same_data(
    unit: str | None, end: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path / "a.txt", end, last)]
    if unit == "file":  # a part is drawn from several
        paths += [write(tmp_path / f"{name}.txt", end) for name in "bcd"]
    options = LanguageOptions(document=unit, tokenizer="word", vocab_size=30)  # type: ignore[arg-type]

    def read() -> LanguageModelData:
        return LanguageModelData.from_files(paths, valid=2, options=options)

    here = read()
    monkeypatch.setattr(documents, "LARGE", 0)
    there = read()
    assert isinstance(here.samples["text"], list)
    assert not isinstance(there.samples["text"], list)
    for name in ("text", "location"):
        assert list(there.samples[name]) == list(here.samples[name])
    assert there.samples.problems == here.samples.problems
    assert there.fingerprint() == here.fingerprint()
    assert (there.report(), there.facts()) == (here.report(), here.facts())
    plans = [Learner(data, quiet=True).plan.values for data in (here, there)]
    fitted = [data.preprocessor(plan) for data, plan in zip((here, there), plans, strict=True)]
    assert fitted[0].arguments() == fitted[1].arguments()
    one, other = (
        data.dataset("train", each, plan).stream  # type: ignore[attr-defined]
        for data, each, plan in zip((here, there), fitted, plans, strict=True)
    )
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.starts, other.starts)
    assert one.line_bytes.tolist() == other.line_bytes.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(alphabet="ab \t\r\n\x0b\x1c\x85\u2028\ufeffé", max_size=12), min_size=1, max_size=8
    ),
    st.sampled_from(["paragraph", "line"]),
)
def test_any_text_is_divided_alike(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], unit: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.txt"
    path.write_bytes(("\n".join(lines) + "\nend").encode())
    here = read_documents([path], unit)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(documents, "LARGE", 0)
        there = read_documents([path], unit)  # type: ignore[arg-type]
    assert list(there.texts) == here.texts
    assert list(there.locations) == here.locations
    assert there.problems == here.problems
    assert there.rows.tolist() == here.rows.tolist()


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"one\na\xe9\nb\n", r"a\.txt, line 2: byte 2 of the line is not UTF-8 \(b'\\xe9'\)"),
        (b"\xef\xbb\xbf\xe9", "line 1: byte 1 of the line"),
        (b"one\na\0\n", "NUL characters in line 2"),
        ("text\n".encode("utf-16"), "begins with the byte-order mark of UTF-16"),
        (b"\n \n", "There is no text in"),
    ],
)
@pytest.mark.parametrize("unit", ["file", "paragraph", "line", None])
def test_bad_bytes_are_named(content: bytes, words: str, unit: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_documents([tmp_path / "a.txt"], unit)  # type: ignore[arg-type]


@pytest.mark.usefixtures("stored")
def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt")
    texts = read_documents([path], "line").texts
    for again in (copy.deepcopy(texts), pickle.loads(pickle.dumps(texts))):
        assert list(again) == list(texts)
    assert texts[-1] == "\n \t\nthe end\n"
    assert texts[1:3] == [texts[1], texts[2]]
    with pytest.raises(IndexError):
        texts[len(texts)]
    with path.open("ab") as file:
        file.write(b"more\n")
    with pytest.raises(InputError, match=r"a\.txt was changed after its documents were found"):
        texts[0]


def test_copies_have_one_group_in_order() -> None:
    assert copies_as_groups(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 2, 1]
    assert copies_as_groups([]).tolist() == []


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("tokenizer", ["word", "bpe"])
def test_memory_does_not_grow_with_the_file(
    tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pieces are as small beside this file as they are beside one of a gigabyte.
    monkeypatch.setattr(token_store, "_PIECE", 4_000)
    monkeypatch.setattr(vocab_tokenizer, "_PIECE", 4)
    text = "".join(
        f"{at} {' '.join(f'w{at * 7 % n}' for n in range(1, 250))}\n" for at in range(100)
    )
    values = {"tokenizer": tokenizer, "vocab_size": 500, "normalization": "nfc"}
    options = LanguageOptions(document="line")

    def peak_of(copies: int) -> int:
        """Return the peak of Python's memory above the encoded tokens."""
        path = tmp_path / f"{copies}.txt"
        path.write_text(text * copies)
        tracemalloc.start()
        data = LanguageModelData.from_files(path, valid=10, options=options)
        dataset = data.dataset("train", data.preprocessor(values), values)
        tokens = 4 * len(dataset.stream.tokens)  # type: ignore[attr-defined]
        peak = tracemalloc.get_traced_memory()[1] - tokens
        tracemalloc.stop()
        return peak

    peak_of(1)  # imports
    growth = peak_of(3) - peak_of(1)
    assert growth < 0.25 * 2 * len(text), growth


def test_a_stored_document_is_read_from_its_file(tmp_path: Path) -> None:

    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\nc\r")
    path = tmp_path / "a.txt"
    texts = StoredTexts(path, array("q", [3, 6]), array("q", [6, 10]), file_version(path))
    assert list(texts) == ["a\n", "b\nc\n"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_reads_its_own_documents(tmp_path: Path, stored: None) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {at}\n" for at in range(400)))
    texts = read_documents([path], "line").texts
    assert texts[0] == "line 0\n"  # the file is open before the fork
    child = os.fork()
    if child == 0:
        wanted = [f"line {at}\n" for at in range(400)]
        os._exit(0 if all(list(texts) == wanted for _ in range(20)) else 1)
    mine = [list(texts) for _ in range(20)]
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert all(each == [f"line {at}\n" for at in range(400)] for each in mine)


class Short:
    """A file whose reads return three bytes at most, as those above 2 GiB return less."""

    def __init__(self, path: Path, *_: object, **__: object) -> None:
        self._file = io.FileIO(path)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, 3))


@pytest.mark.parametrize("has_pread", [True, False])
def test_a_document_is_read_whole_where_a_read_returns_less(
    has_pread: bool, tmp_path: Path, stored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.txt")
    whole = list(read_documents([path], "paragraph").texts)
    if not has_pread:  # Windows
        monkeypatch.delattr(os, "pread", raising=False)
        monkeypatch.setattr(lazy_texts, "open", Short, raising=False)
    elif not hasattr(os, "pread"):
        pytest.skip("the system has no pread")
    else:
        inner = os.pread
        monkeypatch.setattr(os, "pread", lambda file, size, at: inner(file, min(size, 3), at))
    assert list(read_documents([path], "paragraph").texts) == whole


def test_a_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    texts = StoredTexts(path, array("q", [0]), array("q", [9]), file_version(path))
    with pytest.raises(InputError, match="shorter than when its documents were found"):
        texts[0]


def test_a_file_that_grows_while_it_is_scanned_is_an_error(
    tmp_path: Path, stored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.txt")
    inner = documents.divide

    def slow(*arguments: Any) -> Any:
        yield from inner(*arguments)
        with path.open("a") as file:
            file.write("one more line\n")

    monkeypatch.setattr(documents, "divide", slow)
    with pytest.raises(InputError, match="was changed after its documents were found"):
        read_documents([path], "line")
