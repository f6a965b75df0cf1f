"""``CombinedTask``: several targets with different missing rows, against sums written out."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau import Batch, Learner, Predictor, Task, TensorData, TrainingOptions
from flambeau.data.prediction_columns import fields_of
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, FlambeauWarning, InputError, NonFiniteError
from flambeau.task import Classification, Regression
from flambeau.task.combined import CombinedTask
from flambeau.task.task import StepContext

N, N_TRAIN = 60, 40
DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(N, 5, generator=DRAWS, dtype=torch.float64)
CLASSES = torch.where(torch.arange(N) % 7 == 2, -100, (X[:, 0] > 0).long())
HOURS = X[:, 1] * 3 + 40
HOURS[torch.arange(N) % 3 == 0] = torch.nan
HOURS[20:30] = torch.nan  # whole micro-batches without a target
WEIGHTS = torch.rand(N, generator=DRAWS, dtype=torch.float64) + 0.5
FACTORS = {"income": 1.0, "hours": 0.25}


def combined(**arguments: Any) -> CombinedTask:
    tasks = {
        "income": Classification(["low", "high"], ignore_index=-100),
        "hours": Regression(["hours"], mean=40.0, std=3.0, ignore_nan=True),
    }
    return CombinedTask(tasks, FACTORS, **arguments)


def data(**arguments: Any) -> TensorData:
    split = Split.from_indices(range(N_TRAIN), range(N_TRAIN, N))
    return TensorData.from_tensors(X, {"income": CLASSES, "hours": HOURS}, split=split, **arguments)


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


class Heads(nn.Module):
    """The network of ``net``, with an output for each target."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = self.net(x)
        return {"hours": out[:, 2], "income": out[:, :2]}  # another order than the task's


def learner(task: Task | None = None, model: nn.Module | None = None, **arguments: Any) -> Learner:
    choices = {"batch_size": 40, "optimizer": "sgd", "weight_decay": 0.0}
    options = arguments.pop("training", TrainingOptions(doctor=False))
    given = arguments.pop("data", None)
    return Learner(
        data() if given is None else given,
        model or net(),
        task=task or combined(),
        choices=choices | arguments.pop("choices", {}),
        training=options,
        quiet=True,
        **arguments,
    )


def by_hand(out: Tensor, rows: Any, weights: Tensor | None = None) -> dict[str, Tensor]:
    """The losses of ``combined``, from the rows that have the target."""
    w = torch.ones(N).double() if weights is None else weights
    classes, hours, w = CLASSES[rows], HOURS[rows], w[rows]
    has, known = classes >= 0, ~hours.isnan()
    income = F.cross_entropy(out[has, :2], classes[has], reduction="none")
    error = out[known, 2] - (hours[known] - 40) / 3
    losses = {
        "income": (income * w[has]).sum() / w[has].sum(),
        "hours": (error.square() * w[known]).sum() / w[known].sum(),
    }
    return losses | {"loss": losses["income"] + 0.25 * losses["hours"]}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_scores_are_means_over_the_rows_with_the_target(weights: Tensor | None) -> None:
    model = net()
    batches = [
        Batch(
            {"input": X[rows]},
            {"hours": HOURS[rows], "income": CLASSES[rows]},
            sample_weight=None if weights is None else weights[rows],
        )
        for rows in torch.arange(N).split(13)
    ]
    with torch.no_grad():
        found = combined().evaluate(model, batches, StepContext("evaluate"))
        out = model(X)
    expected = by_hand(out, slice(None), weights)
    assert found["loss"] == pytest.approx(float(expected["loss"]), rel=1e-13)
    assert found["income_loss"] == pytest.approx(float(expected["income"]), rel=1e-13)
    assert found["hours_loss"] == pytest.approx(float(expected["hours"]), rel=1e-13)
    has, known = CLASSES >= 0, ~HOURS.isnan()
    w = torch.ones(N).double() if weights is None else weights
    right = (out[has, :2].argmax(1) == CLASSES[has]).double()
    assert found["income_accuracy"] == pytest.approx(float((right * w[has]).sum() / w[has].sum()))
    error = (out[known, 2] * 3 + 40 - HOURS[known]).abs()
    assert found["hours_mae"] == pytest.approx(float((error * w[known]).sum() / w[known].sum()))
    names = ["loss", "income_loss", "hours_loss", "income_accuracy", "hours_mae", "hours_rmse"]
    assert list(found) == [*names, "hours_r2"]
    assert combined().score_modes() == {
        **dict.fromkeys(names, "min"),
        **dict.fromkeys(["income_accuracy", "hours_r2"], "max"),
    }


