"""`read_frame`: a table of any library as Arrow columns, or an error that names the column."""

from __future__ import annotations

import datetime
import decimal
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from flambeau.errors import InputError
from flambeau_tabular.columns import read_frame
from flambeau_tabular.columns.cells import as_numbers, joined, taken

AGES = [39, None, 50]
JOBS = ["clerk", "nurse", None]


def content(source: Any) -> dict[str, list[Any]]:
    frame = read_frame(source)
    return {name: frame.column(name).to_pylist() for name in frame.column_names}


# ---------------------------------------------------------------- sources


def test_tables_of_every_library_have_the_same_cells() -> None:
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    arrow = pa.table({"age": AGES, "job": JOBS})
    pandas = pd.DataFrame({"age": pd.array(AGES, "Int64"), "job": JOBS})
    sources = [
        arrow,
        arrow.to_batches()[0],
        pandas,
        pandas.astype({"job": "category"}),
        pandas.astype({"job": "string[pyarrow]", "age": pd.ArrowDtype(pa.int16())}),
        pandas.astype({"age": object, "job": object}),
        polars.from_arrow(arrow),
        polars.from_arrow(arrow).with_columns(polars.col("job").cast(polars.Categorical)),
        polars.from_arrow(arrow).lazy().collect(),
        duckdb.sql("select * from arrow"),
        {"age": AGES, "job": JOBS},
        {"age": np.ma.array([39, 0, 50], mask=[0, 1, 0]), "job": np.array(JOBS, dtype=object)},
        {"age": pd.Series(AGES, dtype="Int64"), "job": polars.Series(JOBS)},
        [{"age": 39, "job": "clerk"}, {"job": "nurse"}, {"age": 50}],
    ]
    for source in sources:
        assert content(source) == {"age": AGES, "job": JOBS}, type(source)


def test_a_dict_of_values_is_one_row() -> None:
    row = {"age": 39, "job": "clerk", "tall": None, "size": np.float32(1.5), "n": torch.tensor(2)}
    assert content(row) == {
        "age": [39],
        "job": ["clerk"],
        "tall": [None],
        "size": [1.5],
        "n": [2],
    }
    with pytest.raises(InputError, match="a single value for 'age' and a sequence for 'job'"):
        read_frame({"age": 39, "job": ["clerk"]})


def test_arrays_have_numbered_columns() -> None:
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    wanted = {"x0": [0.0, 2.0, 4.0], "x1": [1.0, 3.0, 5.0]}
    assert content(array) == wanted
    assert content(torch.from_numpy(array)) == wanted
    assert content(array.astype(">f8")) == wanted
    assert content(np.array([[1, "a"], [2, None]], dtype=object)) == {
        "x0": [1, 2],
        "x1": ["a", None],
    }
    with pytest.raises(InputError, match=r"shape \(3,\) is not a table"):
        read_frame(np.zeros(3))


def test_the_index_of_pandas_is_kept_and_is_not_a_column() -> None:
    source = pd.DataFrame({"a": [1, 2, 3]}, index=pd.Index(["x", "y", "z"], name="key"))
    frame = read_frame(source)
    assert frame.column_names == ["a"]
    assert frame.index.equals(source.index)
    taken = frame.take([2, 0])
    assert taken.column("a").to_pylist() == [3, 1]
    assert list(taken.index) == ["z", "x"]
    assert taken.index.name == "key"
    # pandas writes its index as a column of the Arrow table.
    assert read_frame(pa.Table.from_pandas(source)).column_names == ["a"]


def test_series_of_a_mapping_share_an_index() -> None:
    first, second = pd.Series([1, 2], index=[5, 6]), pd.Series([3, 4], index=[6, 5])
    assert list(read_frame({"a": first, "b": first}).index) == [5, 6]
    with pytest.raises(InputError, match="'a' and 'b' have different indexes"):
        read_frame({"a": first, "b": second})


def test_frames_are_never_changed() -> None:
    source = pd.DataFrame({"a": [1.0, np.nan], "b": [1, "x"], "c": ["u", None], 4: [True, None]})
    before = source.copy(deep=True)
    frame = read_frame(source)
    frame.take([0]).drop(["a"])
    pd.testing.assert_frame_equal(source, before)
    assert source.columns.tolist() == ["a", "b", "c", 4]


