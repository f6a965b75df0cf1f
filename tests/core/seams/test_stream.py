"""Streams: batches that continue each other, and epochs that differ in length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Callback, Learner, Task, TensorData, TrainingOptions
from flambeau.data import LoaderOptions
from flambeau.data.loader import StepCounts, is_stream
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.tuning import step_settings
from flambeau.tuning.interval_loader import IntervalLoader
from flambeau.tuning.stream_intervals import StreamIntervals

STREAMS, LENGTH = 4, 3


class Stream:
    """Rows are streams; each batch has their next tokens. Epoch e has ``steps_in(e)`` batches."""

    is_stream = True

    def __init__(self, rows: int, steps: Callable[[int], int]) -> None:
        self.rows, self.steps_in = rows, steps

    @property
    def steps_per_epoch(self) -> int:
        return self.steps_in(0)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for step in range(start_step, self.steps_in(epoch)):
            tokens = step * LENGTH + torch.arange(LENGTH, dtype=torch.float32)
            x = tokens.expand(self.rows, LENGTH)
            yield Batch(
                {"x": x},
                {"y": x / 100},
                weight=float(x.numel()),
                indices=torch.arange(self.rows),
                epoch=epoch,
            )


class StreamData(TensorData):
    """Tensors for the facts, and a stream as the train loader."""

    steps: Callable[[int], int] = staticmethod(lambda epoch: 10)

    def dataset(self, part: str, preprocessor: Any, values: Mapping[str, Any]) -> Any:
        if part != "train":
            return super().dataset(part, preprocessor, values)
        return _StreamDataset(self.steps)


class _StreamDataset:
    def __init__(self, steps: Callable[[int], int]) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return STREAMS * 10

    def loader(self, options: LoaderOptions) -> Stream:
        return Stream(options.batch_size, self.steps)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x / 100


class CountsTokens(Task):
    """Carries the number of tokens seen so far, which equals the first token of each batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []  # rows, carried count, first token

    def forward(self, model: nn.Module, batch: Batch, context: Any) -> Any:
        if context.stage == "train":
            seen = 0 if context.carry is None else int(context.carry)
            self.seen.append((len(batch), seen, int(batch.input[0, 0])))
            context.carry = torch.tensor(seen + batch.input.shape[1])
        return model(batch.input)

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        return (outputs - batch.target).square().sum(), float(outputs.numel())


def data(steps: Callable[[int], int] = lambda epoch: 10) -> StreamData:
    x = torch.arange(float(STREAMS * 10 * LENGTH)).view(-1, LENGTH)
    made = TensorData.from_tensors(x, x / 100, valid=0.2)
    parts = {"train": made._part("train"), "valid": made._part("valid")}
    stream = StreamData(parts, made.split)
    stream.steps = steps
    return stream


def learner(task: Task, made: StreamData | None = None, **more: Any) -> Learner:
    options = more.pop("training", TrainingOptions(doctor=False))
    choices = {"batch_size": STREAMS, "normalisation": "none", **more.pop("choices", {})}
    return Learner(
        made or data(), Counter(), task=task, choices=choices, training=options, quiet=True, **more
    )


def training_steps(task: CountsTokens) -> list[tuple[int, int, int]]:
    return task.seen  # the check of the loss restores it


def test_the_carry_counts_every_token_of_an_epoch() -> None:
    task = CountsTokens()
    learner(task).fit(2, lr=0.1)
    expected = [(STREAMS, step * LENGTH, step * LENGTH) for step in range(10)]
    assert training_steps(task) == expected * 2


