"""Docstrings, comments, messages and pages use standard technical terms, not the phrases below.

Only phrases that are wrong wherever they occur are listed. A word that is right in one sentence and
wrong in another ("picture", "answer", "place") needs a reader.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("packages/*/src", "examples")
    for root in ROOT.glob(folder)
    for path in root.rglob("*.py")
)
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *ROOT.glob("packages/*/*.md"),
    ]
)

# Regular expression of a phrase → what to write. A space matches any white space.
PHRASES: dict[str, str] = {
    r"mend(s|ed|ing)?": "fix",
    r"of (one['’]s|his|her|a user['’]s|the user['’]s) own": "user-defined, custom",
    r"(break|breaks|breaking|broke|broken) off": "interrupt",
    r"(hang|hangs|hanging|hung) on(?! to)": "depend on",
    r"(?<!there\x20)is none": "is invalid; name the rule that it breaks",
    r"that (is|are) none": "is invalid; name the rule that it breaks",
    r"knows? of none": "no … is known",
    r"by heart": "memorize",
    r"(gold|true) (coin|word|token)s?": "reference (token)",
    r"coins? (a|per|for) (token|batch|sequence|whole batch|word)s?": "Bernoulli draw per token",
    r"(look|looks|looked|looking) away": "disable the check",
    r"(put|puts|putting) (\w+ ){0,3}back": "restore",
    r"(go|goes|went|going) on(?=\s*[.,;:)]|\s*$|\s(with|from|to|as|at|where|training|until)\b)": (
        "continue"
    ),
    r"is to go on": "continue",
    r"torch that is carried": "library for PyTorch",
    r"(stand|stands|standing|stood) in for": "replace, no-op used when",
    r"the living": "active",
    r"what is said": "the message, the text",
    r"(let|lets|letting) go of": "release, free",
    r"held against": "compared with",
    r"moods?": "variation",
    r"put into words": "described in a message",
    r"in so many words": "explicitly",
    r"in the open": "visible",
    r"(knowing nothing|nothing is known)": "uniform predictions, no … is known",
    r"hears? of": "is notified of",
    r"stays what it is": "is unchanged",
    r"(clock on the wall|by the clock)": "wall time",
}

# (file, phrase) → why it is right there.
ALLOWED: dict[tuple[str, str], str] = {
    ("examples/teacher_forcing.py", "coin a batch"): (
        "key of random numbers: another one changes the published results"
    ),
}

Finding = tuple[int, str, str]
"""Line, the words found, what to write."""

_SPACE = r"[\s>#*]+"
_PATTERNS = {
    re.compile(rf"\b(?:{phrase.replace(' ', _SPACE)})(?!\w)", re.IGNORECASE): instead
    for phrase, instead in PHRASES.items()
}


def found_in(text: str, first_line: int = 1) -> Iterator[Finding]:
    """Phrases of the list in a text that starts at ``first_line`` of its file."""
    for pattern, instead in _PATTERNS.items():
        for match in pattern.finditer(text):
            words = " ".join(re.split(_SPACE, match.group()))
            # None in capitals is Python's value, not the word.
            if not words.endswith("None"):
                yield first_line + text[: match.start()].count("\n"), words, instead


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment; comments in consecutive lines are one text."""
    lines: dict[int, str] = {}
    for token in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__):
        if token.type == tokenize.COMMENT:
            lines[token.start[0]] = token.string
    start = 0
    for line in sorted(lines):
        if line - 1 not in lines:
            start = line
        if line + 1 not in lines:
            yield start, "\n".join(lines[each] for each in range(start, line + 1))


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string, docstrings too; a value in an f-string is written ``{}``."""
    tree = ast.parse(source)
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.lineno, node.value


def findings(path: Path) -> list[Finding]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return sorted(found_in(text))
    parts = [*comments(text), *strings(text)]
    return sorted(finding for line, part in parts for finding in found_in(part, line))


def reported(path: Path) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    return [
        f"{name}:{line}: {words!r}: write {instead!r}"
        for line, words, instead in findings(path)
        if (name, words.lower()) not in ALLOWED
    ]


@pytest.mark.parametrize("kind", ["code", "pages"])
def test_plain_technical_english(kind: str) -> None:
    paths = CODE if kind == "code" else PAGES
    assert len(paths) > 10
    found = [line for path in paths for line in reported(path)]
    assert not found, f"{len(found)} phrases:\n" + "\n".join(found)


def test_each_exception_is_in_use() -> None:
    unused = [
        key
        for key in ALLOWED
        if key[1] not in {words.lower() for _, words, _ in findings(ROOT / key[0])}
    ]
    assert not unused


# ---------------------------------------------------------------- the rule can fail

WRONG = {
    "The error says how to mend it.": "mend",
    "An optimizer of one's own.": "of one's own",
    "A loader of the user's own, in order.": "of the user's own",
    "A callback of his own.": "of his own",
    "A run that was broken off.": "broken off",
    "The epochs hang on the batch size.": "hang on",
    "'--sze' is none of the options.": "is none",
    "It has phases that are none: {error}": "that are none",
    "It knows of none.": "knows of none",
    "The model learns them by heart.": "by heart",
    "The loss is against the true words.": "true words",
    "Each gold token counts.": "gold token",
    "A coin a token decides.": "coin a token",
    '"off" looks away.': "looks away",
    "It puts it back.": "puts it back",
    "It puts the old weights back.": "puts the old weights back",
    "It is put back.": "put back",
    '"skip" counts and goes on, as before.': "goes on",
    "Training went on with the second phase.": "went on",
    "A torch that is carried.": "torch that is carried",
    "Stands in for a guard that is off.": "Stands in for",
    "It lets go of the memory.": "lets go of",
    "The words that are\nput  back.": "put back",
}
RIGHT = [
    "Recommend it, and amend the commend.",
    "Each process has its own generator; your own loader works too.",
    "The default is None, and there is none for several labels.",
    "The program may hang. Depends on the batch size.",
    "The gold standard; a token of the reference.",
    "Hold on to it. Data that go on the device.",
    "A user's own optimizer.",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_phrase_of_the_list_is_found(text: str) -> None:
    words = [words for _, words, _ in found_in(text)]
    assert WRONG[text] in words


@pytest.mark.parametrize("text", RIGHT)
def test_a_plain_sentence_passes(text: str) -> None:
    assert not list(found_in(text))


def test_code_is_read_in_docstrings_comments_and_messages(tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(
        '"""How to mend it.\n\nA run that is broken\noff.\n"""\n'
        "mended = 1  # a name is not read, but this hangs\n"
        "# on the batch size\n"
        'raise ValueError(f"{mended} is put "\n    f"back, {1} of one\'s own.")\n'
    )
    assert [(line, words) for line, words, _ in findings(path)] == [
        (1, "mend"),
        (3, "broken off"),
        (6, "hangs on"),
        (8, "of one's own"),
        (8, "put back"),
    ]


def test_a_page_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "planted.md"
    path.write_text("# Title\n\n- A run that is broken\n  off.\n\n> It puts\n> it back.\n")
    assert [line for line, _, _ in findings(path)] == [3, 6]
