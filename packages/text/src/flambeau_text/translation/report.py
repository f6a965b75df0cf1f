"""What was found, in words a person reads before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau_text.translation.options import TranslationOptions

_SHOWN = 5


def report(
    samples: Samples, split: Split, options: TranslationOptions, left_out: Mapping[str, int]
) -> str:
    """Sizes, lengths, words that train does not have, doubles, and what was left out.

    Args:
        samples: The pairs.
        split: Their parts.
        options: Languages and case.
        left_out: Pairs that could not be used, by reason.
    """
    names = f"{options.source_language or 'source'} → {options.target_language or 'target'}"
    lines = [f"{len(samples):,} pairs, {names}", f"split: {split.describe()}"]
    lines += [f"  {note}" for note in split.notes]
    shown = [part for part in PARTS if len(split.part(part))]
    lines += _lengths(samples, split, shown)
    lines += _unknown(samples, split, shown, options)
    lines += _doubles(samples, split, shown)
    lines += _left_out(samples, left_out)
    return "\n".join(lines)


def _lengths(samples: Samples, split: Split, shown: Sequence[str]) -> list[str]:
    lines = [f"  {'words':<16}" + "".join(f"{part:>24}" for part in shown)]
    for side in ("source", "target"):
        cells = []
        for part in shown:
            words = np.array([len(samples[side][row].split()) for row in split.part(part).tolist()])
            cells.append(f"{words.mean():.1f}, {words.min()} to {words.max()}")
        lines.append(f"  {side:<16}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def _unknown(
    samples: Samples, split: Split, shown: Sequence[str], options: TranslationOptions
) -> list[str]:
    """Share of words (cut at spaces) that no train sentence has."""
    others = [part for part in shown if part != "train"]
    if not others:
        return []
    lines: list[str] = []
    for side in ("source", "target"):

        def words(part: str, side: str = side) -> list[str]:
            texts = (samples[side][row] for row in split.part(part).tolist())
            return [
                w for text in texts for w in (text.lower() if options.lowercase else text).split()
            ]

        known = set(words("train"))
        shares = []
        for part in others:
            found = words(part)
            unknown = sum(word not in known for word in found)
            shares.append(f"{part} {unknown / max(1, len(found)):.1%}")
        lines.append(f"  {side} words that train does not have: {', '.join(shares)}")
    return lines


def _doubles(samples: Samples, split: Split, shown: Sequence[str]) -> list[str]:
    """Pairs and sources in more than one part, pairs twice in train, texts that are their own."""
    rows = {part: split.part(part).tolist() for part in shown}

    def pair(row: int) -> tuple[str, str]:
        return samples["source"][row], samples["target"][row]

    counts = Counter(map(pair, rows["train"]))
    twice = sum(count - 1 for count in counts.values())
    lines = [f"doubles: {twice:,} pairs of train are copies of others"]
    untranslated = [row for row in rows["train"] if len(set(pair(row))) == 1]
    if untranslated:
        lines.append(
            f"  the same text on both sides: {len(untranslated):,} of train, such as "
            f"{samples['place'][untranslated[0]]}"
        )
    sources = {source for source, _ in counts}
    for part in shown[1:]:
        same = [row for row in rows[part] if pair(row) in counts]
        likewise = sum(samples["source"][row] in sources for row in rows[part]) - len(same)
        if same or likewise:
            first = f", such as {samples['place'][same[0]]}" if same else ""
            lines.append(
                f"  {len(same):,} pairs of {part} are in train too{first}, and {likewise:,} of its "
                "sources with another translation: scores on them are too good"
            )
        else:
            lines.append(f"  none of {part} is in train")
    return lines


def _left_out(samples: Samples, left_out: Mapping[str, int]) -> list[str]:
    if not left_out:
        return ["left out: none"]
    counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(left_out.items()))
    lines = [f"left out: {sum(left_out.values()):,} pairs ({counts})"]
    lines += [f"  {problem}" for problem in samples.problems[:_SHOWN]]
    if len(samples.problems) > _SHOWN:
        lines.append(f"  … and {len(samples.problems) - _SHOWN:,} more")
    return lines
