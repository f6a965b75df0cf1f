"""CSV files: dialects, numbers as programs write them, missing cells, errors with the line."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flambeau.errors import InputError
from flambeau_tabular.columns import (
    ColumnKind,
    CsvOptions,
    Frame,
    SpecOptions,
    TableSpec,
    infer_kinds,
    iter_csv_tables,
    read_csv_table,
    read_frame,
)


def read(path: Path, text: str | bytes, options: CsvOptions | None = None) -> Frame:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_csv_table(path, options)


def cells(frame: Frame) -> dict[str, list[Any]]:
    return {name: frame.column(name).to_pylist() for name in frame.column_names}


def column(path: Path, values: list[str], **options: Any) -> tuple[list[Any], list[str]]:
    """Return a column of a file with two columns, and the doubtful readings."""
    delimiter = options.pop("delimiter", ";")
    lines = [delimiter.join(("x", "y")), *(delimiter.join((each, "z")) for each in values)]
    frame = read(path / "t.csv", "\n".join(lines) + "\n", CsvOptions(**options))
    return cells(frame)["x"], [str(each) for each in frame.readings if each.confidence < 0.5]


# ---------------------------------------------------------------- dialects


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_endings_and_byte_order_marks(
    tmp_path: Path, delimiter: str, ending: str, mark: str
) -> None:
    rows = [["name", '"a,b;c|d"', "n"], ["x", '"two\nlines, ""quoted"""', "1"], ["y", "", "-2"]]
    text = mark + ending.join(delimiter.join(row) for row in rows) + ending + ending
    frame = read(tmp_path / "t.csv", text)
    assert cells(frame) == {
        "name": ["x", "y"],
        "a,b;c|d": ['two\nlines, "quoted"', None],
        "n": [1, -2],
    }
    assert frame.name == "t.csv"
    assert frame.readings == ()


def test_quotes_in_a_tsv_are_part_of_the_cells(tmp_path: Path) -> None:
    frame = read(tmp_path / "t.tsv", 'a\tb\n"Hi\t1\n5" wide\t2\n')
    assert cells(frame) == {"a": ['"Hi', '5" wide'], "b": [1, 2]}


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)],
)
def test_compressed_files(tmp_path: Path, suffix: str, compress: Any) -> None:
    frame = read(tmp_path / f"t.csv.{suffix}", compress(b'a,b\n1,"x"\n2,"y"\n'))
    assert cells(frame) == {"a": [1, 2], "b": ["x", "y"]}
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / f"t.csv.{suffix}", b"a,b\n1,2\n")


def test_the_delimiter_can_be_given(tmp_path: Path) -> None:
    assert cells(read(tmp_path / "t.csv", "a\n1,5\n2,5\n", CsvOptions(delimiter=";"))) == {
        "a": [1.5, 2.5]
    }


def test_spaces_before_all_cells_are_removed(tmp_path: Path) -> None:
    frame = read(tmp_path / "t.csv", "age, job, pay\n39, clerk, ?\n40, nurse, 3\n")
    assert cells(frame) == {"age": [39, 40], "job": ["clerk", "nurse"], "pay": [None, 3]}
    assert "start with a space" in str(frame.readings[-1])
    some = read(tmp_path / "t.csv", "a,b\n x,1\ny,2\n")
    assert cells(some)["a"] == [" x", "y"]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["1", "+2", "-3", ""], [1, 2, -3, None]),
        (["1.5", ".5", "5.", "-1e-3", "2E5", "inf"], [1.5, 0.5, 5.0, -1e-3, 2e5, np.inf]),
        ([" 1 ", "2"], [1, 2]),
        (["007", "8"], ["007", "8"]),
        (["94110", "01234"], ["94110", "01234"]),
        (["12", "1e5"], ["12", "1e5"]),  # codes, not the float 1e+05
        (["1_000", "2"], ["1_000", "2"]),
        (["0x10", "2"], ["0x10", "2"]),
        (["1234567890123456789", "2"], ["1234567890123456789", "2"]),
        (["123456789012345678", "2"], [123456789012345678, 2]),
        (["1,5", "2,25", "3"], [1.5, 2.25, 3.0]),
        (["1.234,5", "12.345.678,25"], [1234.5, 12_345_678.25]),
        (["1.234.567", "2"], [1_234_567, 2]),
        (["1,234,567", "2"], [1_234_567, 2]),
        (["1,234.5", "2.25"], [1234.5, 2.25]),
        (["1,5e3", "2,0"], [1500.0, 2.0]),
        (["1 234", "12 345 678"], [1234, 12_345_678]),
        (["1\u00a0234,5", "2"], [1234.5, 2.0]),
        (["1'234.5", "2"], [1234.5, 2.0]),
        (["12 34", "5"], ["12 34", "5"]),
        (["1,5", "2.5"], ["1,5", "2.5"]),  # two decimal separators
        (["1,23,456", "2"], ["1,23,456", "2"]),
        (["12%", "5%"], ["12%", "5%"]),
        (["true", "FALSE", ""], [True, False, None]),
        (["2024-01-31", "2024-02-01"], ["2024-01-31", "2024-02-01"]),
    ],
)
def test_numbers_are_read_surely(tmp_path: Path, values: list[str], wanted: list[Any]) -> None:
    found, doubts = column(tmp_path, values)
    assert found == wanted
    assert [type(each) for each in found] == [type(each) for each in wanted]
    assert not doubts


