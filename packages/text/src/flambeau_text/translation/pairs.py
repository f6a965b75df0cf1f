"""Pairs of sentences as a table: read from files, frames and iterables, filtered and counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from flambeau.data.samples import Problem, Samples
from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_text.translation.options import TranslationOptions

_SHOWN_LINES = 5
# Shorter sentences may well have many times as many words on the other side.
_RATIO_FROM_WORDS = 6


@dataclass
class Pairs:
    """Sentence pairs in the order in which they came.

    Attributes:
        sources: What is to be translated.
        targets: Its translation.
        places: Where each pair stands, for messages ("train.en line 3").
        problems: Pairs that were left out, with the reason.
        left_out: How many, by reason.
    """

    sources: list[str] = field(default_factory=list[str])
    targets: list[str] = field(default_factory=list[str])
    places: list[str] = field(default_factory=list[str])
    problems: list[Problem] = field(default_factory=list[Problem])
    left_out: Counter[str] = field(default_factory=Counter[str])

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, source: str, target: str, place: str) -> None:
        """Appends one pair as it is."""
        self.sources.append(source)
        self.targets.append(target)
        self.places.append(place)

    def extended(self, other: Pairs) -> Pairs:
        """These pairs, then those of ``other``."""
        return Pairs(
            self.sources + other.sources,
            self.targets + other.targets,
            self.places + other.places,
            self.problems + other.problems,
            self.left_out + other.left_out,
        )

    def as_samples(self) -> Samples:
        """The table that a data object holds."""
        columns = {"source": self.sources, "target": self.targets, "place": self.places}
        return Samples(columns, tuple(self.problems))


def pairs_of_lines(sources: Sequence[str], targets: Sequence[str], name: str) -> Pairs:
    """The pairs of two lists of the same length; places are ``name`` and the line from 1."""
    places = [f"{name} line {number}" for number in range(1, len(sources) + 1)]
    return Pairs(list(sources), list(targets), places)


def pairs_of_items(items: Iterable[Any], name: str = "pair") -> Pairs:
    """The pairs of any iterable: two texts each, or a mapping of two.

    Rows of Hugging Face's translation data sets, ``{"translation": {"en": …, "de": …}}``, are such
    mappings too; where a mapping has more than two texts the first two count.

    Raises:
        ArgumentError: It cannot be iterated over.
        InputError: An item is no pair of texts; with its number.
    """
    if isinstance(items, str | bytes) or not hasattr(items, "__iter__"):
        raise ArgumentError(
            f"Pairs are given as an iterable of (source, target), not as {type(items).__name__}."
        )
    found = Pairs()
    for number, item in enumerate(items):
        texts = _texts_of(item)
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"Item {number} is {item!r:.80}, not a pair of texts. Give (source, target) each."
            )
        found.add(*cast("tuple[str, str]", tuple(texts)), f"{name} {number}")
    if not len(found):
        raise InputError("There are no pairs: the iterable is empty. Give at least two.")
    return found


def _texts_of(item: Any) -> Sequence[Any]:
    if isinstance(item, Mapping):
        inner = item.get("translation")
        return list(islice(inner.values() if isinstance(inner, Mapping) else item.values(), 2))
    return list(item) if isinstance(item, tuple | list) else (item,)


def pairs_of_columns(columns: Mapping[str, Any], source: str, target: str, name: str) -> Pairs:
    """The pairs of two columns of a frame, or of any mapping of names to sequences.

    Raises:
        InputError: A column does not exist, or a cell is no text; with the row.
    """
    found: dict[str, list[str]] = {}
    for column in (source, target):
        if column not in columns:
            names = [str(each) for each in columns]
            raise InputError(f"There is no column {column!r}. {nearest(column, names)}")
        cells = list(columns[column])
        for row, cell in enumerate(cells):
            # A missing cell is NaN or None in pandas: an empty side, which is counted later.
            if cell is None or (isinstance(cell, float) and math.isnan(cell)):
                cells[row] = ""
            elif not isinstance(cell, str):
                raise InputError(
                    f"{name} row {row}: {column!r} holds {cell!r:.40}, a {type(cell).__name__} and "
                    "no text. Convert the column first, for example with .astype(str)."
                )
        found[column] = cells
    places = [f"{name} row {row}" for row in range(len(found[source]))]
    return Pairs(found[source], found[target], places)


def usable(pairs: Pairs, options: TranslationOptions) -> Pairs:
    """The pairs without those that cannot be used, which are counted by reason.

    Raises:
        InputError: There are such pairs and ``options.unusable`` is "raise", or no others.
    """
    kept = Pairs()
    for source, target, place in zip(pairs.sources, pairs.targets, pairs.places, strict=True):
        reason = _fault(source, target, options)
        if reason is None:
            kept.add(source, target, place)
        else:
            kind, words = reason
            kept.problems.append(Problem(place, words))
            kept.left_out[kind] += 1
    if kept.problems and options.unusable == "raise":
        shown = "; ".join(str(problem) for problem in kept.problems[:_SHOWN_LINES])
        raise InputError(
            f"{len(kept.problems):,} of {len(pairs):,} pairs cannot be used: {shown}. Mend them, "
            'or leave them out: unusable="skip".'
        )
    if not len(kept):
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in kept.left_out.items())
        raise InputError(
            f"None of {len(pairs):,} pairs can be used ({kinds}). The first: {kept.problems[0]}"
        )
    return kept


def _fault(source: str, target: str, options: TranslationOptions) -> tuple[str, str] | None:
    """Kind and words of what is wrong with a pair."""
    words = {"source": len(source.split()), "target": len(target.split())}
    for side, text in (("source", source), ("target", target)):
        if not words[side]:
            return "empty side", f"the {side} is empty"
        if words[side] > options.max_words:
            limit = options.max_words
            return "too long", f"the {side} has {words[side]:,} words, more than {limit:,}"
        if len(text) > options.max_characters:
            limit = options.max_characters
            return "too long", f"the {side} has {len(text):,} characters, more than {limit:,}"
    many, few = max(words.values()), min(words.values())
    if many >= _RATIO_FROM_WORDS and many > options.max_ratio * few:
        return (
            "uneven",
            f"{words['source']} words on the source side and {words['target']} on the target side",
        )
    return None
