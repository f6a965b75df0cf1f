"""Find ambiguous labels with one value per sample: codes or amounts, tags, spellings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flambeau.data.label_rows import TASK_OPTION
from flambeau.data.reading import Reading
from flambeau.wording import name_some

_DOUBTFUL = 0.4
# Numbers are probably class numbers if they start at 0 or 1 without gaps, or if there are at most
# this many distinct ones, each in this many rows.
_MAX_CODES, _ROWS_PER_CODE = 10, 10
MAX_FLOAT_CODES = 20
"""Floats with at most this many distinct values, each repeated, may be class numbers."""

_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})")  # 007 is a code
_LIST = re.compile(r"[\[({].*[\])}]")  # a list, tuple or set, written as text
_SEPARATORS, _WORD_SEPARATORS = ";|,+/&", " _-"
# Names, in lower case, that often stand for a missing label.
_NO_LABEL = ("?", "-", "na", "n/a", "nan", "none", "null", "nil", "unlabeled", "unlabelled")


def doubts_about_values(values: Sequence[Any], kind: str) -> list[Reading]:
    """Return what is doubtful in the interpretation of labels ``(n,)`` of one type.

    Args:
        values: The labels: text, whole numbers, floats or bools.
        kind: The task that was inferred from their type.
    """
    counts = Counter(values)
    if all(isinstance(value, str) for value in counts):
        found = [_decimal_commas(counts), _tag_lists(counts), _numbers_as_text(counts, kind)]
    elif all(isinstance(value, int) and not isinstance(value, bool) for value in counts):
        found = [_whole_numbers(counts, kind)]
    elif all(isinstance(value, float) for value in counts):
        found = [_floats(counts)]
    else:
        found = []
    return [reading for reading in found if reading is not None]


def doubts_about_names(names: Sequence[str]) -> list[Reading]:
    """Report class names that could be one class, and names that stand for a missing label.

    Names could be one class if they differ only in case, spaces, invisible characters or the
    Unicode form of accents.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        visible = "".join(each for each in name if unicodedata.category(each) != "Cf")
        plain = " ".join(unicodedata.normalize("NFC", visible).casefold().split())
        alike.setdefault(plain, []).append(name)
    several = [group for group in alike.values() if len(group) > 1]
    missing = [name for plain, group in alike.items() if plain in _NO_LABEL for name in group]
    readings = [_no_labels(missing)] if missing else []
    if not several:
        return readings
    pairs = name_some("/".join(map(ascii_or_plain, group)) for group in several)
    return [
        *readings,
        Reading(
            "targets",
            f"{len(several)} class name{'s are' if len(several) > 1 else ' is'} in several "
            "spellings, which differ only in case, "
            f"spaces or the form of accents, and each spelling is a class: {pairs}.",
            {"spelt differently": len(several)},
            ("one class for all spellings",),
            _DOUBTFUL,
            "If they are the same class, spell it the same in all rows (or folders).",
        ),
    ]


def ascii_or_plain(name: str) -> str:
    """Return a name in quotes; with escapes if it has combining characters, which look alike."""
    has_marks = any(unicodedata.combining(character) for character in name)
    return ascii(name) if has_marks else repr(name)


def _no_labels(names: Sequence[str]) -> Reading:
    return Reading(
        "targets",
        f"The class names {name_some(map(repr, names))} could stand for a missing label.",
        {"names": list(names)},
        (),
        _DOUBTFUL,
        "If they do, remove these rows (or folders).",
    )


def has_decimal_commas(values: Sequence[Any]) -> bool:
    """Return whether some labels are numbers with a decimal comma, and the others are numbers."""
    texts = [value for value in values if isinstance(value, str)]
    return any(_DECIMAL_COMMA.fullmatch(text.strip()) for text in texts) and all(
        re.fullmatch(r"[-+]?[0-9]+(,[0-9]+)?", text.strip()) for text in texts
    )


def _decimal_commas(counts: Counter[str]) -> Reading | None:
    if not has_decimal_commas(list(counts)):
        return None
    return _task_doubt(
        f"The labels look like numbers with a decimal comma ({next(iter(counts))!r}), but they are "
        f"text, so each of the {len(counts):,} values is a class.",
        {"distinct": len(counts)},
        "For amounts write decimal points, or convert the column: "
        'column.str.replace(",", ".").astype(float).',
    )


