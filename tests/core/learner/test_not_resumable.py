"""A run that cannot be resumed says so at its start, and its checkpoints give their weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from flambeau import EMA, Callback, Checkpointing, FlambeauWarning, Learner, TensorData
from flambeau import TrainingOptions as Options
from flambeau.errors import ArtefactError, ResumeError
from flambeau.phases import Schedule
from flambeau.task import Classification, SumMetric

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
ROWS = TensorDataset(X, Y)
HALVED = {"lr": Schedule(lambda progress: 1 - progress / 2, peak=0.1)}


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return len(X)

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y, strict=True))


class KeepLast(Callback):
    """Keeps the weights after each step."""

    def __init__(self, kept: list[dict[str, torch.Tensor]]) -> None:
        self.kept = kept

    def on_step_end(self, state: Any) -> None:
        self.kept.append(tensors(state.model))


class Interrupt(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == 4:
            raise KeyboardInterrupt


def loaders(**options: Any) -> TensorData:
    train = DataLoader(options.pop("rows", ROWS), 20, **options)
    return TensorData.from_loaders(train, DataLoader(ROWS, 20), n_classes=2)


def make(
    data: TensorData | None = None, *callbacks: Callback, folder: Path | None, **options: Any
) -> Learner:
    torch.manual_seed(2)
    task = Classification(["0", "1"], metrics={"age": Age()}) if "keep_best" in options else None
    return Learner(
        data or TensorData.from_tensors(X, Y, valid=20),
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
        choices={"probe": "off"} if data else {"batch_size": 20, "probe": "off"},
        task=task,
        training=Options(doctor=False, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


class Age(SumMetric):
    """The number of evaluations so far: the first epoch is the best one."""

    higher_is_better = False
    evaluations = 0

    def update(self, outputs: torch.Tensor, targets: torch.Tensor, /) -> None: ...

    def compute(self) -> float:
        Age.evaluations += 1
        return float(Age.evaluations)


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


CASES = [
    (None, {"schedules": HALVED}, "the schedule of 'lr' is a function"),
    (lambda: loaders(rows=Stream()), {}, "its data set is an IterableDataset"),
    (
        lambda: loaders(shuffle=True, num_workers=1, persistent_workers=True),
        {},
        "its persistent workers keep the state",
    ),
]


@pytest.mark.parametrize(("data", "arguments", "reason"), CASES)
@pytest.mark.filterwarnings(r"ignore:\[lagging-statistics\]")  # of short runs on a stream
def test_the_reason_is_named_before_the_run_and_after_it(
    data: Callable[[], TensorData] | None, arguments: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    new_data = data or (lambda: None)
    learner = make(new_data(), Interrupt(), folder=tmp_path)
    with (
        pytest.warns(FlambeauWarning, match=rf"not-resumable\] .*{reason}.* learner\.load"),
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        learner.fit(3, **arguments)
    notes = "\n".join(caught.value.__notes__)
    assert "A checkpoint of step 4 is in" in notes
    assert f"cannot be resumed: {reason}" in notes
    assert "learner.load('" in notes
    assert "learner.resume" not in notes
    with pytest.raises(ResumeError, match=r"loads (its|the) weights"):
        make(new_data(), folder=None).resume(tmp_path)
    again = make(folder=None)
    again.load(tmp_path)
    assert equal(tensors(again.model), tensors(learner.model))
    again.load(next((tmp_path / "checkpoints").iterdir()))


def test_a_schedule_of_a_later_phase_is_named(tmp_path: Path) -> None:
    from flambeau.phases import Phase

    phases = [Phase(1, {"lr": Schedule("constant", 0.1)}), Phase(1, HALVED)]
    with pytest.warns(FlambeauWarning, match="the schedule of 'lr' is a function"):
        make(folder=tmp_path).fit_phases(phases)


def test_a_run_that_writes_no_checkpoints_does_not_warn(tmp_path: Path) -> None:
    never = Checkpointing(every_s=None, at_epoch_end=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(None, never, folder=tmp_path).fit(1, schedules=HALVED)
        make(loaders(shuffle=True), folder=tmp_path / "other").fit(1)


@pytest.mark.parametrize(
    "options",
    [
        {"average": EMA(0.8)},
        {"keep_best": "valid_age"},
        {"average": EMA(0.8), "keep_best": "valid_age"},
    ],
)
def test_load_takes_the_final_weights_of_a_checkpoint(
    options: dict[str, Any], tmp_path: Path
) -> None:
    last: list[dict[str, torch.Tensor]] = []
    learner = make(None, KeepLast(last), folder=tmp_path, **options)
    learner.fit(4, lr=0.1)
    assert not equal(last[-1], tensors(learner.model))  # the final weights are not the last ones
    again = make(folder=None)
    again.load(tmp_path)
    assert equal(tensors(again.model), tensors(learner.model))


def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    make(folder=tmp_path).fit(1)
    data = TensorData.from_tensors(X, Y, valid=20)
    for model in (nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9))):
        other = Learner(data, model, quiet=True)
        before = tensors(other.model)
        with pytest.raises(ArtefactError, match=r"step-00000002 does not fit the model"):
            other.load(tmp_path)
        assert equal(before, tensors(other.model))
