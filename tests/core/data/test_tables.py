"""`read_csv` and `read_table`: columns of delimited text, frames and mappings."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flambeau.data import tables
from flambeau.data.tables import Table, find_delimiter, parse_numbers, read_csv, read_table
from flambeau.data.targets import read_labels
from flambeau.errors import InputError, MissingDependencyError


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def content(table: Table) -> dict[str, list[Any]]:
    return {name: table.column(name) for name in table.names}


# ---------------------------------------------------------------- delimited text


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_cells_are_text_and_the_delimiter_is_that_of_the_header(
    tmp_path: Path, delimiter: str
) -> None:
    rows = [["name", "a,b;c", "x"], ["NA", "", "007"], ["two\nlines", 'a "quoted" word', " 1 "]]
    quoted = [[f'"{cell}"' if cell == "a,b;c" else cell for cell in rows[0]], rows[1]]
    quoted.append([f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in rows[2]])
    text = "\r\n".join(delimiter.join(row) for row in quoted)
    table = read_csv(write(tmp_path / "t.csv", "\ufeff" + text + "\r\n\r\n"))
    assert table.name == "t.csv"
    assert find_delimiter(tmp_path / "t.csv") == delimiter
    assert content(table) == dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))


def test_the_delimiter_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "price\n1,5\n")
    with pytest.raises(InputError, match="has 2 fields"):
        read_csv(path)
    assert content(read_csv(path, delimiter=";")) == {"price": ["1,5"]}


def test_quotes_in_a_tsv_are_part_of_the_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", 'a\tb\n"Hi, he said\tx\n"y" and z\t5" wide\n')
    assert content(read_csv(path)) == {"a": ['"Hi, he said', '"y" and z'], "b": ["x", '5" wide']}


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)],
)
def test_compressed_files_are_read(tmp_path: Path, suffix: str, compress: Any) -> None:
    path = write(tmp_path / f"t.tsv.{suffix}", compress(b"a\tb,c\n1\t2\n"))
    assert content(read_csv(path)) == {"a": ["1"], "b,c": ["2"]}
    with pytest.raises(InputError, match="cannot be read"):
        read_csv(write(path, b"a,b\n1,2\n"))


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n1,2\n3,4\n5\n")
    assert content(read_csv(path, rows=2)) == {"a": ["1", "3"], "b": ["2", "4"]}
    assert content(read_csv(path, rows=0)) == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "no rows below its header"),
        ("a,b,a,b\n1,2,3,4\n", r"t\.csv has several columns named 'a', 'b'"),
        ("a,b\n1,2\n\n3\n", r"Row 1 of .* \(line 4\) has 1 fields, but the header has 2: \['3'\]"),
        ("a,b\n1,2\n3,4,5\n", r"Row 1 of .* \(line 3\) has 3 fields"),
        ('a,b\n"x\ny",2\n3\n', r"Row 1 of .* \(line 4\) has 1 fields"),
        ('a,b\n1,2\n"x,3\n4,5\n', "the row that starts in line 3 is not valid CSV"),
        ('a,b\n1,2\n"x"y,3\n', "the row that starts in line 3 is not valid CSV"),
        (b"a,b\n1,2\nd\xe9j\xe0,3\n", r"line 3: byte 2 of the line is not UTF-8 \(b'\\xe9j"),
        ("a,b\n1,2\n".encode("utf-16"), "is UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), "NUL characters: probably UTF-16"),
    ],
)
def test_invalid_files_are_refused_with_the_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_csv(write(tmp_path / "t.csv", text))


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(InputError, match=f"{path.name} does not exist or is not a file"):
            read_csv(path)
    table = read_csv(write(tmp_path / "t.csv", "label,b\n1,2\n"))
    with pytest.raises(InputError, match=r"no column 'lable'\. Did you mean 'label'"):
        table.column("lable")
    assert "label" in table
    assert "lable" not in table


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-2", "+3"], [1, -2, 3]),
        (["1", " 2.5", ".5", "1e3", "4."], [1.0, 2.5, 0.5, 1000.0, 4.0]),
        (["001", "01", "1"], ["001", "01", "1"]),
        (["1_2", "12"], ["1_2", "12"]),
        (["1,5", "2"], ["1,5", "2"]),
        (["1", ""], ["1", ""]),
        (["٣", "1"], ["٣", "1"]),
        (["x", "1"], ["x", "1"]),
    ],
)
def test_columns_of_plain_numbers_become_numbers(cells: list[str], expected: list[Any]) -> None:
    found = parse_numbers(cells)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))
    assert np.isnan(parse_numbers(["1", "nan"])[1])


# ---------------------------------------------------------------- frames


def test_columns_of_a_mapping_become_lists_of_python_values() -> None:
    source = {"a": np.array([1, 2]), 3: torch.tensor([0.5, 1.5]), "c": iter("xy")}
    table = read_table(source)
    assert content(table) == {"a": [1, 2], "3": [0.5, 1.5], "c": ["x", "y"]}
    assert type(table.column("a")[0]) is int
    table.column("a").clear()
    assert table.column("a") == [1, 2]
    with pytest.raises(InputError, match="different lengths: a 2, b 1"):
        read_table({"a": [1, 2], "b": [1]})


def frame() -> Any:
    pandas = pytest.importorskip("pandas")
    data = {"n": [1, 2], "text": ["x", None], "on": [True, False], "kind": ["u", "v"]}
    found = pandas.DataFrame(data, index=pandas.Index([7, 8], name="id"))
    return found.astype({"kind": "category"})


EXPECTED = {"n": [1, 2], "text": ["x", None], "on": [True, False], "kind": ["u", "v"]}


def test_pandas_frames_are_read_through_arrow_without_their_index() -> None:
    pytest.importorskip("pyarrow")
    assert content(read_table(frame())) == EXPECTED


def test_pandas_frames_are_read_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    source = frame()
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    found = content(read_table(source))
    assert found["text"][0] == "x"
    assert {name: found[name] for name in ("n", "on", "kind")} == {
        name: EXPECTED[name] for name in ("n", "on", "kind")
    }


def test_cells_that_arrow_does_not_know_are_kept() -> None:
    source = frame()
    source["path"] = [Path("a"), 3]
    source[4] = [0.5, 1.5]
    found = content(read_table(source))
    assert found["path"] == [Path("a"), 3]
    assert found["4"] == [0.5, 1.5]
    source.columns = ["a", "b", "a", "c", "d", "e"]
    with pytest.raises(InputError, match="frame has several columns named 'a'"):
        read_table(source)


class Stream:
    """A frame that has the Arrow protocol and nothing else."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


