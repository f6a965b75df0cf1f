"""``SeenText``: what train sources look like, so that a text of another kind is told as such."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WORD = re.compile(r"[^\W\d_]+")
_FREQUENT = 100
_WORD_LISTS = ("source_words", "source_only", "target_only")
# Above this share of letters that train never showed, a text is in another script.
_UNSEEN_LETTERS = 0.5
# A text with so many frequent words of the target side, and none of the source side, is turned.
_TURNED_FROM = 2
# Texts of at least so many words without any frequent word are of another language, where no train
# text was like that among at least so many.
_FOREIGN_FROM, _SURE_FROM = 10, 500


@dataclass(frozen=True)
class SeenText:
    """Letters and frequent words of train.

    Attributes:
        letters: Every letter of the sources.
        source_words: The most frequent words of the sources.
        source_only: Those of them that no target has.
        target_only: The most frequent words of the targets that no source has.
        is_regular: Whether every longer source had a frequent word, so that one without is odd.
        source_language: Named in messages where it is known.
        target_language: Likewise.
    """

    letters: str
    source_words: tuple[str, ...]
    source_only: tuple[str, ...]
    target_only: tuple[str, ...]
    is_regular: bool = False
    source_language: str | None = None
    target_language: str | None = None

    @classmethod
    def of(
        cls,
        sources: Sequence[str],
        targets: Sequence[str],
        source_language: str | None = None,
        target_language: str | None = None,
    ) -> SeenText:
        """What train sentences show."""
        counts = Counter(word for text in sources for word in _words(text))
        others = Counter(word for text in targets for word in _words(text))
        frequent = [word for word, _ in _ranked(counts)[:_FREQUENT]]
        their_frequent = [word for word, _ in _ranked(others)[:_FREQUENT]]
        known = set(frequent)
        longer = [words for words in map(_words, sources) if len(words) >= _FOREIGN_FROM]
        regular = len(longer) >= _SURE_FROM and all(known & set(words) for words in longer)
        return cls(
            letters="".join(sorted({c for text in sources for c in text.lower() if c.isalpha()})),
            source_words=tuple(frequent),
            source_only=tuple(word for word in frequent if word not in others),
            target_only=tuple(word for word in their_frequent if word not in counts),
            is_regular=regular,
            source_language=source_language,
            target_language=target_language,
        )

    def fault(self, text: str) -> str | None:
        """Why a text is none to be translated here, as a message goes on; None where it may be."""
        letters = [letter for letter in text.lower() if letter.isalpha()]
        unseen = [letter for letter in letters if letter not in self.letters]
        if len(unseen) > _UNSEEN_LETTERS * len(letters):
            return (
                f"is written in {_scripts(unseen)}: {len(unseen)} of its {len(letters)} letters "
                f"were in no train source{_named(self.source_language)}"
            )
        words = _words(text)
        found = [word for word in words if word in self.target_only][:3]
        is_turned = len(found) >= _TURNED_FROM and not set(words) & set(self.source_only)
        if is_turned:
            return (
                f"reads like the target side{_named(self.target_language)}: it has its words "
                f"{', '.join(found)}, and no frequent word of the source side"
                f"{_named(self.source_language)}"
            )
        is_odd = len(words) >= _FOREIGN_FROM and not set(words) & set(self.source_words)
        if self.is_regular and is_odd:
            return (
                f"has {len(words)} words and none of the frequent ones of the source side"
                f"{_named(self.source_language)}, which no train source lacked"
            )
        return None

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``SeenText(**values)`` takes them back."""
        return {
            "letters": self.letters,
            "source_words": list(self.source_words),
            "source_only": list(self.source_only),
            "target_only": list(self.target_only),
            "is_regular": self.is_regular,
            "source_language": self.source_language,
            "target_language": self.target_language,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SeenText:
        """The inverse of ``as_json``."""
        words = {name: tuple(values[name]) for name in _WORD_LISTS}
        return cls(**{**values, **words})


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _scripts(letters: Iterable[str]) -> str:
    """The scripts of letters, the most frequent first: "Cyrillic"."""
    names = Counter(unicodedata.name(letter, "UNNAMED").split()[0] for letter in letters)
    return " and ".join(name.capitalize() for name, _ in names.most_common(2))


def _named(language: str | None) -> str:
    return "" if language is None else f" ({language})"
