"""Bad tables for `predict` and `evaluate`: the predictions of the same cells, or one message."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from flambeau.cli.app import run as run_command

N = 90
SMALL = ("--set", "batch_size=32", "--set", "hidden=[4]", "--set", "number_embedding=none")
TARGET = ("--target", "income")


def people() -> pd.DataFrame:
    """Return rows with dates before 1970, amounts above 1,000, and cells with a line break."""
    draws = np.random.default_rng(0)
    age = draws.integers(18, 80, N)
    days = pd.Timestamp("1950-03-01") + pd.to_timedelta(draws.integers(0, 15_000, N), unit="D")
    return pd.DataFrame({
        "age": age,
        "born": days.strftime("%Y-%m-%d"),
        "pay": (1_000 * (age + draws.normal(0, 1, N))).round(2),
        "city": draws.choice(["Köln", "Ulm", "two\nlines"], N),
        "income": np.where(age > 45, "high", "low"),
    })  # fmt: skip


def with_thousands(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(pay=[f"{each:,.2f}" for each in frame["pay"]])


# ---------------------------------------------------------------- the same cells, written otherwise

SAME: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "semicolons and decimal commas": lambda t, p: t.to_csv(p, sep=";", decimal=",", index=False),
    "tabs": lambda t, p: t.to_csv(p, sep="\t", index=False),
    "a byte-order mark": lambda t, p: t.to_csv(p, index=False, encoding="utf-8-sig"),
    "all cells quoted": lambda t, p: t.to_csv(p, index=False, quoting=1),
    "thousands": lambda t, p: with_thousands(t).to_csv(p, index=False),
    "Excel's exponent": lambda t, p: t.to_csv(p, index=False, float_format="%.12E"),
    "integers as floats": lambda t, p: t.astype({"age": float}).to_csv(p, index=False),
    "other columns": lambda t, p: t.assign(more=1).iloc[:, ::-1].to_csv(p, index=False),
    "Windows line ends": lambda t, p: t.to_csv(p, index=False, lineterminator="\r\n"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model, with its predictions and scores for people.csv."""
    folder, table = tmp_path_factory.mktemp("tables"), people()
    table.to_csv(folder / "people.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ("people.csv", *TARGET, "--epochs", "1", *SMALL, "--out", "run")
        assert call(patch, "fit", *words) == 0
        assert call(patch, "predict", "run/model", "people.csv", "--out", "wanted.parquet") == 0
        Path("wanted.json").write_text(
            output(patch, "evaluate", "run/model", "people.csv", "--json")
        )
    return folder


def call(patch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command as a shell does, and return its exit code."""
    patch.setattr("sys.argv", ["flambeau", *words])
    with pytest.raises(SystemExit) as ended:
        run_command()
    return int(ended.value.code or 0)


def output(patch: pytest.MonkeyPatch, *words: str) -> str:
    """Run the command, which has to succeed, and return what it prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert call(patch, *words) == 0
    return printed.getvalue()


@pytest.mark.parametrize("case", SAME)
def test_the_same_cells_give_the_same_predictions_and_scores(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "people.csv"
    SAME[case](people(), file)
    monkeypatch.chdir(folder)
    found = tmp_path / "found.parquet"
    assert call(monkeypatch, "predict", "run/model", str(file), "--out", str(found)) == 0
    assert pq.read_table(found).equals(pq.read_table("wanted.parquet"))
    scores = output(monkeypatch, "evaluate", "run/model", str(file), "--json")
    assert json.loads(scores) == json.loads(Path("wanted.json").read_text())


@pytest.mark.parametrize("case", SAME)
def test_the_same_cells_have_the_same_kinds_in_a_plan(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "people.csv"
    SAME[case](people(), file)
    monkeypatch.chdir(folder)
    command = ("plan", str(file), *TARGET, *SMALL, "--json")
    [columns] = [
        each
        for each in json.loads(output(monkeypatch, *command))["choices"]
        if each["key"] == "columns"
    ]
    kinds = {name: columns["value"][name] for name in ("age", "born", "pay", "city")}
    assert kinds == {"age": "number", "born": "date", "pay": "number", "city": "category"}


# ---------------------------------------------------------------- cells that cannot be used

BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a column of dates with text": (lambda t: t.assign(born="soon"), "row 0 has the text 'soon'"),
    "mixed types": (
        lambda t: t.assign(age=[*t["age"][:-1], "old"]),
        "is a number, but row 89 has the text 'old'",
    ),
    "a column is missing": (lambda t: t.drop(columns="born"), "no column 'born'"),
    "the name of a column twice": (
        lambda t: t.assign(x=1).rename(columns={"x": "age"}),
        "columns named 'age'",
    ),
}


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize("case", BAD)
def test_cells_that_cannot_be_used_are_refused_by_name(
    command: str,
    case: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, message = BAD[case]
    file = tmp_path / "bad.csv"
    change(people()).to_csv(file, index=False)
    monkeypatch.chdir(folder)
    code = call(monkeypatch, command, "run/model", str(file))
    shown = " ".join(capsys.readouterr().err.split())
    assert (code, message in shown) == (2, True), shown
    assert "Traceback" not in shown


def test_lists_are_refused_only_where_they_are_used(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "lists.parquet"
    monkeypatch.chdir(folder)
    people().assign(tags=[["a"]] * N).to_parquet(file)
    assert call(monkeypatch, "evaluate", "run/model", str(file)) == 0
    people().assign(city=[["a"]] * N).to_parquet(file)
    capsys.readouterr()
    for command in ("predict", "evaluate"):
        assert call(monkeypatch, command, "run/model", str(file)) == 2
        assert "'city'" in capsys.readouterr().err


# ---------------------------------------------------------------- targets of an evaluation

TARGETS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], int, str]] = {
    "without the column": (lambda t: t.drop(columns="income"), 2, "no column 'income'"),
    "all missing": (lambda t: t.assign(income=""), 2, "missing in all 90 rows"),
    "another class": (lambda t: t.assign(income="medium"), 2, "'medium'"),
    "no rows": (lambda t: t.iloc[:0], 2, "has no rows"),
    "a single class": (lambda t: t.assign(income="low"), 0, ""),
    "a single row": (lambda t: t.iloc[:1], 0, ""),
    "some missing": (lambda t: t.assign(income=["", *t["income"][1:]]), 0, ""),
}


@pytest.mark.filterwarnings("default::flambeau.errors.FlambeauWarning")
@pytest.mark.parametrize("case", TARGETS)
def test_an_evaluation_scores_the_rows_with_a_known_target(
    case: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, wanted, message = TARGETS[case]
    file = tmp_path / "targets.csv"
    change(people()).to_csv(file, index=False)
    monkeypatch.chdir(folder)
    code = call(monkeypatch, "evaluate", "run/model", str(file))
    shown = " ".join(capsys.readouterr().err.split())
    assert (code, message in shown) == (wanted, True), shown


def test_predictions_for_no_rows_and_for_one_have_the_same_columns(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    schemas = []
    for rows in (0, 1):
        file, out = tmp_path / f"{rows}.parquet", tmp_path / f"out{rows}.parquet"
        people().iloc[:rows].to_parquet(file, index=False)
        assert call(monkeypatch, "predict", "run/model", str(file), "--out", str(out)) == 0
        table = pq.read_table(out)
        assert table.num_rows == rows
        schemas.append(table.schema.names)
    assert schemas[0] == schemas[1]
    files = [str(tmp_path / f"{rows}.parquet") for rows in (0, 1)]
    both = tmp_path / "both.parquet"
    assert call(monkeypatch, "predict", "run/model", *files, "--out", str(both)) == 0
    assert pq.read_table(both).num_rows == 1
