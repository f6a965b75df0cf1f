"""The smallest training task: an MLP 32-64-1 on batches of 32 rows, so that the loop dominates."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from flambeau import (
    Batch,
    Callback,
    Data,
    Learner,
    ProgressBar,
    Regression,
    Split,
    TensorData,
    TrainingOptions,
    TrainState,
)
from flambeau.data.loader import Loader, LoaderOptions
from flambeau.data.preprocess import Preprocessor
from flambeau.tensors.preprocess import TensorPreprocessor

N_INPUTS = 32
HIDDEN = 64
BATCH_SIZE = 32
PEAK_LR = 1e-3
WEIGHT_DECAY = 0.01
_DISTINCT = 64  # batches; a longer epoch repeats them


def tiny_model(seed: int, device: str = "cpu") -> nn.Sequential:
    """Return the model with initial weights that ``seed`` determines."""
    draws = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(N_INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draws))
    return model.to(device)


def ready_batches(seed: int, device: str = "cpu") -> list[Batch]:
    """Return batches like those of a loader, already on ``device``."""
    draws = torch.Generator().manual_seed(seed)
    found: list[Batch] = []
    for number in range(_DISTINCT):
        x = torch.randn(BATCH_SIZE, N_INPUTS, generator=draws)
        y = x[:, :1] * x[:, 1:2] + 0.1 * torch.randn(BATCH_SIZE, 1, generator=draws)
        rows = torch.arange(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
        batch = Batch({"x": x.to(device)}, {"y": y.to(device)}, weight=BATCH_SIZE, indices=rows)
        found.append(batch)
    return found


class BatchSource(Protocol):
    """The batches of one run, read by both sides.

    Attributes:
        taken: The numbers of the batches that were read, in order.
    """

    taken: list[int]

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        ...

    def pairs(self) -> Iterable[Sequence[Tensor]]:
        """Return one epoch of (input, target) for a hand-written loop."""
        ...

    def first(self) -> BatchSource:
        """Return the first batch alone: the validation set."""
        ...

    def data(self) -> Data:
        """Return the same batches for a learner."""
        ...


class ReadyLoader(Loader):
    """A loader of ready batches in a fixed order that records which batches were read.

    Both sides use the same object: flambeau as a loader, the hand-written loop as pairs of tensors.
    Recording a number costs each side 0.1 µs per batch.

    Args:
        batches: Repeated until the epoch has ``count`` of them.
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
        return self._iterate(self._batches, start_step)

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return inputs and targets of the same batches."""
        return self._iterate(self._pairs, 0)

    def first(self) -> ReadyLoader:
        """Return a loader of the first batch alone."""
        return ReadyLoader(self._batches[:1], 1)

    def data(self) -> Data:
        """Return data that use this object as the train loader."""
        return ReadyData(self)

    def _iterate(self, what: Sequence[Any], start: int) -> Iterator[Any]:
        taken, length = self.taken, len(what)
        for step in range(start, self._count):
            number = step % length
            taken.append(number)
            yield what[number]


class UserLoader:
    """The rows of ready batches behind a ``DataLoader`` with a user-defined data set.

    The ``DataLoader`` reads the rows one by one, in the order of a batch sampler, and collates
    them.

    Args:
        batches: Batches whose rows are the data set; repeated until the epoch has ``count``
            batches.
        count: Batches in an epoch.

    Attributes:
        loader: The ``DataLoader`` that both sides use.
    """

    def __init__(self, batches: Sequence[Batch], count: int) -> None:
        self._first = batches[0]
        rows = _UserRows(
            torch.cat([batch.input for batch in batches]).cpu(),
            torch.cat([batch.target for batch in batches]).cpu(),
        )
        self.taken: list[int] = []
        sampler = _RecordingSampler(len(batches), count, self.taken)
        self.loader: DataLoader[Any] = DataLoader(rows, batch_sampler=sampler)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.loader)

    def pairs(self) -> Iterable[Sequence[Tensor]]:
        """Return the ``DataLoader``: its batches are lists of input and target."""
        return self.loader

    def first(self) -> ReadyLoader:
        """Return a loader of the first batch alone."""
        return ReadyLoader([self._first], 1)

    def data(self) -> Data:
        """Return data of ``TensorData.from_loaders``; batches that it reads are not recorded."""
        valid = [(self._first.input, self._first.target)]
        data = TensorData.from_loaders(self.loader, valid, task="regression")
        self.taken.clear()
        return data


class _UserRows(TorchDataset[tuple[Tensor, Tensor]]):
    """A user-defined data set that returns one row per call."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self._x[row], self._y[row]


