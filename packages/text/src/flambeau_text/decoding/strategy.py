"""Decoding strategies as plain values that a plan and an artefact can store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from flambeau.checked_arguments import as_plain
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.decoding.penalties import (
    AverageLengthPenalty,
    GnmtLengthPenalty,
    LengthPenalty,
)

_GNMT = GnmtLengthPenalty(1.0)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """The settings that all decoding strategies have in common.

    A sentence has at most ``max_length_factor × source tokens + max_length_extra`` tokens before
    its end token.

    Attributes:
        max_length_factor: Maximum number of target tokens per source token.
        max_length_extra: Number of target tokens allowed in addition.
        min_length: Minimum number of target tokens before the end token.
    """

    kind: ClassVar[str] = ""

    max_length_factor: float = 1.5
    max_length_extra: int = 10
    min_length: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type not in ("int", "float"):
                continue
            given = getattr(self, field.name)
            value, is_whole = as_plain(given), field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
                kind = "a whole number" if is_whole else "a number"
                raise ArgumentError(f"{field.name} must be {kind}, not {given!r:.60}.")
            object.__setattr__(self, field.name, value)
        if not self.max_length_factor >= 0 or self.max_length_extra < 1 or self.min_length < 0:
            raise InputError(
                "max_length_factor must be at least 0, max_length_extra at least 1 and min_length "
                f"at least 0, not {self.max_length_factor}, {self.max_length_extra} and "
                f"{self.min_length}."
            )

    def __str__(self) -> str:
        """Return the search in a few words, as scores name it."""
        return self.kind

    def as_json(self) -> dict[str, Any]:
        """Return JSON values from which ``strategy_from_json`` rebuilds the strategy."""
        values = asdict(self)
        penalty = getattr(self, "length_penalty", None)
        if penalty is not None:
            values["length_penalty"] = {"kind": penalty.kind, **asdict(penalty)}
        return {"kind": self.kind, **values}


@dataclass(frozen=True, kw_only=True)
class Greedy(Strategy):
    """Choose the most probable token at each position."""

    kind: ClassVar[str] = "greedy"


@dataclass(frozen=True, kw_only=True)
class Beam(Strategy):
    """Beam search: keep the best ``size`` hypotheses at each position.

    Attributes:
        size: Number of hypotheses per source.
        length_penalty: Divides a sentence's log-probability; None ranks by the log-probability.
        coverage_penalty: Factor of the coverage penalty; 0 disables it. It has no effect for a
            model that returns no attention.
        no_repeat_ngram_size: Length of the n-grams that may occur only once; 0 disables the check.
        n_best: Number of sentences returned for each source.
    """

    kind: ClassVar[str] = "beam"

    size: int = 5
    length_penalty: LengthPenalty | None = _GNMT
    coverage_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    n_best: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1 or not 1 <= self.n_best <= self.size:
            raise InputError(
                f"A beam needs a size of at least 1 and an n_best between 1 and its size, not size "
                f"{self.size} and n_best {self.n_best}."
            )
        if self.coverage_penalty < 0 or self.no_repeat_ngram_size < 0:
            raise InputError(
                "coverage_penalty and no_repeat_ngram_size must be at least 0, not "
                f"{self.coverage_penalty} and {self.no_repeat_ngram_size}."
            )

    def __str__(self) -> str:
        return f"beam {self.size}"

    def divisor(self, length: float) -> float:
        """Return the divisor of the log-probability of a sentence of ``length`` tokens."""
        return 1.0 if self.length_penalty is None else self.length_penalty.divisor(length)


@dataclass(frozen=True, kw_only=True)
class Sampling(Strategy):
    """Draw each token from the model's probabilities.

    Temperature and filters apply in the order of the attributes; the most probable token is never
    filtered out.

    Attributes:
        temperature: Divides the logits; below 1 it makes probable tokens more probable.
        top_k: Keep the ``top_k`` most probable tokens; 0 keeps all.
        top_p: Keep the most probable tokens whose probabilities add up to ``top_p``; 1 keeps all.
        min_p: Keep tokens with at least ``min_p`` times the highest probability; 0 keeps all.
        seed: Seed of the draws. They are keyed by source and position, so a source's sentence does
            not depend on its batch.
    """

    kind: ClassVar[str] = "sampling"

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __str__(self) -> str:
        return f"sampling, seed {self.seed}"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0 or self.top_k < 0:
            raise InputError(
                f"temperature must be above 0 and top_k at least 0, not {self.temperature} and "
                f"{self.top_k}. To choose the most probable token, use Greedy()."
            )
        if not (0 < self.top_p <= 1 and 0 <= self.min_p <= 1):
            raise InputError(
                f"top_p must be above 0 and at most 1, min_p between 0 and 1, not {self.top_p} and "
                f"{self.min_p}."
            )


_STRATEGIES: Mapping[str, type[Strategy]] = {each.kind: each for each in (Beam, Greedy, Sampling)}
_LENGTH_PENALTIES: Mapping[str, Any] = {
    each.kind: each for each in (AverageLengthPenalty, GnmtLengthPenalty)
}


def strategy_from_json(values: Mapping[str, Any]) -> Strategy:
    """Rebuild a strategy from the values of ``Strategy.as_json``.

    Raises:
        ArgumentError: A kind or a setting is unknown.
    """
    given = dict(values)
    kind = given.pop("kind", None)
    if kind not in _STRATEGIES:
        raise ArgumentError(
            f"Unknown decoding strategy {kind!r}. {did_you_mean(str(kind), _STRATEGIES)}"
        )
    strategy = _STRATEGIES[kind]
    known = [each.name for each in fields(strategy)]
    for name in given:
        if name not in known:
            raise ArgumentError(
                f"{kind} decoding has no setting {name!r}. {did_you_mean(name, known)}"
            )
    if isinstance(given.get("length_penalty"), Mapping):
        penalty = dict(given["length_penalty"])
        name = str(penalty.pop("kind", None))
        if name not in _LENGTH_PENALTIES:
            raise ArgumentError(
                f"Unknown length penalty {name!r}. {did_you_mean(name, _LENGTH_PENALTIES)}"
            )
        given["length_penalty"] = _LENGTH_PENALTIES[name](**penalty)
    return strategy(**given)
