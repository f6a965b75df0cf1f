"""`TableSpec`: the same codes and numbers from every library, type and order; clear errors."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from flambeau.errors import FlambeauWarning, InputError
from flambeau_tabular.columns import (
    ColumnKind,
    SpecOptions,
    TableSpec,
    infer_kinds,
    read_csv_table,
    read_frame,
)

N = 300
ORDER = ("low", "mid", "high")
KINDS = {
    "age": ColumnKind("number"),
    "income": ColumnKind("number"),
    "job": ColumnKind("category"),
    "rank": ColumnKind("ordered", levels=ORDER),
    "member": ColumnKind("boolean"),
    "zip": ColumnKind("category"),
    "since": ColumnKind("date"),
    "note": ColumnKind("text"),
}


def columns() -> dict[str, list[Any]]:
    """Return columns of Python values, None where missing."""
    random = np.random.default_rng(0)

    def with_gaps(values: list[Any]) -> list[Any]:
        return [
            None if gap else value
            for gap, value in zip(random.random(N) < 0.1, values, strict=False)
        ]

    start = datetime.datetime(1965, 3, 1)
    return {
        "age": random.integers(18, 90, N).tolist(),
        "income": with_gaps(random.lognormal(10, 1, N).tolist()),
        "job": with_gaps(random.choice(["nurse", "clerk", "pilot", "Zoë"], N).tolist()),
        "rank": random.choice(ORDER, N).tolist(),
        "member": random.choice([True, False], N).tolist(),
        "zip": random.integers(10_000, 10_020, N).tolist(),
        "since": with_gaps(
            [start + datetime.timedelta(seconds=s) for s in random.integers(0, 10**9, N).tolist()]
        ),
        "note": [" ".join(random.choice(["good", "bad", "very", "ill"], 6)) for _ in range(N)],
    }


def people() -> pd.DataFrame:
    return pd.DataFrame(columns())


def fitted(source: Any, rows: np.ndarray | None = None, **options: Any) -> TableSpec:
    return TableSpec.fit(read_frame(source), rows, KINDS, SpecOptions(**options))


def assert_equal(found: Any, wanted: Any, name: str = "") -> None:
    for key, tensor in wanted.inputs().items():
        assert torch.equal(found.inputs()[key], tensor), f"{name}: {key}"


# ---------------------------------------------------------------- one spec for every source


def variants() -> dict[str, Any]:
    frame = people()
    arrow = pa.Table.from_pandas(frame)
    texts = ["job", "rank", "note"]
    wide = frame.convert_dtypes()
    return {
        "objects": frame.astype(dict.fromkeys(texts, object)),
        "string": frame.astype(dict.fromkeys(texts, "string")),
        "categories": frame.astype(dict.fromkeys(texts, "category")),
        "categories of other order": frame.astype(
            {"job": pd.CategoricalDtype(["pilot", "Zoë", "unused", "clerk", "nurse"])}
        ),
        "pandas nullable": wide,
        "pandas with arrow": frame.convert_dtypes(dtype_backend="pyarrow"),
        "int8": frame.astype({"age": "int8", "zip": "uint16"}),
        "float": frame.astype({"age": "float64", "zip": "float32", "member": "float64"}),
        "integers as text": frame.astype({"zip": str}),
        "nanoseconds": frame.astype({"since": "datetime64[ns]"}),
        "seconds": frame.astype({"since": "datetime64[s]"}),
        "dates as text": frame.assign(since=frame["since"].dt.strftime("%Y-%m-%dT%H:%M:%S")),
        "arrow": arrow,
        "arrow in pieces": pa.concat_tables([arrow[:7], arrow[7:200], arrow[200:]]),
        "columns permuted": frame[frame.columns[::-1]],
        "more columns": frame.assign(extra=1),
        "arrow without pandas": pa.table(columns()),
        "mapping": columns(),
        "mapping of series": dict(frame.items()),
        "records": frame.to_dict("records"),
    }


def test_every_library_and_type_gives_the_same_spec_and_tensors() -> None:
    frame = people()
    spec = fitted(frame)
    wanted = spec.encode(read_frame(frame))
    for name, source in variants().items():
        assert fitted(source).hash() == spec.hash(), name
        assert_equal(spec.encode(read_frame(source)), wanted, name)


def test_polars_and_duckdb_give_the_same_spec() -> None:
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    frame = people()
    spec = fitted(frame)
    wanted = spec.encode(read_frame(frame))
    table = pa.table(columns())
    of_polars = polars.from_arrow(table)
    sources = {
        "polars": of_polars,
        "polars categories": of_polars.with_columns(
            polars.col("job").cast(polars.Categorical), polars.col("rank").cast(polars.Enum(ORDER))
        ),
        "duckdb": duckdb.from_arrow(table),
    }
    for name, source in sources.items():
        assert fitted(source).hash() == spec.hash(), name
        assert_equal(spec.encode(read_frame(source)), wanted, name)


@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile", "none"])
def test_the_order_of_the_rows_changes_nothing(scaling: str) -> None:
    frame = people()
    order = np.random.default_rng(1).permutation(N)
    rows = np.arange(0, N, 2)
    spec = fitted(frame, rows, scaling=scaling)
    moved = fitted(frame.iloc[order], np.flatnonzero(np.isin(order, rows)), scaling=scaling)
    assert moved.hash() == spec.hash()
    wanted = spec.encode(read_frame(frame.iloc[order]))
    found = spec.encode(read_frame(frame)).inputs()
    for key, tensor in wanted.inputs().items():
        assert torch.equal(found[key][order], tensor), key


def test_rows_that_are_not_for_training_change_nothing() -> None:
    frame = people()
    rows = np.arange(0, N, 3)
    other = frame.copy()
    outside = np.setdiff1d(np.arange(N), rows)
    other.loc[outside, "age"] = 5
    other.loc[outside, "income"] = None
    other.loc[outside, "job"] = "other"
    other.loc[outside, "since"] = pd.Timestamp("1999-01-01")
    other.loc[outside, "note"] = "a b c d e f g h i j k l m n"
    assert fitted(other, rows).hash() == fitted(frame, rows).hash()


def test_frames_are_not_changed() -> None:
    frame = people()
    before, backend = frame.copy(deep=True), frame.convert_dtypes(dtype_backend="pyarrow")
    table = read_frame(frame)
    spec = TableSpec.fit(table, None, infer_kinds(table))
    spec.encode(table)
    spec.check(table)
    fitted(backend)
    pd.testing.assert_frame_equal(frame, before)


# ---------------------------------------------------------------- the tensors


def test_shapes_names_and_types() -> None:
    spec = fitted(people())
    encoded = spec.encode(read_frame(people()))
    assert spec.category_names == ("job", "member", "rank", "zip")
    assert spec.cardinalities == (6, 4, 5, 22)
    assert spec.number_names[:2] == ("age", "income")
    assert spec.number_names[-1] == "since elapsed days"
    assert spec.flag_names == ("income is missing", "since is missing")
    assert (spec.text_names, spec.text_width) == (("note",), 6)
    assert [*encoded.inputs()] == ["numbers", "flags", "categories", "tokens"]
    assert encoded.numbers.shape == (N, len(spec.number_names))
    assert encoded.numbers.dtype == torch.float32
    assert (encoded.flags.dtype, encoded.categories.dtype) == (torch.uint8, torch.uint8)
    assert encoded.tokens.dtype == torch.int32
    assert len(encoded) == N
    assert bool(torch.isfinite(encoded.numbers).all())
    without_text = TableSpec.fit(read_frame(people()), None, {"age": KINDS["age"]}).encode(
        read_frame(people())
    )
    assert without_text.tokens is None
    assert without_text.flags.shape == without_text.categories.shape == (N, 0)


def test_a_spec_is_json_and_tensors() -> None:
    for scaling in ("robust", "quantile"):
        spec = fitted(people(), scaling=scaling)
        arguments = json.loads(json.dumps(spec.arguments()))
        tensors = {name: tensor.clone() for name, tensor in spec.tensors().items()}
        restored = TableSpec.from_parts(arguments, tensors)
        assert restored.hash() == spec.hash()
        assert restored.columns == spec.columns
        table = read_frame(people())
        assert_equal(restored.encode(table), spec.encode(table))
        assert restored.quantile_edges(10) == spec.quantile_edges(10)


def test_single_rows_and_batches_are_encoded_like_the_table() -> None:
    frame = people()
    spec = fitted(frame)
    wanted = spec.encode(read_frame(frame))
    for row in (0, 5, 17):
        record = frame.iloc[row].to_dict()
        found = spec.encode(read_frame(record))
        for key, tensor in wanted.inputs().items():
            assert torch.equal(found.inputs()[key], tensor[row : row + 1]), key
    empty = spec.encode(read_frame(frame[:0]))
    assert all(len(tensor) == 0 for tensor in empty.inputs().values())
    assert empty.numbers.shape == (0, len(spec.number_names))


def test_unseen_and_missing_cells_at_prediction() -> None:
    spec = fitted(people())
    new = {
        "age": [None, 200.0],  # a whole number arrives as float because of a missing one
        "income": [np.inf, 1e6],
        "job": ["astronaut", None],
        "rank": ["low", "lowest"],
        "member": [None, "true"],
        "zip": ["10003", "99999"],
        "since": [None, "2031-05-05"],
        "note": [None, "brand new words"],
        "extra": [1, 2],
    }
    table = read_frame(new)
    with pytest.warns(FlambeauWarning, match="'age'"):
        encoded = spec.encode(table)
    assert encoded.flags.tolist() == [[1, 1], [0, 0]]
    job, member, rank, zip_code = encoded.categories.T.tolist()
    assert (job, member, rank) == ([1, 0], [1, 3], [2, 1])  # train: all members known
    assert zip_code[1] == 1 < zip_code[0]
    found = spec.check(table)
    assert found["age"].missing == 0.5
    assert found["age"].outside == 0.5
    assert found["job"].unseen == 0.5
    assert found["job"].missing == 0.5
    assert found["rank"].unseen == 0.5
    assert found["since"].outside == 0.5
    assert found["income"].missing == 0.5
    assert found["note"].missing == 0.5
    same = spec.check(read_frame(people()))
    assert all(each.unseen == each.outside == 0.0 for each in same.values())


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": None}, "no column 'age', which is an input of the kind 'number'"),
        ({"since": None}, "no column 'since', which is an input of the kind 'date'"),
        ({"age": ["40", "forty"]}, "'age' is a number, but row 1 has the text 'forty'"),
        ({"age": pd.to_datetime(["2020-01-01"] * 2)}, "'age' is a number, but its cells are dates"),
        ({"since": [5, 6]}, "'since' is a date, but its cells have the type int64"),
        ({"since": ["2020-01-01", "soon"]}, "'since' is a date, but row 1 has the text 'soon'"),
    ],
)
def test_missing_columns_and_wrong_kinds_are_named(change: dict[str, Any], message: str) -> None:
    spec = fitted(people())
    new = people()[:2].assign(
        **{name: cells for name, cells in change.items() if cells is not None}
    )
    new = new.drop(columns=[name for name, cells in change.items() if cells is None])
    for use in (spec.encode, spec.check):
        with pytest.raises(InputError, match=re.escape(message)):
            use(read_frame(new))


def test_a_file_is_named_in_errors(tmp_path: Any) -> None:
    spec = TableSpec.fit(read_frame({"age": [1, 2]}), None, {"age": ColumnKind("number")})
    path = tmp_path / "new.csv"
    path.write_text("age\n3\nfour\n")
    with pytest.raises(InputError, match=r"new.csv: Column 'age' is a number, but row 1 has"):
        spec.encode(read_csv_table(path))


def test_a_column_of_numbers_that_are_missing_cannot_be_fitted() -> None:
    for kind in ("number", "date"):
        with pytest.raises(InputError, match="all of its 2 train rows are missing"):
            TableSpec.fit(read_frame({"x": [None, None]}), None, {"x": ColumnKind(kind)})


def test_a_table_without_inputs_is_refused() -> None:
    table = read_frame({"key": [f"row {number}" for number in range(50)]})
    with pytest.raises(InputError, match=r"No column is left as an input: key \(id: 50 distinct"):
        TableSpec.fit(table, None, infer_kinds(table))
    spec = TableSpec.fit(table, None, infer_kinds(table, overrides={"key": "category"}))
    assert spec.cardinalities == (52,)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="'x' has the unknown kind 'numeric'"):
        TableSpec.fit(read_frame({"x": [1]}), None, {"x": ColumnKind("numeric")})


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="min_count has to be at least 1, got 0"):
        SpecOptions(min_count=0)
    with pytest.raises(InputError, match="text_buckets has to be at least 2, got 1"):
        SpecOptions(text_buckets=1)


def test_rows_in_errors_are_those_of_the_table() -> None:
    """Numbers are encoded in pieces of 131,072 rows."""
    spec = TableSpec.fit(read_frame({"x": [1.0, 2.0]}), None, {"x": ColumnKind("number")})
    numbers = np.arange(150_000.0)
    found = spec.encode(read_frame({"x": numbers})).numbers[:, 0].double()
    assert bool((found.diff() >= 0).all())
    texts = numbers.astype(str).astype(object)
    texts[140_000] = "x"
    with pytest.raises(InputError, match="row 140000 has the text 'x'"):
        spec.encode(read_frame({"x": texts}))


def test_some_rows_are_encoded_like_a_table_of_them() -> None:
    table = pa.table(
        {
            "x": [1.0, None, 3.0, 4.0, 2.5],
            "c": pa.array(["a", "b", None, "a", "c"]).dictionary_encode(),
            "d": [datetime.date(2024, 1, day) for day in (1, 5, 9, 2, 7)],
        }
    )
    kinds = {"x": ColumnKind("number"), "c": ColumnKind("category"), "d": ColumnKind("date")}
    spec = TableSpec.fit(table, None, kinds)
    rows = np.array([4, 0, 2, 2])
    wanted = spec.encode(table.take(pa.array(rows))).inputs()
    for name, value in spec.encode(table, rows).inputs().items():
        assert torch.equal(value, wanted[name]), name
