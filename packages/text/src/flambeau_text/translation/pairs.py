"""``Pairs``: a table of sentence pairs from lines, columns or iterables, without unusable pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from flambeau.data.samples import Problem, Samples
from flambeau.data.tables import Table
from flambeau.errors import ArgumentError, InputError
from flambeau.wording import name_some
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.word_count import count_words

NOT_TEXT = "not text"
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
        notes: Lines of the report on how the input was read, if the arguments did not determine it.
    """

    sources: list[str] = field(default_factory=list[str])
    targets: list[str] = field(default_factory=list[str])
    locations: list[str] = field(default_factory=list[str])
    problems: list[Problem] = field(default_factory=list[Problem])
    skipped: Counter[str] = field(default_factory=Counter[str])
    notes: list[str] = field(default_factory=list[str])

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
            self.notes + other.notes,
        )

    def as_samples(self) -> Samples:
        """Return the pairs as a table with the columns "source", "target" and "location"."""
        columns = {"source": self.sources, "target": self.targets, "location": self.locations}
        return Samples(columns, tuple(self.problems))


def pairs_from_lines(sources: Sequence[str], targets: Sequence[str], name: str) -> Pairs:
    """Return the pairs of two lists of equal length; ``name`` is the file name for messages."""
    locations = [f"{name} line {number}" for number in range(1, len(sources) + 1)]
    return Pairs(list(sources), list(targets), locations)


@dataclass(frozen=True)
class Sides:
    """The keys of the source and the target in mappings.

    Attributes:
        source: Key of the source.
        target: Key of the target.
        note: How the keys were chosen, if the user did not name them; a line of the report.
    """

    source: str
    target: str
    note: str = ""


def pairs_from_items(items: Iterable[Any], name: str = "pair", sides: Sides | None = None) -> Pairs:
    """Return the pairs of an iterable of tuples (source, target), or of mappings with both texts.

    Rows of Hugging Face translation data sets, ``{"translation": {"en": …, "de": …}}``, are
    accepted.

    Args:
        items: The iterable.
        name: What an item is called in messages.
        sides: Keys of the two texts in mappings; see `sides_of`.

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
        texts = _texts_of(item, index, sides)
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"Item {index} is {item!r:.80}, not a pair of texts. Give (source, target)."
            )
        found.add(*cast("tuple[str, str]", tuple(texts)), f"{name} {index}")
    if not len(found):
        raise InputError("There are no pairs: the iterable is empty. Give at least two pairs.")
    return found


def sides_of(item: Any, source: str | None, target: str | None) -> Sides | None:
    """Return the keys of source and target in a mapping; None if ``item`` is not a mapping.

    They are ``source`` and ``target`` if given, else "source" and "target", else the only two keys
    in their order.

    Raises:
        InputError: A given key does not exist, or it is unclear which keys to use.
    """
    if not isinstance(item, Mapping):
        return None
    entries = [str(name) for name in _entries(item)]
    shown = name_some(map(repr, entries), 8)
    if missing := [name for name in (source, target) if name is not None and name not in entries]:
        raise InputError(
            f"The pairs are mappings with the entries {shown}, without {missing[0]!r}. Name two of "
            "them with source= and target=, or by their languages: options=TranslationOptions("
            "source_language=…, target_language=…)."
        )
    if source is not None and target is not None:
        return Sides(source, target)
    if source is None and target is None and {"source", "target"} <= set(entries):
        return Sides("source", "target")
    if len(entries) == 2:
        one = source or next(name for name in entries if name != target)
        other = target or next(name for name in entries if name != one)
        note = f"sides: the source is {one!r} and the target {other!r}, in the order of the entries"
        return Sides(one, other, f"{note}; to choose them, give source= and target=")
    raise InputError(
        f"The pairs are mappings with the entries {shown}; it is unclear which two are source and "
        'target. Name them: source="en", target="de".'
    )


def _entries(item: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = item.get("translation")
    return cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else item


def _texts_of(item: Any, index: int, sides: Sides | None) -> Sequence[Any]:
    if not isinstance(item, Mapping):
        return list(item) if isinstance(item, tuple | list) else (item,)
    if sides is None:
        sides = sides_of(item, None, None)
    entries = _entries(item)
    names = () if sides is None else (sides.source, sides.target)
    for name in names:
        if name not in entries:
            raise InputError(
                f"Item {index} has the entries {name_some(map(repr, entries), 8)}, without "
                f"{name!r}. Give both texts in every item."
            )
    return [entries[name] for name in names]


def pairs_from_columns(table: Table, source: str, target: str) -> Pairs:
    """Return the pairs of two columns of a table.

    Raises:
        InputError: A column does not exist, or a cell is not a text; the message names the row.
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


def filter_pairs(
    pairs: Pairs, options: TranslationOptions, whole: Container[int] = ()
) -> tuple[Pairs, np.ndarray]:
    """Return the usable pairs, and their positions in ``pairs``.

    A pair is unusable if it exceeds a limit, has an empty side or is not valid text. Such pairs are
    excluded and counted by reason, unless ``options.unusable`` is "keep".

    Args:
        pairs: The pairs.
        options: The limits, and ``unusable``.
        whole: Positions of the pairs of a test part, which "skip" keeps too, because a test part is
            never made smaller.

    Raises:
        InputError: A pair is unusable and ``options.unusable`` is "raise", all pairs are unusable,
            or a pair that must be kept is not valid text.
    """
    kept, positions = Pairs(notes=list(pairs.notes)), list[int]()
    rows = zip(pairs.sources, pairs.targets, pairs.locations, strict=True)
    for position, (source, target, location) in enumerate(rows):
        problem = _problem(source, target, options)
        keeps = options.unusable == "keep" or (options.unusable == "skip" and position in whole)
        if keeps and problem is not None and problem[0] == NOT_TEXT:
            raise InputError(f"{location}: {problem[1]}. Decode the texts correctly.")
        if problem is None or keeps:
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
            "Check the files and the limits: max_words, max_characters and max_length_ratio of "
            "TranslationOptions, or --max-words, --max-characters and --max-ratio."
        )
    return kept, np.array(positions, dtype=np.int64)


def _not_text(text: str) -> str | None:
    """Return which characters make a text invalid, NUL or an unpaired surrogate, or None."""
    if "\0" in text:
        return "NUL characters, as if UTF-16 was read as UTF-8"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"the unpaired surrogate {text[error.start]!r} at index {error.start}"
    return None


def _problem(source: str, target: str, options: TranslationOptions) -> tuple[str, str] | None:
    """Return kind and description of the reason why a pair is unusable; None if it is usable."""
    for side, text in (("source", source), ("target", target)):
        if (wrong := _not_text(text)) is not None:
            return NOT_TEXT, f"the {side} has {wrong}"
    words = {"source": count_words(source), "target": count_words(target)}
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
