"""Batches within a token budget: full, of similar lengths, keyed, shared and resumable."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions
from flambeau.errors import InputError
from flambeau_text.bucketing import make_buckets
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.translation.dataset import (
    EncodedPairs,
    source_rows,
    target_rows,
)

N = 400


def pairs(n: int = N, seed: int = 0) -> EncodedPairs:
    """Lengths as in running text: most around 12, a few long ones."""
    draws = np.random.default_rng(seed)
    lengths = draws.gamma(4.0, 3.0, n).astype(int) + 1
    others = np.maximum(1, lengths + draws.integers(-3, 4, n))
    sources = [list(draws.integers(4, 50, length)) for length in lengths]
    targets = [list(draws.integers(4, 50, length)) for length in others]
    texts = [f"text {row} ü" for row in range(n)]
    return EncodedPairs(source_rows(sources), target_rows(targets), texts, torch.arange(n) + 1000)


def options(**more: object) -> LoaderOptions:
    return LoaderOptions(**{"batch_size": 32, "shuffle": True, **more})  # type: ignore[arg-type]


def padded_tokens(batch: Batch) -> int:
    # The decoder reads all target tokens but the last.
    return batch.inputs["source"].numel() + batch.targets["target"].numel() - len(batch)


def test_rows_are_padded_at_their_ends() -> None:
    found, mask = RaggedRows([[5, 6], [], [7]]).padded(torch.tensor([2, 0, 1]))
    assert found.tolist() == [[7, 1], [5, 6], [1, 1]]
    assert mask.tolist() == [[True, False], [True, True], [False, False]]


def test_a_batch_has_ids_masks_references_and_weight() -> None:
    data = EncodedPairs(
        source_rows([[9, 8], [7]]), target_rows([[5], [5, 6, 4]]), ["ü", "xyz"],
        torch.tensor([3, 8]),
    )  # fmt: skip
    batch = data.batch(torch.tensor([0, 1]), epoch=2)
    assert batch.inputs["source"].tolist() == [[9, 8, 3], [7, 3, 1]]
    assert batch.masks["source"].tolist() == [[True, True, True], [True, True, False]]
    assert batch.targets["target"].tolist() == [[2, 5, 3, 1, 1], [2, 5, 6, 4, 3]]
    assert batch.extras["reference"] == ["ü", "xyz"]
    assert sorted(batch.extras["rank"]) == [0, 1]
    # One token and the end, three tokens and the end.
    assert batch.weight == 6.0
    assert batch.indices is not None
    assert batch.indices.tolist() == [3, 8]
    assert batch.epoch == 2


def test_batches_are_within_and_near_the_budget() -> None:
    data = pairs()
    budget = 32 * data.mean_tokens
    batches = list(data.loader(options()).batches(0))
    sizes = [padded_tokens(batch) for batch in batches]
    assert max(sizes) <= budget
    # The number of pairs is a multiple of eight, here about thirty.
    assert np.median(sizes) > 0.75 * budget
    real = sum(int(batch.masks["source"].sum()) + int(batch.weight or 0) for batch in batches)
    # In random order more than a third is padding.
    assert real / sum(sizes) > 0.8
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    random = [data.batch(rows) for rows in order.split(32)]
    assert real / sum(map(padded_tokens, random)) < 0.65


def test_a_pair_above_the_budget_is_a_batch_of_one() -> None:
    buckets = make_buckets(np.array([3, 400, 4]), 20, np.array([3, 500, 4]))
    assert sorted(map(len, buckets.batches(0, 0))) == [1, 2]


def test_every_epoch_has_each_pair_once() -> None:
    loader = pairs().loader(options())
    for epoch in range(3):
        batches = list(loader.batches(epoch))
        assert len(batches) == loader.steps_per_epoch
        seen = torch.cat([batch.indices for batch in batches])  # type: ignore[arg-type]
        assert sorted(seen.tolist()) == list(range(1000, 1000 + N))


def members(loader: Loader, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch.indices.tolist() for batch in loader.batches(epoch, start)]  # type: ignore[union-attr]


def test_the_order_is_keyed_by_seed_and_epoch() -> None:
    data = pairs()
    first = members(data.loader(options(seed=1)), 0)
    assert first == members(data.loader(options(seed=1)), 0)
    assert first != members(data.loader(options(seed=1)), 1)
    assert first != members(data.loader(options(seed=2)), 0)
    # The members of the batches change too, not only their order.
    sets, others = (
        {frozenset(each) for each in members(data.loader(options(seed=1)), epoch)}
        for epoch in (0, 1)
    )
    assert len(sets & others) < len(sets) / 3


def test_an_epoch_can_start_at_any_step() -> None:
    loader = pairs().loader(options())
    assert members(loader, 3, 5) == members(loader, 3)[5:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_shares_of_all_ranks_form_the_batch(world_size: int) -> None:
    data = pairs()
    whole = list(data.loader(options()).batches(2))
    shares = [
        list(data.loader(options(rank=rank, world_size=world_size)).batches(2))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        mine = [share[step] for share in shares]
        found = torch.cat([each.indices for each in mine])  # type: ignore[arg-type]
        assert torch.equal(found, batch.indices)  # type: ignore[arg-type]
        assert sum(each.weight or 0 for each in mine) == batch.weight


def test_without_shuffling_the_order_is_kept() -> None:
    loader = pairs().loader(options(shuffle=False, batch_size=30))
    assert loader.steps_per_epoch == 14
    assert [len(each) for each in members(loader, 0)] == [30] * 13 + [10]
    assert list(chain(*members(loader, 5))) == list(range(1000, 1400))


def test_no_pairs_raise() -> None:
    with pytest.raises(InputError, match="has no sentence pairs"):
        EncodedPairs(
            RaggedRows([]), RaggedRows([]), RaggedRows([]), torch.zeros(0, dtype=torch.int64)
        )


@pytest.mark.parametrize("shuffle", [True, False])
def test_references_follow_sorting_and_the_share_of_a_rank(shuffle: bool) -> None:
    data = pairs()
    for world_size in (1, 2):
        found = []
        for rank in range(world_size):
            loader = data.loader(options(shuffle=shuffle, rank=rank, world_size=world_size))
            for batch in loader.batches(1, start_step=2):
                assert batch.indices is not None
                rows = (batch.indices - 1000).tolist()
                assert batch.extras["reference"] == [f"text {row} ü" for row in rows]
                found += rows
        assert len(set(found)) == len(found) > N // 2
