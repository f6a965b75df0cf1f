"""``CsvOptions``: what the user says about a text file, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flambeau import Learner
from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau_tabular import CsvOptions, TabularData, TabularOptions
from flambeau_tabular.columns import read_csv_table

LINES = ("city;price;amount", "Köln;1.234,5;1.234", "München;2.000,25;2.500", "n.b.;17,5;3.000")


def write(path: Path, lines: tuple[str, ...] = LINES, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def cells(path: Path, **options: Any) -> dict[str, list[Any]]:
    frame = read_csv_table(path, CsvOptions(**options))
    return {name: frame.column(name).to_pylist() for name in frame.column_names}


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig"])
def test_files_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "t.csv", encoding=encoding)
    assert cells(path, encoding=encoding) == cells(write(tmp_path / "u.csv"))


def test_the_error_names_the_option_for_the_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", encoding="latin-1")
    with pytest.raises(InputError, match=r"line 2.*not UTF-8.*--encoding latin-1"):
        read_csv_table(path)
    utf8 = write(tmp_path / "u.csv")
    with pytest.raises(InputError, match="cannot be decoded as utf-16"):
        read_csv_table(utf8, CsvOptions(encoding="utf-16"))


def test_separators_of_numbers_that_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    found = cells(path, decimal=",", thousands=".")
    assert found["price"] == [1234.5, 2000.25, 17.5]
    assert found["amount"] == [1234, 2500, 3000]
    assert cells(path, decimal=",", thousands="")["price"] == ["1.234,5", "2.000,25", "17,5"]
    swiss = write(tmp_path / "s.csv", ("a,b", "1'234.5,1_000", "7.25,12"))
    assert cells(swiss, thousands="'") == {"a": [1234.5, 7.25], "b": ["1_000", "12"]}
    assert cells(swiss, thousands="_")["b"] == [1000, 12]
    codes = write(tmp_path / "c.csv", ("a,b", "007,1", "012,2"))
    assert cells(codes, thousands="_")["a"] == ["007", "012"]


def test_quotes_and_delimiters_that_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ("a~b", "'x~y'~1", '5"~2'))
    assert cells(path, delimiter="~", quote="'") == {"a": ["x~y", '5"'], "b": [1, 2]}
    plain = write(tmp_path / "p.csv", ("a,b", '"x,1', 'y",2'))
    assert cells(plain, quote="") == {"a": ['"x', 'y"'], "b": [1, 2]}
    with pytest.raises(InputError, match="line"):
        cells(write(tmp_path / "q.csv", ("a,b", "'x,1")), quote="'")


def test_missing_words_that_are_given_are_no_guess(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    frame = read_csv_table(path, CsvOptions(missing=["", "n.b."]))
    assert frame.column("city").to_pylist() == ["Köln", "München", None]
    assert not [each for each in frame.readings if "read as missing" in each.what]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "decimal": ({"decimal": ";"}, "decimal is ';', but must be"),
    "two characters": ({"delimiter": "::"}, "must be one character"),
    "a digit": ({"thousands": "0"}, "must be one character that is no letter or digit"),
    "thousands like decimal": ({"thousands": "."}, "is also the decimal separator"),
    "encoding": ({"encoding": "utf-9"}, "encoding='utf-9' is unknown"),
    "a string": ({"missing": "NA"}, r"missing=\['NA'\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_options_are_refused(case: str) -> None:
    options, message = BAD[case]
    with pytest.raises(InputError, match=message):
        CsvOptions(**options)


def test_options_are_for_text_files(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'decimal'"):
        TabularOptions(csv={"decimals": ","})
    options = TabularOptions(csv={"decimal": ","})
    with pytest.raises(InputError, match="is for from_csv"):
        TabularData.from_df({"x": [1, 2], "y": [0, 1]}, "y", options=options)
    pd.DataFrame({"x": [1, 2], "y": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="is a Parquet file"):
        TabularData.from_csv(tmp_path / "t.parquet", "y", options=options)


# ---------------------------------------------------------------- plan and command line


@pytest.fixture
def german(tmp_path: Path) -> Path:
    """Return a file of 60 rows in Latin-1 whose amounts could be fractions."""
    draws = np.random.default_rng(0)
    rows = [
        f"{city};{n // 1000}.{n % 1000:03};{'ja' if n > 5000 else 'nein'}"
        for city, n in zip(["Köln", "Bonn"] * 30, draws.integers(1000, 9999, 60), strict=True)
    ]
    return write(tmp_path / "german.csv", ("stadt;betrag;ziel", *rows), "latin-1")


def test_the_plan_shows_how_the_file_was_read(german: Path) -> None:
    options = TabularOptions(csv=CsvOptions(encoding="latin-1"))
    choice = Learner(TabularData.from_csv(german, "ziel", options=options), quiet=True).plan["csv"]
    assert choice.value["delimiter"] == ";"
    assert (choice.value["decimal"], choice.value["thousands"]) == (".", None)
    assert choice.evidence["decimal '.'"] == 1
    assert choice.confidence < 0.5  # 1.234 could be a fraction
    assert "--decimal" in choice.override
    sure = TabularOptions(csv=CsvOptions(encoding="latin-1", decimal=","))
    data = TabularData.from_csv(german, "ziel", options=sure)
    assert Learner(data, quiet=True).plan["csv"].confidence == 1.0
    with pytest.raises(PlanError, match="the way in which the file was read"):
        _ = Learner(data, choices={"csv": {"decimal": "."}}, quiet=True).plan
    frame = {"x": np.arange(20), "y": [0, 1] * 10}
    assert Learner(TabularData.from_df(frame, "y"), quiet=True).plan["csv"].value is None


def run(*words: object) -> None:
    build_app()([str(word) for word in words], standalone_mode=False)


def test_text_files_on_the_command_line(
    german: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exception, match="--encoding latin-1"):
        run("plan", german, "--target", "ziel")
    words = ("--encoding", "latin-1", "--decimal", ".", "--missing", "Bonn,-")
    out = tmp_path / "run"
    run("fit", german, "--target", "ziel", *words, "--epochs", 1, "--out", out)
    # The options are those of the export: 1.234 is a fraction again, Bonn missing, Latin-1 read.
    run("predict", out, german, "--out", tmp_path / "p.csv")
    assert len(pd.read_csv(tmp_path / "p.csv")) == 60
    capsys.readouterr()
    run("evaluate", out, german, "--json")
    assert json.loads(capsys.readouterr().out)["samples"] == 60
    data = TabularData.from_csv(german, options=TabularOptions(like=out))
    assert max(data.frame.column("betrag").to_pylist()) < 10
    assert data.frame.column("stadt").null_count == 30
