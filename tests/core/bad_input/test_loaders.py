"""User-defined loaders and data sets that cannot be read, or cannot be resumed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from flambeau import Data, Learner, TensorData
from flambeau.errors import ArgumentError, FlambeauWarning, InputError, ResumeError, TrainingError

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
PAIRS = TensorDataset(X, Y)
Pair = namedtuple("Pair", "x y")


class Samples(Dataset[Any]):
    """A data set whose samples are ``give(index)``."""

    def __init__(self, give: Any, n: int = 40) -> None:
        self.give, self.n = give, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return self.give(index)


class Stream(IterableDataset[Any]):
    def __init__(self, length: int | None) -> None:
        if length is not None:
            self.__class__ = CountedStream

    def __iter__(self) -> Any:
        return iter([(X[i], Y[i]) for i in range(40)])


class CountedStream(Stream):
    def __len__(self) -> int:
        return 40


def loaders(train: Any, **options: Any) -> Data:
    return TensorData.from_loaders(train, DataLoader(PAIRS, 8), **{"n_classes": 3, **options})


def fit(data: Data, folder: Path | None = None, **choices: Any) -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    learner = Learner(data, model, quiet=True, folder=folder, choices=choices)
    learner.fit(2)
    return learner


def shuffled(give: Any) -> DataLoader[Any]:
    return DataLoader(Samples(give), 8, shuffle=True)


@pytest.mark.parametrize(
    ("train", "kind", "message"),
    [
        (shuffled(lambda i: {"x": X[i], "y": Y[i]}), InputError, r"keys 'x', 'y'.*inputs=\['x'\]"),
        (shuffled(lambda i: (X[i], X[i], Y[i])), InputError, "tuples of 3.*n_inputs="),
        (DataLoader(PAIRS, 8, collate_fn=lambda b: None), InputError, "return a NoneType, but"),
        (shuffled(lambda i: ("a", Y[i])), InputError, "'input' of a batch is a tuple, not a ten"),
        (((X, Y) for _ in range(2)), ArgumentError, "iterator that can be used for one epoch"),
        ([], InputError, "train loader has no batches"),
        (PAIRS, ArgumentError, "cannot be iterated. Pass a DataLoader"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*train-not-shuffled")
def test_ambiguous_batches_are_refused(train: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        loaders(train)


def test_a_stream_without_length_is_refused_where_it_is_needed() -> None:
    with pytest.raises(InputError, match=r"no len\(\).*fit\(steps=10_000"):
        fit(loaders(DataLoader(Stream(None), 8)))
    with pytest.raises(InputError, match=r"valid loader has no len.*Define __len__"):
        TensorData.from_loaders([(X, Y)], DataLoader(Stream(None), 8), n_classes=3)


def test_named_tuples_are_accepted_as_pairs() -> None:
    assert len(fit(loaders(shuffled(lambda i: Pair(X[i], Y[i])))).history.rows) == 2


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(InputError, match="label 2, but there are 2 classes, 0 to 1"):
        fit(loaders(DataLoader(PAIRS, 8, shuffle=True), n_classes=2))
    late = [(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:24], Y[16:24] + 3)]
    with pytest.raises(InputError, match=r"contains [345], but there are 3 classes.*\(sample \d+"):
        fit(loaders(late))


def test_labels_outside_the_classes_in_valid_are_refused() -> None:
    train = DataLoader(TensorDataset(X, Y % 2), 8, shuffle=True)
    data = TensorData.from_loaders(train, [(X[:8], Y[:8])], n_classes=2)
    learner = Learner(data, nn.Linear(6, 2), quiet=True)
    for run in (lambda: learner.fit(1), learner.evaluate, learner.interpret):
        with pytest.raises(InputError, match=r"contains 2, but there are 2 classes, 0 to 1"):
            run()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_labels_are_accepted(dtype: torch.dtype) -> None:
    labels = Y.to(dtype)
    pairs, others = TensorDataset(X[:40], labels[:40]), TensorDataset(X[40:], labels[40:])
    loader = DataLoader(pairs, 8, shuffle=True)
    samples = Samples(lambda i: (X[i], labels[i]))
    unseen = Samples(lambda i: (X[40 + i], labels[40 + i]), 20)
    for data in (
        TensorData.from_tensors(X, labels),
        TensorData.from_tensors(X, labels.numpy()),
        TensorData.from_datasets(pairs, others),
        TensorData.from_datasets(samples, unseen, n_classes=3),
        TensorData.from_loaders(loader, DataLoader(others, 8), n_classes=3),
    ):
        assert len(fit(data).history.rows) == 2


def test_an_unsigned_label_beyond_int64_is_named() -> None:
    labels = Y.numpy().astype("uint64")
    labels[7] = 2**63
    with pytest.raises(InputError, match=r"at least 2\*\*63 in row 7"):
        TensorData.from_tensors(X, labels)


def test_wrong_shuffling_gives_a_warning() -> None:
    mixed = DataLoader(PAIRS, 8, shuffle=True)
    with pytest.warns(FlambeauWarning, match="valid-shuffled"):
        TensorData.from_loaders(mixed, mixed)
    with pytest.warns(FlambeauWarning, match="train-not-shuffled"):
        loaders(DataLoader(PAIRS, 8))


def test_a_last_batch_of_one_gives_a_warning() -> None:
    train = DataLoader(TensorDataset(X[:41], Y[:41]), 8, shuffle=True)
    with (
        pytest.warns(FlambeauWarning, match=r"last-batch-of-one.*1 of its 41.*drop_last=True"),
        pytest.raises(InputError, match="Batch norm cannot compute statistics"),
    ):
        fit(loaders(train))
    kept = DataLoader(TensorDataset(X[:41], Y[:41]), 8, shuffle=True, drop_last=True)
    assert len(fit(loaders(kept)).history.rows) == 2


def fails_at_13(index: int) -> Any:
    if index == 13:
        raise KeyError("no such file")
    return X[index % 60], Y[index % 60]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_named(workers: int) -> None:
    with pytest.raises(InputError, match=r"sample 13 of the data set.*no such file"):
        data = TensorData.from_datasets(Samples(fails_at_13), PAIRS, n_classes=3)
        fit(data, num_workers=workers)
    order: list[int] = [*range(13), *range(14, 40), 13]
    with pytest.raises(InputError, match=r"failed at batch 4 of epoch 0: KeyError: .*no such"):
        fit(loaders(DataLoader(Samples(fails_at_13), 8, sampler=order, num_workers=workers)))


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["", "torch.utils.data.DataLoader._shutdown_workers"])
def test_a_dead_worker_is_named(absent: str, tmp_path: Path) -> None:
    """In a process of its own, because torch's handler of a dead worker raises anywhere.

    In one run it raised between the lock of a queue and its release, and the finaliser of the queue
    waited for this lock in a garbage collection of pytest.
    """
    script = Path(__file__).parent / "dead_workers.py"
    command = [sys.executable, str(script), str(tmp_path), absent]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    own, built, lookups, children = json.loads(done.stdout.splitlines()[-1])
    for message in (own, built):  # the handler of the signal raises in a read or in a step
        assert re.search(r"^TrainingError: .*[Aa] worker process .*died.*num_workers=0", message)
    assert lookups <= (2 if absent else 0)
    assert children == 0


@pytest.mark.parametrize("end", ["exited unexpectedly with exit code 3.", "is killed by signal: 9"])
@pytest.mark.parametrize("place", ["step", "read", "evaluation"])
def test_the_signal_of_a_dead_worker_is_explained(end: str, place: str) -> None:
    """torch's handler raises wherever the main process is."""

    def die(*_: Any) -> Any:
        raise RuntimeError(f"DataLoader worker (pid 3) {end}")

    class Dies(nn.Linear):
        def forward(self, x: Any) -> Any:
            is_here = place == ("step" if self.training else "evaluation")
            return die() if is_here else super().forward(x)

    def give(index: int) -> Any:
        return die() if place == "read" and index == 39 else (X[index], Y[index])

    data = loaders(DataLoader(Samples(give), 8, sampler=list(range(40))))
    learner = Learner(data, nn.Sequential(Dies(6, 6), nn.Linear(6, 3)), quiet=True)
    with pytest.raises(TrainingError, match=r"worker process .*died.*pid 3.*num_workers=0"):
        learner.fit(1)


def test_samples_of_several_shapes_are_named() -> None:
    with pytest.raises(InputError, match=r"samples at positions 0, 1, .*cannot be collated"):
        TensorData.from_datasets(Samples(lambda i: (torch.zeros(i + 1), Y[i])), PAIRS)
    with pytest.raises(InputError, match="The train data set is empty"):
        TensorData.from_datasets(Samples(lambda i: i, n=0), PAIRS)


@pytest.mark.filterwarnings(r"ignore:\[lagging-statistics\]")  # of short runs on a stream
def test_resuming_a_stream_is_refused_with_the_reason(tmp_path: Path) -> None:
    def data() -> Data:
        return loaders(DataLoader(Stream(40), 8))

    fit(data(), folder=tmp_path)
    again = Learner(data(), nn.Linear(6, 3), quiet=True, folder=tmp_path)
    with pytest.raises(ResumeError):
        again.resume()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    again = Learner(data(), model, quiet=True, folder=tmp_path)
    with pytest.raises(ResumeError, match="IterableDataset, whose samples may differ"):
        again.resume()
