"""The stream of a language model: every token is a target once, rows continue, epochs differ."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from flambeau.data import LoaderOptions
from flambeau.errors import InputError
from flambeau_text.language.stream import (
    BYTES,
    NEXT,
    TOKENS,
    WORDS,
    StreamDataset,
    StreamLoader,
    TokenStream,
    stream_of,
)
from flambeau_text.text_lines import lines_of
from flambeau_text.tokenization.tokenizer import END_ID


def documents(n: int = 11, seed: int = 0) -> tuple[list[list[list[int]]], list[str]]:
    """Return documents whose token ids are all different, and their texts."""
    draws = torch.Generator().manual_seed(seed)
    ids, texts, following = [], [], 4
    for _ in range(n):
        lines = []
        for length in torch.randint(0, 9, (3,), generator=draws).tolist():
            lines.append(list(range(following, following + length)))
            following += length
        ids.append(lines)
        texts.append("\n".join(" ".join(map(str, line)) for line in lines) + "\n")
    return ids, texts


def stream(n: int = 11) -> TokenStream:
    ids, texts = documents(n)
    flat = [[token for line in lines for token in (*line, END_ID)] for lines in ids]
    return stream_of(
        torch.tensor([token for each in flat for token in each], dtype=torch.int32),
        torch.tensor([len(each) for each in flat]),
        texts,
    )


def loader(
    rows: int, bptt: int = 7, *, shuffle: bool, seed: int = 0, **options: int
) -> StreamLoader:
    given = LoaderOptions(rows, shuffle=shuffle, seed=seed, **options)
    found = StreamDataset(stream(), bptt).loader(given)
    assert isinstance(found, StreamLoader)
    return found


def read(of: StreamLoader, epoch: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Return the tokens and the targets of each row, joined over the batches of an epoch."""
    batches = list(of.batches(epoch))
    assert len(batches) == of.steps_in(epoch)
    rows = []
    for name in (TOKENS, NEXT):
        parts = [{**each.inputs, **each.targets}[name] for each in batches]
        masks = torch.cat([each.masks[TOKENS] for each in batches], 1)
        rows.append(
            [row[mask].tolist() for row, mask in zip(torch.cat(parts, 1), masks, strict=True)]
        )
    return rows[0], rows[1]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 64, 500])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_token_is_a_target_once(rows: int, shuffle: bool) -> None:
    of = loader(rows, shuffle=shuffle)
    for epoch in range(3):
        inputs, targets = read(of, epoch)
        flat = [token for row in targets for token in row]
        assert sorted(flat) == sorted(stream().tokens.tolist())
        weights = [batch.weight for batch in of.batches(epoch)]
        assert sum(weights) == len(flat)
        # What is read is the token before each target, also across rows.
        assert [token for row in inputs for token in row] == [END_ID, *flat[:-1]]
        assert max(map(len, targets)) - min(map(len, targets)) <= 1


def test_rows_continue_from_batch_to_batch() -> None:
    batches = list(loader(3, shuffle=False).batches(0))
    for one, other in pairwise(batches):
        assert torch.equal(one.targets[NEXT][:, -1], other.inputs[TOKENS][:, 0])


def test_documents_are_shuffled_whole() -> None:
    found = stream()
    starts = found.starts.tolist()
    whole = {tuple(found.tokens[begin:end].tolist()) for begin, end in pairwise(starts)}
    orders = []
    for epoch in (0, 1):
        of = loader(1, shuffle=True)
        flat = read(of, epoch)[1][0]
        cut, read_documents = 0, []
        for at in of.order(epoch).tolist():
            length = starts[at + 1] - starts[at]
            read_documents.append(tuple(flat[cut : cut + length]))
            cut += length
        assert set(read_documents) == whole
        orders.append(read_documents)
    assert orders[0] != orders[1]


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    assert read(loader(3, shuffle=True, seed=1), 4) == read(loader(3, shuffle=True, seed=1), 4)
    assert read(loader(3, shuffle=True, seed=1), 4) != read(loader(3, shuffle=True, seed=2), 4)
    assert read(loader(3, shuffle=False, seed=1), 0) == read(loader(3, shuffle=False, seed=2), 1)


@pytest.mark.parametrize("shuffle", [False, True])
def test_any_step_of_an_epoch_can_be_the_first(shuffle: bool) -> None:
    whole = list(loader(3, shuffle=shuffle).batches(2))
    for start in range(len(whole) + 1):
        rest = list(loader(3, shuffle=shuffle).batches(2, start))
        assert len(rest) == len(whole) - start
        for one, other in zip(rest, whole[start:], strict=True):
            assert torch.equal(one.inputs[TOKENS], other.inputs[TOKENS])
            assert torch.equal(one.masks[TOKENS], other.masks[TOKENS])
            assert one.lr_scale == other.lr_scale
            assert one.extras == other.extras


def test_lengths_vary_in_training_with_the_learning_rate() -> None:
    long = TokenStream(
        torch.full((400_000,), 9, dtype=torch.int32), torch.tensor([0, 400_000]), *_no_lines()
    )
    of = StreamDataset(long, 40).loader(LoaderOptions(1, shuffle=True))
    batches = list(of.batches(0))[:-1]
    lengths = torch.tensor([each.inputs[TOKENS].shape[1] for each in batches]).double()
    assert [each.lr_scale for each in batches] == (lengths / 40).tolist()
    assert lengths.min() >= 5
    halves = (lengths < 30).double().mean()
    # 0.05 of some 10,000 draws: 4 standard deviations are 0.009; long ones are rarely below 30.
    assert 0.05 + 0.023 - 0.012 < halves < 0.05 + 0.023 + 0.012
    assert abs(float(lengths[lengths >= 30].mean()) - 40) < 0.5
    fixed = StreamDataset(long, 40).loader(LoaderOptions(1))
    assert {each.lr_scale for each in fixed.batches(0)} == {1.0}


def _no_lines() -> tuple[object, object]:
    import numpy as np

    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def test_lengths_may_be_fixed() -> None:
    of = StreamDataset(stream(), 7, varies=False).loader(LoaderOptions(2, shuffle=True))
    widths = [each.inputs[TOKENS].shape[1] for each in of.batches(0)]
    assert set(widths[:-1]) == {7}


@pytest.mark.parametrize("rows", [1, 2, 5, 30])
def test_bytes_and_words_of_all_lines_are_counted_once(rows: int) -> None:
    texts = documents()[1]
    batches = list(loader(rows, shuffle=False).batches(0))
    words = sum(len(line.split()) + 1 for text in texts for line in lines_of(text))
    assert sum(sum(each.extras[WORDS]) for each in batches) == words
    assert sum(sum(each.extras[BYTES]) for each in batches) == sum(map(len, texts))


def test_processes_share_the_rows_of_each_batch() -> None:
    whole = list(loader(5, shuffle=True).batches(1))
    shares = [list(loader(5, shuffle=True, rank=rank, world_size=2).batches(1)) for rank in (0, 1)]
    for batch, one, other in zip(whole, *shares, strict=True):
        both = torch.cat([one.inputs[TOKENS], other.inputs[TOKENS]])
        assert torch.equal(both, batch.inputs[TOKENS])
        assert one.weight + other.weight == batch.weight
        assert one.lr_scale == batch.lr_scale


def test_only_a_line_feed_ends_a_line() -> None:
    assert lines_of("a\u2028b\r\nc\x85d\n\n") == ["a\u2028b", "c\x85d", ""]
    assert lines_of("a") == ["a"]
    assert lines_of("") == [""]


def test_documents_without_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="no tokens"):
        stream_of(torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.int64), [])