def test_an_ambiguous_comma_is_read_as_the_delimiter_suggests(tmp_path: Path) -> None:
    found, [doubt] = column(tmp_path, ["1,500", "2,250"])
    assert found == [1.5, 2.25]
    assert "column 'x' such as 1,500, ',' could separate decimals or thousands" in doubt
    assert "CsvOptions(decimal='.')" in doubt
    found, [doubt] = column(tmp_path, ['"1,500"', '"2,250"'], delimiter=",")
    assert found == [1500, 2250]
    assert "a separator of thousands" in doubt
    assert column(tmp_path, ["1,500", "2,250"], decimal=".") == ([1500, 2250], [])
    assert column(tmp_path, ["1,500", "2,250"], decimal=",") == ([1.5, 2.25], [])
    assert column(tmp_path, ["1,5", "2,5"], decimal=".") == (["1,5", "2,5"], [])
    assert column(tmp_path, ["1.5", "2"], decimal=",") == (["1.5", "2"], [])


def test_another_column_decides_an_ambiguous_one(tmp_path: Path) -> None:
    frame = read(tmp_path / "t.csv", "a;b;c\n1.500;1,5;1,250\n2.250;2,5;2,500\n")
    assert cells(frame) == {"a": [1500, 2250], "b": [1.5, 2.5], "c": [1.25, 2.5]}
    assert all("as in other columns" in str(each) for each in frame.readings)
    frame = read(tmp_path / "t.csv", 'a;b\n1,500;"1,234.5"\n2,250;2\n')
    assert cells(frame) == {"a": [1500, 2250], "b": [1234.5, 2.0]}


def test_numbers_with_an_exponent_of_excel(tmp_path: Path) -> None:
    found, [doubt] = column(tmp_path, ["1.23E+05", "4"], delimiter=",")
    assert found == [123_000.0, 4.0]
    assert "numbers such as 1.23E+05, as Excel writes" in doubt
    found, doubts = column(tmp_path, ["1.23E-05", "4.5"], delimiter=",")
    assert (found, doubts) == ([1.23e-05, 4.5], [])
    assert column(tmp_path, ["1,23E+05", "4"])[0] == [123_000.0, 4.0]


def test_columns_can_stay_text(tmp_path: Path) -> None:
    assert column(tmp_path, ["1", "2"], text=("x",)) == (["1", "2"], [])
    with pytest.raises(InputError, match="text names the column 'z'"):
        column(tmp_path, ["1"], text=("z",))


def test_floats_are_read_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).lognormal(0, 20, 500)
    frame = read(tmp_path / "t.csv", "x\n" + "\n".join(map(repr, values.tolist())) + "\n")
    assert cells(frame)["x"] == values.tolist()


# ---------------------------------------------------------------- missing cells


def test_missing_cells(tmp_path: Path) -> None:
    frame = read(tmp_path / "t.csv", "n,t\n1,a\nNA,null\nNaN,?\n,N/A\n")
    assert cells(frame) == {"n": [1, None, None, None], "t": ["a", None, None, None]}
    [reading] = frame.readings
    assert reading.evidence == {"null": 1, "?": 1, "N/A": 1}
    kept = read(tmp_path / "t.csv", "n,t\n1,a\n-,b\n", CsvOptions(missing=("-",)))
    assert cells(kept) == {"n": [1, None], "t": ["a", "b"]}
    assert cells(read(tmp_path / "t.csv", "n,t\n1,?\n,b\n", CsvOptions(missing=())))["t"] == [
        "?",
        "b",
    ]


