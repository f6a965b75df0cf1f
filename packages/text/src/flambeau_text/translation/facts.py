"""``translation_facts``: statistics of the train pairs, the input of the plan's rules."""

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
    """Return core's facts, the languages, and statistics of the train pairs.

    - ``source_words``, ``target_words``: number of words; ``source_distinct``,
      ``target_distinct``: number of distinct words
    - ``mean_words``: mean number of words of a pair, both sides added
    - ``longest_words``, ``longest_characters``: of the longest sentence of either side
    - ``shared_words``: fraction of the target's words, repetitions counted, that occur in sources
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
