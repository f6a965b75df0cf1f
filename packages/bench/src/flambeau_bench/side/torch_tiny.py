"""The task of ``peers-overhead`` for libraries on torch: an MLP 32-64-1 on batches of 32 rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from flambeau_bench.side import tiny_numbers
from flambeau_bench.side.protocol import Facts, Job
from flambeau_bench.side.tiny_numbers import BATCH_SIZE, HIDDEN, N_INPUTS
from flambeau_bench.side.torch_witness import (
    Witness,
    devices_of,
    parameter_types,
    torch_settings,
    weights_hash,
)
from flambeau_bench.side.user_optimizer import ForLoopAdam

Pair = tuple[Tensor, Tensor]


class TinyTask:
    """Model and batches of one run.

    Args:
        job: Row, setting and seed.
        request: Has "steps", and "watch" to observe the batches.

    Attributes:
        row: The way of training that is measured: "default callbacks", "fast setting", "user
            optimizer" or "user loader".
        fast: Whether the documented fast setting of the library is asked for.
        model: The untrained network; the library trains this object.
        lr: Learning rate, the same in all steps.
        batches: The batches of the epoch, ready in memory.
        valid_batches: The one batch for the evaluation at the end.
    """

    def __init__(self, job: Job, request: Mapping[str, Any]) -> None:
        if job.threads:
            torch.set_num_threads(job.threads)
        self.row, self.fast, self.lr = job.row, job.setting == "fast", tiny_numbers.LR
        self.seed, self.watched = job.seed, bool(request.get("watch"))
        self.steps = int(request["steps"])
        torch.manual_seed(job.seed)
        self.model = tiny_network(job.seed)
        self.batches: list[Pair] = [
            (torch.from_numpy(x), torch.from_numpy(y))
            for x, y in tiny_numbers.batches(job.seed, self.steps)
        ]
        x, y = tiny_numbers.valid_batch(job.seed)
        self.valid_batches: list[Pair] = [(torch.from_numpy(x), torch.from_numpy(y))]
        self._init_hash = weights_hash(self.model)
        self._witness = Witness(self.model) if self.watched else None

    @property
    def user_optimizer(self) -> bool:
        """Whether to train with ``ForLoopAdam`` instead of SGD."""
        return self.row == "user optimizer"

    @property
    def user_loader(self) -> bool:
        """Whether to read the user's ``DataLoader`` instead of ready batches."""
        return self.row == "user loader"

    def optimizer(self, parameters: Iterable[nn.Parameter] | None = None) -> Optimizer:
        """Return the optimizer of a library that takes any torch optimizer."""
        parameters = self.model.parameters() if parameters is None else parameters
        if self.user_optimizer:
            return ForLoopAdam(parameters, lr=self.lr)
        return torch.optim.SGD(parameters, lr=self.lr, fused=True if self.fast else None)

    def loader(self, names: tuple[str, str] | None = None) -> DataLoader[Any]:
        """Return the loader of the row "user loader".

        It reads a user-defined data set row by row and collates the batches. In the other rows the
        batches are ready: a library that can iterate over them does so.

        Args:
            names: Names of input and target, for a library that takes dicts; else batches are
                pairs.
        """
        return self._loader(self.batches, names)

    def valid_loader(self, names: tuple[str, str] | None = None) -> DataLoader[Any]:
        """Return the batch for the evaluation, likewise."""
        return self._loader(self.valid_batches, names)

    def _loader(self, batches: list[Pair], names: tuple[str, str] | None) -> DataLoader[Any]:
        return DataLoader(UserRows(batches, names), batch_size=BATCH_SIZE)

    def facts(self) -> Facts:
        """Return what was done. Without "watch" only what the weights show."""
        witness = self._witness
        if witness is not None:
            witness.close()
        types = parameter_types(self.model) | (witness.types if witness else set())
        x, y = self.valid_batches[0]
        self.model.eval()
        with torch.no_grad():
            first = next(self.model.parameters())
            prediction = self.model(x.to(first)).float().cpu().numpy()
        return Facts(
            steps=witness.steps if witness else 0,
            samples=witness.samples if witness else 0,
            init_hash=self._init_hash,
            order_hash=witness.order_hash if witness else "",
            weights_hash=weights_hash(self.model),
            precision=", ".join(sorted(types)),
            final_evaluations=witness.final_evaluations if witness else 0,
            seed=self.seed,
            quality={"loss": tiny_numbers.mean_squared_error(prediction, y.numpy())},
            settings={
                **torch_settings(),
                "batch_size": BATCH_SIZE,
                "device": devices_of(self.model.parameters()),
            },
        )


def tiny_network(seed: int) -> nn.Sequential:
    """Return the MLP 32-64-1 with the initial weights of ``seed``."""
    model = nn.Sequential(nn.Linear(N_INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    with torch.no_grad():
        pairs = zip(model.parameters(), tiny_numbers.initial_weights(seed), strict=True)
        for parameter, values in pairs:
            parameter.copy_(torch.from_numpy(values))
    return model


class ReadyBatches(Dataset[Any]):
    """Batches in memory as a data set whose elements are batches: pairs, or dicts by ``names``."""

    def __init__(self, batches: list[Pair], names: tuple[str, str] | None = None) -> None:
        self._batches = [_named(batch, names) for batch in batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Any:
        return self._batches[number]


class UserRows(Dataset[Any]):
    """A user-defined data set that returns one row per call, in the order of ready batches."""

    def __init__(self, batches: list[Pair], names: tuple[str, str] | None = None) -> None:
        self._x = torch.cat([x for x, _ in batches])
        self._y = torch.cat([y for _, y in batches])
        self._names = names

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, row: int) -> Any:
        return _named((self._x[row], self._y[row]), self._names)


def _named(pair: Pair, names: tuple[str, str] | None) -> Any:
    return pair if names is None else dict(zip(names, pair, strict=True))
