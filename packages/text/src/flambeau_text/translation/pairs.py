"""``Pairs``: a table of sentence pairs from lines, columns or iterables, and its filter."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import numpy as np

from flambeau.data.samples import Problem, Samples
from flambeau.data.tables import Table
from flambeau.errors import ArgumentError, InputError
from flambeau_text.translation.options import TranslationOptions

_SHOWN_PAIRS = 5
# The length ratio of shorter sentences varies widely in correct translations.
_RATIO_FROM_WORDS = 6


@dataclass
class Pairs:
    """Sentence pairs in their original order.

    Attributes:
        sources: The source sentences.
        targets: The translations of the sources.
        locations: Where each pair was found, for messages ("train.en line 3").
        problems: The pairs that were skipped, each with its reason.
        skipped: Number of skipped pairs by reason.
    """

    sources: list[str] = field(default_factory=list[str])
    targets: list[str] = field(default_factory=list[str])
    locations: list[str] = field(default_factory=list[str])
    problems: list[Problem] = field(default_factory=list[Problem])
    skipped: Counter[str] = field(default_factory=Counter[str])

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, source: str, target: str, location: str) -> None:
        """Append one pair."""
        self.sources.append(source)
        self.targets.append(target)
        self.locations.append(location)

    def __add__(self, other: Pairs) -> Pairs:
        """Return these pairs followed by the pairs of ``other``."""
        return Pairs(
            self.sources + other.sources,
            self.targets + other.targets,
            self.locations + other.locations,
            self.problems + other.problems,
            self.skipped + other.skipped,
        )

    def as_samples(self) -> Samples:
        """Return the pairs as a table with the columns "source", "target" and "location"."""
        columns = {"source": self.sources, "target": self.targets, "location": self.locations}
        return Samples(columns, tuple(self.problems))


def pairs_from_lines(sources: Sequence[str], targets: Sequence[str], name: str) -> Pairs:
    """Return the pairs of two lists of equal length; ``name`` is the file name for messages."""
    locations = [f"{name} line {number}" for number in range(1, len(sources) + 1)]
    return Pairs(list(sources), list(targets), locations)


def pairs_from_items(items: Iterable[Any], name: str = "pair") -> Pairs:
    """Return the pairs of an iterable of (source, target) or of mappings with two texts.

    Rows of Hugging Face translation data sets, ``{"translation": {"en": …, "de": …}}``, are
    accepted; of a mapping with more than two texts the first two are used.

    Raises:
        ArgumentError: The object cannot be iterated over.
        InputError: An item is not a pair of texts; the message has its index.
    """
    if isinstance(items, str | bytes) or not hasattr(items, "__iter__"):
        raise ArgumentError(
            f"Give pairs as an iterable of (source, target), not as {type(items).__name__}."
        )
    found = Pairs()
    for index, item in enumerate(items):
        texts = _texts_of(item)
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"Item {index} is {item!r:.80}, not a pair of texts. Give (source, target)."
            )
        found.add(*cast("tuple[str, str]", tuple(texts)), f"{name} {index}")
    if not len(found):
        raise InputError("There are no pairs: the iterable is empty. Give at least two pairs.")
    return found


def _texts_of(item: Any) -> Sequence[Any]:
    if isinstance(item, Mapping):
        inner = item.get("translation")
        return list(islice(inner.values() if isinstance(inner, Mapping) else item.values(), 2))
    return list(item) if isinstance(item, tuple | list) else (item,)


def pairs_from_columns(table: Table, source: str, target: str) -> Pairs:
    """Return the pairs of two columns of a table.

    Raises:
        InputError: A column does not exist, or a cell is not a text; the message has its row.
    """
    found: dict[str, list[str]] = {}
    for column in (source, target):
        cells = table.column(column)
        for row, cell in enumerate(cells):
            # A missing cell is NaN or None in frames; it becomes an empty side and is counted.
            if cell is None or (isinstance(cell, float) and math.isnan(cell)):
                cells[row] = ""
            elif not isinstance(cell, str):
                raise InputError(
                    f"{table.name} row {row}: the column {column!r} has {cell!r:.40} of type "
                    f"{type(cell).__name__}, not a text. Convert the column, for example with "
                    ".astype(str)."
                )
        found[column] = cells
    locations = [f"{table.name} row {row}" for row in range(len(found[source]))]
    return Pairs(found[source], found[target], locations)


def filter_pairs(pairs: Pairs, options: TranslationOptions) -> tuple[Pairs, np.ndarray]:
    """Return the pairs within the limits of ``options``, and their positions in ``pairs``.

    Other pairs are counted by reason.

    Raises:
        InputError: A pair exceeds a limit and ``options.unusable`` is "raise", or all pairs do.
    """
    kept, positions = Pairs(), list[int]()
    rows = zip(pairs.sources, pairs.targets, pairs.locations, strict=True)
    for position, (source, target, location) in enumerate(rows):
        problem = _problem(source, target, options)
        if problem is None:
            kept.add(source, target, location)
            positions.append(position)
        else:
            kind, reason = problem
            kept.problems.append(Problem(location, reason))
            kept.skipped[kind] += 1
    if kept.problems and options.unusable == "raise":
        shown = "; ".join(str(problem) for problem in kept.problems[:_SHOWN_PAIRS])
        raise InputError(
            f"{len(kept.problems):,} of {len(pairs):,} pairs are unusable: {shown}. Fix them, or "
            'exclude them with unusable="skip".'
        )
    if not len(kept):
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in kept.skipped.items())
        raise InputError(
            f"All {len(pairs):,} pairs are unusable ({kinds}). The first: {kept.problems[0]}. "
            "Check the files and the limits in TranslationOptions."
        )
    return kept, np.array(positions, dtype=np.int64)


def _problem(source: str, target: str, options: TranslationOptions) -> tuple[str, str] | None:
    """Return kind and description of the reason why a pair is unusable, or None."""
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
    if many >= _RATIO_FROM_WORDS and many > options.max_length_ratio * few:
        return (
            "length ratio",
            f"the source has {words['source']} words and the target {words['target']}",
        )
    return None
