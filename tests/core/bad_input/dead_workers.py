"""Fit with workers that die, and write the errors: ``dead_workers.py FOLDER [PRIVATE_NAME]``."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from flambeau import Data, Learner, TensorData
from flambeau.errors import FlambeauError
from flambeau.torch_internals import names

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
PAIRS = TensorDataset(X, Y)


class DiesAt39(Dataset[Any]):
    """A data set whose sample 39 ends the worker process that reads it."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        if index == 39 and get_worker_info() is not None:
            os._exit(3)
        return X[index], Y[index]


def error_of(data: Data, folder: Path, **choices: Any) -> str:
    """Return kind and message of the error of a fit."""
    learner = Learner(data, torch.nn.Linear(6, 3), quiet=True, folder=folder, choices=choices)
    try:
        learner.fit(2)
    except FlambeauError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def without(absent: str) -> list[str]:
    """Let flambeau find no such private name; the list gets an entry for each look at it."""
    looks: list[str] = []
    original = names.attribute

    def attribute(owner: object, name: str) -> Any:
        if name != absent:
            return original(owner, name)
        looks.append(name)
        return None

    names.attribute = attribute
    return looks


def main(folder: Path, absent: str) -> None:
    looks = without(absent)
    loader = DataLoader(DiesAt39(), 8, sampler=list(range(40)), num_workers=1)
    own = TensorData.from_loaders(loader, DataLoader(PAIRS, 8), n_classes=3)
    built = TensorData.from_datasets(DiesAt39(), PAIRS, n_classes=3)
    errors = [
        error_of(own, folder / "a"),
        error_of(built, folder / "b", num_workers=1, batch_size=8),
    ]
    del loader, own, built
    gc.collect()  # the loader of valid is part of a cycle
    # torch 2.11 terminates a worker after an error without waiting for its end.
    for worker in multiprocessing.active_children():
        worker.join(5)
    sys.stdout.write(json.dumps([*errors, len(looks), len(multiprocessing.active_children())]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
