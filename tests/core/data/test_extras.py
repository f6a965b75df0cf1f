"""Host values of samples follow them through every operation on a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from flambeau.data import Batch, LoaderOptions
from flambeau.data.collate import BatchLayout
from flambeau.data.loader import NonEmptyBatches
from flambeau.data.user_loader import UserLoader
from flambeau.data.worker_loader import WorkerLoader
from flambeau.errors import InputError
from flambeau.task import Task
from flambeau.task.sample_losses import sample_losses
from flambeau.training.accumulation import grouped_batches
from flambeau.tuning.interval_loader import IntervalLoader
from flambeau.tuning.trial import _fresh

N = 11


class Texts:
    """Samples with a text that names them."""

    def __len__(self) -> int:
        return N

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        rows = torch.tensor(positions)
        return Batch(
            {"x": rows.double()},
            indices=rows,
            extras={"text": [f"text {row}" for row in positions]},
        )


def loader(**options: object) -> WorkerLoader:
    return WorkerLoader(Texts(), LoaderOptions(4, shuffle=True, **options))  # type: ignore[arg-type]


def check(batch: Batch) -> None:
    assert batch.extras["text"] == [f"text {int(row)}" for row in batch.input]
    assert isinstance(batch.extras["text"], list)


def test_rows_and_first() -> None:
    batch = Texts().batch([4, 9, 2], 0)
    check(batch.first(2))
    assert batch.first(2).extras == {"text": ["text 4", "text 9"]}
    assert batch.first(0).extras == {"text": []}
    check(batch.rows(torch.tensor([2, 0, 2])))
    assert batch.rows(torch.tensor([2, 0, 2])).extras["text"] == ["text 2", "text 4", "text 2"]
    assert batch.extras["text"] == ["text 4", "text 9", "text 2"]


def test_moving_never_moves_the_extras() -> None:
    batch = Texts().batch([4, 9, 2], 0)
    moved = batch.to(torch.device("meta"))
    assert moved.input.is_meta
    assert moved.extras == batch.extras
    assert replace(batch, inputs={"y": batch.input}).extras == batch.extras
    check(_fresh(batch))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_shuffling_ranks_and_resuming(num_workers: int) -> None:
    whole = list(loader(num_workers=num_workers).batches(1))
    ranks = [list(NonEmptyBatches(loader(rank=rank, world_size=2)).batches(1)) for rank in (0, 1)]
    resumed = list(loader().batches(1, start_step=1))
    for batch in (*whole, *ranks[0], *ranks[1], *resumed):
        check(batch)
    together = [
        text for pair in zip(*ranks, strict=True) for b in pair for text in b.extras["text"]
    ]
    assert together == [text for batch in whole for text in batch.extras["text"]]
    assert sorted(together) == sorted(f"text {row}" for row in range(N))
    empty = list(loader(rank=0, world_size=8).batches(1))[-1]
    assert (len(empty), empty.extras) == (0, {"text": []})


def test_micro_batches_and_intervals() -> None:
    for group in grouped_batches(loader(), 2, 0, 0):
        for batch in group:
            check(batch)
    for batch in IntervalLoader(loader(), 5).batches(1):
        check(batch)


def test_a_list_of_batches() -> None:
    ready = [(torch.arange(3.0), torch.arange(3.0))]

    class Layout(BatchLayout):
        def batch(self, collated: object) -> Batch:
            batch = super().batch(collated)
            return replace(batch, extras={"text": ["a", "b", "c"]})

    [batch] = UserLoader(ready, Layout()).batches(1)
    assert batch.extras == {"text": ["a", "b", "c"]}
    assert batch.epoch == 1


class Overlap(Task):
    """A loss that reads the text of each sample."""

    def loss(self, outputs: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, float]:
        numbers = torch.tensor([float(text.split()[1]) for text in batch.extras["text"]])
        return (outputs - numbers).abs().sum(), float(len(batch))


def test_the_loss_of_each_sample() -> None:
    batch = Texts().batch([4, 9, 2], 0)
    losses = sample_losses(Overlap(), batch.input + torch.tensor([0.5, 1.0, 2.0]), batch)
    assert losses is not None
    assert losses.tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a"], r"extras\['text'\] is a list of 1, but .* each of the 2 samples"),
        (("a", "b"), r"extras\['text'\] is a tuple, but must be a list"),
        (torch.zeros(2), r"extras\['text'\] is a Tensor, but must be a list"),
    ],
)
def test_extras_have_one_entry_per_sample(values: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Batch({"x": torch.zeros(2)}, extras={"text": values})  # type: ignore[dict-item]


def test_a_mask_keeps_samples_and_their_extras() -> None:
    batch = Batch({"x": torch.arange(4.0)}, extras={"text": list("abcd")}, indices=torch.arange(4))
    kept = batch.rows(torch.tensor([False, True, False, True]))
    assert kept.input.tolist() == [1.0, 3.0]
    assert kept.extras == {"text": ["b", "d"]}
    assert kept.indices is not None
    assert kept.indices.tolist() == [1, 3]
    assert len(batch.rows(torch.zeros(4, dtype=torch.bool))) == 0
    with pytest.raises(InputError, match=r"mask has the shape \(3,\), but the batch has 4"):
        batch.rows(torch.ones(3, dtype=torch.bool))
