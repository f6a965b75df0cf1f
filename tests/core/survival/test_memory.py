"""Memory, objects, threads, files and processes stay as many as they were, however long it goes.

Counts of Python objects are exact, so they are held tightly. Memory of the process also holds what
the allocator keeps for later: there a growth must be larger than that to count as one.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import EMA, Callback, Learner, TensorData, TrainingOptions
from flambeau.training.history import History

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Measured:
    """What a process holds: Python's objects, its bytes for them, and resident memory."""

    objects: int
    traced_bytes: int
    resident_bytes: int
    threads: int
    files: int
    processes: int

    def others(self) -> tuple[int, int, int]:
        return self.threads, self.files, self.processes


def measure() -> Measured:
    gc.collect()
    files, resident = Path("/proc/self/fd"), Path("/proc/self/statm")
    return Measured(
        objects=len(gc.get_objects()),
        traced_bytes=tracemalloc.get_traced_memory()[0],
        resident_bytes=int(resident.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if resident.exists()
        else 0,
        threads=threading.active_count(),
        files=len(list(files.iterdir())) if files.exists() else 0,
        processes=len(multiprocessing.active_children()),
    )


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


class Samples(torch.utils.data.Dataset[Any]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((6,), index / self.n), index % 2


def new_learner(*callbacks: Callback, workers: int = 0, folder: Path | None = None) -> Learner:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    if workers:
        data = TensorData.from_datasets(Samples(32), Samples(8), n_classes=2)
    else:
        data = TensorData.from_tensors(x, y, valid=8)
    return Learner(
        data,
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
        choices={"batch_size": 16, "num_workers": workers},
        training=TrainingOptions(average=EMA(0.9), clip_norm=1.0, keep_best="valid_loss"),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


class Watch(Callback):
    """Measures every so many epochs."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen: list[Measured] = []

    def on_epoch_end(self, state: Any) -> None:
        if state.position.epoch % self.every == 0:
            self.seen.append(measure())


def repeat(action: Callable[[], object], times: int, warm_up: int) -> tuple[Measured, Measured]:
    """What was held after ``warm_up`` calls of ``action``, and after ``times`` more."""
    for _ in range(warm_up):
        action()
    before = measure()
    for _ in range(times):
        action()
    return before, measure()


def check_flat(
    before: Measured, after: Measured, n: int, bytes_each: int = 0, objects: int = 30
) -> None:
    """No object, thread, file or process more; ``bytes_each`` for what a history has to keep."""
    # Caches of torch and of the tests' own tools fill now and then: some dozens, not one a turn.
    assert after.objects - before.objects < max(objects, 0.1 * n)
    assert after.others() == before.others()
    # Blocks that Python reuses count once they are handed out anew under tracing: 29 kB in the
    # first 100 learners, 13, 8 and 3.5 kB in the next ones. One learner that stays is over 10 kB.
    assert after.traced_bytes - before.traced_bytes < n * bytes_each + 200_000
    assert after.resident_bytes - before.resident_bytes < n * bytes_each + 8 * MEGABYTE


# A history's row: a dict of eight numbers takes 500 bytes, two steps' losses 16.
ROW_BYTES = 1000


def test_a_history_takes_eight_bytes_a_step(traced: None) -> None:
    before, history = tracemalloc.get_traced_memory()[0], History()
    for _ in range(100):
        history.step_losses.extend([0.5] * 1000)
    assert tracemalloc.get_traced_memory()[0] - before < 1.3 * 8 * 100_000


def test_a_hundred_epochs() -> None:
    watch = Watch(20)
    new_learner(watch).fit(100)
    first, *_, last = watch.seen[1:]
    check_flat(first, last, 60, ROW_BYTES)


def test_a_learner_is_freed_with_its_last_reference() -> None:
    new_learner().fit(1)  # what is loaded once
    gc.collect()
    gc.disable()
    try:
        learner = new_learner()
        learner.fit(1)
        learner.predict(torch.zeros(2, 6))
        model = weakref.ref(learner.model)
        del learner
        assert model() is None
    finally:
        gc.enable()


def test_workers_end_with_the_learner() -> None:
    def train() -> None:
        new_learner(workers=1).fit(1)

    before, after = repeat(train, times=2, warm_up=1)
    assert after.others() == before.others()


def test_fifty_predictions() -> None:
    learner = new_learner()
    learner.fit(1)
    x = torch.zeros(3, 6)
    check_flat(*repeat(lambda: learner.predict(x), times=50, warm_up=10), 50)


@pytest.mark.slow
def test_three_hundred_epochs_to_the_byte(traced: None) -> None:
    watch = Watch(50)
    new_learner(watch).fit(300)
    check_flat(watch.seen[0], watch.seen[-1], 250, ROW_BYTES)


@pytest.mark.slow
def test_two_thousand_epochs() -> None:
    watch = Watch(200)
    new_learner(watch).fit(2000)
    assert len(watch.seen) == 10
    check_flat(watch.seen[2], watch.seen[-1], 1400, ROW_BYTES)


@pytest.mark.slow
def test_two_hundred_fits_of_one_learner(traced: None, tmp_path: Path) -> None:
    learner = new_learner(folder=tmp_path)
    before, after = repeat(lambda: learner.fit(1), times=200, warm_up=20)
    check_flat(before, after, 200, ROW_BYTES)


@pytest.mark.slow
def test_two_hundred_learners(traced: None) -> None:
    check_flat(*repeat(lambda: new_learner().fit(1), times=200, warm_up=20), 200)


@pytest.mark.slow
def test_twenty_learners_with_workers(traced: None) -> None:
    def train() -> None:
        new_learner(workers=2).fit(1)

    # torch keeps weak references to shared memory until there are 128 of them, 4 objects each.
    check_flat(*repeat(train, times=20, warm_up=2), 20, objects=512)


@pytest.mark.slow
def test_five_thousand_predictions(traced: None) -> None:
    learner = new_learner()
    learner.fit(1)
    predictor, x = learner.predictor(), torch.zeros(3, 6)

    def predict() -> None:
        learner.predict(x)
        predictor.predict(x)

    check_flat(*repeat(predict, times=2500, warm_up=200), 2500)
