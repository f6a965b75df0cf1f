"""Bad tables on the command line: one message and exit code 2, or a defined result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from flambeau.cli.app import run as run_command

N = 80
SMALL = ("--set", "batch_size=32", "--set", "hidden=[4]", "--set", "number_embedding=none")


def people() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    age = draws.integers(18, 80, N)
    return pd.DataFrame({
        "name": [f"P{row:03}" for row in range(N)],
        "age": age,
        "city": draws.choice(["a", "b"], N),
        "pay": age * 1.5 + draws.normal(0, 1, N),
        "income": np.where(age > 45, "high", "low"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one table in many forms, and run/, the folder of a finished fit."""
    folder, table = tmp_path_factory.mktemp("tables"), people()
    table.to_csv(folder / "people.csv", index=False)
    table.assign(tags=[[1]] * N).to_parquet(folder / "lists.parquet")
    changed = {
        "empty": table.iloc[:0],
        "single": table.iloc[:1],
        "ids": table[["name", "income"]],
        "constant": table.assign(income="low"),
        "untargeted": table.assign(income=""),
        "cityless": table.drop(columns="city"),
        "old": table.assign(age="old"),
        "unseen": table.assign(city="c", age=""),
        "prices": table.assign(age=[f"${age}.50" for age in table["age"]]),
    }
    for name, each in changed.items():
        each.to_csv(folder / f"{name}.csv", index=False)
    table.to_csv(folder / "comma.csv", sep=";", decimal=",", index=False, encoding="utf-8-sig")
    table.to_csv(folder / "tabs.tsv", sep="\t", index=False)
    text = (folder / "people.csv").read_text()
    (folder / "twice.csv").write_text(text.replace("city", "age", 1))
    (folder / "ragged.csv").write_text(text + "x,1,2\n")
    (folder / "latin.csv").write_bytes(text.replace("P000", "Pö").encode("latin-1"))
    (folder / "open.csv").write_text(text.replace("P007", '"P007'))
    (folder / "broken.parquet").write_bytes(b"PAR1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ("people.csv", "--target", "income", "--drop", "pay", "--epochs", "1", *SMALL)
        assert call(patch, "fit", *words, "--out", "run") == 0
    return folder


def call(patch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command as a shell does, and return its exit code."""
    patch.setattr("sys.argv", ["flambeau", *words])
    with pytest.raises(SystemExit) as ended:
        run_command()
    return int(ended.value.code or 0)


TARGET = ("--target", "income")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "people.csv"), "No target is given. Name the column to predict: target='income'"),
        (("plan", "people.csv", "--target", "incme"), "Did you mean 'income'?"),
        (("plan", "people.csv", "--target", "pay,incme"), "no column 'incme'"),
        (("plan", "people.csv", *TARGET, "--kinds", "age"), "'age' is not COLUMN=KIND"),
        (("plan", "people.csv", *TARGET, "--kinds", "age=x"), "'x', which is no kind"),
        (("plan", "people.csv", *TARGET, "--drop", "nme"), "no column 'nme'"),
        (("plan", "people.csv", *TARGET, "--group", "income"), "is also the target"),
        (("plan", "lists.parquet", *TARGET), "Column 'tags' has the type list"),
        (("plan", "empty.csv", *TARGET), "empty.csv has no rows below its header"),
        (("plan", "single.csv", *TARGET), "All 1 labels are"),
        (("fit", "ids.csv", *TARGET, "--out", "mine"), "No column is left as an input: name (id:"),
        (("plan", "constant.csv", *TARGET), "All 80 labels are 'low'"),
        (("plan", "untargeted.csv", *TARGET), "missing in all 80 rows"),
        (("plan", "twice.csv", *TARGET), "several columns named 'age'"),
        (("plan", "ragged.csv", *TARGET), "ragged.csv (line 82) has 3 fields"),
        (("plan", "latin.csv", *TARGET), "latin.csv, line 2: byte 2 of the line is not UTF-8"),
        (("plan", "open.csv", *TARGET), "the row that starts in line 9 is not valid CSV"),
        (("plan", "broken.parquet", "--domain", "tabular", *TARGET), "is not a Parquet file"),
        (("predict", "run/model", "cityless.csv"), "cityless.csv: The table has no column 'city'"),
        (("predict", "run/model", "old.csv"), "Column 'age' is a number, but row 0 has the text"),
        (("predict", "run/model", "people.csv", "--out", "x.xlsx"), "must end in .csv"),
        (("predict", "run/model", "people.csv", "--keep", "nme", "--out", "x.csv"), "column 'nme'"),
        (("predict", "run/model", "people.csv", "--interval", "0.9"), "are not calibrated"),
        (("predict", "run/model", "none.csv"), "There is no file none.csv"),
        (("evaluate", "run/model", "cityless.csv"), "no column 'city'"),
    ],
)
def test_one_message_and_exit_code_2(
    words: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    code = call(monkeypatch, *words)
    shown = " ".join(capsys.readouterr().err.split())
    assert (code, message in shown) == (2, True), shown
    assert "Traceback" not in shown
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["comma.csv", "tabs.tsv", "lists.parquet"])
def test_other_dialects_and_unused_columns_give_the_same_predictions(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    wanted, found = tmp_path / "wanted.parquet", tmp_path / "found.parquet"
    assert call(monkeypatch, "predict", "run/model", "people.csv", "--out", str(wanted)) == 0
    assert call(monkeypatch, "predict", "run/model", name, "--out", str(found)) == 0
    assert pq.read_table(found).num_rows == N
    assert pq.read_table(found).equals(pq.read_table(wanted))


@pytest.mark.filterwarnings("default::flambeau.errors.FlambeauWarning")
def test_unseen_and_missing_cells_are_counted(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    out = str(tmp_path / "p.csv")
    assert call(monkeypatch, "predict", "run/model", "unseen.csv", "--out", out) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "categories that train does not have: 'city' 100.0%" in shown


def test_prices_are_a_finding_of_the_doctor(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    call(monkeypatch, "doctor", "prices.csv", *TARGET, *SMALL)
    assert "convert the column to numbers before" in " ".join(capsys.readouterr().out.split())


def test_several_targets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert call(monkeypatch, "plan", "people.csv", "--target", "pay, age") == 0
    assert "2 target columns of numbers in 80 rows" in " ".join(capsys.readouterr().out.split())
