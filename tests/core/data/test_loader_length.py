"""Loaders that yield another number of batches than their len(): every row is scored."""

import warnings
from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Sampler,
    TensorDataset,
    get_worker_info,
)

from flambeau import FlambeauWarning, Learner, TensorData
from flambeau.data.user_loader import UserLoader
from flambeau.errors import InputError

Pair = tuple[Tensor, Tensor]
X = torch.linspace(-1, 1, 18).unsqueeze(1)
Y = (X[:, 0] > 0.3).long()


class WrongLength:
    """Batches of two rows, with a len() of its own."""

    def __init__(self, n_said: int) -> None:
        self.n_said = n_said

    def __len__(self) -> int:
        return self.n_said

    def __iter__(self) -> Iterator[Pair]:
        yield from zip(X.split(2), Y.split(2), strict=True)


class Sharded(IterableDataset[tuple[Tensor, int]]):
    """A stream of 50 rows that each worker shares, with the length of all of them."""

    def __len__(self) -> int:
        return 50

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for row in range(first, 50, step):
            yield torch.tensor([float(row)]), row % 2


class Shard(Sharded):
    """The same with the length of one of two workers."""

    def __len__(self) -> int:
        return 25


@pytest.mark.parametrize("n_said", [8, 10])
@pytest.mark.parametrize("part", ["valid", "test", "calibration"])
def test_every_batch_is_used(n_said: int, part: str) -> None:
    loader = UserLoader(WrongLength(n_said), part=part)
    with pytest.warns(
        FlambeauWarning, match=rf"yields 9 batches, but its len\(\) is {n_said}; all"
    ):
        batches = list(loader.batches(0))
    assert torch.equal(torch.cat([batch.input for batch in batches]), X)
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(18))


@pytest.mark.parametrize("n_said", [8, 10])
def test_scores_count_every_row(n_said: int) -> None:
    torch.manual_seed(0)
    pairs = list(zip(X.split(2), Y.split(2), strict=True))
    data = TensorData.from_loaders(pairs, WrongLength(n_said), WrongLength(n_said), n_classes=2)
    learner = Learner(data, nn.Linear(1, 2), quiet=True)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(learner.model(X), Y).item()
    for part in ("valid", "test"):
        with pytest.warns(FlambeauWarning, match="loader-length"):
            assert learner.evaluate(part)["loss"] == pytest.approx(expected)


@pytest.mark.parametrize("stream", [Sharded(), Shard()])
def test_a_stream_over_two_workers_is_scored_as_a_whole(stream: Sharded) -> None:
    # Each worker has 25 rows, so there are two batches that are not full.
    loader = UserLoader(DataLoader(stream, batch_size=8, num_workers=2), part="valid")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = torch.cat([batch.input for batch in loader.batches(0)])
    assert sorted(rows[:, 0].tolist()) == list(range(50))
    said = -(-len(stream) // 8)
    [found] = [w for w in caught if issubclass(w.category, FlambeauWarning)]
    assert f"yields 8 batches, but its len() is {said}" in str(found.message)


def test_a_train_stream_with_more_batches_is_named_once() -> None:
    loader = UserLoader(DataLoader(Shard(), batch_size=5))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [len(list(loader.batches(epoch))) for epoch in (0, 1)] == [5, 5]
    [found] = [w for w in caught if issubclass(w.category, FlambeauWarning)]
    assert "yields at least 6 batches, but its len() is 5; an epoch ends" in str(found.message)


class WrongBatches(Sampler[list[int]]):
    """Nine batches of two rows, with a len() of its own."""

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[2 * i, 2 * i + 1] for i in range(9)])


@pytest.mark.parametrize(
    "loader", [WrongLength(7), DataLoader(TensorDataset(X, Y), batch_sampler=WrongBatches())]
)
def test_a_train_loader_with_more_batches_is_named_once(loader: Iterable[Pair]) -> None:
    train = UserLoader(loader)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [len(list(train.batches(epoch))) for epoch in (0, 1)] == [7, 7]
    [found] = [w for w in caught if issubclass(w.category, FlambeauWarning)]
    assert "train loader yields at least 8 batches, but its len() is 7" in str(found.message)


def test_an_endless_train_stream_is_not_read_ahead() -> None:
    class Endless(WrongLength):
        is_stream = True
        read = 0

        def __iter__(self) -> Iterator[Pair]:
            while True:
                self.read += 1
                yield X[:2], Y[:2]

    endless = Endless(4)
    assert len(list(UserLoader(endless).batches(0))) == 4
    assert endless.read == 4


def test_a_right_length_gives_no_warning() -> None:
    for part in ("train", "valid"):
        assert len(list(UserLoader(WrongLength(9), part=part).batches(0))) == 9
        stream = UserLoader(DataLoader(Sharded(), batch_size=10), part=part)
        assert len(list(stream.batches(0))) == 5


class ReadOnce:
    """A loader whose iterator is empty at its second pass."""

    def __init__(self) -> None:
        self.rest = iter([(X, Y)])

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Pair]:
        return self.rest


def test_a_valid_loader_without_batches_is_refused() -> None:
    data = TensorData.from_loaders([(X, Y)], ReadOnce(), n_classes=2)
    with pytest.raises(InputError, match=r"valid loader yields no batches, but its len\(\) is 1"):
        Learner(data, nn.Linear(1, 2), quiet=True).fit(2, lr=0.1)
