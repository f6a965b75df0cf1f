"""Categories are codes by value: 0 missing, 1 unknown, then the values of train."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.preprocessing import OrdinalEncoder

from flambeau.errors import InputError
from flambeau_tabular.columns import ColumnKind, SpecOptions, TableSpec, read_frame

LEVELS = ("low", "mid", "high")


def fitted(values: Any, kind: str = "category", **options: Any) -> TableSpec:
    levels = options.pop("levels", None)
    kinds = {"c": ColumnKind(kind, levels=levels)}
    return TableSpec.fit(read_frame({"c": values}), None, kinds, SpecOptions(**options))


def codes(spec: TableSpec, values: Any) -> list[int]:
    return spec.encode(read_frame({"c": values})).categories[:, 0].tolist()


def values_of(spec: TableSpec) -> tuple[str, ...]:
    return spec.columns[0].values


def test_codes_are_those_of_the_ordinal_encoder_plus_two() -> None:
    random = np.random.default_rng(0)
    train = random.choice(["b", "a", "d", "é", "Z", "10", "9"], 200).astype(object)
    train[::9] = None
    new = np.array(["a", "x", None, "Z", "9", "é", " a"], dtype=object)
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
    )
    train[train == None] = np.nan  # noqa: E711  missing for scikit-learn
    new[2] = np.nan
    encoder.fit(train[:, None])
    spec = fitted(train)
    for cells in (train, new):
        wanted = encoder.transform(cells[:, None])[:, 0] + 2
        assert codes(spec, cells) == wanted.tolist()
    assert spec.cardinalities == (9,)


def test_categories_are_compared_by_value_and_not_by_position() -> None:
    """The categories of a pandas column have other positions if a value is absent."""
    spec = fitted(pd.Series(["a", "b", "c", "a"], dtype="category"))
    assert codes(spec, pd.Series(["b", "c"], dtype="category")) == [3, 4]
    assert codes(spec, pd.Series(["c", "b"], dtype=pd.CategoricalDtype(["c", "b"]))) == [4, 3]
    assert codes(spec, pa.array(["b", None]).dictionary_encode()) == [3, 1]


@pytest.mark.parametrize(
    "train",
    [
        [1, 2, 10, 1],
        [1.0, 2.0, 10.0, 1.0],
        np.array([1, 2, 10, 1], np.int8),
        np.array([1, 2, 10, 1], np.uint64),
        np.array([1, 2, 10, 1], np.float16),
        [decimal.Decimal("1.00"), decimal.Decimal(2), decimal.Decimal("1e1"), decimal.Decimal(1)],
        ["1", "2", "10", "1"],
        ["1.0", "2.0", "10.0", "1.0"],
        pd.Series([1, 2, 10, 1], dtype="category"),
        pd.Series([1, 2, 10, 1], dtype="Int16"),
        pd.Series([1.0, 2.0, 10.0, 1.0], dtype=object),
    ],
)
def test_one_is_the_same_category_in_every_type(train: Any) -> None:
    spec = fitted(train)
    assert values_of(spec) == ("1", "10", "2")
    assert spec.hash() == fitted([1, 2, 10, 1]).hash()
    for new in ([1, None], [1.0, np.nan], ["1", None], ["1.0", None], np.array([1.0, np.inf])):
        assert codes(spec, new) == [2, 1]
    assert codes(spec, [1.5, 3.0]) == [1, 1]


def test_missing_is_unknown_unless_train_has_missing_cells() -> None:
    """No row of train has the code 0 then, so its vector would not be trained."""
    for kind in ("category", "boolean"):
        complete, missing = fitted([True, False], kind), fitted([True, None], kind)
        assert codes(complete, [None, True]) == [1, codes(complete, [True])[0]]
        assert codes(missing, [None, True]) == [0, codes(missing, [True])[0]]
        check = complete.check(read_frame({"c": [None, True]}))["c"]
        assert (check.missing, check.unseen) == (0.5, 0.0)
    # Which rows are train decides, not the whole table.
    rows = np.array([0, 1])
    table = read_frame({"c": ["a", "b", None]})
    spec = TableSpec.fit(table, rows, {"c": ColumnKind("category")})
    assert spec.encode(table).categories[:, 0].tolist() == [2, 3, 1]


def test_texts_that_are_different_stay_different() -> None:
    versions = fitted(["1.1", "1.10", "2.0", "02", "a"])
    assert values_of(versions) == ("02", "1.1", "1.10", "2.0", "a")
    assert codes(versions, ["1.1", "1.10", "2.0", "02", "2"]) == [3, 4, 5, 2, 1]
    # The number 2 is two of the texts, so it is neither; 1.1 is one of them by its text.
    assert codes(versions, [2.0, 1.1]) == [1, 3]


def test_leading_zeros_are_found_by_number() -> None:
    zip_codes = fitted(["01234", "94110", "00501"])
    assert values_of(zip_codes) == ("00501", "01234", "94110")
    assert codes(zip_codes, ["01234", "1234"]) == [3, 3]
    assert codes(zip_codes, [1234, 501, 94110, 7]) == [3, 2, 4, 1]


def test_float32_has_the_text_of_its_width() -> None:
    assert values_of(fitted(np.array([0.1, 2.5], np.float32))) == ("0.1", "2.5")
    assert codes(fitted([0.1, 2.5]), np.array([0.1, 2.5], np.float32)) == [2, 3]


def test_large_integers_are_exact() -> None:
    spec = fitted([2**63 + 1, 2**63, 2**53 + 1, 2**53])
    assert len(values_of(spec)) == 4
    assert codes(spec, [str(2**63 + 1), str(2**63)]) == [
        2 + values_of(spec).index(str(2**63 + 1)),
        2 + values_of(spec).index(str(2**63)),
    ]


def test_dates_and_times_are_categories_by_their_iso_text() -> None:
    spec = fitted([datetime.date(2024, 1, 31), datetime.date(1960, 2, 29)])
    assert values_of(spec) == ("1960-02-29", "2024-01-31")
    for new in (
        pd.to_datetime(pd.Series(["2024-01-31", None])),
        ["2024-01-31", None],
        pa.array([19753, None], pa.date32()),
        pa.array([1706659200, None], pa.timestamp("s", "UTC")),
    ):
        assert codes(spec, new) == [3, 1]
    assert values_of(fitted([datetime.timedelta(minutes=1), datetime.timedelta(0)])) == ("0", "60")


# ---------------------------------------------------------------- booleans


def test_booleans_in_every_form() -> None:
    spec = fitted([True, False, None], "boolean")
    assert values_of(spec) == ("False", "True")
    for new in (
        [False, True, None],
        [0, 1, None],
        [0.0, 1.0, np.nan],
        ["false", "TRUE", None],
        ["0", "1.0", None],
        pd.Series([False, True, None], dtype="boolean"),
    ):
        assert codes(spec, new) == [2, 3, 0]
        assert fitted(new, "boolean").hash() == spec.hash()
    assert codes(spec, [2, 1]) == [1, 3]
    with pytest.raises(InputError, match="has 1 values that are not True or False: 'maybe'"):
        fitted(["true", "maybe"], "boolean")


# ---------------------------------------------------------------- order


def test_ordered_categories_keep_their_order() -> None:
    spec = fitted(["mid", "low", "mid"], "ordered", levels=LEVELS)
    assert values_of(spec) == LEVELS
    assert codes(spec, ["low", "mid", "high", "other", None]) == [2, 3, 4, 1, 1]
    declared = pd.Series(["mid", "low", "mid"], dtype=pd.CategoricalDtype(LEVELS, ordered=True))
    assert fitted(declared, "ordered").hash() == spec.hash()
    with pytest.raises(InputError, match="'c' has 1 values that are not one of 'low', 'mid', 'hi"):
        fitted(["Mid", "low"], "ordered", levels=LEVELS)


def test_ordered_numbers_are_in_numeric_order() -> None:
    assert values_of(fitted([10, 9, 1], "ordered")) == ("1", "9", "10")
    with pytest.raises(InputError, match="not a number: 'high', 'low'"):
        fitted(["high", "low"], "ordered")


# ---------------------------------------------------------------- rare and many


def test_rare_categories_are_unknown() -> None:
    spec = fitted(["a", "b", "a", "c", "b", "a"], min_count=2)
    assert values_of(spec) == ("a", "b")
    assert codes(spec, ["a", "b", "c"]) == [2, 3, 1]
    assert spec.columns[0].rare == pytest.approx(1 / 6)


def test_100_000_categories() -> None:
    names = np.array([f"user {number}" for number in range(100_000)], dtype=object)
    spec = fitted(np.concatenate([names, names[:500]]))
    assert spec.cardinalities == (32_768,)
    encoded = spec.encode(read_frame({"c": names})).categories
    assert encoded.dtype.itemsize == 2
    assert (encoded[:500] > 1).all()  # the most frequent ones have a code
    assert int((encoded > 1).sum()) == 32_766
    every = fitted(names, max_categories=200_000)
    assert every.cardinalities == (100_002,)
    assert every.encode(read_frame({"c": names[:3]})).categories.dtype.itemsize == 4


def test_the_smallest_type_holds_all_codes() -> None:
    few, many = np.arange(254), np.arange(255)
    assert fitted(few).encode(read_frame({"c": few})).categories.element_size() == 1
    assert fitted(many).encode(read_frame({"c": many})).categories.element_size() == 2
    assert max(codes(fitted(few), few)) == 255
