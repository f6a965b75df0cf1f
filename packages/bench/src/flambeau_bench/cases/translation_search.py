"""``translation-search``: sentences per second of beam search and of searches beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import clock_for, frozen_heap, threads
from flambeau_text import Beam, Greedy
from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.search import search
from flambeau_text.decoding.strategy import Strategy
from flambeau_text.models import Memory, PerSource, Seq2Seq, rnn, transformer

GREEDY, COPIES, BEAM = "greedy", "beam, source copied", "beam"
_MODELS = {"rnn": rnn, "transformer": transformer}
_LENGTHS = 8, 17  # source tokens, as in Multi30k
_SMALL: Mapping[str, Mapping[str, int]] = {
    "rnn": {"embedding_dim": 16, "hidden_size": 16},
    "transformer": {"d_model": 16, "dim_feedforward": 32, "encoder_layers": 1, "decoder_layers": 1},
}


@dataclass(frozen=True)
class _Copied:
    """A part of a decoder state of which every hypothesis has a copy."""

    value: Any


class CopyingModel(Seq2Seq):
    """A model whose state has a copy of each source for every hypothesis, reordered each step.

    Args:
        inner: The model that it calls.
    """

    def __init__(self, inner: Seq2Seq) -> None:
        super().__init__()
        self.inner, self.output = inner, inner.output

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        return self.inner.encode(source, mask)

    def init_state(self, memory: Memory) -> Any:
        return _replaced(self.inner.init_state(memory), PerSource, _Copied)

    def advance(self, previous: Tensor, state: Any) -> tuple[Tensor, Any, Tensor | None]:
        state = _replaced(state, _Copied, PerSource)
        features, after, attention = self.inner.advance(previous, state)
        return features, _replaced(after, PerSource, _Copied), attention


def _replaced(state: Any, old: type, new: type) -> Any:
    """Return a decoder state with the objects of one class in place of those of another."""
    if isinstance(state, old):
        return new(state.value)
    if is_dataclass(state) and not isinstance(state, type):
        names = [each.name for each in fields(state)]
        return replace(state, **{name: _replaced(getattr(state, name), old, new) for name in names})
    if isinstance(state, tuple):
        parts = [_replaced(value, old, new) for value in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


class TranslationSearch(Case):
    """Sources of random tokens, translated in batches by the plan's models with random weights.

    Such models hardly predict an end, so nearly all sentences are as long as their source: the work
    does not depend on training. One CPU thread, of which the CPU time is measured.
    """

    name: ClassVar = "translation-search"
    question: ClassVar = "How many sentences per second does beam search translate?"
    sizes: ClassVar = {
        "quick": Size(
            "quick", {"sources": 12, "batch": 4, "vocab": 50, "beam": 3}, pairs=2, floor_pairs=0
        ),
        "cpu": Size(
            "cpu", {"sources": 64, "batch": 32, "vocab": 8_000, "beam": 5}, pairs=5, floor_pairs=2
        ),
        "gpu": Size(
            "gpu",
            {"sources": 2_048, "batch": 256, "vocab": 8_000, "beam": 5},
            pairs=5,
            floor_pairs=2,
            device="cuda",
        ),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        criteria = (
            Criterion("sentences_per_s", "ratio", "× the sentences/s", at_most=False),
            Criterion("sentences_per_s", "value", "sentences/s"),
        )
        return [
            Comparison(f"{name}, against {side}", side, BEAM, criteria)
            for name in _MODELS
            for side in (GREEDY, COPIES)
        ]

    @torch.no_grad()
    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        name = comparison.variant.partition(",")[0]
        device = torch.device(size.device)
        batches = source_batches(size, pair, device)
        with threads(1):
            torch.manual_seed(pair)
            vocab = {"source_vocab": size["vocab"], "target_vocab": size["vocab"]}
            config = _SMALL[name] if size.name == "quick" else None
            plain = _MODELS[name](**vocab, config=config).to(device).eval()
            model = CopyingModel(plain).eval() if side == COPIES else plain
            # As many tokens as the source has.
            limits: dict[str, Any] = {"max_length_factor": 1.0, "max_length_extra": 1}
            strategy: Strategy = Greedy(**limits)
            if side != GREEDY:
                strategy = Beam(size=size["beam"], length_penalty=None, **limits)
            search(model, *batches[0], strategy)  # the first call allocates
            with frozen_heap():
                clock = clock_for(device)
                began = clock()
                found = [search(model, *batch, strategy) for batch in batches]
                seconds = clock() - began
            settings = fingerprint.machine_settings()
        return Measurement(
            {"sentences_per_s": size["sources"] / seconds},
            steps=len(batches),
            samples=size["sources"],
            init_hash=fingerprint.of_weights(plain),
            order_hash=fingerprint.of_tensors([tokens for tokens, _ in batches]),
            settings=settings,
            quality=_quality(found),
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require the sentences of the beam with copies, or as probable ones as greedy search."""
        if comparison.baseline == COPIES:
            equal = sum(one.quality["sentences"] == b.quality["sentences"] for one, b in pairs)
            passed = equal == len(pairs)
            return Gate(passed, f"sentences bitwise equal in {equal} of {len(pairs)} pairs")
        gains = [
            float(beam.quality["log_probability"]) - float(greedy.quality["log_probability"])
            for greedy, beam in pairs
        ]
        return Gate(
            min(gains) >= 0,
            f"mean log-probability of a sentence at least {min(gains):.3f} above that of greedy",
        )


def source_batches(size: Size, seed: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return token ids and mask of random sources, in batches."""
    draws = torch.Generator().manual_seed(seed)
    batches: list[tuple[Tensor, Tensor]] = []
    for begin in range(0, size["sources"], size["batch"]):
        n = min(size["batch"], size["sources"] - begin)
        lengths = torch.randint(*_LENGTHS, (n, 1), generator=draws)
        mask = torch.arange(int(lengths.max())) < lengths
        tokens = torch.randint(4, size["vocab"], mask.shape, generator=draws)
        batches.append((tokens.masked_fill(~mask, 1).to(device), mask.to(device)))
    return batches


def _quality(found: Sequence[SearchResult]) -> dict[str, float | str]:
    best = torch.cat([each.log_probabilities[:, 0] for each in found])
    return {
        "sentences": fingerprint.of_tensors([each.tokens for each in found]),
        "log_probability": float(best.double().mean()),
    }
