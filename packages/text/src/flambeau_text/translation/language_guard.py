"""``LanguageGuard``: detects texts that are not in the script or language of the train sources."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WORD = re.compile(r"[^\W\d_]+")
_N_FREQUENT = 100
_WORD_LISTS = ("source_words", "source_only_words", "target_only_words")
# A text with a larger fraction of letters that no train source has is in another script.
_MAX_UNSEEN_LETTERS = 0.5
# A text with this many words of the target side and none of the source side is in the target
# language.
_MIN_TARGET_WORDS = 2
# A text of this many words without a frequent word is in another language, if every train source
# of that length has a frequent word and there are enough such sources.
_MIN_WORDS, _MIN_LONG_SOURCES = 10, 500


@dataclass(frozen=True)
class LanguageGuard:
    """Detects texts in another language by letters and frequent words of the train pairs.

    Attributes:
        letters: All letters of the sources, in lower case.
        source_words: The most frequent words of the sources.
        source_only_words: The words of ``source_words`` that no target has.
        target_only_words: The most frequent words of the targets that no source has.
        expects_source_words: Whether every train source of 10 or more words has a frequent word, so
            that a text of this length without one is in another language.
        source_language: Language of the sources for messages, or None.
        target_language: Language of the targets for messages, or None.
    """

    letters: str
    source_words: tuple[str, ...]
    source_only_words: tuple[str, ...]
    target_only_words: tuple[str, ...]
    expects_source_words: bool = False
    source_language: str | None = None
    target_language: str | None = None

    @classmethod
    def fit(
        cls,
        sources: Sequence[str],
        targets: Sequence[str],
        source_language: str | None = None,
        target_language: str | None = None,
    ) -> LanguageGuard:
        """Collect letters and frequent words of train sentences."""
        in_sources = Counter(word for text in sources for word in _words(text))
        in_targets = Counter(word for text in targets for word in _words(text))
        frequent = _most_frequent(in_sources)
        known = set(frequent)
        longer = [words for words in map(_words, sources) if len(words) >= _MIN_WORDS]
        all_have_one = all(known & set(words) for words in longer)
        return cls(
            letters="".join(sorted({c for text in sources for c in text.lower() if c.isalpha()})),
            source_words=tuple(frequent),
            source_only_words=tuple(word for word in frequent if word not in in_targets),
            target_only_words=tuple(
                word for word in _most_frequent(in_targets) if word not in in_sources
            ),
            expects_source_words=len(longer) >= _MIN_LONG_SOURCES and all_have_one,
            source_language=source_language,
            target_language=target_language,
        )

    def problem(self, text: str) -> str | None:
        """Return why a text is not in the source language, as the end of a sentence, else None."""
        letters = [letter for letter in text.lower() if letter.isalpha()]
        unseen = [letter for letter in letters if letter not in self.letters]
        source, target = _suffix(self.source_language), _suffix(self.target_language)
        if len(unseen) > _MAX_UNSEEN_LETTERS * len(letters):
            return (
                f"is written in {_scripts(unseen)}: {len(unseen)} of its {len(letters)} letters "
                f"do not occur in the train sources{source}"
            )
        words = _words(text)
        found = [word for word in words if word in self.target_only_words][:3]
        if len(found) >= _MIN_TARGET_WORDS and not set(words) & set(self.source_only_words):
            return (
                f"reads like the target side{target}: it has the target words {', '.join(found)} "
                f"and no frequent word of the source side{source}"
            )
        has_none = len(words) >= _MIN_WORDS and not set(words) & set(self.source_words)
        if self.expects_source_words and has_none:
            return (
                f"has {len(words)} words, but none of the frequent words of the source side"
                f"{source}, unlike every train source of this length"
            )
        return None

    def as_json(self) -> dict[str, Any]:
        """Return JSON values from which ``from_json`` rebuilds the object."""
        return {
            "letters": self.letters,
            "source_words": list(self.source_words),
            "source_only_words": list(self.source_only_words),
            "target_only_words": list(self.target_only_words),
            "expects_source_words": self.expects_source_words,
            "source_language": self.source_language,
            "target_language": self.target_language,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LanguageGuard:
        """Rebuild the object from the values of ``as_json``."""
        words = {name: tuple(values[name]) for name in _WORD_LISTS}
        return cls(**{**values, **words})


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _most_frequent(counts: Counter[str]) -> list[str]:
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [word for word, _ in ranked[:_N_FREQUENT]]


def _scripts(letters: Iterable[str]) -> str:
    """Return the names of the two most frequent scripts of the letters, such as "Cyrillic"."""
    names = Counter(unicodedata.name(letter, "UNNAMED").split()[0] for letter in letters)
    return " and ".join(name.capitalize() for name, _ in names.most_common(2))


def _suffix(language: str | None) -> str:
    return "" if language is None else f" ({language})"
