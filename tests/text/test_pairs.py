"""Files, tables and iterables of pairs, and their errors."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from flambeau.data.split import Split
from flambeau.errors import ArgumentError, InputError, SplitError
from flambeau_text import TranslationData, TranslationOptions
from flambeau_text.text_lines import read_lines
from flambeau_text.translation.text_files import language_of

SOURCES = [f"source sentence number {n}" for n in range(20)]
TARGETS = [f"zielsatz nummer {n}" for n in range(20)]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    pair = tmp_path / "train.en", tmp_path / "train.de"
    for path, lines in zip(pair, (SOURCES, TARGETS), strict=True):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return pair


def changed(path: Path, number: int, line: bytes) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = line
    path.write_bytes(b"\n".join(lines))


# ---------------------------------------------------------------- files


def test_two_files(files: tuple[Path, Path]) -> None:
    data = TranslationData.from_files(*files, valid=0.2, test=2)
    assert [len(data.split.part(part)) for part in ("train", "valid", "test")] == [14, 4, 2]
    assert data.options.source_language == "en"
    assert data.options.target_language == "de"
    rows = data.split.valid
    assert data.raw("valid") == [SOURCES[row] for row in rows]
    assert data.references("valid") == [TARGETS[row] for row in rows]
    assert data.samples["location"][3] == "train.en line 4"


def test_separate_files_for_each_part(files: tuple[Path, Path], tmp_path: Path) -> None:
    others = tmp_path / "val.en.gz", tmp_path / "val.de.gz"
    for path, line in zip(others, ("a held out one", "ein eigener"), strict=True):
        path.write_bytes(gzip.compress(f"{line}\n".encode()))
    data = TranslationData.from_files(*files, valid=others, test=others)
    assert data.raw("valid") == data.raw("test") == ["a held out one"]
    assert data.raw("train") == SOURCES
    data = TranslationData.from_files(*files, valid=others, test=0.25)
    assert len(data.raw("test")) == 5
    assert set(data.raw("train")) | set(data.raw("test")) == set(SOURCES)


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028still one\r\ntwo\x0b\n\nfour".encode())
    assert read_lines(path) == ["one\u2028still one", "two\x0b", "", "four"]


def test_the_language_is_the_file_ending() -> None:
    names = ["a/train.en", "train.de.gz", "x.txt", "train.csv", "train", "train.c-t"]
    assert [language_of(name) for name in names] == ["en", "de", None, None, None, None]


def test_misaligned_files_raise_with_the_first_gap(files: tuple[Path, Path]) -> None:
    files[1].write_text("\n".join([*TARGETS[:6], "", *TARGETS[6:]]), encoding="utf-8")
    with pytest.raises(InputError, match=r"has 20 lines and .* 21.*Line 7 is empty in the target"):
        TranslationData.from_files(*files)
    files[1].write_text("\n".join(TARGETS[:15]), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"Only the source has more lines after line 15 \(line 15: "
    ):
        TranslationData.from_files(*files)


def test_invalid_utf8_raises_with_its_line(files: tuple[Path, Path]) -> None:
    changed(files[1], 7, "schöne grüße".encode("latin-1"))
    with pytest.raises(InputError, match=r"train\.de, line 7: byte 4 .*not UTF-8.*iconv"):
        TranslationData.from_files(*files)


def test_missing_and_empty_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*gone\.de"):
        TranslationData.from_files(files[0], tmp_path / "gone.de")
    files[1].write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.de is empty"):
        TranslationData.from_files(*files)
    for path in files:
        path.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="are empty"):
        TranslationData.from_files(*files)
    (tmp_path / "a.en.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read"):
        TranslationData.from_files(tmp_path / "a.en.gz", files[1])


def test_a_part_needs_two_files(files: tuple[Path, Path]) -> None:
    with pytest.raises(ArgumentError, match=r"of 1\. Give two elements: valid=\(source, target\)"):
        TranslationData.from_files(*files, valid=(files[0],))  # type: ignore[arg-type]


# ---------------------------------------------------------------- unusable pairs


def test_unusable_pairs_are_counted(files: tuple[Path, Path]) -> None:
    changed(files[1], 3, b"   ")
    changed(files[0], 5, b"word " * 10_000)
    changed(files[0], 6, b"x" * 20_000)
    changed(files[0], 8, b"many words " * 30)
    data = TranslationData.from_files(*files)
    assert data.skipped == {"empty side": 1, "length ratio": 1, "too long": 2}
    assert len(data.samples) == 16
    problems = [str(problem) for problem in data.samples.problems]
    assert problems[0] == "train.en line 3: the target is empty"
    assert problems[1] == "train.en line 5: the source has 10,000 words, more than 150"
    assert problems[2] == "train.en line 6: the source has 20,000 characters, more than 2,000"
    assert "the source has 60 words and the target 3" in problems[3]
    report = data.report()
    assert "skipped: 4 pairs (empty side 1, length ratio 1, too long 2)" in report
    assert "train.en line 3: the target is empty" in report
    with pytest.raises(InputError, match=r"4 of 20 pairs are unusable: train\.en line 3"):
        TranslationData.from_files(*files, options=TranslationOptions(unusable="raise"))


def test_if_all_pairs_are_unusable_it_raises() -> None:
    with pytest.raises(InputError, match=r"All 3 pairs are unusable \(empty side 3\)"):
        TranslationData.from_pairs([("a", " ")] * 3)


def test_limits_can_be_changed() -> None:
    pairs = [("a b c d", "x")] * 8 + [("a " * 12, "x")] * 2
    options = TranslationOptions(max_length_ratio=20.0)
    assert len(TranslationData.from_pairs(pairs, options=options).samples) == 10
    assert len(TranslationData.from_pairs(pairs).samples) == 8
    options = TranslationOptions(max_words=3, max_length_ratio=20.0)
    with pytest.raises(InputError, match="too long 10"):
        TranslationData.from_pairs(pairs, options=options)
    for wrong in (
        {"max_length_ratio": 1.0}, {"max_words": 0}, {"tokenizer": "bytes"}, {"unusable": "drop"}
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(wrong))):
            TranslationOptions(**wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- tables and iterables


def test_pairs_of_any_iterable() -> None:
    data = TranslationData.from_pairs(pair for pair in zip(SOURCES, TARGETS, strict=True))
    assert data.samples["source"][2] == SOURCES[2]
    rows = [{"translation": {"en": s, "de": t}} for s, t in zip(SOURCES, TARGETS, strict=True)]
    assert TranslationData.from_pairs(rows).samples["target"][2] == TARGETS[2]
    rows = [{"en": s, "de": t, "id": 3} for s, t in zip(SOURCES, TARGETS, strict=True)]
    data = TranslationData.from_pairs(rows, "en", "de", valid=rows[:3])
    assert data.references("valid") == TARGETS[:3]


def test_hugging_face_data_sets() -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"translation": {"en": s, "de": t}} for s, t in zip(SOURCES, TARGETS, strict=True)]
    data = TranslationData.from_pairs(datasets.Dataset.from_list(rows))
    assert list(data.samples["target"]) == TARGETS


def test_items_that_are_not_pairs_raise() -> None:
    with pytest.raises(InputError, match=r"Item 1 is \('a',\), not a pair"):
        TranslationData.from_pairs([("a", "b"), ("a",)])
    with pytest.raises(InputError, match=r"Item 0 is \('a', 3\)"):
        TranslationData.from_pairs([("a", 3)])
    with pytest.raises(ArgumentError, match="not as str"):
        TranslationData.from_pairs("ab")
    with pytest.raises(InputError, match="iterable is empty"):
        TranslationData.from_pairs([])


def test_tables(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"source": SOURCES, "target": TARGETS})
    frame["part"] = ["train"] * 15 + ["valid"] * 3 + ["test"] * 2
    data = TranslationData.from_df(frame, split="part")
    assert data.references("valid") == TARGETS[15:18]
    assert data.raw("test") == SOURCES[18:]
    frame.loc[4, "target"] = None
    data = TranslationData.from_df(frame)
    assert str(data.samples.problems[0]) == "frame row 4: the target is empty"
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    data = TranslationData.from_csv(tmp_path / "pairs.csv", split="part")
    assert len(data.samples) == 19
    frame.to_csv(tmp_path / "pairs.tsv", index=False, sep="\t")
    assert len(TranslationData.from_csv(tmp_path / "pairs.tsv").samples) == 19
    with pytest.raises(InputError, match=r"no column 'sauce'.*'source'"):
        TranslationData.from_df(frame, "sauce")
    with pytest.raises(SplitError, match=r"column 'target' has 'zielsatz nummer 0' in row 0 of"):
        TranslationData.from_df(frame, split="target")
    frame["number"] = range(20)
    with pytest.raises(
        InputError, match=r"row 0: the column 'number' has 0 of type int, not a text"
    ):
        TranslationData.from_df(frame, "number")


def test_cells_like_na_are_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("source,target\n" + "NA,null\n" * 12, encoding="utf-8")
    assert TranslationData.from_csv(tmp_path / "a.csv").raw("train")[0] == "NA"


def test_a_given_split_has_the_rows_of_the_input() -> None:
    pairs = list(zip(SOURCES, TARGETS, strict=True))
    pairs[1] = ("", "leer")
    split = Split.from_indices([0, 1, 2, 3], [10, 11], [19])
    data = TranslationData.from_pairs(pairs, split=split)
    assert data.raw("train") == [SOURCES[0], SOURCES[2], SOURCES[3]]
    assert data.raw("valid") == SOURCES[10:12]
    assert data.raw("test") == [SOURCES[19]]


# ---------------------------------------------------------------- report and show


def test_report_and_show() -> None:
    pairs = list(zip(SOURCES, TARGETS, strict=True))
    pairs += [pairs[0], ("source sentence number 1", "anders")]
    split = Split.from_indices(range(18), [18, 19, 20], [21])
    data = TranslationData.from_pairs(pairs, split=split)
    report = data.report()
    assert "22 pairs, source → target" in report
    assert "1 valid pairs are also in train, such as pair 20" in report
    assert "0 test pairs are also in train, and 1 sources are in train with another" in report
    assert "source words not in train: valid 16.7%, test 0.0%" in report
    assert data.show(2).splitlines()[0] == "     0  source sentence number 0"
    assert repr(data) == "TranslationData(22 pairs: 18 train, 3 valid, 1 test)"
    assert data.preview(3).caption == "source sentence number 3\n→ zielsatz nummer 3"


def test_a_calibration_part_is_refused(tmp_path: Path) -> None:
    pairs = [(f"one {n}", f"eins {n}") for n in range(12)]
    split = Split.from_parts({"train": range(8), "valid": [8, 9], "calibration": [10, 11]})
    with pytest.raises(
        InputError, match=r"calibration part \(pairs: 2\), .* Put its pairs in train, valid"
    ):
        TranslationData.from_pairs(pairs, split=split)
    parts = ["train"] * 8 + ["valid"] * 3 + ["calibration"]
    rows = [",".join((*pair, part)) for pair, part in zip(pairs, parts, strict=True)]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["source,target,part", *rows]))
    with pytest.raises(InputError, match=r"calibration part \(pairs: 1\)"):
        TranslationData.from_csv(path, split="part")
    with pytest.raises(ArgumentError, match="Unknown option 'calibration' for sentence pairs"):
        TranslationData.from_path(path, {"calibration": 0.1})
