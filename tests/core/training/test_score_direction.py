"""Whether smaller or larger scores are better: the metric says it, a name is no evidence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import (
    Callback,
    Classification,
    EarlyStopping,
    Learner,
    ReduceOnPlateau,
    TensorData,
    TrainingOptions,
    TrainState,
)
from flambeau.errors import ArgumentError, InputError
from flambeau.task import MeanAbsoluteError, Metric, Regression, SumMetric
from flambeau.task.registered import METRICS
from flambeau.tuning.auto_run import AutoRun

LOWER = ["wer", "nll", "brier", "fid", "ece", "mape", "cer", "ter", "crps", "eer", "rate", "bpc"]


class Scripted:
    """A metric with given values, one for each evaluation."""

    script: Sequence[float] = ()
    n_computed = 0

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Ignore the batch."""

    def reset(self) -> None:
        """Keep the position in the script."""

    def compute(self) -> float:
        type(self).n_computed += 1
        return self.script[type(self).n_computed - 1]


def scripted(values: Sequence[float], **attributes: Any) -> Metric:
    return type("Own", (Scripted,), {"script": values, **attributes})()


class Weights(Callback):
    """Keeps the weights of every epoch."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def on_epoch_end(self, state: TrainState) -> None:
        self.kept.append(next(state.model.parameters()).detach().clone())


def learner(metrics: dict[str, Metric], callbacks: Sequence[Any] = (), **options: Any) -> Learner:
    return learner_of(Classification(["a", "b"], metrics=metrics), 0.2, callbacks, **options)


def learner_of(
    task: Any, valid: float = 0.2, callbacks: Sequence[Any] = (), **options: Any
) -> Learner:
    torch.manual_seed(0)
    x = torch.randn(40, 6)
    return Learner(
        TensorData.from_tensors(x, torch.arange(40) % 2, valid=valid),
        nn.Linear(6, 2),
        task=task,
        training=TrainingOptions(doctor=False, **options),
        callbacks=callbacks,
        choices={"probe": "off", "lr": 0.1},
        quiet=True,
    )


@pytest.mark.parametrize("name", LOWER)
@pytest.mark.parametrize("higher", [False, True])
def test_keep_best_follows_the_metric(name: str, higher: bool) -> None:
    seen = Weights()
    metric = scripted([0.5, 0.2, 0.9], higher_is_better=higher)
    run = learner({name: metric}, [seen], keep_best=f"valid_{name}")
    run.fit(3)
    assert torch.equal(next(run.model.parameters()), seen.kept[2 if higher else 1])


@pytest.mark.parametrize(
    "wanted",
    [
        {"keep_best": "valid_wer"},
        {"callbacks": [EarlyStopping("valid_wer")]},
        {"callbacks": [EarlyStopping("valid_wer", restore_best=False)]},
        {"controllers": (ReduceOnPlateau("valid_wer"),)},
    ],
)
def test_an_unknown_direction_is_refused_before_the_run(wanted: dict[str, Any]) -> None:
    run = learner({"wer": scripted([1.0])}, **wanted)
    with pytest.raises(ArgumentError, match=r"'valid_wer', but .*higher_is_better = True or False"):
        run.fit(1)
    assert not run.history.rows


def test_without_a_comparison_no_direction_is_needed() -> None:
    assert learner({"wer": scripted([1.0])}).fit(1).column("valid_wer") == [1.0]


@pytest.mark.parametrize(("higher", "epochs"), [(False, 4), (True, 2)])
def test_early_stopping_follows_the_metric(higher: bool, epochs: int) -> None:
    metric = scripted([0.5, 0.4, 0.3, 0.2], higher_is_better=higher)
    run = learner({"wer": metric}, [EarlyStopping("valid_wer", patience=1)])
    assert len(run.fit(4).rows) == epochs


@pytest.mark.parametrize(("higher", "lr"), [(False, [0.1, 0.1, 0.1]), (True, [0.1, 0.1, 0.05])])
def test_a_plateau_follows_the_metric(higher: bool, lr: list[float]) -> None:
    metric = scripted([0.5, 0.4, 0.3], higher_is_better=higher)
    run = learner({"wer": metric}, controllers=(ReduceOnPlateau("valid_wer", 0.5, 0),))
    assert run.fit(3, schedule="constant").column("lr") == pytest.approx(lr)


def test_fit_auto_follows_the_metric() -> None:
    auto = AutoRun(1.0)
    for name, mode in (("brier", "min"), ("log_loss", "min"), ("macro_f1", "max")):
        auto.choose_monitor(Classification(["a", "b"], metrics=[name]), has_valid=True)
        assert (auto.monitor, auto.mode) == (f"valid_{name}", mode)
    own = Classification(["a", "b"], metrics={"wer": scripted([1.0])})
    with pytest.raises(ArgumentError, match="'valid_wer', but it is not known"):
        auto.choose_monitor(own, has_valid=True)


def test_every_metric_of_core_says_its_direction() -> None:
    lower = {"brier", "log_loss", "mae", "rmse", "mean_loss", "cost", "deviance", "pinball"}
    needed = {
        "cost": {"false_positive": 1.0, "false_negative": 2.0},
        "pinball": {"quantiles": [0.1, 0.5]},
    }
    for name, make in METRICS.items():
        metric = make(**needed.get(name, {}))
        if name in ("coverage", "width"):  # neither a wide nor a narrow interval is better
            assert metric.higher_is_better is None
        elif name != "confusion_matrix":
            is_lower = any(word in name for word in lower)
            assert getattr(metric, "higher_is_better", None) is (not is_lower), name
    assert Regression(metrics=["mae", "r2"]).score_modes() == {
        "loss": "min",
        "mae": "min",
        "r2": "max",
    }


def test_the_attribute_must_be_a_bool() -> None:
    class OtherError(MeanAbsoluteError):
        higher_is_better = "no"  # type: ignore[assignment]

    with pytest.raises(ArgumentError, match="higher_is_better is 'no', but must be True"):
        learner({"other": OtherError()}).fit(1)
    assert SumMetric.higher_is_better is None


# ---------------------------------------------------------------- one choice of the best epoch


@pytest.mark.parametrize(
    ("keep_best", "callbacks"),
    [
        ("valid_up", [EarlyStopping("valid_loss")]),
        ("valid_loss", [EarlyStopping("valid_loss", mode="max")]),
        (None, [EarlyStopping("valid_loss"), EarlyStopping("valid_up")]),
        (None, [EarlyStopping("valid_up"), EarlyStopping("valid_up", mode="min")]),
    ],
)
def test_two_different_choices_of_the_best_epoch_are_refused(
    keep_best: str | None, callbacks: list[EarlyStopping]
) -> None:
    run = learner({"up": scripted([1.0], higher_is_better=True)}, callbacks, keep_best=keep_best)
    with pytest.raises(ArgumentError, match=r"both select the epoch.*restore_best=False"):
        run.fit(1)
    with pytest.raises(ArgumentError, match="both select the epoch"):
        run.fit_auto(0.01)


@pytest.mark.parametrize("stop", ["valid_loss", "valid_up"])
def test_early_stopping_ends_the_run_and_keep_best_selects(stop: str) -> None:
    seen, up = Weights(), scripted([0.5, 0.9, 0.1, 0.2], higher_is_better=True)
    ends = EarlyStopping(stop, patience=2, restore_best=stop == "valid_up")
    run = learner({"up": up}, [seen, ends], keep_best="valid_up")
    run.fit(4)
    assert len(seen.kept) >= 3
    assert torch.equal(next(run.model.parameters()), seen.kept[1])


def test_fit_auto_selects_by_keep_best() -> None:
    auto = AutoRun(1.0)
    task = Classification(["a", "b"], metrics=["accuracy", "brier"])
    auto.choose_monitor(task, has_valid=True, chosen=("valid_brier", "min"))
    assert (auto.monitor, auto.mode) == ("valid_brier", "min")
    auto.choose_monitor(task, has_valid=False, chosen=("train_loss", "min"))
    assert auto.monitor is None


def test_scores_of_a_task_have_the_direction_min_or_max() -> None:
    class Own(Classification):
        modes: Any = None

        def score_modes(self) -> Any:
            return self.modes

    task = Own(["a", "b"])
    for modes, message in (
        (
            {"loss": "min", "error": "lower"},
            "returned 'lower' for 'error'. Return \"min\"",
        ),
        ({"error": False}, r"returned False for 'error'"),
        (None, r"score_modes\(\) returned None. Return a dict"),
    ):
        task.modes = modes
        with pytest.raises(ArgumentError, match=message):
            learner_of(task).fit(1)
    metric = scripted([1.0], higher_is_better=np.bool_(False))
    assert learner({"wer": metric}).task.score_modes()["wer"] == "min"


def test_a_plateau_without_its_column_is_refused_before_the_run() -> None:
    one = learner_of(Classification(["a", "b"]), 0, (), controllers=(ReduceOnPlateau(),))
    with pytest.raises(InputError, match="monitors 'valid_loss', but the data have no valid part"):
        one.fit(1)
    assert not one.history.step_losses
