"""Count the words of a text, also in languages that write no spaces between words."""

from __future__ import annotations

import re

# Letters of scripts without spaces, and about how many of them make a word.
_UNSPACED = {
    2: "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    4: (
        "\u0e00-\u0e7f\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff"
        "\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"
    ),
}
_LETTERS = {n: re.compile(f"[{letters}]") for n, letters in _UNSPACED.items()}
_ANY = re.compile(f"[{''.join(_UNSPACED.values())}]+")
_KANA = re.compile("[\u3040-\u30ff]")
_THAI = _LETTERS[4]


def count_words(text: str) -> int:
    """Return the number of words of a text, estimated where its script has no spaces.

    Words are separated by spaces. In scripts without spaces, two Chinese or Japanese characters, or
    four Thai, Lao, Khmer, Burmese, Tibetan, Tai, Javanese or Balinese ones, count as one word.

    Example:
        >>> [count_words(text) for text in ("a dog runs", "我喜欢音乐", "我用 Python 写代码")]
        [3, 3, 4]
    """
    if text.isascii() or not _ANY.search(text):
        return len(text.split())
    letters = (-(-len(found.findall(text)) // n) for n, found in _LETTERS.items())
    return sum(letters) + len(_ANY.sub(" ", text).split())


def is_unspaced(text: str) -> bool:
    """Return whether most letters of a text are from a script without spaces between words."""
    if text.isascii():
        return False
    unspaced = sum(map(len, _ANY.findall(text)))
    return 2 * unspaced > sum(map(str.isalpha, text))


def script_of(texts: list[str]) -> str | None:
    """Return "ja", "zh" or "th" if most texts are in a script without spaces, else None.

    The letters of the texts decide. "th" also covers Lao, Khmer, Burmese, Tibetan and others.
    """
    found = [text for text in texts if is_unspaced(text)]
    if 2 * len(found) <= len(texts):
        return None
    if 10 * sum(bool(_KANA.search(text)) for text in found) > len(found):
        return "ja"
    return "th" if 2 * sum(bool(_THAI.search(text)) for text in found) > len(found) else "zh"