def test_any_arrow_stream_is_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    source = Stream(pyarrow.table({"a": [1, None], "b": [["x"], []]}))
    assert content(read_table(source)) == {"a": [1, None], "b": [["x"], []]}
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"Stream needs pyarrow.*flambeau\[tables\]"):
        read_table(source)


def test_other_objects_are_refused() -> None:
    for source in ([1, 2], "t.csv", None, np.zeros((2, 2))):
        with pytest.raises(InputError, match=f"{type(source).__name__} is not a data frame"):
            read_table(source)


def test_intervals_periods_and_sparse_columns_keep_their_values() -> None:
    pandas = pytest.importorskip("pandas")
    periods = pandas.period_range("2020-01", periods=3, freq="M")
    source = pandas.DataFrame(
        {
            "cut": pandas.cut([1.0, 9.0, float("nan")], [0, 5, 10]),
            "interval": pandas.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
            "period": periods,
        }
    )
    found = content(read_table(source))
    assert [1.0 in found["cut"][0], 9.0 in found["cut"][1], found["cut"][2]] == [True, True, None]
    assert [str(cell) for cell in found["interval"]] == ["(0, 1]", "(1, 2]", "(2, 3]"]
    assert found["period"] == list(periods)
    assert read_labels(found["period"]).names == ("2020-01", "2020-02", "2020-03")
    assert read_labels(found["cut"][:2]).names == ("(0.0, 5.0]", "(5.0, 10.0]")
    sparse = pandas.DataFrame({"a": pandas.arrays.SparseArray([0, 0, 1])})
    assert content(read_table(sparse)) == {"a": [0, 0, 1]}


def test_a_single_column_is_not_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match=r"Series is a single column.*to_frame"):
        read_table(pandas.Series([1, 2]))


def test_a_damaged_compressed_file_is_named(tmp_path: Path) -> None:
    damaged = bytearray(gzip.compress(b"a,b\n" + b"1,2\n3,4\n" * 50))
    damaged[12:20] = bytes(8)
    for name, data in (
        ("damaged.csv.gz", bytes(damaged)),
        ("cut.csv.gz", gzip.compress(b"a,b\n1,2\n")[:-12]),
        ("cut.csv.xz", lzma.compress(b"a,b\n1,2\n")[:-20]),
    ):
        with pytest.raises(InputError, match=rf"{name} cannot be read.*file is complete"):
            read_csv(write(tmp_path / name, data))


def test_long_digit_strings_are_text() -> None:
    cells = ["1" * 5000, "2"]
    assert parse_numbers(cells) == cells
    assert parse_numbers(["1" * 300, "2"]) == [int("1" * 300), 2]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
def test_cells_of_any_length_are_read(tmp_path: Path, name: str) -> None:
    divider = "\t" if "tsv" in name else ","
    data = f"a{divider}b\n1{divider}{'x' * 200_000}\n".encode()
    path = write(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
    limit = csv.field_size_limit()
    assert content(read_csv(path)) == {"a": ["1"], "b": ["x" * 200_000]}
    assert csv.field_size_limit() == limit
    unclosed = write(tmp_path / "u.csv", 'a,b\n1,"x\n' + "1,2\n" * 50_000)
    with pytest.raises(InputError, match=r"starts in line 2 .*Close each quoted cell"):
        read_csv(unclosed)


@pytest.mark.parametrize("name", ["t.TSV", "t.Tsv.GZ", "t.TSV.gz"])
def test_endings_in_upper_case_are_known(tmp_path: Path, name: str) -> None:
    data = b'a\tb\n"Hi, he said\tx\n'
    path = write(tmp_path / name, gzip.compress(data) if name.lower().endswith("gz") else data)
    assert content(read_csv(path)) == {"a": ['"Hi, he said'], "b": ["x"]}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1e5", "2e3", "7"], ["1e5", "2e3", "7"]),
        (["3E7", "1E2"], ["3E7", "1E2"]),
        (["1e-05", "2"], [1e-5, 2.0]),
        (["1e+05", "2"], [1e5, 2.0]),
        (["1e5", "2.5"], [1e5, 2.5]),
        (["-1e5", "2e3"], [-1e5, 2e3]),
    ],
)
def test_exponents_without_a_sign_alone_are_codes(cells: list[str], expected: list[Any]) -> None:
    assert parse_numbers(cells) == expected


def test_columns_can_stay_text() -> None:
    table = Table({"file": lambda: ["1.10", "7"], "label": lambda: ["1", "2"]}, "t")
    assert content(table.with_numbers(text=("file",))) == {"file": ["1.10", "7"], "label": [1, 2]}
