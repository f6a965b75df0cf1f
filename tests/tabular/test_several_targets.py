"""Several targets of different kinds: read like single ones, and trained by one model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from flambeau import Learner, Predictor, TrainingOptions
from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau.task.combined import CombinedTask
from flambeau_tabular import TabularData, TabularOptions

N = 400
NAMES = ["churn", "amount", "ok"]
FAST = {"epochs": 2, "batch_size": 64, "hidden": [16], "number_embedding": "none"}


def table(*, complete: bool = False) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(N, 3))
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    frame["job"] = draws.choice(["clerk", "nurse", "cook"], N)
    churn = np.where(x[:, 0] + 0.3 * draws.normal(size=N) > 0, "yes", "no").astype(object)
    amount = 100 + 20 * x[:, 1] + 5 * draws.normal(size=N)
    ok = (x[:, 2] > 0).astype(float)
    if not complete:
        churn[::5], amount[::3], ok[1::4] = None, np.nan, np.nan
    return frame.assign(churn=churn, amount=amount, ok=ok)


def read(**options: Any) -> TabularData:
    return TabularData.from_df(table(), NAMES, options=TabularOptions(**options))


def learner(data: TabularData | None = None, **choices: Any) -> Learner:
    training = TrainingOptions(doctor=False)
    return Learner(data or read(), choices=FAST | choices, training=training, quiet=True)


# ---------------------------------------------------------------- reading


def test_each_target_is_read_like_a_single_one() -> None:
    data = read()
    kinds = {name: (each.kind, each.names) for name, each in data.several_targets.items()}
    assert kinds == {
        "churn": ("classification", ("no", "yes")),
        "amount": ("regression", ("amount",)),
        "ok": ("classification", ("0", "1")),
    }
    frame = table()
    none = frame[NAMES].isna().all(axis=1)
    assert len(data.frame) == N - none.sum()
    kept = frame[~none]
    codes = kept["churn"].map({"no": 0, "yes": 1}).fillna(-100).astype(int)
    assert data.several_targets["churn"].values.tolist() == codes.tolist()
    amounts = data.several_targets["amount"].values.double().numpy()
    np.testing.assert_allclose(amounts, kept["amount"].to_numpy(), rtol=1e-7)
    assert set(data.columns) == {"a", "b", "c", "job"}  # no target is an input
    assert "rows without a target are left out" in data.report()


@pytest.mark.parametrize(
    ("columns", "several"),
    [
        ({"y": [0, 1], "z": [True, False]}, False),
        ({"y": [0.5, 1.5], "z": [3, 4]}, False),
        ({"y": [0, 1], "z": [3.5, 4.0]}, True),
        ({"y": ["low", "high"], "z": [0, 1]}, True),
        ({"y": ["low", "high"], "z": ["red", "blue"]}, True),
    ],
)
def test_only_targets_of_different_kinds_or_texts_are_combined(
    columns: dict[str, list[Any]], several: bool
) -> None:
    frame = {"x": np.arange(40.0), **{name: values * 20 for name, values in columns.items()}}
    assert bool(TabularData.from_df(frame, list(columns)).several_targets) == several


def test_targets_of_one_kind_that_lack_cells_are_combined_on_request() -> None:
    frame = table()[["a", "amount", "b"]]
    frame.loc[5:9, "b"] = np.nan
    options = TabularOptions(task="combined")
    assert len(TabularData.from_df(frame, ["amount", "b"], options=options).several_targets) == 2
    note = TabularData.from_df(frame, ["amount", "b"]).report()
    assert "of them have others: TabularOptions(task='combined') uses them" in note


def test_tasks_and_classes_of_single_targets_can_be_given() -> None:
    data = read(target_tasks={"amount": "gamma"}, target_classes={"churn": ["yes", "no"]})
    assert data.several_targets["churn"].names == ("yes", "no")
    made = learner(data)
    assert made.plan.values["target_tasks"]["amount"] == "gamma"
    assert type(made.task.tasks["amount"]).__name__ == "Gamma"
    for task in ("quantile_regression", "poisson", "tweedie"):
        data = read(target_tasks={"amount": task})
        history = learner(data).fit(1)
        assert math.isfinite(history.rows[-1]["valid_amount_loss"])


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a task of no target": (NAMES, {"target_tasks": {"amunt": "gamma"}}, "Did you mean 'amount'"),
    "an unknown task": (NAMES, {"target_tasks": {"amount": "gama"}}, "Did you mean 'gamma'"),
    "text as numbers": (NAMES, {"target_tasks": {"churn": "regression"}}, "target 'churn'"),
    "classes of one": (NAMES, {"classes": ["no", "yes"]}, "target_classes="),
    "costs": (NAMES, {"costs": {"false_positive": 1, "false_negative": 2}}, "costs= is for a si"),
    "one target": ("churn", {"target_tasks": {"churn": "classification"}}, "are for several"),
    "two tasks": (NAMES, {"task": "regression", "target_tasks": {"ok": "regression"}}, "Omit task"),
    "constant": (["churn", "job", "one"], {}, "target 'one': All 400 labels are 'x'"),
}


@pytest.mark.parametrize("case", BAD)
def test_options_that_do_not_fit_are_refused(case: str) -> None:
    target, options, message = BAD[case]
    frame = table().assign(one="x")
    with pytest.raises((InputError, PlanError), match=message):
        data = TabularData.from_df(frame, target, options=TabularOptions(**options))
        assert learner(data).task


def test_stratify_and_targets_of_one_kind_are_refused() -> None:
    with pytest.raises(ArgumentError, match="there are several targets"):
        TabularData.from_df(table(), NAMES, stratify=True)
    with pytest.raises(InputError, match="Read them by name"):
        _ = read().targets


# ---------------------------------------------------------------- plan


def test_the_plan_shows_each_target_and_how_to_change_it() -> None:
    plan = learner().plan
    assert plan.values["task"] == "combined"
    assert plan.values["target_tasks"] == {
        "churn": "classification",
        "amount": "regression",
        "ok": "classification",
    }
    text = " ".join(str(plan).split())
    assert "missing in" in plan["target_tasks"].reason
    assert "--target-tasks amount=gamma" in text
    assert plan.values["targets"] == {"churn": "labels", "amount": "standard", "ok": "labels"}
    single = Learner(TabularData.from_df(table(), "churn"), quiet=True).plan
    assert single.values["target_tasks"] is None
    assert single.values["loss_factors"] is None


def test_scales_and_factors_are_choices() -> None:
    ways = {"churn": "labels", "amount": "log", "ok": "labels"}
    made = learner(targets=ways, loss_factors={"amount": 0.25})
    assert isinstance(made.task, CombinedTask)
    assert made.task.loss_factors == {"churn": 1.0, "amount": 0.25, "ok": 1.0}
    assert made.task.tasks["amount"].target_log == "log"
    for wrong in ({"loss_factors": {"amount": -1}}, {"loss_factors": {"x": 1}}, {"targets": "log"}):
        with pytest.raises(PlanError):
            _ = learner(**wrong).plan


def test_statistics_are_those_of_the_train_rows_that_have_the_target() -> None:
    made = learner()
    frame = table()
    kept = frame[~frame[NAMES].isna().all(axis=1)].iloc[made.data.split.train]
    task: Any = made.task.tasks["amount"]
    assert task.mean == pytest.approx([kept["amount"].mean()], rel=1e-6)
    assert task.std == pytest.approx([kept["amount"].std(ddof=0)], rel=1e-6)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("architecture", ["mlp", "tabm"])
def test_one_model_learns_all_targets(architecture: str) -> None:
    made = Learner(
        read(),
        architecture,
        choices={"epochs": 12, "batch_size": 64, "hidden": [64]},
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    row = made.fit().rows[-1]
    assert row["valid_churn_auroc"] > 0.9
    assert row["valid_ok_accuracy"] > 0.85
    assert row["valid_amount_r2"] > 0.6
    losses = [row[f"valid_{name}_loss"] for name in NAMES]
    assert row["valid_loss"] == pytest.approx(sum(losses), rel=1e-6)


def test_scores_are_those_of_the_rows_that_have_the_target() -> None:
    made = learner()
    made.fit()
    scores = made.evaluate("valid")
    frame = table()
    kept = frame[~frame[NAMES].isna().all(axis=1)].iloc[made.data.split.valid]
    found = made.predict(kept)
    has = kept["churn"].notna()
    assert scores["churn_accuracy"] == pytest.approx(
        (found["churn.label"] == kept["churn"])[has].mean(), abs=1e-6
    )
    error = (found["amount"] - kept["amount"]).abs()
    assert scores["amount_mae"] == pytest.approx(error.mean(), rel=1e-5)


def test_a_step_does_not_depend_on_its_micro_batches() -> None:
    weights = []
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for batch_size, accumulate in ((64, 1), (16, 4)):
            choices = {"batch_size": batch_size, "accumulate": accumulate, "head": {"dropout": 0.0}}
            made = learner(read(), **choices, precision="fp32")
            made.model.inputs.categories.unknown_dropout = 0.0
            made.fit(2)
            weights.append([p.detach().clone() for p in made.model.parameters()])
    finally:
        torch.set_default_dtype(default)
    assert weights[0][0].dtype == torch.float64
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- predictions


def test_predictions_are_typed_columns_of_each_target(tmp_path: Path) -> None:
    made = learner()
    made.fit(1)
    frame = table(complete=True).head(4).assign(ok=True)
    found = made.predict(frame)
    assert list(found) == [
        "churn.label", "churn.probability", "churn.no", "churn.yes",
        "amount", "ok.label", "ok.probability", "ok.0", "ok.1",
    ]  # fmt: skip
    assert found["ok.label"].dtype.kind == "f"  # as in the column of the table
    one = made.predict(frame.iloc[0].to_dict())
    assert one["churn"].label == found["churn.label"].iloc[0]
    assert one["amount"].value == pytest.approx(found["amount"].iloc[0], rel=1e-6)
    made.export(tmp_path / "model")
    pd.testing.assert_frame_equal(Predictor.load(tmp_path / "model").predict(frame), found)


def test_an_export_reads_further_tables_alike(tmp_path: Path) -> None:
    data = read(target_classes={"churn": ["yes", "no"]}, target_tasks={"amount": "gamma"})
    made = learner(data)
    made.fit(1)
    made.export(tmp_path / "model")
    options = TabularOptions(like=tmp_path / "model")
    again = TabularData.from_df(table(), options=options)
    assert again.several_targets["churn"].names == ("yes", "no")
    assert again.options.target_tasks == {
        "churn": "classification", "amount": "gamma", "ok": "classification",
    }  # fmt: skip
    started = Learner(again, start=tmp_path / "model", choices={"epochs": 1}, quiet=True)
    assert math.isfinite(started.fit().rows[-1]["valid_loss"])


def test_the_doctor_and_the_report_read_each_target(tmp_path: Path) -> None:
    frame = table().assign(copy=lambda each: each["amount"].fillna(0) * 2)
    options = TabularOptions(target_tasks={"amount": "gamma"}, target_classes={"ok": ["1", "0"]})
    made = learner(TabularData.from_df(frame, NAMES, options=options))
    findings = made.doctor().findings
    leaks = [each for each in findings if each.code == "leaking-column"]
    assert [each.evidence["column"] for each in leaks] == ["copy"]
    assert not [each for each in findings if each.code == "check-crashed"]
    made.fit(1)
    page = made.interpret().report(tmp_path / "report.html").read_text()
    assert "churn accuracy" in page


# ---------------------------------------------------------------- command line


def run(*words: object) -> None:
    build_app()([str(word) for word in words], standalone_mode=False)


def test_several_targets_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "people.csv", tmp_path / "run"
    table().to_csv(path, index=False)
    words = ("--target", "churn,amount,ok", "--target-tasks", "amount=gamma")
    run("fit", path, *words, "--epochs", 1, "--out", out)
    capsys.readouterr()
    run("evaluate", out, path, "--json")
    scores = json.loads(capsys.readouterr().out)
    assert {"churn_accuracy", "amount_gamma_deviance", "ok_auroc"} <= set(scores)
    run("predict", out, path, "--out", tmp_path / "predictions.csv")
    found = pd.read_csv(tmp_path / "predictions.csv")
    assert {"churn.label", "amount", "ok.1"} <= set(found)
    assert len(found) == N
    with pytest.raises(ArgumentError, match="is not COLUMN=TASK"):
        run("plan", path, "--target", "churn,amount", "--target-tasks", "gamma")
