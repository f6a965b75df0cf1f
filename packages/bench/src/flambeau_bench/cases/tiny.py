"""The smallest training there is: an MLP 32-64-1 over 32 ready rows, so that the loop shows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from flambeau import (
    Batch,
    Callback,
    Data,
    Learner,
    ProgressBar,
    Regression,
    Split,
    TrainingOptions,
    TrainState,
)
from flambeau.data.loader import Loader, LoaderOptions
from flambeau.tensors.preprocess import TensorPreprocessor

N_INPUTS = 32
HIDDEN = 64
BATCH_SIZE = 32
PEAK_LR = 1e-3
WEIGHT_DECAY = 0.01
_DISTINCT = 64  # batches; a longer run goes through them again


def tiny_model(seed: int, device: str = "cpu") -> nn.Sequential:
    """The net, its first weights fixed by ``seed``."""
    draws = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(N_INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draws))
    return model.to(device)


def ready_batches(seed: int, device: str = "cpu") -> list[Batch]:
    """Batches as a loader gives them, on ``device`` already."""
    draws = torch.Generator().manual_seed(seed)
    found: list[Batch] = []
    for number in range(_DISTINCT):
        x = torch.randn(BATCH_SIZE, N_INPUTS, generator=draws)
        y = x[:, :1] * x[:, 1:2] + 0.1 * torch.randn(BATCH_SIZE, 1, generator=draws)
        rows = torch.arange(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
        batch = Batch({"x": x.to(device)}, {"y": y.to(device)}, weight=BATCH_SIZE, indices=rows)
        found.append(batch)
    return found


class Tape(Loader):
    """Ready batches in a fixed order, and a note of those that were taken.

    Both sides read the same tape: ours as a loader, the other as pairs of tensors. The note costs
    each of them the same 0.1 µs a batch.

    Args:
        batches: To go through, again and again.
        count: Batches in an epoch.
    """

    def __init__(self, batches: Sequence[Batch], count: int) -> None:
        self._batches = batches
        self._pairs = [(batch.input, batch.target) for batch in batches]
        self._count = count
        self.taken: list[int] = []

    @property
    def steps_per_epoch(self) -> int:
        return self._count

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        return self._play(self._batches, start_step)

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of the same batches."""
        return self._play(self._pairs, 0)

    def first(self) -> Tape:
        """A tape of the first batch alone, once."""
        return Tape(self._batches[:1], 1)

    def _play(self, what: Sequence[Any], start: int) -> Iterator[Any]:
        taken, length = self.taken, len(what)
        for step in range(start, self._count):
            number = step % length
            taken.append(number)
            yield what[number]


class ReadyData(Data):
    """Data whose train loader is a tape: the public way in for a loader of one's own.

    Args:
        tape: What is trained on; its first batch is the valid set.
    """

    domain = "flambeau.tensors.domain:DOMAIN"

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        rows = tape.steps_per_epoch * BATCH_SIZE
        self._split = Split.given(range(rows), range(rows, rows + BATCH_SIZE))

    @property
    def split(self) -> Split:
        return self._split

    @property
    def choices(self) -> Mapping[str, Any]:
        return {}

    def facts(self) -> Mapping[str, Any]:
        return {
            "n_train": self._tape.steps_per_epoch * BATCH_SIZE,
            "n_valid": BATCH_SIZE,
            "n_test": 0,
            "split": "given",
            "inputs": {"x": {"shape": [N_INPUTS], "dtype": "float32"}},
            "targets": {"y": {"shape": [1], "dtype": "float32"}},
            "in_memory": True,
            "memory_bytes": 4 * _DISTINCT * BATCH_SIZE * (N_INPUTS + 1),
            "target_dtype": "float32",
            "target_shape": [1],
        }

    def preprocessor(self, values: Mapping[str, Any]) -> TensorPreprocessor:
        return TensorPreprocessor(self.facts()["inputs"])

    def dataset(self, part: str, preprocessor: Any, values: Mapping[str, Any]) -> Ready:
        return Ready(self._tape if part == "train" else self._tape.first())

    def model_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def task_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def raw(self, part: str) -> Sequence[Any]:
        return ()


class Ready:
    """A data set whose loader is a tape.

    Args:
        tape: What it gives, whatever the options ask for.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __len__(self) -> int:
        return self._tape.steps_per_epoch * BATCH_SIZE

    def loader(self, options: LoaderOptions) -> Loader:
        return self._tape


class Terminal(io.StringIO):
    """Takes what a progress bar draws as a terminal would, and forgets it."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        return len(text)


class Keep(Callback):
    """Keeps the optimizer of a fit, so that its settings can be looked at afterwards.

    It hears nothing within an epoch, so a step does not know of it.
    """

    def __init__(self) -> None:
        self.state: TrainState | None = None

    def on_fit_end(self, state: TrainState) -> None:
        self.state = state


def tiny_learner(
    tape: Tape,
    model: nn.Module,
    *,
    optimizer: str = "adamw",
    training: TrainingOptions,
    callbacks: Sequence[Callback] = (),
    device: str = "cpu",
) -> Learner:
    """A learner over the tape with the default callbacks, the bar drawing on a terminal."""
    return Learner(
        ReadyData(tape),
        model,
        task=Regression(metrics=()),  # the loss alone, as by hand
        choices={
            "batch_size": BATCH_SIZE,
            "device": device,
            "epochs": 1,
            "lr": PEAK_LR,
            "optimizer": optimizer,
            "precision": "fp32",
            "probe": "off",  # from 1,000 steps on it would draw batches of the tape
            "schedule": "one_cycle",
            "weight_decay": WEIGHT_DECAY,
        },
        # The doctor looks at a batch before a first fit; both sides are to take the same ones.
        training=replace(training, doctor=False),
        callbacks=[ProgressBar(stream=Terminal()), *callbacks],
    )
