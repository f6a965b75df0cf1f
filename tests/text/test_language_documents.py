"""Documents for language models are read from files, folders, tables and iterables, or refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from flambeau import Split
from flambeau.errors import ArgumentError, InputError, SplitError
from flambeau_text.language import LanguageModelData, LanguageOptions
from flambeau_text.language.domain import recognise

PARAGRAPHS = "\n\n".join(f"paragraph {at}\nof two lines" for at in range(12)) + "\n"


def texts(data: LanguageModelData) -> list[str]:
    return list(data.samples["text"])


def test_a_folder_has_one_document_per_file(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "deep/c.txt", ".hidden/d.txt", "e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}\n\nmore\n")
    data = LanguageModelData.from_files(tmp_path, valid=1)
    assert texts(data) == [f"text of {name}\n\nmore\n" for name in ("a.md", "b.txt", "deep/c.txt")]
    assert data.samples["location"][2].endswith("deep/c.txt")


def test_a_single_file_is_divided_into_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(PARAGRAPHS)
    data = LanguageModelData.from_files(path)
    assert len(texts(data)) == 12
    # No line is lost: blank lines belong to the paragraph before.
    assert "".join(texts(data)) == PARAGRAPHS
    assert texts(data)[1] == "paragraph 1\nof two lines\n\n"
    assert data.samples["location"][1].endswith("line 4")
    assert "each paragraph is one" in data.report()


def test_few_paragraphs_are_divided_into_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {at}\n" for at in range(20)))
    assert texts(LanguageModelData.from_files(path))[3] == "line 3\n"


@pytest.mark.parametrize(("unit", "n"), [("file", 1), ("paragraph", 12), ("line", 24)])
def test_the_unit_can_be_chosen(tmp_path: Path, unit: str, n: int) -> None:
    train, valid = tmp_path / "train.txt", tmp_path / "valid.txt"
    train.write_text(PARAGRAPHS)
    valid.write_text("other text\n")
    options = LanguageOptions(document=unit)
    data = LanguageModelData.from_files(train, valid=valid, options=options)
    assert len(data.split.train) == n
    assert len(data.split.valid) == 1
    assert "".join(data.raw("train")) == PARAGRAPHS


def test_compressed_and_json_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfone two\n"))
    (tmp_path / "b.jsonl").write_text('{"text": "three\\nfour"}\n\n{"text": "five", "n": 1}\n')
    data = LanguageModelData.from_files([tmp_path / "a.txt.gz", tmp_path / "b.jsonl"], valid=1)
    assert texts(data) == ["one two\n", "three\nfour", "five"]


def test_parts_are_recognised_by_their_names(tmp_path: Path) -> None:
    for name in ("wiki.train.txt", "train.txt", "valid.txt", "test_a.txt", "validation/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}\n")
    data = LanguageModelData.from_path(tmp_path, {})
    assert len(data.split.valid) == 2
    assert len(data.split.test) == 1
    assert len(data.split.train) == 2


def test_tables_have_a_column_of_texts(tmp_path: Path) -> None:
    frame = {"id": [1, 2, 3], "text": ["a b", "c", "d"], "part": ["train", "valid", "train"]}
    data = LanguageModelData.from_df(frame, split="part")
    assert data.raw("valid") == ["c"]
    (tmp_path / "t.csv").write_text('body,n\n"a, b\nc",1\nd,2\ne,3\n')
    data = LanguageModelData.from_csv(tmp_path / "t.csv", "body", valid=1)
    assert texts(data) == ["a, b\nc", "d", "e"]
    data = LanguageModelData.from_path(tmp_path / "t.csv", {"target": "body", "valid": "1"})
    assert len(texts(data)) == 3


def test_rows_of_data_sets_are_read() -> None:
    rows = [{"text": f"row {at}", "label": at} for at in range(5)]
    assert texts(LanguageModelData.from_texts(iter(rows), valid=1))[2] == "row 2"
    options = LanguageOptions(text="body")
    data = LanguageModelData.from_texts(
        [{"body": "a", "x": 1}, {"body": "b", "x": 2}], valid=1, options=options
    )
    assert texts(data) == ["a", "b"]


def test_texts_without_words_are_left_out_and_counted() -> None:
    data = LanguageModelData.from_texts(["a b", "", " \n", None, "c d", "e"], valid=1)
    assert texts(data) == ["a b", "c d", "e"]
    assert str(data.samples.problems[0]) == "document 1: no text"
    assert "left out: 3" in data.report()


def test_copies_of_a_document_stay_in_one_part() -> None:
    data = LanguageModelData.from_texts([f"text {at % 6}" for at in range(24)], valid=0.3)
    assert not set(data.raw("train")) & set(data.raw("valid"))
    assert "copies of one document" in data.report()


def test_special_tokens_in_a_text_are_ordinary_words() -> None:
    data = LanguageModelData.from_texts(
        ["a <eos> b </s> <pad>\n", "c d\n"] * 4, valid=2, options=LanguageOptions(tokenizer="word")
    )
    fitted = data.preprocessor({"tokenizer": "word", "vocab_size": 99, "normalization": "nfc"})
    assert (fitted.stream(["a <eos> b\n"]).tokens == 3).sum() == 1  # only the end of the line


def test_line_separators_stay_inside_a_line() -> None:
    data = LanguageModelData.from_texts(["a\u2028b\r\nc\n", "d\n"], valid=1)
    options = {"tokenizer": "character", "vocab_size": 99, "normalization": "nfc"}
    fitted = data.preprocessor(options)
    assert len(fitted.stream(["a\u2028b\r\nc\n"]).line_words) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: LanguageModelData.from_files(path / "none.txt"), "no file or folder"),
        (lambda path: LanguageModelData.from_files(path / "latin.txt"), "line 2: byte 2"),
        (lambda path: LanguageModelData.from_files(path / "wide.txt"), "UTF-16"),
        (lambda path: LanguageModelData.from_files(path / "empty.txt"), "no text in"),
        (lambda path: LanguageModelData.from_files(path / "bad.jsonl"), "line 2 is not JSON"),
        (lambda path: LanguageModelData.from_files(path / "no_text.jsonl"), "none of them named"),
        (lambda path: LanguageModelData.from_files(path / "one.txt"), "There is one document"),
        (lambda path: LanguageModelData.from_files(path / "folder"), "no text files"),
        (lambda path: LanguageModelData.from_texts("a text"), "Give a list"),
        (lambda path: LanguageModelData.from_texts([1, 2]), "document 0: 1 is of type int"),
        (lambda path: LanguageModelData.from_texts(["a\0", "b"]), "NUL"),
        (lambda path: LanguageModelData.from_texts(["a\ud800", "b"]), "surrogate"),
        (lambda path: LanguageModelData.from_texts([]), "no documents with text"),
        (lambda path: LanguageModelData.from_texts(["a", "b"], valid=2), "valid"),
        (lambda path: LanguageModelData.from_df({"a": ["x"], "b": ["y"]}), "Name the column"),
        (lambda path: LanguageModelData.from_df({"text": ["x"]}, "txet"), "Did you mean 'text'"),
        (lambda path: LanguageOptions(document="chapter"), "Use one of file, paragraph, line"),
        (lambda path: LanguageOptions(tokenizer="bep"), "Use one of bpe"),
        (lambda path: LanguageOptions(vocab_size=2), "at least 5"),
        (lambda path: LanguageModelData.from_path(path / "one.txt", {"vaild": 1}), "Did you mean"),
        (lambda path: LanguageModelData.from_path(path / "one.txt", {"valid": "no.txt"}), "no.txt"),
    ],
)
def test_invalid_inputs_are_refused(tmp_path: Path, call, words: str) -> None:
    (tmp_path / "latin.txt").write_bytes("one\né\n".encode("latin-1") + b"a\n")
    (tmp_path / "latin.txt").write_bytes(b"one\na\xe9\n")
    (tmp_path / "wide.txt").write_bytes("text\n".encode("utf-16"))
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "no_text.jsonl").write_text('{"a": "x", "b": "y"}\n')
    (tmp_path / "one.txt").write_text("one line\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises((InputError, ArgumentError, SplitError), match=words):
        call(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("book.txt", "It was a bright cold day in April.\n" * 20, True),
        ("book.md", "Es war ein kalter Tag im April.\n" * 20, True),
        ("zh.txt", "四月间天气寒冷晴朗。钟敲了十三下。\n" * 20, True),
        ("list.txt", "a_0.png cat\n" * 200, False),
        ("note.txt", "a short note of a few words\n", False),
        ("wide.txt", "It was a bright cold day in April.\n" * 20, False),
        ("book.dat", "It was a bright cold day in April.\n" * 20, False),
    ],
)
def test_running_text_is_recognised(tmp_path: Path, name: str, content: str, found: bool) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-16" if name == "wide.txt" else "utf-8")
    assert (recognise(path, {}) is not None) == found
    assert (recognise(tmp_path, {}) is not None) == found


def test_a_long_text_is_recognised_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "long.txt.gz"
    path.write_bytes(gzip.compress(("é" + "word " * 9 + "\n").encode() * 20_000))
    assert recognise(path, {}) is not None


def test_the_field_of_json_lines_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"body": "a b", "n": 1}\n{"body": "c", "n": 2}\n')
    data = LanguageModelData.from_files(path, valid=1, options=LanguageOptions(text="body"))
    assert texts(data) == ["a b", "c"]
    data = LanguageModelData.from_path(path, {"text": "body", "valid": "1"})
    assert texts(data) == ["a b", "c"]


def test_a_split_does_not_shift_over_rows_without_text() -> None:
    rows = ["a", "", "b", "c", "d"]
    data = LanguageModelData.from_texts(rows, split=Split.from_indices([0, 2], [3]))
    assert (data.raw("train"), data.raw("valid")) == (["a", "b"], ["c"])
    parts = ["train"] * 4 + ["valid"]
    data = LanguageModelData.from_df({"text": rows, "part": parts}, split="part")
    assert (data.raw("train"), data.raw("valid")) == (["a", "b", "c"], ["d"])
    data = LanguageModelData.from_texts(rows, valid=[" ", "e"], test=["f", ""])
    assert (data.raw("train"), data.raw("valid"), data.raw("test")) == (
        ["a", "b", "c", "d"],
        ["e"],
        ["f"],
    )
    with pytest.raises(SplitError, match="valid"):
        LanguageModelData.from_texts(rows, split=Split.from_indices([0, 2], [1]))
