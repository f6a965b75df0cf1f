"""Values that a task or a train step logs: columns of the history, averaged by weight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Callback, EarlyStopping, Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, FlambeauWarning
from flambeau.task import Regression, Task
from flambeau.training import StepResult

N, SIZE = 21, 8  # batches of 8, 8 and 5 samples


def rows() -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1, 2, N + 10, dtype=torch.float64).unsqueeze(1)
    return x, x[:, 0] ** 2


class Logging(Regression):
    """Logs the mean input of a batch, which does not depend on the model."""

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
        self.log(batch, mean_input=batch.input.mean(), samples=len(batch))
        return super().loss(outputs, batch)

    def host_weight(self, batch: Batch) -> float | None:
        return float(len(batch))


def learner(
    task: Task | None = None, folder: Path | None = None, *callbacks: Callback, **options: Any
) -> Learner:
    x, y = rows()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0)).double()
    return Learner(
        TensorData.from_tensors(x, y, valid=10),
        model,
        task=task or Logging(["y"]),
        choices={"batch_size": SIZE, "lr": 0.01, **options.pop("choices", {})},
        callbacks=callbacks,
        folder=folder,
        quiet=options.pop("quiet", True),
        training=TrainingOptions(doctor=False, **options),
    )


def part_mean(run: Learner, part: str) -> float:
    x, _ = rows()
    return float(x[torch.as_tensor(run.data.split.part(part))].mean())


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_the_mean_over_train_and_valid_weighs_the_batches(accumulate: int) -> None:
    run = learner(accumulate=accumulate)
    row = run.fit(2).rows[-1]
    assert row["train_mean_input"] == pytest.approx(part_mean(run, "train"), abs=1e-12)
    assert row["valid_mean_input"] == pytest.approx(part_mean(run, "valid"), abs=1e-12)
    assert row["train_samples"] == pytest.approx((64 + 64 + 25) / 21)
    assert run.evaluate()["mean_input"] == pytest.approx(part_mean(run, "valid"), abs=1e-12)


def test_the_weight_can_be_given() -> None:
    class Weighted(Logging):
        def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
            above = batch.input > 0
            self.log(above.sum(), positive=batch.input[above].sum() / above.sum().clamp(min=1))
            return super().loss(outputs, batch)

    run = learner(Weighted(["y"]))
    x, _ = rows()
    train = x[torch.as_tensor(run.data.split.part("train"))]
    row = run.fit(1).rows[-1]
    assert row["train_positive"] == pytest.approx(float(train[train > 0].mean()), abs=1e-12)


def log_parts(model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Any) -> Any:
    """The usual step, which logs the mean input of each micro-batch."""
    total = sum(len(batch) for batch in micro_batches)
    mean = torch.zeros((), dtype=torch.float64)
    for batch in micro_batches:
        loss, _ = task.loss(model(batch.input), batch)
        step.backward(loss / total)
        step.log(batch, part=batch.input.mean())
        mean += loss.detach() / total
    step.update(mean)
    return StepResult(mean, total)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_custom_step_logs(accumulate: int) -> None:
    run = learner(Regression(["y"]), train_step=log_parts, accumulate=accumulate)
    row = run.fit(1).rows[-1]
    assert row["train_part"] == pytest.approx(part_mean(run, "train"), abs=1e-12)
    assert "valid_part" not in row


def test_a_step_of_one_batch_needs_no_weight() -> None:
    def step_of(model: nn.Module, batches: Sequence[Batch], task: Task, step: Any) -> Any:
        loss, weight = task.loss(model(batches[0].input), batches[0])
        step.backward(loss / weight)
        step.log(first=batches[0].input.mean())
        step.update(loss)
        return StepResult(loss.detach() / weight, weight)

    run = learner(Regression(["y"]), train_step=step_of)
    row = run.fit(1).rows[-1]
    assert row["train_first"] == pytest.approx(part_mean(run, "train"), abs=1e-12)
    with pytest.raises(ArgumentError, match=r"2 micro-batches.*step\.log\(batch, name=value\)"):
        learner(Regression(["y"]), train_step=step_of, accumulate=2).fit(1)


@pytest.mark.parametrize("name", ["loss", "mae", "rmse"])
def test_names_of_scores_are_refused(name: str) -> None:
    class Clashing(Logging):
        def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
            self.log(batch, **{name: outputs.mean()})
            return super().loss(outputs, batch)

    task = Clashing(["y"], metrics=["mae", "rmse"])
    with pytest.raises(ArgumentError, match=rf"log\({name}=…\) would overwrite"):
        learner(task).fit(1)


def test_names_of_scores_that_only_evaluate_knows_are_refused() -> None:
    class Own(Logging):
        def evaluate(self, model: Any, batches: Any, context: Any) -> dict[str, float]:
            return {**super().evaluate(model, batches, context), "mean_input": 1.0}

    with pytest.raises(ArgumentError, match=r"log\(mean_input=…\) would overwrite"):
        learner(Own(["y"])).fit(1)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (torch.zeros(3), r"shape \(3,\)"),
        ("1", "a str"),
        (torch.zeros((), dtype=torch.cfloat), "complex"),
    ],
)
def test_values_that_are_no_number_are_refused(value: Any, what: str) -> None:
    class Wrong(Logging):
        def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
            self.log(batch, odd=value)
            return super().loss(outputs, batch)

    with pytest.raises(ArgumentError, match=what):
        learner(Wrong(["y"])).fit(1)


@pytest.mark.parametrize(
    ("arguments", "named", "what"),
    [
        (({"odd": 1.0},), {}, "a dict and 0 values"),
        ((torch.ones(()),), {}, "a Tensor and 0 values"),
        (({"odd": 1.0},), {"even": 2.0}, "a dict and 1 values"),
    ],
)
def test_values_without_a_name_are_refused(arguments: Any, named: Any, what: str) -> None:
    class Wrong(Logging):
        def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
            self.log(*arguments, **named)
            return super().loss(outputs, batch)

    def logging_step(model: nn.Module, batches: Sequence[Batch], task: Task, step: Any) -> Any:
        step.log(*arguments, **named)

    for task, options in ((Wrong(["y"]), {}), (Logging(["y"]), {"train_step": logging_step})):
        with pytest.raises(ArgumentError, match=f"log got {what} by name"):
            learner(task, **options).fit(1)


def test_logged_values_hold_no_graph_and_change_no_training() -> None:
    class Silent(Logging):
        def log(self, weight: Any, /, **values: Any) -> None:
            pass

    class OfModel(Logging):
        def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
            self.log(batch, output=outputs.mean())
            return super().loss(outputs, batch)

    runs = [learner(kind(["y"])) for kind in (Silent, OfModel)]
    for run in runs:
        run.fit(2)
    assert torch.equal(*(next(iter(run.model.parameters())) for run in runs))
    assert "train_output" in runs[1].history.rows[0]


def test_a_skipped_step_does_not_count() -> None:
    class Sometimes(Logging):
        def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
            total, weight = super().loss(outputs, batch)
            factor = float("nan") if len(batch) == 5 and self.training_only else 1.0
            self.log(batch, factor=total.detach() * 0 + factor)
            return total * factor, weight

        training_only = True

    task = Sometimes(["y"])
    with pytest.warns(FlambeauWarning, match="nonfinite-updates"):
        row = learner(task, nonfinite="skip").fit(1).rows[-1]
    assert row["train_factor"] == 1.0


class Stop(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == 5:
            raise KeyboardInterrupt


def test_a_resumed_epoch_has_the_values_of_all_its_steps(tmp_path: Path) -> None:
    whole = learner()
    whole.fit(steps=7, evaluate_every=4)
    with pytest.raises(KeyboardInterrupt):
        learner(None, tmp_path, Stop()).fit(steps=7, evaluate_every=4)
    resumed = learner(None, tmp_path)
    resumed.resume()
    for name in ("train_mean_input", "train_samples", "valid_mean_input"):
        assert whole.history.column(name) == resumed.history.column(name)


def test_early_stopping_can_watch_a_logged_value() -> None:
    stopping = EarlyStopping("valid_mean_input", patience=1, mode="min")
    assert len(learner(None, None, stopping).fit(5).rows) == 2


def test_nothing_is_collected_outside_of_runs() -> None:
    task = Logging(["y"])
    run = learner(task)
    run.fit(1)
    assert task._sink is None
    x, _ = rows()
    assert len(run.predict(x[:2])) == 2
    task.log(3.0, anything="goes")  # type: ignore[arg-type]


def test_the_progress_table_has_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    learner(quiet=False).fit(1)
    assert "train_mean_input" in capsys.readouterr().err