@pytest.mark.parametrize("accumulate", [1, 4])
def test_intervals_keep_the_carry_and_never_cross_an_epoch(accumulate: int) -> None:
    """Three intervals per epoch of 10 batches, as ``fit_auto`` divides it."""
    task = CountsTokens()
    run = learner(task, training=TrainingOptions(doctor=False, accumulate=accumulate))
    components = run.built.components()
    pieces = StreamIntervals(components.train, 3, accumulate)
    steps = -(-10 // accumulate)
    lengths = [pieces.steps_in(interval) for interval in range(6)]
    assert lengths[:3] == lengths[3:]
    assert sum(lengths[:3]) == 10
    assert [-(-n // accumulate) for n in lengths[:3]] == [
        steps * (i + 1) // 3 - steps * i // 3 for i in range(3)
    ]
    run.built.components = lambda values=None: replace(components, train=pieces)  # type: ignore[method-assign]
    run.fit(6, lr=0.1)
    found = training_steps(task)
    assert [first for _, _, first in found] == [step * LENGTH for step in range(10)] * 2
    assert all(carried == first for _, carried, first in found)


def test_fit_auto_keeps_the_carry_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    from flambeau.tuning import auto_run

    # Three steps fit into a fifth of the budget, so that an interval is a part of an epoch.
    monkeypatch.setattr(auto_run, "interval_steps", lambda *arguments: 4)
    task = CountsTokens()
    run = learner(task)
    run.fit_auto(minutes=0.05)
    rows = len(run.history.rows)
    assert rows >= 3
    trained = training_steps(task)[-len(run.history.step_losses) :]
    assert all(carried == first for _, carried, first in trained)
    assert {count for count, _, _ in trained} == {STREAMS}
    assert any(carried for _, carried, _ in trained)
    assert len(run.history.step_losses) < rows * 10  # intervals are parts of an epoch


def test_a_step_of_a_stream_is_never_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little memory makes other loaders use micro-batches; a stream says why it does not."""
    monkeypatch.setattr(step_settings, "free_bytes_of", lambda device: 150)
    plans = {}
    for streams in (True, False):
        monkeypatch.setattr(Stream, "is_stream", streams)
        task = CountsTokens()
        run = learner(task, choices={"probe": "auto"})
        run._plan = run.plan.with_choice(replace(run.plan["batch_size"], source="rule"))
        run.fit(1, lr=0.1)
        plans[streams] = run.plan
        if streams:
            assert {rows for rows, _, _ in task.seen} == {STREAMS}
    assert plans[True].values["accumulate"] == 1
    assert "is a stream" in plans[True]["accumulate"].reason
    assert plans[False].values["accumulate"] == 4
    assert plans[False].values["batch_size"] == 1


def test_a_user_loader_says_that_it_is_a_stream() -> None:
    class Loader(list):  # type: ignore[type-arg]
        is_stream = True

    batches = Loader([(torch.ones(2, 3), torch.ones(2))] * 3)
    made = TensorData.from_loaders(batches, list(batches))
    parts = Learner(made, nn.Linear(3, 1), choices={"task": "regression"}, quiet=True)
    train, valid = (parts.built.loader(part) for part in ("train", "valid"))
    assert is_stream(train)
    assert not is_stream(valid)
    assert is_stream(IntervalLoader(train, 2))


# ---------------------------------------------------------------- epochs of different lengths


def growing(epoch: int) -> int:
    return 3 + 2 * epoch


class Lengths(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int, int]] = []
        self.rates: list[float] = []

    def on_step_end(self, state: Any) -> None:
        self.rates.append(state.values["lr"])

    def on_epoch_start(self, state: Any) -> None:
        row = state.steps_per_epoch, state.fit_step, state.phase_step, state.total_steps
        self.seen.append(row)


def halving() -> dict[str, Schedule]:
    return {"lr": Schedule(lambda progress: 1.0 - 0.5 * progress)}


def test_schedules_follow_epochs_of_different_lengths() -> None:
    lengths = Lengths()
    run = learner(CountsTokens(), data(growing), callbacks=[lengths])
    run.fit(3, schedules=halving())
    total = 3 + 5 + 7
    assert lengths.seen == [(3, 0, 0, total), (5, 3, 3, total), (7, 8, 8, total)]
    assert lengths.rates == pytest.approx([1 - 0.5 * step / (total - 1) for step in range(total)])
    run.fit(2, schedules=halving())  # epochs 3 and 4, with 9 and 11 steps
    assert lengths.seen[3:] == [(9, 0, 0, 20), (11, 9, 9, 20)]
    assert lengths.rates[total:] == pytest.approx([1 - 0.5 * step / 19 for step in range(20)])


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


def phases() -> list[Phase]:
    """Epochs of 3 steps, then of 5 and 7."""
    return [Phase(1, {"lr": Schedule("cosine", 0.3)}), Phase(2, {"lr": Schedule("cosine", 0.2)})]


@pytest.mark.parametrize("at", [2, 3, 6, 10])
def test_resume_with_epochs_of_different_lengths(at: int, tmp_path: Any) -> None:
    whole = learner(CountsTokens(), data(growing), callbacks=[recorded := Lengths()])
    whole.fit_phases(phases())
    stopped = learner(CountsTokens(), data(growing), callbacks=[StopAt(at)], folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit_phases(phases())
    task, rest = CountsTokens(), Lengths()
    resumed = learner(task, data(growing), callbacks=[rest], folder=tmp_path)
    resumed.resume()
    assert list(resumed.history.step_losses) == list(whole.history.step_losses)
    assert rest.rates == recorded.rates[at:]
    assert all(carried == first for _, carried, first in task.seen)


def test_intervals_of_epochs_of_different_lengths() -> None:
    loader = Stream(2, growing)
    everything = [b for epoch in range(4) for b in loader.batches(epoch)]
    found = [b for interval in range(5) for b in IntervalLoader(loader, 4).batches(interval)]
    assert [(b.epoch, int(b.input[0, 0])) for b in found] == [
        (b.epoch, int(b.input[0, 0])) for b in everything[:20]
    ]
    counts = StepCounts.of_loader(loader, 2)  # 2, 3, 4, 5 steps
    assert (counts.of(3), counts.between(1, 4), counts.find(4)) == (5, 12, (1, 2))
