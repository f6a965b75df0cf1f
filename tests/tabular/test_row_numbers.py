"""Rows in messages and reports have the numbers that they have in the table of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flambeau import Learner, Predictor, Split, TrainingOptions
from flambeau.errors import InputError
from flambeau_tabular import TabularData, TabularOptions
from flambeau_tabular.columns import parquet_files

N = 120
LEFT_OUT = [0, 1, 2, 10]
CHOICES = {"epochs": 1, "hidden": [4], "number_embedding": "none", "probe": "off"}


def table() -> pd.DataFrame:
    """Return rows of which four lack a target, so that later rows are moved by up to four."""
    draws = np.random.default_rng(0)
    frame = pd.DataFrame(draws.normal(size=(N, 3)), columns=["a", "b", "f"])
    frame["y"] = 10 * frame["a"]
    frame.loc[LEFT_OUT, "y"] = np.nan
    return frame


def learner(frame: pd.DataFrame, **arguments: Any) -> Learner:
    data = TabularData.from_df(frame, "y", **arguments)
    return Learner(data, choices=CHOICES, quiet=True, training=TrainingOptions(doctor=False))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "text in a column of numbers": (
        {"options": TabularOptions(kinds={"c": "number"})},
        "row 50 has the text 'bad'",
    ),
    "text in a column of dates": (
        {"options": TabularOptions(kinds={"d": "date"})},
        "row 50 has the text 'bad'",
    ),
    "a weight": ({"weight": "w"}, "-1 in row 50"),
    "an exposure": ({"options": TabularOptions(task="poisson", exposure="w")}, "-1 in row 50"),
    "a group": ({"group": "g"}, r"missing in 1 rows \(first in row 50\)"),
    "a target": ({"target": "t"}, "infinite in 1 rows, the first is row 50"),
    "one of several targets": ({"target": ["t", "s"]}, "infinite in 1 rows, the first is row 50"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_cell_has_the_row_of_the_users_table(case: str) -> None:
    arguments, message = BAD[case]
    arguments = dict(arguments)
    frame = table().assign(c="1.5", d="2020-01-31", w=1.0, g="x", t=1.5, s="yes")
    frame.loc[::2, ["c", "s"]] = ["2.5", "no"]
    frame.loc[50, ["c", "d", "w", "g", "t"]] = ["bad", "bad", -1.0, None, np.inf]
    target = arguments.pop("target", "y")
    frame.loc[LEFT_OUT, ["t", "s"]] = None
    with pytest.raises(InputError, match=message):
        data = TabularData.from_df(frame.assign(y=frame["y"].abs()), target, **arguments)
        data.preprocessor({"scaling": "robust", "min_count": 1, "out_of_range": "keep"})


def test_reports_name_the_row_of_the_users_table(tmp_path: Path) -> None:
    frame = table()
    frame.loc[77, "y"] = 1_000.0  # the highest loss
    made = learner(frame, split=Split.from_indices(range(60), range(60, N)))
    made.fit()
    found = made.interpret()
    top = found.top_losses(1)[0]
    assert (top.number, top.id) == (77, 73)
    assert "sample 77, loss" in str(top)
    page = found.report(tmp_path / "report.html").read_text()
    assert "<b>row 77</b>" in page
    # The rows with the highest loss have the numbers of the table, of which four are left out.
    worst = [each.number for each in found.top_losses(3)]
    assert [page.index(f"<b>row {row}</b>") for row in worst] == sorted(
        page.index(f"<b>row {row}</b>") for row in worst
    )


def test_the_doctor_names_the_rows_of_the_users_table() -> None:
    frame = table()
    frame.loc[100:110, ["a", "b", "f"]] = frame.loc[20:30, ["a", "b", "f"]].to_numpy()
    made = learner(frame, split=Split.from_indices(range(90), range(90, N)))
    code = "duplicates-across-parts"
    [finding] = [each for each in made.doctor().findings if each.code == code]
    assert "row 100 is train row 20" in finding.what


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_in_pieces_name_the_row_of_the_file(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = learner(table())
    made.fit()
    made.export(tmp_path / "model")
    frame = table()[["a", "b", "f"]].astype(str)
    frame.loc[93, "b"] = "bad"
    file = tmp_path / f"rows.{ending}"
    if ending == "csv":
        frame.to_csv(file, index=False)
        monkeypatch.setattr("flambeau_tabular.columns.csv_files._BLOCK_BYTES", 1_000)
    else:
        frame.to_parquet(file, row_group_size=40)
        # The pieces have 40 rows: row 93 is the fourteenth of the third.
        monkeypatch.setattr(parquet_files.iter_parquet_tables, "__defaults__", (40,))
    pieces = TabularData.tables_from_path(file)
    assert pieces is not None
    predictor = Predictor.load(tmp_path / "model")
    done: list[object] = []
    with pytest.raises(InputError, match=f"rows.{ending}: .*row 93 has the text 'bad'"):
        for piece in pieces:
            done.append(predictor.predict(piece))
    assert len(done) > 0
