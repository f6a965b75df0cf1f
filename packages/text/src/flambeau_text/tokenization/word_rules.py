"""Rules that write case and repetition as tokens of their own, and their inverse."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from flambeau_text.vocab import UNKNOWN

JOINER = "\uffed"  # a half-width square, as in OpenNMT's tokenizer
"""Marks the side of a token on which the text has no space."""

SQUARE = "\u25a0"
"""Replaces what a text must not contain: the mark, and the first letter of a rule token."""

FIELD, REPEATED, REPEATED_WORD, UPPER, CAPITAL = "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"
RULE_TOKENS = (FIELD, REPEATED, REPEATED_WORD, UPPER, CAPITAL)
"""The tokens of the rules, which follow the special tokens in a vocabulary.

With those (unknown, padding, begin, end) the order is that of fastai.
"""

_MOST = 99  # repetitions that one token stands for
_LEAST = 3
_RUN = re.compile(rf"(\S)\1{{{_LEAST - 1},{_MOST - 1}}}")
_PIECE = re.compile(rf"{_RUN.pattern}|[/#\\]")
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def without_html(text: str) -> str:
    """Return a text with HTML's character references and line breaks replaced.

    Text that was escaped more than once (``&amp;quot;``) is unescaped as often.

    Example:
        >>> without_html("a &amp;lt; b<br />c")
        'a < b c'
    """
    while (found := _LINE_BREAK.sub(" ", html.unescape(text))) != text:
        text = found
    return text


def is_run(piece: str) -> bool:
    """Return whether a piece is one character, repeated three times or more."""
    return _RUN.fullmatch(piece) is not None


def pieces_of(text: str) -> list[tuple[str, bool]]:
    r"""Split a text at spaces, around repeated characters and around ``/``, ``#`` and ``\``.

    Args:
        text: A text with single spaces.

    Returns:
        Each piece, and whether a space follows it.
    """
    found: list[tuple[str, bool]] = []
    for word in text.split():
        begin = 0
        parts: list[str] = []
        for match in _PIECE.finditer(word):
            parts += [word[begin : match.start()], match[0]]
            begin = match.end()
        parts.append(word[begin:])
        parts = [part for part in parts if part]
        found += [(part, False) for part in parts[:-1]]
        found.append((parts[-1], True))
    return found


def apply_rules(tokens: Sequence[str]) -> list[str]:
    """Return the tokens in lower case, with rule tokens for case and repetition.

    Args:
        tokens: The tokens of one text as they are written, with the marks of `JOINER`.

    Example:
        >>> apply_rules(["NO", "no", "no", "no", "Way", "￭!!!"])
        ['xxup', 'no', 'xxwrep', '3', 'no', 'xxmaj', 'way', 'xxrep', '3', '￭!']
    """
    found: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        count = _equal_words(tokens, at)
        left, text, right = _parted(token)
        if count >= _LEAST:
            found += [REPEATED_WORD, str(count)]
            at += count
        else:
            at += 1
            if is_run(text):
                found += [REPEATED, str(len(text))]
                text = text[0]
        if text.lower() in RULE_TOKENS:
            text = SQUARE + text[1:]
        found += [*_case_token(text), f"{left}{text.lower()}{right}"]
    return found


def undo_rules(tokens: Sequence[str]) -> list[str]:
    """Return the tokens as `apply_rules` got them, except words in mixed case.

    A rule token that is not followed by a word, as a model may generate it, is left out.

    Example:
        >>> undo_rules(["xxup", "no", "xxwrep", "3", "no", "xxmaj", "way", "xxrep", "3", "￭!"])
        ['NO', 'no', 'no', 'no', 'Way', '￭!!!']
    """
    found: list[str] = []
    rest = iter(tokens)
    rule, count, case = "", 1, ""
    for token in rest:
        if token in (REPEATED, REPEATED_WORD):
            rule, case = token, ""
            count, token = _count(rest)  # noqa: PLW2901 - the token after the count
        if token in (UPPER, CAPITAL):
            case = token
            continue
        if token is None or token in RULE_TOKENS:
            continue
        left, text, right = _parted(token)
        if case and text != UNKNOWN:
            text = text.upper() if case == UPPER else text[:1].upper() + text[1:]
        if rule == REPEATED and text != UNKNOWN:
            text *= count
        found += [f"{left}{text}{right}"] * (count if rule == REPEATED_WORD else 1)
        rule, count, case = "", 1, ""
    return found


def _count(rest: Iterator[str]) -> tuple[int, str | None]:
    """Return the number after a token of repetition, and the token after the number."""
    token = next(rest, None)
    if token is None or not (token.isascii() and token.isdecimal() and len(token) <= 2):
        return 1, token
    return int(token), next(rest, None)


def _equal_words(tokens: Sequence[str], at: int) -> int:
    """Return how many equal words, with spaces between them, begin at a token."""
    token = tokens[at]
    if JOINER in token or not any(map(str.isalnum, token)) or is_run(token):
        return 1
    end = at + 1
    while end < min(len(tokens), at + _MOST) and tokens[end] == token:
        end += 1
    return end - at


def _parted(token: str) -> tuple[str, str, str]:
    """Return the mark on the left of a token, its text, and the mark on the right."""
    text = token.removeprefix(JOINER)
    left = token[: len(token) - len(text)]
    plain = text.removesuffix(JOINER)
    return left, plain, text[len(plain) :]


def _case_token(text: str) -> list[str]:
    """Return the rule token for the case of a word; none if `undo_rules` could not restore it."""
    lower = text.lower()
    if lower == text:
        return []
    if len(text) > 1 and lower.upper() == text:
        return [UPPER]
    return [CAPITAL] if lower[:1].upper() + lower[1:] == text else []
