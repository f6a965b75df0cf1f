"""Beam search keeps what depends on a source once, not once per hypothesis."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau_text.decoding import Beam, beam_search, greedy_search
from flambeau_text.decoding.constrained_beam import constrained_search
from flambeau_text.models import GeneralAttention, Memory, PerSource, Seq2Seq

LENGTHS = [6, 2, 4, 1, 3]
LIMIT = torch.tensor([9, 5, 7, 3, 6])


@dataclass(frozen=True)
class Copied:
    """What `PerSource` holds, as tensors of which every hypothesis has a copy."""

    value: Any


def replaced(state: Any, old: type, new: type) -> Any:
    if isinstance(state, old):
        return new(state.value)
    if is_dataclass(state):
        parts = {each.name: getattr(state, each.name) for each in fields(state)}
        return replace(state, **{name: replaced(v, old, new) for name, v in parts.items()})
    if isinstance(state, tuple):
        parts = [replaced(value, old, new) for value in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


class CopyingModel(Seq2Seq):
    """A model of which every tensor of the state is copied and reordered with the hypotheses."""

    def __init__(self, inner: Seq2Seq) -> None:
        super().__init__()
        self.inner, self.output = inner, inner.output

    def init_state(self, memory: Memory) -> Any:
        return replaced(self.inner.init_state(memory), PerSource, Copied)

    def advance(self, previous: Tensor, state: Any) -> Any:
        features, after, attention = self.inner.advance(
            previous, replaced(state, Copied, PerSource)
        )
        return features, replaced(after, PerSource, Copied), attention


@pytest.mark.parametrize(
    "beam",
    [Beam(size=1), Beam(size=4, n_best=4), Beam(size=5, n_best=2, coverage_penalty=0.3)],
    ids=["1", "4", "5, coverage"],
)
@torch.no_grad()
def test_results_equal_those_with_copies(
    model: Seq2Seq, small: SimpleNamespace, beam: Beam
) -> None:
    memory = model.encode(*small.sources(LENGTHS))
    once = beam_search(model, memory, LIMIT, beam)
    copied = beam_search(CopyingModel(model), memory, LIMIT, beam)
    assert torch.equal(once.tokens, copied.tokens)
    # One matrix product for all hypotheses of a source in place of one each: another order of sums.
    for name in ("scores", "log_probabilities", "attention"):
        torch.testing.assert_close(getattr(once, name), getattr(copied, name), atol=1e-14, rtol=0)


@torch.no_grad()
def test_phrases_equal_copies(model: Seq2Seq, small: SimpleNamespace) -> None:
    memory = model.encode(*small.sources([5]))
    given = 7, Beam(size=4, n_best=3), [[5, 6], [7]]
    once = constrained_search(model, memory, *given)
    copied = constrained_search(CopyingModel(model), memory, *given)
    assert torch.equal(once.tokens, copied.tokens)
    torch.testing.assert_close(once.scores, copied.scores, atol=1e-14, rtol=0)


class AttentiveModel(Seq2Seq):
    """A model of a user with one memory per source; it records where each step's memory lies."""

    def __init__(self, vocab: int, size: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, size)
        self.attention = GeneralAttention(size, size)
        self.output = nn.Linear(2 * size, vocab)
        self.places: list[tuple[int, int, int]] = []

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        return Memory(self.embedding(source), mask)

    def init_state(self, memory: Memory) -> Any:
        keys = self.attention.project(memory.values)
        return {"source": PerSource((memory, keys)), "sum": memory.values.sum(1)}

    def advance(self, previous: Tensor, state: Any) -> Any:
        memory, keys = state["source"].value
        self.places.append((keys.data_ptr(), len(keys), len(previous)))
        total = torch.tanh(state["sum"] + self.embedding(previous))
        context, weights = self.attention(total.unsqueeze(1), keys, memory.values, memory.mask)
        features = torch.cat([total, context.squeeze(1)], 1)
        return features, {"source": state["source"], "sum": total}, weights.squeeze(1)


@torch.no_grad()
def test_the_memory_of_a_source_is_not_copied(small: SimpleNamespace) -> None:
    torch.manual_seed(0)
    model = AttentiveModel(11).double().eval()
    source = small.sources(LENGTHS)
    # Equal limits, so that all sources are active until the end.
    limit = torch.full((5,), 6)
    found = beam_search(model, model.encode(*source), limit, Beam(size=4, length_penalty=None))
    first, active = model.places[0], [place for place in model.places if place[1] == 5]
    assert first[1:] == (5, 20)
    assert set(active) == {first}
    # Where sources have ended, the memory of the others is selected, still once per source.
    assert all(rows == 4 * sources for _, sources, rows in model.places)
    copied = beam_search(CopyingModel(model), model.encode(*source), limit,
                         Beam(size=4, length_penalty=None))  # fmt: skip
    assert torch.equal(found.tokens, copied.tokens)


@torch.no_grad()
def test_a_beam_of_one_is_the_greedy_search(model: Seq2Seq, small: SimpleNamespace) -> None:
    memory = model.encode(*small.sources(LENGTHS))
    beam = beam_search(model, memory, LIMIT, Beam(size=1, length_penalty=None))
    greedy = greedy_search(model, model.encode(*small.sources(LENGTHS)), LIMIT)
    for row in range(len(LENGTHS)):
        found, expected = beam.tokens[row].reshape(-1), greedy.tokens[row].reshape(-1)
        length = min(len(found), len(expected))
        assert torch.equal(found[:length], expected[:length])


@torch.no_grad()
def test_a_source_has_the_same_hypotheses_alone_twice_and_among_others(
    model: Seq2Seq, small: SimpleNamespace
) -> None:
    source, mask = small.sources(LENGTHS)
    rows = torch.tensor([1, 0, 1, 3, 1])
    beam = Beam(size=4, n_best=2)
    several = beam_search(model, model.encode(source[rows], mask[rows]), LIMIT[[1] * 5], beam)
    alone = beam_search(model, model.encode(source[1:2, :2], mask[1:2, :2]), LIMIT[1:2], beam)
    length = alone.tokens.shape[-1]
    for row in (0, 2, 4):
        torch.testing.assert_close(several.scores[row], alone.scores[0], atol=1e-12, rtol=0)
        assert torch.equal(several.tokens[row][..., :length], alone.tokens[0])
