"""Batches of texts: similar lengths, keyed by seed and epoch, shared by processes, resumable."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions
from flambeau_text import TextData
from flambeau_text.bucketing import batches_of_similar_lengths
from flambeau_text.classification.dataset import EncodedTexts, TokenRows
from flambeau_text.ragged_rows import RaggedRows

N = 300


def texts(n: int = N, sides: int = 1) -> EncodedTexts:
    """Lengths as of reviews: from some to hundreds of tokens."""
    draws = np.random.default_rng(0)
    lengths = np.exp(draws.normal(4.0, 0.8, n)).astype(int) + 1
    rows = [RaggedRows([list(draws.integers(4, 50, each)) for each in lengths])] * sides
    return EncodedTexts(TokenRows(tuple(rows)), torch.arange(n) % 3, torch.arange(n) + 1000)


def loader(dataset: EncodedTexts, **more: object) -> Loader:
    options = {"batch_size": 16, "shuffle": True, **more}
    return dataset.loader(LoaderOptions(**options))  # type: ignore[arg-type]


def members(found: Loader, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [batch.indices.tolist() for batch in found.batches(epoch, start)]  # type: ignore[union-attr]


def test_a_batch_has_tokens_lengths_and_targets() -> None:
    dataset = EncodedTexts(
        TokenRows((RaggedRows([[5, 6, 7], [8]]),)), torch.tensor([1, 0]), torch.tensor([4, 9]),
        torch.tensor([0.5, 2.0]), truncated=1,
    )  # fmt: skip
    batch = dataset.batch(torch.tensor([1, 0]), 3)
    assert batch.inputs["tokens"].tolist() == [[8, 1, 1], [5, 6, 7]]
    assert batch.inputs["lengths"].tolist() == [1, 3]
    assert batch.target.tolist() == [0, 1]
    assert batch.sample_weight is not None
    assert batch.sample_weight.tolist() == [2.0, 0.5]
    assert (batch.weight, batch.epoch, dataset.truncated) == (2.5, 3, 1)
    assert batch.indices is not None
    assert batch.indices.tolist() == [9, 4]


def test_an_epoch_has_every_text_once_in_full_batches() -> None:
    for epoch in range(3):
        found = members(loader(texts()), epoch)
        assert sorted(map(len, found)) == [12] + [16] * 18
        assert sorted(chain.from_iterable(found)) == list(range(1000, 1000 + N))


def test_batches_have_little_padding_and_other_members_in_each_epoch() -> None:
    dataset = texts()

    def padding(batches: list[Batch]) -> float:
        real = sum(int(batch.inputs["lengths"].sum()) for batch in batches)
        return 1.0 - real / sum(batch.inputs["tokens"].numel() for batch in batches)

    own = [padding(list(loader(dataset).batches(epoch))) for epoch in range(3)]
    in_order = padding(list(loader(dataset, shuffle=False).batches(0)))
    assert max(own) < 0.35
    assert in_order > 0.5
    first, second = ({frozenset(each) for each in members(loader(dataset), e)} for e in (0, 1))
    assert len(first & second) <= 1


def test_the_order_is_keyed_and_resumes_at_any_step() -> None:
    found = loader(texts(), seed=1)
    assert members(found, 2) == members(loader(texts(), seed=1), 2)
    assert members(found, 2) != members(loader(texts(), seed=2), 2)
    assert members(found, 2, 5) == members(found, 2)[5:]


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_each_batch(shuffle: bool) -> None:
    whole = list(loader(texts(sides=2), shuffle=shuffle).batches(1))
    shares = [
        list(loader(texts(sides=2), shuffle=shuffle, rank=rank, world_size=2).batches(1))
        for rank in (0, 1)
    ]
    for step, batch in enumerate(whole):
        for name, value in batch.inputs.items():
            joined = torch.cat([share[step].inputs[name] for share in shares])
            assert torch.equal(joined, value), name
        assert sum(share[step].weight or 0.0 for share in shares) == batch.weight


def test_dropping_the_last_batch_drops_random_texts() -> None:
    lengths = texts().lengths
    dropped: set[int] = set()
    for epoch in range(4):
        batches = batches_of_similar_lengths(lengths, 16, 0, epoch, drop_last=True)
        assert [len(each) for each in batches] == [16] * 18
        dropped |= set(range(N)) - set(torch.cat(batches).tolist())
    assert len(dropped) > 30  # not the longest 12 each time


def test_copies_of_a_text_are_in_one_fold() -> None:
    words = [f"text {row % 26}" for row in range(104)]
    data = TextData.from_arrays(words, ["ab"[row % 2] for row in range(104)], valid=0.2)
    for fold in data.folds(4):
        assert not set(fold.raw("train")) & set(fold.raw("valid"))
        assert len(fold.split.train) + len(fold.split.valid) == 104
