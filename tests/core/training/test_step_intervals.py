"""Training by steps, and evaluations every so many steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from flambeau import (
    Batch,
    Callback,
    Checkpointing,
    EarlyStopping,
    FlambeauWarning,
    Learner,
    Phase,
    Schedule,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import ArgumentError, InputError, NonFiniteError, PlanError, ResumeError
from flambeau.task import Classification
from flambeau.training import EMA

N, SIZE = 45, 8  # six steps an epoch, the last with 5 samples; four with accumulation over two
STEPS = 6


def rows() -> tuple[Tensor, Tensor]:
    x = torch.randn(N + 16, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def learner(folder: Path | None = None, *callbacks: Callback, **options: Any) -> Learner:
    x, y = rows()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2))
    choices = {"batch_size": SIZE, "lr": 0.05, **options.pop("choices", {})}
    return Learner(
        options.pop("data", None) or TensorData.from_tensors(x, y, valid=16),
        model,
        choices=choices,
        callbacks=callbacks,
        folder=folder,
        quiet=True,
        training=TrainingOptions(doctor=False, **options),
    )


def weights(run: Learner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def column(run: Learner, name: str) -> list[Any]:
    return [row[name] for row in run.history.rows]


def untimed(run: Learner) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history.rows]


# ---------------------------------------------------------------- length


@pytest.mark.parametrize("accumulate", [1, 2])
def test_whole_epochs_in_steps_equal_epochs(accumulate: int) -> None:
    by_epochs, by_steps = (
        learner(accumulate=accumulate, average=EMA(), clip_norm=1.0) for _ in range(2)
    )
    torch.manual_seed(2)
    by_epochs.fit(2)
    torch.manual_seed(2)
    by_steps.fit(steps=2 * -(-STEPS // accumulate))
    assert torch.equal(weights(by_epochs), weights(by_steps))
    assert untimed(by_epochs) == untimed(by_steps)
    assert by_epochs.history.step_losses == by_steps.history.step_losses


@pytest.mark.parametrize("every", [1, 4, 5, 100])
def test_more_evaluations_do_not_change_training(every: int) -> None:
    plain, divided = learner(), learner()
    torch.manual_seed(2)
    plain.fit(3)
    torch.manual_seed(2)
    divided.fit(3, evaluate_every=every)
    assert torch.equal(weights(plain), weights(divided))
    assert plain.history.step_losses == divided.history.step_losses
    ends = [*range(every, 3 * STEPS, every), 3 * STEPS]
    assert column(divided, "step") == ends
    assert column(divided, "epoch") == pytest.approx([end / STEPS for end in ends])


@pytest.mark.parametrize(("steps", "ends"), [(1, [1]), (4, [4]), (15, [6, 12, 15])])
def test_any_number_of_steps(steps: int, ends: list[int]) -> None:
    run = learner()
    run.fit(steps=steps)
    assert len(run.history.step_losses) == steps
    assert column(run, "step") == ends
    assert column(run, "lr")[-1] == pytest.approx(0.05 / 1e5 if steps > 1 else 0.05 / 25)


def test_the_next_fit_starts_with_an_unused_epoch() -> None:
    seen: list[Any] = []

    class Seen(Callback):
        def on_step_end(self, state: Any) -> None:
            seen.append(state.context.epoch)

    run = learner(None, Seen())
    run.fit(steps=STEPS + 2)
    run.fit(1)
    assert seen == [0] * STEPS + [1] * 2 + [2] * STEPS
    assert column(run, "epoch") == [1, 1 + 2 / STEPS, 3]


def test_a_step_has_batches_of_one_epoch() -> None:
    """With accumulation over 4 an epoch of 6 batches has a step of 4 and one of 2."""
    sizes: list[int] = []

    def count(model: nn.Module, micro_batches: Any, task: Any, step: Any) -> Any:
        from flambeau.training.step import train_step

        sizes.append(sum(len(batch) for batch in micro_batches))
        return train_step(model, micro_batches, task, step)

    run = learner(accumulate=4, train_step=count)
    run.fit(steps=5, evaluate_every=3)
    assert sizes == [32, 13, 32, 13, 32]


def test_phases_of_epochs_and_steps_follow_each_other() -> None:
    run = learner()
    rate = {"lr": Schedule("constant", 0.01)}
    phases = [Phase(steps=4, schedules=rate), Phase(1, rate), Phase(steps=2, schedules=rate)]
    run.fit_phases(phases)
    assert column(run, "step") == [4, 10, 12]
    whole = learner()
    torch.manual_seed(2)
    whole.fit_phases([Phase(2, rate)])
    again = learner()
    torch.manual_seed(2)
    again.fit_phases(
        [Phase(steps=4, schedules=rate), Phase(1, rate), Phase(steps=2, schedules=rate)]
    )
    assert again.history.step_losses == whole.history.step_losses


def test_fine_tune_and_recipes_take_steps() -> None:
    run = learner()
    run.fine_tune(steps=9)
    assert column(run, "phase") == ["head", "all", "all"]
    assert column(run, "step") == [6, 12, 15]
    assert learner().fit_one_cycle(steps=3).rows[-1]["step"] == 3
    assert learner().fit_flat_cos(steps=3).rows[-1]["step"] == 3
    assert learner().gradual_unfreeze(steps=3).rows[-1]["step"] == 9


# ---------------------------------------------------------------- plan


def test_the_plan_shows_steps_and_evaluations() -> None:
    run = learner(choices={"steps": 8, "evaluate_every": 5})
    assert run.plan.values["steps"] == 8
    assert run.plan["epochs"].value == 2
    assert "8 steps" in run.plan["epochs"].reason
    run.fit()
    assert column(run, "step") == [5, 8]
    run.fit(1)
    assert run.plan.values["steps"] is None
    run.fit(steps=2)
    assert run.plan["epochs"].source == "rule"
    assert column(run, "step") == [5, 8, 13, 14, 16]


def test_two_lengths_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"epochs is 2 and steps is 8.*one length"):
        learner().fit(2, steps=8)
    with pytest.raises(ArgumentError, match="one length"):
        learner(choices={"epochs": 2, "steps": 8})
    with pytest.raises(ArgumentError, match="exactly one"):
        Phase()
    with pytest.raises(ArgumentError, match="exactly one"):
        Phase(2, steps=8)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_length_that_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(PlanError, match="whole number"):
        learner().fit(steps=value)
    with pytest.raises(PlanError, match="whole number"):
        learner().fit(1, evaluate_every=value)
    with pytest.raises((ArgumentError, InputError), match="whole number"):
        Phase(steps=value)


def test_fit_auto_refuses_intervals_of_the_user() -> None:
    with pytest.raises(ArgumentError, match="fit_auto chooses the intervals"):
        learner(choices={"evaluate_every": 5}).fit_auto(0.01)


def test_long_epochs_are_evaluated_inside() -> None:
    x = torch.zeros(30_000, 1)
    short = Learner(TensorData.from_tensors(x, x[:, 0], valid=10), nn.Linear(1, 1))
    assert short.plan.values["evaluate_every"] is None
    choices = {"batch_size": 1}
    long = Learner(TensorData.from_tensors(x, x[:, 0], valid=10), nn.Linear(1, 1), choices=choices)
    assert long.plan.values["evaluate_every"] == 10_000
    assert "29,990 steps" in long.plan["evaluate_every"].reason


# ---------------------------------------------------------------- what follows an evaluation


def test_early_stopping_and_best_weights_by_steps() -> None:
    def stop() -> EarlyStopping:
        return EarlyStopping("valid_loss", patience=2, min_delta=1e9)

    run = learner(None, stop(), choices={"evaluate_every": 4})
    at_first = learner(choices={"evaluate_every": 4})
    torch.manual_seed(2)
    run.fit(steps=100, schedule="constant")
    torch.manual_seed(2)
    at_first.fit(steps=4, schedule="constant")
    assert column(run, "step") == [4, 8, 12]
    best = min(range(3), key=lambda i: run.history.rows[i]["valid_loss"])
    assert best > 0 or torch.equal(weights(run), weights(at_first))
    assert run.evaluate()["loss"] == pytest.approx(min(column(run, "valid_loss")), abs=1e-6)


def test_the_reason_to_stop_names_steps() -> None:
    reasons: list[Any] = []

    class Read(Callback):
        def on_fit_end(self, state: Any) -> None:
            reasons.append(state.stop_reason)

    stopping = EarlyStopping("valid_loss", patience=1, min_delta=1e9)
    learner(None, stopping, Read()).fit(steps=30, evaluate_every=4)
    assert "for 1 evaluations" in reasons[0]
    assert "at step 4" in reasons[0]


# ---------------------------------------------------------------- kill and resume


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("step", [1, 2, 5, 6, 7, 10, 12, 14])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, step: int, accumulate: int) -> None:
    """Inside an interval, at its end, at the end of an epoch, in the second phase."""

    def train(run: Learner) -> None:
        rate = {"lr": Schedule("cosine", 0.05)}
        torch.manual_seed(3)
        run.fit_phases([Phase(steps=9, schedules=rate, evaluate_every=5), Phase(1, rate)])

    options = {"accumulate": accumulate, "average": EMA(), "keep_best": "valid_loss"}
    length = 9 + -(-STEPS // accumulate)
    whole = learner(**options)
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(learner(tmp_path, Stop(min(step, length - 1)), **options))
    torch.manual_seed(99)
    resumed = learner(tmp_path, **options)
    resumed.resume()
    assert torch.equal(weights(whole), weights(resumed))
    assert untimed(whole) == untimed(resumed)
    assert whole.history.step_losses == resumed.history.step_losses


def test_a_second_fit_is_resumed_with_its_own_batches(tmp_path: Path) -> None:
    def train(run: Learner) -> None:
        run.fit(steps=8)  # ends inside the second epoch
        torch.manual_seed(3)
        run.fit(steps=9, evaluate_every=4)

    whole = learner()
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(learner(tmp_path, Stop(14)))
    resumed = learner(tmp_path)
    resumed.resume()
    assert torch.equal(weights(whole), weights(resumed))
    assert untimed(whole) == untimed(resumed)


def test_checkpoints_are_written_after_evaluations(tmp_path: Path) -> None:
    learner(tmp_path, Checkpointing(every_s=None, keep=9)).fit(steps=8, evaluate_every=3)
    found = sorted(
        int(path.name.rsplit("-", 1)[-1]) for path in (tmp_path / "checkpoints").iterdir()
    )
    assert found == [3, 6, 8]


# ---------------------------------------------------------------- the user's loaders


class Stream(IterableDataset[Any]):
    """Batches that cannot be repeated; it counts how often it is started."""

    def __init__(self, length: int | None = STEPS) -> None:
        self.starts, self.length = 0, length

    def __iter__(self) -> Iterator[Any]:
        self.starts += 1
        x, y = rows()
        for first in range(0, SIZE * STEPS, SIZE):
            yield x[first : first + SIZE], y[first : first + SIZE]


class SizedStream(Stream):
    def __len__(self) -> int:
        return STEPS


def stream_data(stream: Stream) -> TensorData:
    x, y = rows()
    valid = [(x[N:], y[N:])]
    return TensorData.from_loaders(
        DataLoader(stream, batch_size=None), valid, class_names=["no", "yes"]
    )


@pytest.mark.filterwarnings("ignore:.*not-resumable")
def test_a_stream_stays_open_between_evaluations() -> None:
    stream = SizedStream()
    data = stream_data(stream)
    before = stream.starts
    run = learner(data=data, choices={"batch_size": SIZE})
    run.fit(steps=STEPS + 2, evaluate_every=2)
    assert column(run, "step") == [2, 4, 6, 8]
    assert stream.starts - before == 2


@pytest.mark.filterwarnings("ignore:.*not-resumable")
def test_a_stream_without_length_trains_by_steps() -> None:
    stream = Stream()
    run = learner(data=stream_data(stream), choices={"batch_size": SIZE})
    assert run.plan.values["evaluate_every"] == 500
    assert "no len()" in run.plan["steps"].reason
    run.fit(steps=STEPS + 2, evaluate_every=5)
    assert column(run, "step") == [5, 8]
    assert column(run, "epoch") == [0, 1]
    with pytest.raises(InputError, match=r"no len\(\).*steps=10_000"):
        run.fit(2)


def test_a_train_loader_that_ends_too_early_is_named() -> None:
    class Short:
        def __iter__(self) -> Iterator[Any]:
            x, y = rows()
            return iter([(x[:SIZE], y[:SIZE])] * STEPS)

        def __len__(self) -> int:
            return STEPS + 1

    x, y = rows()
    data = TensorData.from_loaders(Short(), [(x[N:], y[N:])], class_names=["no", "yes"])
    with pytest.raises(InputError, match=r"ended after 6 batches.*len\(\) is 7"):
        learner(data=data, choices={"batch_size": SIZE}).fit(steps=20)


@pytest.mark.filterwarnings("ignore:.*not-resumable")
def test_what_a_stream_without_length_cannot_do_is_refused(tmp_path: Path) -> None:
    choices = {"batch_size": SIZE}
    run = learner(data=stream_data(Stream()), choices=choices)
    with pytest.raises(InputError, match=r"Phase\(steps=…\)"):
        run.fine_tune(steps=4)
    with pytest.raises(InputError, match=r"train by steps: learner.fit\(steps=10_000\)"):
        run.fit_auto(0.01)
    with pytest.raises(KeyboardInterrupt):
        learner(tmp_path, Stop(3), data=stream_data(Stream()), choices=choices).fit(steps=9)
    with pytest.raises(ResumeError, match=r"no len\(\)"):
        learner(tmp_path, data=stream_data(Stream()), choices=choices).resume()


def test_training_by_steps_needs_no_validation_part() -> None:
    x, y = rows()
    run = learner(data=TensorData.from_tensors(x, y, valid=0))
    run.fit(steps=11, evaluate_every=4)
    assert column(run, "step") == [4, 8, 11]
    assert "valid_loss" not in run.history.rows[0]


def test_a_table_of_values_for_each_step_is_used() -> None:
    values = [0.01 * (i + 1) for i in range(9)]
    run = learner()
    run.fit(steps=9, evaluate_every=2, schedules={"lr": Schedule("table", 1, {"values": values})})
    assert column(run, "lr") == pytest.approx([values[end - 1] for end in (2, 4, 6, 8, 9)])
    with pytest.raises(InputError, match="3 values, but its phase has 9 steps"):
        learner().fit(steps=9, schedules={"lr": Schedule("table", 1, {"values": [1, 2, 3]})})


def test_a_saved_plan_repeats_a_run_by_steps(tmp_path: Path) -> None:
    run = learner()
    torch.manual_seed(2)
    run.fit(steps=8, evaluate_every=3)
    run.plan.save(tmp_path / "plan.json")
    x, y = rows()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2))
    data = TensorData.from_tensors(x, y, valid=16)
    again = Learner(data, model, plan=tmp_path / "plan.json", quiet=True)
    torch.manual_seed(2)
    again.fit()
    assert untimed(run) == untimed(again)
    assert torch.equal(weights(run), weights(again))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_that_is_not_finite_is_found_again(accumulate: int) -> None:
    def spoil(batch: Batch, seed: int) -> Batch:
        if batch.epoch == 1 and batch.indices is not None:
            x = batch.input.clone()
            x[batch.indices == 7] = float("nan")
            return replace(batch, inputs={"input": x})
        return batch

    messages: list[str] = []
    for length in ({"epochs": 2}, {"steps": 12, "evaluate_every": 2}):
        torch.manual_seed(2)
        run = learner(accumulate=accumulate, transforms=(spoil,))
        with pytest.raises(
            NonFiniteError, match=r"of epoch 2\) is not finite.* Samples: 7"
        ) as caught:
            run.fit(**length)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


class StopInEvaluation(Callback):
    def on_eval_step_end(self, state: Any) -> None:
        if state.position.step == 10:
            raise KeyboardInterrupt


def test_a_run_that_is_interrupted_in_an_evaluation_is_resumed(tmp_path: Path) -> None:
    whole = learner()
    torch.manual_seed(3)
    whole.fit(steps=14, evaluate_every=5)
    stopped = learner(tmp_path, StopInEvaluation())
    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(steps=14, evaluate_every=5)
    resumed = learner(tmp_path)
    resumed.resume()
    assert untimed(whole) == untimed(resumed)
    assert torch.equal(weights(whole), weights(resumed))


class Counting(Classification):
    """Its carried state is the number of steps since the epoch of the train set began."""

    def forward(self, model: nn.Module, batch: Batch, context: Any) -> Any:
        if context.stage == "train":
            before = 0 if context.carry is None else int(context.carry)
            self.seen.append((context.epoch, before))
            context.carry = torch.tensor(before + 1)
        return super().forward(model, batch, context)

    seen: list[Any]


def test_carried_state_starts_with_an_epoch_of_the_train_set(tmp_path: Path) -> None:
    expected = [(epoch, step) for epoch in (0, 1) for step in range(STEPS)]

    def run(folder: Path | None, *callbacks: Callback) -> tuple[Learner, Counting]:
        task = Counting(["0", "1"])
        task.seen = []
        x, y = rows()
        torch.manual_seed(1)
        return Learner(
            TensorData.from_tensors(x, y, valid=16),
            nn.Linear(4, 2),
            task=task,
            choices={"batch_size": SIZE, "lr": 0.05},
            callbacks=callbacks,
            folder=folder,
            quiet=True,
            training=TrainingOptions(doctor=False),
        ), task

    whole, task = run(None)
    whole.fit(steps=2 * STEPS, evaluate_every=4)
    assert task.seen == expected
    for stop in (5, 6):
        stopped, _ = run(tmp_path / str(stop), Stop(stop))
        with pytest.raises(KeyboardInterrupt):
            stopped.fit(steps=2 * STEPS, evaluate_every=4)
        resumed, after = run(tmp_path / str(stop))
        resumed.resume()
        assert after.seen == expected  # a checkpoint contains the attribute


def test_an_interval_without_targets_is_no_epoch_without_targets() -> None:
    """One step has no target; as an epoch of its own it would be refused."""

    class Ignoring(Classification):
        def loss(self, outputs: Tensor, batch: Batch) -> Any:
            total, _ = super().loss(outputs, batch)
            weight = self.host_weight(batch)
            return total * (weight > 0), weight

        def host_weight(self, batch: Batch) -> float:
            assert batch.indices is not None
            is_first = batch.epoch == 0 and 0 in batch.indices.tolist()
            return 0.0 if is_first else float(len(batch))

    x, y = rows()
    task = Ignoring(["0", "1"])
    run = Learner(
        TensorData.from_tensors(x, y, valid=16),
        nn.Linear(4, 2),
        task=task,
        choices={"batch_size": SIZE, "lr": 0.05},
        quiet=True,
        training=TrainingOptions(doctor=False),
    )
    with pytest.warns(FlambeauWarning, match="steps-without-targets"):
        run.fit(steps=8, evaluate_every=1)
    assert sum("steps_without_targets" in row for row in run.history.rows) == 1
