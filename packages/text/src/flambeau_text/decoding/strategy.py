"""How sentences are looked for, as plain values that a plan and an artefact can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_text.decoding.penalties import Average, Gnmt, LengthPenalty

_GNMT = Gnmt(1.0)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What all ways of searching share.

    Attributes:
        max_factor: An answer has at most ``max_factor`` times the tokens of its source …
        max_extra: … and so many more, before its end.
        min_words: Tokens that it has at least.
    """

    kind: ClassVar[str] = ""

    max_factor: float = 1.5
    max_extra: int = 10
    min_words: int = 0

    def __post_init__(self) -> None:
        if not self.max_factor >= 0 or self.max_extra < 1 or self.min_words < 0:
            raise InputError(
                f"An answer needs room: max_factor at least 0, max_extra at least 1, min_words at "
                f"least 0, not {self.max_factor}, {self.max_extra} and {self.min_words}."
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``strategy_from_json`` takes them back."""
        values = asdict(self)
        length = getattr(self, "length", None)
        if length is not None:
            values["length"] = {"kind": type(length).__name__.lower(), **asdict(length)}
        return {"kind": self.kind, **values}


@dataclass(frozen=True, kw_only=True)
class Greedy(Strategy):
    """The most probable word, again and again."""

    kind: ClassVar[str] = "greedy"


@dataclass(frozen=True, kw_only=True)
class Beam(Strategy):
    """The best few beginnings of a sentence, side by side.

    Attributes:
        size: How many.
        length: What a log-probability is divided by; None ranks by the plain sum.
        coverage: Factor on the coverage penalty; 0 leaves it out.
        no_repeat: No run of so many words twice; 0 allows all.
        n_best: Sentences that are returned for each source.
    """

    kind: ClassVar[str] = "beam"

    size: int = 5
    length: LengthPenalty | None = _GNMT
    coverage: float = 0.0
    no_repeat: int = 0
    n_best: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1 or not 1 <= self.n_best <= self.size:
            raise InputError(
                f"A beam has a size of at least 1 and returns 1 to size sentences, not size "
                f"{self.size} and n_best {self.n_best}."
            )
        if self.coverage < 0 or self.no_repeat < 0:
            raise InputError(
                f"coverage and no_repeat are at least 0, not {self.coverage} and {self.no_repeat}."
            )

    def divisor(self, length: float) -> float:
        """What a log-probability of a sentence of so many words is divided by."""
        return 1.0 if self.length is None else self.length.divisor(length)


@dataclass(frozen=True, kw_only=True)
class Sampling(Strategy):
    """Words drawn by their probability.

    The filters apply in the order of the attributes; the most probable word always stays.

    Attributes:
        temperature: Logits are divided by it: below 1 likely words become likelier.
        top_k: Only the so many likeliest words; 0 for all.
        top_p: Only the likeliest words that together reach this probability; 1 for all.
        min_p: Only words with at least this share of the likeliest one's probability.
        seed: Of the draws, which are keyed by source and place, so that a source's sentence does
            not depend on the batch it is in.
    """

    kind: ClassVar[str] = "sampling"

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0 or self.top_k < 0:
            raise InputError(
                f"temperature is above 0 and top_k at least 0, not {self.temperature} and "
                f"{self.top_k}. For the likeliest word take Greedy()."
            )
        if not (0 < self.top_p <= 1 and 0 <= self.min_p <= 1):
            raise InputError(
                f"top_p and min_p are shares, top_p above 0, not {self.top_p} and {self.min_p}."
            )


_STRATEGIES: Mapping[str, type[Strategy]] = {each.kind: each for each in (Beam, Greedy, Sampling)}
_LENGTHS: Mapping[str, Any] = {"average": Average, "gnmt": Gnmt}


def strategy_from_json(values: Mapping[str, Any]) -> Strategy:
    """The strategy that ``as_json`` described.

    Raises:
        ArgumentError: A kind or a field is unknown.
    """
    given = dict(values)
    kind = given.pop("kind", None)
    if kind not in _STRATEGIES:
        raise ArgumentError(f"There is no decoding {kind!r}. {nearest(str(kind), _STRATEGIES)}")
    made = _STRATEGIES[kind]
    known = [each.name for each in fields(made)]
    for name in given:
        if name not in known:
            raise ArgumentError(f"{kind} decoding has no {name!r}. {nearest(name, known)}")
    if isinstance(given.get("length"), Mapping):
        length = dict(given["length"])
        name = str(length.pop("kind", None))
        if name not in _LENGTHS:
            raise ArgumentError(f"There is no length penalty {name!r}. {nearest(name, _LENGTHS)}")
        given["length"] = _LENGTHS[name](**length)
    return made(**given)
