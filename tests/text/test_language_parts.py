"""Parts of a language model's data by files, folders and columns, and input that is no text."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest

from flambeau.errors import InputError, SplitError
from flambeau_text import InstructionData, LanguageModelData, TextData
from flambeau_text.language.domain import recognise
from flambeau_text.text_lines import read_lines

PARTS = ("train", "valid", "test")


def write(folder: Path, names: dict[str, str]) -> Path:
    """Files whose only line is their part."""
    for name, part in names.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{part} {name}\n")
    return folder


def by_part(data: LanguageModelData) -> dict[str, set[str]]:
    return {part: {text.split()[0] for text in data.raw(part)} for part in PARTS}


@pytest.mark.parametrize(
    "names",
    [
        {f"{part}.txt": part for part in PARTS},
        {f"wiki.{part}.tokens": part for part in PARTS},
        {"news-train.txt": "train", "news-dev.txt": "valid", "news-test.txt.gz.txt": "test"},
        {"train_1.txt": "train", "train_2.txt": "train", "val_1.txt": "valid", "test_1.md": "test"},
        {"train/a.txt": "train", "validation/a.txt": "valid", "test/x/a.txt": "test"},
        {"train.txt": "train", "notes.txt": "train", "validation.txt": "valid", "TEST.txt": "test"},
    ],
)
def test_the_files_of_a_folder_are_parts_by_their_names(
    tmp_path: Path, names: dict[str, str]
) -> None:
    write(tmp_path, names)
    for data in (LanguageModelData.from_files(tmp_path), LanguageModelData.from_path(tmp_path, {})):
        assert by_part(data) == {part: {part} for part in PARTS}
        assert sum(map(len, map(data.raw, PARTS))) == len(names)
        assert "test is " in data.report()


def test_names_with_another_word_are_parts_only_beside_train(tmp_path: Path) -> None:
    names = {f"{name}.txt": "train" for name in ("the_test", "my-dev", "contest", "a", "b")}
    data = LanguageModelData.from_files(write(tmp_path, names), valid=1)
    assert (len(data.split.train), len(data.split.valid), len(data.split.test)) == (4, 1, 0)
    # All files of a folder that has parts can be drawn from, and given parts are used as they are.
    write(tmp_path, {"train.txt": "train", "test.txt": "test"})
    drawn = LanguageModelData.from_path(tmp_path, {"split": "none", "valid": "2"})
    assert (len(drawn.split.train), len(drawn.split.valid), len(drawn.split.test)) == (5, 2, 0)


def test_a_file_of_the_folder_may_be_given_as_a_part(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "train", "train.txt": "train", "test.txt": "test"})
    held_out = write(tmp_path / "others", {"b.txt": "valid"})
    for valid in (held_out / "b.txt", held_out):
        for data in (
            LanguageModelData.from_files(tmp_path, valid=valid),
            LanguageModelData.from_path(tmp_path, {"valid": str(valid)}),
        ):
            assert by_part(data) == {part: {part} for part in PARTS}
            assert len(data.raw("train")) == 2
    with pytest.raises(SplitError, match=r"The part test is given, but .*test\.txt\)"):
        LanguageModelData.from_files(tmp_path, test=held_out)
    with pytest.raises(InputError, match="train has none"):
        LanguageModelData.from_files(held_out, valid=held_out)
    same = LanguageModelData.from_files(tmp_path / "a.txt", valid=tmp_path / "a.txt")
    assert same.raw("train") == same.raw("valid")


def test_a_table_may_have_a_column_of_parts(tmp_path: Path) -> None:
    rows = [("train a", "train"), ("", "test"), ("valid b", "dev"), ("train c", "train"),
            ("test d", "test"), (" ", "train"), ("train e", "train")]  # fmt: skip
    frame = {"text": [text for text, _ in rows], "split": [part for _, part in rows]}
    file = tmp_path / "rows.csv"
    file.write_text("text,split\n" + "".join(f"{text},{part}\n" for text, part in rows))
    found = [
        LanguageModelData.from_df(frame),
        LanguageModelData.from_df(frame, split="split"),
        LanguageModelData.from_csv(file),
        LanguageModelData.from_path(file, {}),
    ]
    for data in found:
        assert by_part(data) == {part: {part} for part in PARTS}
        assert len(data.split.train) == 3
    assert "contains the part of each row" in found[0].report()
    drawn = LanguageModelData.from_df(frame, split=False, valid=2)
    assert (len(drawn.split.train), len(drawn.split.valid), len(drawn.split.test)) == (3, 2, 0)
    with pytest.raises(SplitError, match="would have no effect"):
        LanguageModelData.from_df(frame, valid=0.3)


def test_the_parts_may_be_separate_tables(tmp_path: Path) -> None:
    for part in PARTS:
        (tmp_path / f"{part}.csv").write_text(f"id,text\n1,{part} a\n2,{part} b\n")
    with gzip.open(tmp_path / "train.csv.gz", "wt") as file:
        file.write((tmp_path / "train.csv").read_text())
    others = {part: tmp_path / f"{part}.csv" for part in PARTS[1:]}
    names = {name: str(path) for name, path in others.items()}
    frames = {part: {"text": [f"{part} a", f"{part} b"]} for part in PARTS}
    found = [
        LanguageModelData.from_csv(tmp_path / "train.csv", **others),
        LanguageModelData.from_path(tmp_path / "train.csv", names),
        LanguageModelData.from_path(tmp_path / "train.csv.gz", names),
        LanguageModelData.from_df(frames["train"], valid=frames["valid"], test=frames["test"]),
    ]
    for data in found:
        assert by_part(data) == {part: {part} for part in PARTS}
        assert [len(data.raw(part)) for part in PARTS] == [2, 2, 2]


def test_names_are_not_taken_for_texts() -> None:
    pandas = pytest.importorskip("pandas")
    datasets = pytest.importorskip("datasets")
    sets = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({"text": ["a b", "c d"]}) for name in ("train", "test")}
    )
    assert len(LanguageModelData.from_texts(sets["train"], valid=sets["test"]).raw("train")) == 2
    frame = pandas.DataFrame({"text": ["a", "b"], "n": [1, 2]})
    polars = pytest.importorskip("polars").DataFrame({"text": ["a", "b"], "n": [1, 2]})
    arrow = pytest.importorskip("pyarrow").table({"text": ["a", "b"], "n": [1, 2]})
    for given, words in (
        (sets, r"DatasetDict with the names 'train', 'test'.*train first"),
        ({"text": ["a", "b"]}, "dict with the names 'text'"),
        (frame, r"DataFrame with the names 'text', 'n'.*from_df"),
        (polars, "names 'text', 'n'"),
        (arrow, "names 'text', 'n'"),
    ):
        with pytest.raises(InputError, match=words):
            LanguageModelData.from_texts(given)
        with pytest.raises(InputError, match=words):
            LanguageModelData.from_texts(["a", "b"], valid=given)
        names = words.split("from_")[0]
        with pytest.raises(InputError, match=names):
            TextData.from_arrays(given, ["a", "b"])
        if given is not sets and not isinstance(given, dict):
            with pytest.raises(InputError, match=rf"{names}.*TextData\.from_df"):
                TextData.from_datasets(given)
    options: Any = None
    with pytest.raises(InputError, match=r"DataFrame.*InstructionData\.from_df"):
        InstructionData.from_records(frame, options)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.csv", r"a\.csv is no running text but a table.*from_csv"),
        ("a.tsv.gz", "a table"),
        ("a.json", r"JSON.*\.jsonl"),
    ],
)
def test_tables_are_not_read_as_running_text(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_text("text,label\na b,1\n")
    with pytest.raises(InputError, match=words):
        LanguageModelData.from_files(tmp_path / name)


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_compressed_files_are_read_and_damage_is_named(
    tmp_path: Path, ending: str, pack: Any
) -> None:
    text = "".join(f"It was a bright cold day in April, line {row}.\n" for row in range(200))
    for name in ("a.txt", "b.jsonl"):
        content = text if name == "a.txt" else '{"text": "one two"}\n{"text": "three"}\n'
        (tmp_path / f"{name}.{ending}").write_bytes(pack.compress(content.encode()))
    file = tmp_path / f"a.txt.{ending}"
    assert read_lines(file) == text.splitlines()
    assert recognise(file, {}) is not None
    data = LanguageModelData.from_files([tmp_path], valid=1)
    wanted = [*text.splitlines(keepends=True), "one two", "three"]
    assert sorted(data.raw("train") + data.raw("valid")) == sorted(wanted)
    content = bytearray(file.read_bytes())
    content[10:] = b"\xff" * (len(content) - 10)
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.txt\.{ending} cannot be read"):
        read_lines(file)
    assert recognise(file, {}) is None
