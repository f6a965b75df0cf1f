"""Names of parts, and the column of a table that has the part of each row."""

import numpy as np
import pytest

from flambeau.data.part_columns import (
    doubt_about_part_columns,
    find_part_column,
    part_of_name,
    read_part_column,
)
from flambeau.data.tables import read_table
from flambeau.errors import SplitError


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Train", "train"),
        ("training_set", "train"),
        ("train-images", "train"),
        ("TrainSet", "train"),
        ("train2017", "train"),
        ("data.validation", "valid"),
        ("Val Data", "valid"),
        ("testing", "test"),
        ("calibration", "calibration"),
        ("trainer", None),
        ("training wheels", None),
        ("contest", None),
        ("latest", None),
        ("dataset", None),
        ("2017", None),
        ("", None),
    ],
)
def test_names_of_parts(name: str, part: str | None) -> None:
    assert part_of_name(name) == part


def test_a_split_column_has_names_of_parts_or_bools() -> None:
    cells = [" Train", "val", "dev", "TESTING", "test_set", True, 0, "1", np.False_]
    expected = ["train", "valid", "valid", "test", "test", "valid", "train", "valid", "train"]
    assert read_part_column(cells, "part", "t.csv") == expected
    with pytest.raises(SplitError, match=r"column 'part' has nan in row 1 of t.*--split none"):
        read_part_column(["train", float("nan")], "part", "t.csv")


@pytest.mark.parametrize(
    ("column", "yes", "no"),
    [
        ("is_valid", "valid", "train"),
        ("is_test", "test", "train"),
        ("Is Test", "test", "train"),
        ("is_train", "train", "valid"),
        ("in_test_set", "test", "train"),
        ("anything", "valid", "train"),
    ],
)
def test_the_name_of_a_flag_says_what_true_is(column: str, yes: str, no: str) -> None:
    assert read_part_column([True, False, 1, 0.0], column, "t.csv") == [yes, no, yes, no]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"split": ["train", "val", "test"]}, "split"),
        ({"Dataset": ["train", "train", "Test"]}, "Dataset"),
        ({"is_valid": [True, False, False]}, "is_valid"),
        ({"is_test": [0, 1, 0]}, "is_test"),
        ({"split": ["train", "holdout", "train"]}, "split"),
        ({"is_valid": ["yes", "maybe", "no"]}, "is_valid"),
        ({"Usage": ["Training", "PublicTest", "PrivateTest"]}, "Usage"),
        ({"set": ["train", "val", "holdout"]}, "set"),
        ({"subset": ["train", "test", None]}, "subset"),
        ({"Data Split": ["TRAIN", "UNLABELED", "TRAIN"]}, "Data Split"),
        ({"conjunto": ["entrenamiento", "prueba", "prueba"]}, "conjunto"),
        ({"part": ["wing", "tail", "wing"]}, None),
        ({"valid": ["2020", "2021", "2022"]}, None),
        ({"phase": ["train", "train", "train"]}, None),
        ({"label": ["train", "test", "train"]}, None),
    ],
)
def test_the_column_of_the_parts_is_found(columns: dict, found: str | None) -> None:
    match = find_part_column(read_table({"x": [1, 2, 3], **columns}), without=["label"])
    assert (None if match is None else match[0]) == found


def test_a_flag_that_may_mean_usable_rows_is_doubtful() -> None:
    match = find_part_column(read_table({"valid": [True, False, True]}))
    assert match is not None
    assert match[1].confidence < 0.5
    assert "--split none" in match[1].override


def test_several_columns_of_parts_are_asked_for() -> None:
    table = read_table({"split": ["train", "val"], "is_test": [False, True]})
    with pytest.raises(SplitError, match=r"'split', 'is_test'\. Choose one with split="):
        find_part_column(table)


def test_cells_without_a_part_are_named() -> None:
    with pytest.raises(SplitError, match="'Usage' has 'PublicTest' in row 1"):
        read_part_column(["Training", "PublicTest"], "Usage", "t.csv")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"fold": [0, 1, 2]}, "frame['is_valid'] = frame['fold'] == 0"),
        ({"in_test_set": [0, 1, 0]}, "--split in_test_set"),
        ({"test_score": [0.5, 1.0, 0.2]}, ""),
        ({"label": [0, 1, 0]}, ""),
    ],
)
def test_columns_that_could_be_parts_are_doubtful(columns: dict, words: str) -> None:
    table = read_table({"x": [1, 2, 3], **columns})
    assert find_part_column(table) is None
    found = doubt_about_part_columns(table, without=["label"])
    assert bool(found) == bool(words)
    for reading in found:
        assert reading.confidence < 0.5
        assert words in reading.override
        assert repr(next(iter(columns))) in reading.what