def _tag_lists(counts: Counter[str]) -> Reading | None:
    if has_decimal_commas(list(counts)):
        return None
    if len(counts) > 1 and all(_LIST.fullmatch(text.strip()) for text in counts):
        return _task_doubt(
            f"The labels look like lists that were written as text ({next(iter(counts))!r:.60}), "
            f"and each of the {len(counts):,} texts is a class.",
            {"distinct": len(counts)},
            "For several labels per sample pass lists: column.map(ast.literal_eval).",
        )
    for separator in _SEPARATORS:
        parts = {part.strip() for text in counts for part in text.split(separator)}
        combined = [text for text in counts if separator in text]
        inner = {part.strip() for text in combined for part in text.split(separator)}
        if combined and (len(parts) < len(counts) or inner & counts.keys()):
            return _tags(counts, separator, combined, len(parts))
    for separator in _WORD_SEPARATORS:
        words = {text: text.replace(separator, " ").split() for text in counts}
        combined = [text for text in counts if separator in text.strip()]
        parts = {part for each in words.values() for part in each}
        if combined and 1.5 * len(parts) < len(counts):
            return _tags(counts, separator, combined, len(parts))
    return None


def _tags(counts: Counter[str], separator: str, combined: list[str], n_parts: int) -> Reading:
    return _task_doubt(
        f"The labels look like lists of labels separated by {separator!r} (such as "
        f"{combined[0]!r}), but each of the {len(counts):,} combinations is a class; separated "
        f"they are {n_parts:,} labels.",
        {"combinations": len(counts), "labels": n_parts},
        f"For several labels per sample pass sep={separator!r} when you build the data; on the "
        f"command line: --sep '{separator}'.",
    )


def _numbers_as_text(counts: Counter[str], kind: str) -> Reading | None:
    """Return the doubt about whole numbers that were given as text, such as names of folders."""
    if kind == "regression" or not all(_WHOLE_NUMBER.fullmatch(text) for text in counts):
        return None
    numbers: Counter[int] = Counter()
    for text, n in counts.items():
        numbers[int(text)] += n
    return _whole_numbers(numbers, kind)


def _whole_numbers(counts: Counter[int], kind: str) -> Reading | None:
    low, high, n = min(counts), max(counts), counts.total()
    seen = f"The labels are {len(counts):,} distinct whole numbers from {low:,} to {high:,}"
    if kind == "regression":
        return _task_doubt(
            f"{seen}; the lowest cannot be a class number, so they are read as amounts.",
            {"distinct": len(counts), "smallest": low},
            f"For classes pass {TASK_OPTION.format(*['classification'] * 2)}.",
            0.7,
        )
    has_gaps = len(counts) != high - low + 1
    is_numbered = low in (0, 1) and not has_gaps
    if is_numbered and n >= 2 * len(counts):
        return None
    if len(counts) <= _MAX_CODES and n >= _ROWS_PER_CODE * len(counts):
        return None
    why = "gaps between them" if has_gaps else f"a start at {low:,}"
    if is_numbered:
        why = "few rows of each"
    return _task_doubt(
        f"{seen} in {n:,} rows, and each is a class; {why} could mean that they are amounts.",
        {"distinct": len(counts), "rows": n},
        f"For amounts pass {TASK_OPTION.format(*['regression'] * 2)}.",
    )


def _floats(counts: Counter[float]) -> Reading | None:
    n = counts.total()
    rows = 2 if all(value.is_integer() for value in counts) else _ROWS_PER_CODE
    if len(counts) > MAX_FLOAT_CODES or n < rows * len(counts):
        return None
    shown = name_some((f"{value:g}" for value in sorted(counts)), most=4)
    return _task_doubt(
        f"The labels are numbers, but only {len(counts)} distinct "
        f"one{'' if len(counts) == 1 else 's'} in {n:,} rows ({shown}): "
        "they could be class numbers.",
        {"distinct": len(counts), "rows": n},
        f"For classes pass {TASK_OPTION.format(*['classification'] * 2)}.",
    )


def _task_doubt(
    what: str, evidence: dict[str, Any], override: str, confidence: float = _DOUBTFUL
) -> Reading:
    return Reading("task", what, evidence, (), confidence, override)