def trained(task: Task, model: nn.Module, size: int, accumulate: int, **more: Any) -> Learner:
    run = learner(
        task,
        model,
        training=TrainingOptions(doctor=False, accumulate=accumulate, keep_best="valid_loss"),
        choices={"batch_size": size},
        **more,
    )
    run.fit(5, lr=0.3, schedule="constant")
    return run


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_steps_equal_those_of_one_big_batch_written_out(weights: Tensor | None) -> None:
    """Micro-batches of 10 rows, of which one has no target of "hours"."""
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.3)
    expected = []
    for _ in range(5):
        losses = by_hand(model(X[:N_TRAIN]), slice(0, N_TRAIN), weights)
        sgd.zero_grad()
        losses["loss"].backward()
        sgd.step()
        expected.append({name: float(loss.detach()) for name, loss in losses.items()})
    given = data(sample_weight=weights)
    for size, accumulate in ((40, 1), (10, 4), (7, 6)):
        run = trained(combined(), net(), size, accumulate, data=given)
        rows = run.history.rows
        assert len(run.history.step_losses) == 5
        for row, mine, theirs in zip(rows, run.history.step_losses, expected, strict=True):
            assert mine == pytest.approx(theirs["loss"], rel=1e-12)
            assert row["train_loss"] == pytest.approx(theirs["loss"], rel=1e-12)
            assert row["train_income_loss"] == pytest.approx(theirs["income"], rel=1e-12)
            assert row["train_hours_loss"] == pytest.approx(theirs["hours"], rel=1e-12)
        best = min(row["valid_loss"] for row in rows)
        assert run.evaluate()["loss"] == pytest.approx(best, rel=1e-12)
        if best == rows[-1]["valid_loss"]:
            for mine, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_the_loss_of_an_epoch_weighs_each_target_by_its_own_rows() -> None:
    """Steps with few targets count less in the mean of that target."""
    run = trained(combined(), net(), 10, 1)
    for row in run.history.rows:
        whole = row["train_income_loss"] + 0.25 * row["train_hours_loss"]
        assert row["train_loss"] == pytest.approx(whole, rel=1e-12)


def test_a_mapping_of_outputs_equals_one_tensor() -> None:
    one, other = trained(combined(), net(), 10, 4), trained(combined(), Heads(), 10, 4)
    assert list(one.history.step_losses) == list(other.history.step_losses)
    assert one.evaluate() == other.evaluate()
    inputs = X[:3].float().double()
    assert one.predict(inputs) == other.predict(inputs)


def test_other_optimizers_use_the_same_loss() -> None:
    options = TrainingOptions(doctor=False, optimizer=torch.optim.LBFGS)
    run = learner(training=options, choices={"optimizer": "LBFGS"})
    run.fit(3, lr=0.5)
    losses = list(run.history.step_losses)
    assert losses[0] == pytest.approx(
        float(by_hand(net()(X[:N_TRAIN]), slice(0, N_TRAIN))["loss"].detach()), rel=1e-12
    )
    assert losses[-1] < losses[0]


def test_an_export_contains_the_tasks(tmp_path: Path) -> None:
    split = Split.from_indices(range(N_TRAIN), range(N_TRAIN, 50), (), range(50, N))
    given = TensorData.from_tensors(X, {"income": CLASSES, "hours": HOURS}, split=split)
    torch.manual_seed(0)
    run = learner(combined(), nn.Linear(5, 3).double(), data=given)
    run.fit(20, lr=0.1)
    result = run.calibrate()
    assert list(result.values) == ["income"]
    folder = run.export(tmp_path / "export")
    stored = json.loads((folder / "flambeau.json").read_text())["task"]
    assert stored["builder"] == "combined"
    assert stored["arguments"]["factors"] == FACTORS
    hours = stored["arguments"]["tasks"]["hours"]
    assert hours["name"] == "regression"
    assert hours["arguments"]["ignore_nan"] is True
    loaded = Predictor.load(folder, model=nn.Linear(5, 3).double())
    assert isinstance(loaded.task, CombinedTask)
    assert loaded.task.calibration == run.task.calibration == result.values
    assert loaded.task.output_names == ("income.low", "income.high", "hours.hours")
    expected = run.predict(X[:4])
    assert loaded.predict(X[:4]) == expected
    assert list(expected[0]) == ["income", "hours"]
    first = fields_of(expected[0])
    assert first["income.label"] == expected[0]["income"].label
    assert first["hours"] == expected[0]["hours"].value
    z = run.model(X[:1])[0].detach() / torch.tensor([result.values["income"]["temperature"]] * 3)
    assert expected[0]["income"].probabilities["low"] == pytest.approx(float(z[:2].softmax(0)[0]))
    run.fit(1, lr=0.1)
    assert not run.task.calibration  # training changes the weights


