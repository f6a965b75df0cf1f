"""``report``: describes sentence pairs, to be read before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau_text.tokenization.normalization import normalize
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.word_count import count_words

_SHOWN = 5


def report(
    samples: Samples,
    split: Split,
    options: TranslationOptions,
    skipped: Mapping[str, int],
    notes: Sequence[str] = (),
) -> str:
    """Return sizes, lengths, words missing in train, duplicates and skipped pairs as text.

    Args:
        samples: The pairs.
        split: The rows of each part.
        options: Options, of which languages and case are used.
        skipped: Number of unusable pairs by reason.
        notes: How the input was read, if the arguments did not determine it.
    """
    names = f"{options.source_language or 'source'} → {options.target_language or 'target'}"
    lines = [f"{len(samples):,} pairs, {names}", *notes, f"split: {split.describe()}"]
    lines += [f"  {note}" for note in split.notes]
    shown = [part for part in PARTS if len(split.part(part))]
    texts = {side: _as_read(samples[side], options) for side in ("source", "target")}
    lines += _lengths(samples, split, shown)
    lines += _unknown_words(texts, split, shown)
    lines += _duplicates(texts, samples["location"], split, shown)
    lines += _skipped(samples, skipped)
    return "\n".join(lines)


def _as_read(texts: Sequence[str], options: TranslationOptions) -> list[str]:
    """Return the texts in the Unicode form and case that the model reads."""
    form = options.normalization or "nfc"
    found = [normalize(text, form) for text in texts]
    return [text.lower() for text in found] if options.lowercase else found


def _lengths(samples: Samples, split: Split, shown: Sequence[str]) -> list[str]:
    """Return lines with the mean, minimum and maximum number of words per side and part."""
    lines = [f"  {'words':<16}" + "".join(f"{part:>24}" for part in shown)]
    for side in ("source", "target"):
        cells = []
        for part in shown:
            words = np.array([count_words(samples[side][row]) for row in split.part(part).tolist()])
            cells.append(f"{words.mean():.1f}, {words.min()} to {words.max()}")
        lines.append(f"  {side:<16}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def _unknown_words(
    texts: Mapping[str, Sequence[str]], split: Split, shown: Sequence[str]
) -> list[str]:
    """Return lines with the fraction of words (split at white space) absent from train."""
    others = [part for part in shown if part != "train"]
    if not others:
        return []
    lines: list[str] = []
    for side in ("source", "target"):

        def words(part: str, side: str = side) -> list[str]:
            rows: list[int] = split.part(part).tolist()
            return [word for row in rows for word in texts[side][row].split()]

        known = set(words("train"))
        fractions = []
        for part in others:
            found = words(part)
            unknown = sum(word not in known for word in found)
            fractions.append(f"{part} {unknown / max(1, len(found)):.1%}")
        lines.append(f"  {side} words not in train: {', '.join(fractions)}")
    return lines


def _duplicates(
    texts: Mapping[str, Sequence[str]],
    locations: Sequence[str],
    split: Split,
    shown: Sequence[str],
) -> list[str]:
    """Return lines about duplicate pairs, equal sides, and pairs and sources in several parts."""
    rows = {part: split.part(part).tolist() for part in shown}

    def pair(row: int) -> tuple[str, str]:
        return texts["source"][row], texts["target"][row]

    counts = Counter(map(pair, rows["train"]))
    repeated = sum(count - 1 for count in counts.values())
    lines = [f"duplicates: {repeated:,} train pairs repeat another train pair"]
    untranslated = [row for row in rows["train"] if len(set(pair(row))) == 1]
    if untranslated:
        lines.append(
            f"  source equals target in {len(untranslated):,} train pairs, such as "
            f"{locations[untranslated[0]]}"
        )
    sources = {source for source, _ in counts}
    for part in shown[1:]:
        same = [row for row in rows[part] if pair(row) in counts]
        same_source = sum(texts["source"][row] in sources for row in rows[part]) - len(same)
        if same or same_source:
            first = f", such as {locations[same[0]]}" if same else ""
            lines.append(
                f"  {len(same):,} {part} pairs are also in train{first}, and {same_source:,} "
                f"sources are in train with another translation: scores on {part} are too high"
            )
        else:
            lines.append(f"  no {part} pair is in train")
    return lines


def _skipped(samples: Samples, skipped: Mapping[str, int]) -> list[str]:
    if not skipped:
        return ["skipped: none"]
    counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(skipped.items()))
    lines = [f"skipped: {sum(skipped.values()):,} pairs ({counts})"]
    lines += [f"  {problem}" for problem in samples.problems[:_SHOWN]]
    if len(samples.problems) > _SHOWN:
        lines.append(f"  … and {len(samples.problems) - _SHOWN:,} more")
    return lines
