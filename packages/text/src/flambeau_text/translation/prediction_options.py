"""The options of ``flambeau predict`` for translations: the search, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flambeau.errors import ArgumentError, explains_arguments
from flambeau_text.decoding.penalties import GnmtLengthPenalty
from flambeau_text.decoding.strategy import Beam, Greedy, Sampling, Strategy

_OF_BEAM = ("beam", "n_best", "length_penalty")
_OF_SAMPLING = ("temperature", "top_k", "top_p", "seed")


@explains_arguments()
@dataclass(frozen=True)
class Details:
    """What a prediction contains in addition to its text and score.

    Attributes:
        n_best: Number of translations returned per source.
        attention: Whether tokens and attention weights are returned.
        replace_unknown: Whether unknown tokens are replaced by the source token with the highest
            attention.
    """

    n_best: int = 1
    attention: bool = False
    replace_unknown: bool = False


def strategy_of(options: Mapping[str, Any], default: Strategy) -> Strategy:
    """Return the decoding strategy with the given options, and other settings as in ``default``.

    Raises:
        ArgumentError: Options of beam search and of sampling are combined.
        InputError: A value is invalid.
    """
    searches = [name for name in _OF_BEAM if name in options]
    samples = [name for name in _OF_SAMPLING if name in options]
    if searches and samples:
        one, other = (f"--{name.replace('_', '-')}" for name in (searches[0], samples[0]))
        raise ArgumentError(
            f"{one} is an option of beam search and {other} of sampling. Give options "
            "of only one of the two."
        )
    if samples:
        base = default if isinstance(default, Sampling) else Sampling(**_lengths(default))
        return replace(base, **{name: options[name] for name in samples})
    if not searches:
        return default
    base = default if isinstance(default, Beam) else Beam(**_lengths(default))
    given: dict[str, Any] = {}
    if "length_penalty" in options:
        given["length_penalty"] = GnmtLengthPenalty(options["length_penalty"])
    if "n_best" in options:
        given["n_best"] = options["n_best"]
    # As many hypotheses as sentences are asked for.
    given["size"] = options.get("beam", max(base.size, given.get("n_best", 1)))
    return replace(base, **given)


def _lengths(strategy: Strategy) -> dict[str, Any]:
    plain = Greedy()
    names = ("max_length_factor", "max_length_extra", "min_length")
    return {name: getattr(strategy, name, getattr(plain, name)) for name in names}


def details_of(options: Mapping[str, Any]) -> Details | None:
    """Return the details that the options request, or None if they request no details."""
    found = Details(**{name: options[name] for name in Details.__annotations__ if name in options})
    return None if found == Details() else found