def test_a_copy_has_its_own_calibration() -> None:
    task = combined()
    other = copy.copy(task)
    other.calibration = {"income": {"temperature": 2.0}}
    assert not task.calibration
    assert copy.deepcopy(other).calibration == {"income": {"temperature": 2.0}}
    assert combined(calibration=other.calibration).calibration == other.calibration
    with pytest.raises(ArgumentError, match="calibration has 'age'"):
        combined(calibration={"age": {}})


class Logging(Regression):
    """Logs a value, and has a parameter of its own."""

    def __init__(self) -> None:
        super().__init__(["hours"], mean=40.0, std=3.0, ignore_nan=True)
        self.shift = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        self.log(batch, shift=self.shift * 2)
        return super().loss(outputs + self.shift, batch)


def test_tasks_log_values_and_train_their_parameters() -> None:
    tasks: dict[str, Task] = {"income": combined().tasks["income"], "hours": Logging()}
    task = CombinedTask(tasks)
    run = learner(task)
    run.fit(2, lr=0.1)
    shift = task.tasks["hours"].shift  # pyright: ignore[reportAttributeAccessIssue]
    assert float(shift.detach()) != 0
    assert run.history.rows[0]["train_hours_shift"] == 0
    assert run.history.rows[1]["train_hours_shift"] != 0
    assert "valid_hours_shift" in run.history.rows[0]