def test_na_among_country_codes_is_doubtful(tmp_path: Path) -> None:
    frame = read(tmp_path / "t.csv", "n,country\n1,NA\n2,DE\n3,FR\n")
    assert cells(frame)["country"] == [None, "DE", "FR"]
    [reading] = frame.readings
    assert reading.confidence < 0.5
    assert "1 cells 'NA' are read as missing" in str(reading)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv is empty"),
        (b"a,b\n", "has no rows below its header"),
        (b"a,b,a\n1,2,3\n", "several columns named 'a'"),
        (b"a,b\n1,2\n3\n", "Row 1 of .*t.csv (line 3) has 1 fields, but the header has 2"),
        (b'a,b\n"1\n2",2\n3\n', "Row 1 of .*t.csv (line 4) has 1 fields"),
        (b'a,b\n1,2\n1,"2\n3,4\n', "t.csv: the row that starts in line 3 is not valid CSV"),
        (b"a,b\n1,2\n3,caf\xe9\n", "t.csv, line 3: byte 6 of the line is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "t.csv is UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), "probably UTF-16"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(InputError, match=pattern):
        read(tmp_path / "t.csv", content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        read_csv_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="does not exist"):
        next(iter_csv_tables(tmp_path / "none.csv"))


# ---------------------------------------------------------------- with the rest


def test_a_file_gives_the_spec_of_its_frame(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "n": random.normal(size=300),
            "whole": random.integers(0, 1000, 300),
            "gaps": pd.array(random.integers(0, 1000, 300), "Int64"),
            "job": random.choice(["a", "b", "Zoë"], 300),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 99, 300), "D"),
            "flag": random.choice([True, False], 300),
        }
    )
    frame.loc[::7, "gaps"] = pd.NA
    frame.loc[::5, "job"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    of_file, of_frame = read_csv_table(tmp_path / "t.csv"), read_frame(frame)
    kinds = infer_kinds(of_frame)
    assert {name: each.kind for name, each in infer_kinds(of_file).items()} == {
        name: each.kind for name, each in kinds.items()
    }
    spec = TableSpec.fit(of_frame, None, kinds)
    assert TableSpec.fit(of_file, None, kinds).hash() == spec.hash()


def test_a_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flambeau_tabular.columns.csv_files._BLOCK_BYTES", 1 << 12)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["a", "b", "c"])
        # The first pieces decide that a comma is decimal, later ones have whole numbers only.
        writer.writerows([f"{i},5" if i < 900 else i, f"t{i % 3}", "x\ny"] for i in range(1000))
    whole = read_csv_table(tmp_path / "t.csv")
    pieces = list(iter_csv_tables(tmp_path / "t.csv"))
    assert len(pieces) > 3
    assert [v for each in pieces for v in cells(each)["a"]] == cells(whole)["a"]
    kinds = {"a": ColumnKind("number"), "b": ColumnKind("category")}
    spec = TableSpec.fit(whole, None, kinds, SpecOptions(scaling="none"))
    found = [spec.encode(each) for each in pieces]
    wanted = spec.encode(whole)
    assert np.concatenate([each.numbers for each in found]).tolist() == wanted.numbers.tolist()
    assert (
        np.concatenate([each.categories for each in found]).tolist() == wanted.categories.tolist()
    )


def test_pieces_are_read_like_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later pieces of a column may be ambiguous alone."""
    monkeypatch.setattr("flambeau_tabular.columns.csv_files._BLOCK_BYTES", 1 << 10)
    rows = ["1.5;1,5;1.234,5", *["1.500;1,500;1.500"] * 500]
    (tmp_path / "t.csv").write_text("\n".join(["a;b;c", *rows]) + "\n")
    pieces = list(iter_csv_tables(tmp_path / "t.csv"))
    assert len(pieces) > 3
    found = {name: [v for each in pieces for v in cells(each)[name]] for name in "abc"}
    assert found == {
        "a": [1.5] * 501,
        "b": [1.5] * 501,
        "c": [1234.5, *[1500] * 500],
    }
    assert not [reading for each in pieces for reading in each.readings]


def test_texts_that_repeat_are_dictionaries(tmp_path: Path) -> None:
    frame = read(tmp_path / "t.csv", "a,b\n" + "x,1\ny,2\n" * 50)
    assert pa.types.is_dictionary(frame.column("a").type)
