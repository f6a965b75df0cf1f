"""Columns of random content: order and type change nothing; a file is read as it was written."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flambeau.errors import FlambeauError
from flambeau_tabular.columns import (
    ColumnKind,
    CsvOptions,
    SpecOptions,
    TableSpec,
    infer_kinds,
    read_csv_table,
    read_frame,
)
from flambeau_tabular.columns.cells import canonical_text, number_of

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

repeatable = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, 2.5, 1e200, 1e-300]), st.none())
TEXTS = st.one_of(
    st.text(max_size=4),
    st.sampled_from(["1", "1.0", "01", "a", "A", "é", "e\u0301", "nan", "2024-01-31", "true"]),
)


@repeatable
@given(st.lists(NUMBERS, min_size=1, max_size=12), st.randoms(use_true_random=False))
@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile", "none"])
def test_numbers_do_not_depend_on_their_order(scaling: str, values: list[Any], random: Any) -> None:
    assume(
        any(value is not None and math.isfinite(value) and abs(value) < 1e150 for value in values)
    )
    kinds = {"x": ColumnKind("number")}
    moved = values.copy()
    random.shuffle(moved)
    specs = [
        TableSpec.fit(
            pa.table({"x": pa.array(each, pa.float64())}), None, kinds, SpecOptions(scaling)
        )
        for each in (values, moved)
    ]
    assert specs[0].hash() == specs[1].hash()
    encoded = specs[0].encode(pa.table({"x": pa.array(values, pa.float64())}))
    assert bool(encoded.numbers.isfinite().all())


@repeatable
@given(st.lists(st.one_of(TEXTS, st.none()), min_size=1, max_size=12), st.data())
def test_codes_belong_to_the_text_of_the_cell(values: list[str | None], data: Any) -> None:
    table = pa.table({"c": pa.array(values, pa.string())})
    spec = TableSpec.fit(table, None, {"c": ColumnKind("category")})
    codes = spec.encode(table).categories[:, 0].tolist()
    by_text: dict[str | None, int] = {}
    for text, code in zip(values, codes, strict=True):
        assert (code == 0) == (text is None)
        assert by_text.setdefault(text, code) == code
    assert len(set(by_text.values())) == len(by_text)  # different texts, different codes
    known = [text for text in by_text if text is not None]
    assert sorted(known) == sorted(known, key=by_text.__getitem__)
    moved = data.draw(st.permutations(values))
    encoded = pa.table({"c": pa.array(moved, pa.large_string()).dictionary_encode()})
    assert TableSpec.fit(encoded, None, {"c": ColumnKind("category")}).hash() == spec.hash()


@repeatable
@given(st.integers(-(10**17), 10**17))
def test_a_whole_number_has_one_text(number: int) -> None:
    assert canonical_text(number) == canonical_text(np.int64(number)) == str(number)
    if abs(number) < 2**53:
        assert canonical_text(float(number)) == str(number)
        assert number_of(f"{number}.0") == number


@repeatable
@given(st.floats())
def test_a_float_has_the_text_that_is_read_as_it(number: float) -> None:
    text = canonical_text(number)
    if math.isfinite(number):
        assert text is not None
        assert number_of(text) == number
    else:
        assert text is None


@repeatable
@given(
    st.lists(
        st.tuples(
            st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)),
            st.one_of(st.integers(-(2**62), 2**62).filter(lambda n: abs(n) < 10**18), st.just("")),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_file_is_read_as_it_was_written(
    tmp_path: Path, rows: list[tuple[Any, ...]], delimiter: str, ending: str
) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(
            file, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_NONNUMERIC
        )
        writer.writerows([("t", "i", "f"), *rows])
    frame = read_csv_table(path, CsvOptions(missing=("",), text=("t",)))
    texts, integers, floats = (frame.column(name).to_pylist() for name in ("t", "i", "f"))
    wanted = [row[0] for row in rows]
    if all(text == "" or text.startswith(" ") for text in wanted):
        wanted = [text.strip() for text in wanted]
    assert texts == [text or None for text in wanted]
    assert integers == [None if row[1] == "" else row[1] for row in rows]
    assert floats == [row[2] for row in rows]


@repeatable
@given(
    st.lists(
        st.one_of(TEXTS, st.integers(), NUMBERS, st.booleans(), st.dates(), st.datetimes()),
        min_size=1,
        max_size=6,
    )
)
def test_any_column_is_encoded_or_refused_by_name(values: list[Any]) -> None:
    refused = ""
    try:
        table = read_frame({"x": values})
        spec = TableSpec.fit(table, None, infer_kinds(table))
    except FlambeauError as error:
        refused = str(error)
    if refused:
        assert "'x'" in refused or "x (" in refused
        return
    encoded = spec.encode(table)
    assert len(encoded) == len(values)
    assert bool(encoded.numbers.isfinite().all())
    assert TableSpec.from_parts(spec.arguments(), spec.tensors()).hash() == spec.hash()
