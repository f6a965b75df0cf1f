"""What the plan's rules know of sentence pairs: measured on train rows only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from flambeau.data.data import Facts
from flambeau.data.split import PARTS, Split
from flambeau_text.translation.options import TranslationOptions


def translation_facts(
    sources: Sequence[str], targets: Sequence[str], split: Split, options: TranslationOptions
) -> Facts:
    """Besides core's: words and characters of both sides, and which languages they are.

    - ``source_words``, ``target_words``: in all; ``source_distinct``, ``target_distinct``: of them
    - ``mean_words``: of a pair, both sides together
    - ``longest_words``, ``longest_characters``: of a sentence of either side
    - ``shared_words``: share of the target's words (as they come) that sources have as well
    """
    sides: dict[str, Any] = {}
    counts: dict[str, Counter[str]] = {}
    for side, texts in (("source", sources), ("target", targets)):
        found: Counter[str] = Counter()
        longest_words = longest_characters = 0
        for row in split.train.tolist():
            text = str(texts[row]).lower() if options.lowercase else str(texts[row])
            words = text.split()
            found.update(words)
            longest_words = max(longest_words, len(words))
            longest_characters = max(longest_characters, len(text))
        counts[side] = found
        sides[f"{side}_words"] = found.total()
        sides[f"{side}_distinct"] = len(found)
        sides["longest_words"] = max(longest_words, sides.get("longest_words", 0))
        sides["longest_characters"] = max(longest_characters, sides.get("longest_characters", 0))
    shared = sum(n for word, n in counts["target"].items() if word in counts["source"])
    n_train = len(split.train)
    return {
        **{f"n_{part}": len(split.part(part)) for part in PARTS},
        "split": split.describe(),
        "in_memory": True,
        **sides,
        "mean_words": round((sides["source_words"] + sides["target_words"]) / n_train, 2),
        "shared_words": round(shared / max(1, sides["target_words"]), 4),
        "source_language": options.source_language,
        "target_language": options.target_language,
        "lowercase": options.lowercase,
    }