class WeightOfOutputs(Regression):
    """Its weight is known only after the forward pass."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        total, weight = super().loss(outputs, batch)
        return total * (1 + 0 * outputs.sum()), torch.as_tensor(weight) * 1.0


def test_a_weight_that_only_the_loss_knows_needs_single_batches() -> None:
    tasks: dict[str, Task] = {
        "income": combined().tasks["income"],
        "hours": WeightOfOutputs(["hours"], ignore_nan=True),
    }
    run = learner(CombinedTask(tasks))
    run.fit(1, lr=0.01)
    with pytest.raises(ArgumentError, match=r"'hours' of CombinedTask.*Define target_weight"):
        trained(CombinedTask(tasks), net(), 10, 4)


class Wrong(Regression):
    """Promises another weight than its loss returns."""

    def target_weight(self, batch: Batch) -> float:
        return 1.0


def test_a_wrong_promise_is_refused_before_the_first_step() -> None:
    tasks = {"income": combined().tasks["income"], "hours": Wrong(["hours"], ignore_nan=True)}
    with pytest.raises(InputError, match=r"Wrong.target_weight returns the weight 1 for"):
        learner(CombinedTask(tasks)).fit(1, lr=0.1)


def test_a_target_that_no_row_has_is_refused() -> None:
    y = {"income": CLASSES, "hours": torch.full((N,), torch.nan).double()}
    split = Split.from_indices(range(N_TRAIN), range(N_TRAIN, N))
    run = learner(data=TensorData.from_tensors(X, y, split=split))
    with (
        pytest.warns(FlambeauWarning, match=r"\[undefined-score\] hours_loss, hours_mae"),
        pytest.raises(InputError, match=r"No train sample has a target 'hours'"),
    ):
        run.fit(1, lr=0.1)


def test_a_step_without_any_target_changes_nothing() -> None:
    """The rows of the last step of each epoch have no targets."""
    x, y = X[:20], {"income": CLASSES[:20].clone(), "hours": HOURS[:20].clone()}
    y["income"][10:], y["hours"][10:] = -100, torch.nan
    parts = [
        [
            Batch({"input": x[r]}, {k: v[r] for k, v in y.items()})
            for r in (slice(0, 10), slice(10, 20))
        ],
        [Batch({"input": X[40:]}, {"income": CLASSES[40:], "hours": HOURS[40:]})],
    ]
    run = learner(data=TensorData.from_loaders(parts[0], parts[1]), choices={"batch_size": 10})
    with pytest.warns(FlambeauWarning, match=r"\[steps-without-targets\] 1 of the 2 steps"):
        run.fit(1, lr=0.1)
    first, last = run.history.step_losses
    assert math.isfinite(first)
    assert math.isnan(last)
    assert run.history.rows[0]["train_loss"] == pytest.approx(first, rel=1e-12)


def test_a_missing_target_that_the_task_does_not_ignore_ends_the_run() -> None:
    tasks = {"income": combined().tasks["income"], "hours": Regression(["hours"])}
    with pytest.raises(NonFiniteError, match=r"the target 'hours' has a NaN"):
        learner(CombinedTask(tasks)).fit(1, lr=0.1)
    with pytest.raises(InputError, match=r"'hours' contains NaN or infinity"):
        y = {"income": CLASSES, "hours": torch.where(HOURS.isnan(), torch.inf, HOURS)}
        TensorData.from_tensors(X, y)


def test_wrong_outputs_and_targets_are_named() -> None:
    task = combined()
    batch = Batch({"input": X}, {"income": CLASSES, "age": HOURS})
    with pytest.raises(InputError, match=r"no target 'hours', only income, age"):
        task.loss(torch.zeros(N, 3), batch)
    with pytest.raises(InputError, match=r"tensor of shape \(60, 4\).*income 2, hours 1"):
        task.decode(torch.zeros(N, 4))
    with pytest.raises(InputError, match=r"outputs for income, but the tasks are income, hours"):
        task.decode({"income": torch.zeros(N, 2)})
    labels = torch.where(CLASSES == 1, 2, CLASSES)
    run = learner(data=TensorData.from_tensors(X, {"income": labels, "hours": HOURS}))
    with pytest.raises(InputError, match=r"'income' contains 2, but there are 2 classes"):
        run.fit(1, lr=0.1)


class Shifted(Regression):
    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        return model(batch.input) + 1


def test_arguments_are_checked() -> None:
    one = Regression(["a"])
    with pytest.raises(ArgumentError, match=r"'a' \(Shifted\) overrides forward"):
        CombinedTask({"a": Shifted(["a"])})
    with pytest.raises(ArgumentError, match=r"factors has 'b', but the tasks are a"):
        CombinedTask({"a": one}, {"b": 1.0})
    with pytest.raises(InputError, match=r"factor of 'a' is 0.0, but must be finite and above 0"):
        CombinedTask({"a": one}, {"a": 0})
    with pytest.raises(InputError, match="no tasks"):
        CombinedTask({})
    with pytest.raises(ArgumentError, match="must be a Task"):
        CombinedTask({"a": Regression})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="several losses itself"):
        CombinedTask({"a": CombinedTask({"b": one})})
    named = Regression(["x"], metrics={"b_mae": Regression().metrics()["mae"]})
    with pytest.raises(InputError, match="Two scores would have the name 'a_b_mae'"):
        CombinedTask({"a": named, "a_b": Regression(["x"], metrics=["mae"])})
    with pytest.raises(ArgumentError, match="ignore_nan=True is for one name, but there are 2"):
        Regression(["a", "b"], ignore_nan=True)


class TwoLosses(Task):
    """Two losses of a user: one for each sample, one for the samples of class 1."""

    loss_factors = MappingProxyType({"all": 1.0, "some": 2.0})

    def losses(self, outputs: Any, batch: Batch) -> dict[str, tuple[Tensor, Tensor | float]]:
        each = outputs.squeeze(1).square()
        chosen = batch.target == 1
        return {"some": ((each * chosen).sum(), chosen.sum()), "all": (each.sum(), len(batch))}

    def loss_weights(self, batch: Batch) -> dict[str, Tensor | float | None]:
        return {"all": float(len(batch)), "some": (batch.target == 1).sum()}


def test_a_task_of_a_user_has_several_losses() -> None:
    y = (torch.arange(N) % 4 == 0).long()
    split = Split.from_indices(range(N_TRAIN), range(N_TRAIN, N))
    losses = []
    for size, accumulate in ((40, 1), (10, 4)):
        torch.manual_seed(0)
        run = learner(
            TwoLosses(),
            nn.Linear(5, 1).double(),
            data=TensorData.from_tensors(X, y, split=split),
            training=TrainingOptions(doctor=False, accumulate=accumulate),
            choices={"batch_size": size},
        )
        run.fit(3, lr=0.1, schedule="constant")
        losses.append(list(run.history.step_losses))
        assert run.evaluate()["some_loss"] == run.history.rows[-1]["valid_some_loss"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    torch.manual_seed(0)
    out = nn.Linear(5, 1).double()(X[:N_TRAIN]).squeeze(1).square()
    expected = out.mean() + 2 * out[y[:N_TRAIN] == 1].mean()
    assert losses[0][0] == pytest.approx(float(expected.detach()), rel=1e-12)


def test_wrong_names_of_losses_are_refused() -> None:
    class Forgets(TwoLosses):
        def losses(self, outputs: Any, batch: Batch) -> dict[str, tuple[Tensor, Tensor | float]]:
            return {"all": super().losses(outputs, batch)["all"]}

    batch = Batch({"input": X}, {"target": CLASSES})
    with pytest.raises(ArgumentError, match=r"losses returned all, but loss_factors has all, some"):
        Forgets().loss(torch.zeros(N, 1), batch)