# ---------------------------------------------------------------- types of columns


def test_all_types_of_single_values_are_read() -> None:
    day, time = datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 8, 30)
    columns = {
        "half": (np.array([1.5, np.nan], np.float16), [1.5, None]),
        "long": (np.array([1.5, np.nan], np.longdouble), [1.5, None]),
        "unsigned": (np.array([0, 2**64 - 1], np.uint64), [0, 2**64 - 1]),
        "objects": ([2**64 - 1, None], [2**64 - 1, None]),
        "decimals": ([decimal.Decimal("1.50"), None], [decimal.Decimal("1.50"), None]),
        "decimals and floats": ([decimal.Decimal("1.50"), 2.5], [1.5, 2.5]),
        "booleans": ([True, float("nan")], [True, None]),
        "texts": (["a", float("nan")], ["a", None]),
        "bytes": ([b"a", None], ["a", None]),
        "byte array": (np.array([b"a", b"bc"]), ["a", "bc"]),
        "text array": (np.array(["a", "bc"]), ["a", "bc"]),
        "days": ([day, None], [day, None]),
        "days and times": ([day, time], [datetime.datetime(2024, 2, 29), time]),
        "months": (np.array(["2024-02", "NaT"], "M8[M]"), [datetime.datetime(2024, 2, 1), None]),
        "missing": ([None, None], [None, None]),
        "intervals": (pd.Series(pd.interval_range(0, 2)), ["(0, 1]", "(1, 2]"]),
        "bins": (pd.Series(pd.cut([1, 2], [0, 1, 2])), ["(0, 1]", "(1, 2]"]),
        "sparse": (pd.Series(pd.arrays.SparseArray([0, 1])), [0, 1]),
        "views": (pa.array(["a", None], pa.string_view()), ["a", None]),
        "runs": (pa.RunEndEncodedArray.from_arrays([1, 2], [7, 8]), [7, 8]),
    }
    for name, (values, wanted) in columns.items():
        assert content({name: values})[name] == wanted, name
    period = pd.Series(pd.period_range("2024-01", periods=2, freq="M"))
    assert read_frame({"p": period}).column("p").to_pylist()[1].month == 2


def test_numbers_beside_text_become_text_with_a_reading() -> None:
    frame = read_frame({"code": [1, "a", 2.0, None, "1.0"], "huge": [2**70, 1, None, 2, 3]})
    assert frame.column("code").to_pylist() == ["1", "a", "2", None, "1.0"]
    assert frame.column("huge").to_pylist() == [str(2**70), "1", None, "2", "3"]
    code, huge = frame.readings
    assert "'code' has numbers beside text (2 of 5 cells are numbers)" in str(code)
    assert "doubtful" in str(code)
    assert "more than 64 bits" in str(huge)


def test_names_that_are_not_text_become_text() -> None:
    frame = read_frame(pd.DataFrame([[1, 2, 3]], columns=[0, "b", ("c", 1)]))
    assert frame.column_names == ["0", "b", "('c', 1)"]
    assert "2 column names are not text" in frame.readings[0].what
    with pytest.raises(InputError, match="2 columns named '0'"):
        read_frame(pd.DataFrame([[1, 2]], columns=[0, "0"]))


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, [2]], "'c' has a list in row 1: [2]"),
        ([{"a": 1}, None], "'c' has a dict in row 0"),
        ([np.zeros(2), np.zeros(2)], "'c' has a ndarray in row 0"),
        (np.zeros((2, 2)), "'c' has shape (2, 2)"),
        (np.array([1j, 2]), "'c' has the type complex128"),
        ([None, 1j], "'c' has a complex in row 1"),
        ([re, None], "'c' has a module in row 0"),
        (pa.array([[1], [2]]), "'c' has the type list"),
        (pa.array([{"a": 1}, None]), "'c' has the type struct"),
        (pa.array([b"\xff", None]), "'c' contains bytes that are not UTF-8"),
        ([True, None, "yes"], "'c' mixes types: a bool in row 0 (True) and a str in row 2 ('yes')"),
        ([None, 1, True], "'c' mixes types: a int in row 1 (1) and a bool in row 2 (True)"),
        ([datetime.date(2024, 1, 1), 5], "'c' mixes types: a date in row 0"),
        (
            [pd.Timestamp("2024", tz="UTC"), pd.Timestamp("2024")],
            "'c' mixes times with a time zone (row 0: 2024-01-01 00:00:00+00:00)",
        ),
        ("text", "The mapping has a single value for 'c'"),
    ],
)
def test_cells_that_are_not_single_values_are_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_frame({"c": values, "d": np.arange(len(values))}).column("c")