class _RecordingSampler(Sampler[list[int]]):
    """A sampler of the rows of ready batches, in order; appends batch numbers to ``taken``."""

    def __init__(self, distinct: int, count: int, taken: list[int]) -> None:
        self._rows = [
            list(range(number * BATCH_SIZE, (number + 1) * BATCH_SIZE))
            for number in range(distinct)
        ]
        self._count = count
        self._taken = taken

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._count):
            number = step % len(self._rows)
            self._taken.append(number)
            yield self._rows[number]


class ReadyData(Data):
    """Data whose train loader is a ``ReadyLoader``.

    Args:
        loader: The training batches; the first of them is the validation set.
    """

    domain = "flambeau.tensors.domain:DOMAIN"

    def __init__(self, loader: ReadyLoader) -> None:
        self._loader = loader
        rows = loader.steps_per_epoch * BATCH_SIZE
        self._split = Split.from_indices(range(rows), range(rows, rows + BATCH_SIZE))

    @property
    def split(self) -> Split:
        return self._split

    @property
    def choices(self) -> Mapping[str, Any]:
        return {}

    def facts(self) -> Mapping[str, Any]:
        return {
            "n_train": self._loader.steps_per_epoch * BATCH_SIZE,
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

    def dataset(self, part: str, preprocessor: Any, values: Mapping[str, Any]) -> ReadyDataset:
        return ReadyDataset(self._loader if part == "train" else self._loader.first())

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {}

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {}

    def raw(self, part: str) -> Sequence[Any]:
        return ()


class ReadyDataset:
    """A data set that returns the same ``ReadyLoader`` for all options.

    Args:
        loader: The loader to return.
    """

    def __init__(self, loader: ReadyLoader) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return self._loader.steps_per_epoch * BATCH_SIZE

    def loader(self, options: LoaderOptions) -> Loader:
        return self._loader


class FakeTerminal(io.StringIO):
    """A stream that claims to be a terminal, for a progress bar, and discards what is written."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        return len(text)


class KeepState(Callback):
    """Keeps the state of a fit, so that the settings of its optimizer can be read afterwards.

    It has no event within an epoch, so it adds nothing to a step.
    """

    def __init__(self) -> None:
        self.state: TrainState | None = None

    def on_fit_end(self, state: TrainState) -> None:
        self.state = state


def tiny_learner(
    source: BatchSource,
    model: nn.Module,
    *,
    optimizer: str = "adamw",
    training: TrainingOptions,
    callbacks: Sequence[Callback] = (),
    device: str = "cpu",
    bar_every_s: float = 0.5,
) -> Learner:
    """Return a learner with the default callbacks; its progress bar draws on a fake terminal."""
    return Learner(
        source.data(),
        model,
        task=Regression(metrics=()),  # the loss only, as in the hand-written loop
        choices={
            "batch_size": BATCH_SIZE,
            "device": device,
            "epochs": 1,
            "lr": PEAK_LR,
            "precision": "fp32",
            "probe": "off",  # with 1,000 steps or more it would read batches
            "schedule": "one_cycle",
            # The user-defined optimizer has no weight decay.
            **(
                {} if training.optimizer else {"optimizer": optimizer, "weight_decay": WEIGHT_DECAY}
            ),
        },
        # The doctor reads a batch before the first fit, but both sides must read the same ones.
        training=replace(training, doctor=False),
        callbacks=[ProgressBar(FakeTerminal(), bar_every_s), *callbacks],
    )