def test_a_column_that_cannot_be_read_is_an_error_only_if_it_is_used() -> None:
    frame = read_frame(pd.DataFrame([[1, [1], 2, 3]], columns=["a", "lists", "twice", "twice"]))
    assert frame.column_names == ["a", "lists", "twice"]
    for some in (frame, frame.take([0]), frame.take([0, 0]).drop(["none"])):
        assert some.column("a")[0].as_py() == 1
        with pytest.raises(InputError, match="'lists' has a list in row 0"):
            some.column("lists")
        with pytest.raises(InputError, match="2 columns named 'twice'"):
            some.column("twice")
    assert frame.drop(["lists", "twice"]).take([0]).table.to_pylist() == [{"a": 1}]
    with pytest.raises(InputError, match=r"no column 'list'\. Did you mean 'lists'"):
        frame.column("list")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "A int is not a table"),
        ([1, 2], "A list is not a table"),
        ([{"a": 1}, 2], "Row 1 is a int, but row 0 is a dict"),
        (pd.Series([1]), "A Series is a single column"),
        (pa.chunked_array([[1]]), "A ChunkedArray is a single column"),
        ({"a": [1], "b": [1, 2]}, "different lengths: a 1, b 2"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "2 columns named 'a'"),
        (pa.table([[1], [2]], names=["a", "a"]), "2 columns named 'a'"),
        (pd.DataFrame({"a": [[1]], "b": [{}]}), "Column 'a' has a list in row 0"),
    ],
)
def test_what_is_not_a_table_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_frame(source)


def test_a_series_of_polars_is_refused() -> None:
    polars = pytest.importorskip("polars")
    with pytest.raises(InputError, match="A Series is a single column"):
        read_frame(polars.Series([1]))
    with pytest.raises(InputError, match="'o'"):
        read_frame(polars.DataFrame({"o": polars.Series([re, re], dtype=polars.Object)}))


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(InputError, match=r"\(frame\) has no column 'agee'. Did you mean 'age'"):
        read_frame({"age": [1]}).column("agee")


def test_texts_that_no_cell_refers_to_are_no_cells() -> None:
    cells = pa.array(["1.5", "old", " 2 ", None, "old"]).dictionary_encode()
    table = pa.table({"x": pa.chunked_array([cells])})
    assert as_numbers(table.column("x").take([2, 0, 3]), "x").tolist()[:2] == [2.0, 1.5]
    with pytest.raises(InputError, match="row 2 has the text 'old'"):
        as_numbers(table.column("x").take([0, 3, 4, 1]), "x")


@pytest.mark.parametrize("kind", ["numbers", "categories"])
def test_rows_taken_in_pieces_are_those_that_arrow_takes(kind: str) -> None:
    draws = np.random.default_rng(0)
    for _ in range(30):
        sizes = draws.integers(0, 5, draws.integers(1, 6))
        parts = [pa.array(draws.integers(0, 9, n).astype(str)) for n in sizes]
        if kind == "numbers":
            parts = [part.cast(pa.int64()) for part in parts]
        else:
            parts = [part.dictionary_encode() for part in parts]
        cells = pa.chunked_array(parts, parts[0].type)
        n = len(cells)
        rows = draws.integers(0, n, draws.integers(0, 12)) if n else np.zeros(0, np.int64)
        for order in (rows, np.sort(rows), np.unique(rows)):
            expected = [cells.to_pylist()[row] for row in order.tolist()]
            pieces = list(taken(cells, order, most=3))
            assert all(len(each) <= 3 for each in pieces)
            assert joined(iter(pieces)).to_pylist() == expected
        assert joined(taken(cells, None, most=3)).to_pylist() == cells.to_pylist()
    with pytest.raises((IndexError, pa.ArrowIndexError)):
        joined(taken(pa.chunked_array([[1], [2]]), np.array([0, 2])))
