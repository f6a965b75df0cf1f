"""Functions that read tagged sentences from files in the formats of CoNLL, among them CoNLL-U."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flambeau.data.reading import Reading
from flambeau.errors import InputError, did_you_mean
from flambeau_text.tagging.entities import split_tag
from flambeau_text.tagging.options import TagOptions
from flambeau_text.tagging.sources import TaggedSentences
from flambeau_text.text_lines import read_lines

CONLL_U = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""Names of the columns of CoNLL-U, see https://universaldependencies.org/format.html."""

_WORD_ID = re.compile(r"[0-9]+([-.][0-9]+)?")
_MAY_BE_EMPTY = ("feats", "deps", "misc")  # of CoNLL-U, in which "_" is a value
_SEEN = 100


@dataclass(frozen=True)
class Columns:
    """The columns of a file.

    Attributes:
        count: Number of columns of each line with a word.
        separator: A tab, or a space for any number of spaces and tabs.
        names: Names of the columns; empty if they have none.
        words: Column of the words, from 0.
        tags: Column of the tags.
    """

    count: int
    separator: str
    names: tuple[str, ...]
    words: int
    tags: int

    @classmethod
    def of(cls, lines: Sequence[str], options: TagOptions, path: Path) -> Columns:
        """Find the columns of a file.

        Args:
            lines: The lines of the file.
            options: May name the columns of words and tags.
            path: The file, for messages.

        Raises:
            InputError: A column does not exist, or the first one numbers the words.
        """
        first = next((line for line in lines if _is_word(line)), "")
        # With tabs a word may have spaces.
        separator = "\t" if "\t" in first else " "
        count = len(fields_of(first, separator))
        seen = [fields_of(line, separator) for line in lines if _is_word(line)][:_SEEN]
        numbered = bool(seen) and all(_WORD_ID.fullmatch(each[0]) for each in seen)
        numbered = numbered and count > 2 and seen[0][0][0] in "01"
        if numbered and count == len(CONLL_U):
            names, words, tags = CONLL_U, CONLL_U.index("form"), CONLL_U.index("upos")
        elif numbered and options.words is None:
            raise InputError(
                f"The first column of {path} numbers the words ({seen[0][0]!r}), so it has "
                f"another format than CoNLL: {' '.join(seen[0])!r:.60}. Give the numbers of the "
                'columns, from 0: TagOptions(words="1", tags="3"), or --words 1 --target 3.'
            )
        else:
            names, words, tags = (), 0, count - 1
        found = cls(count, separator, names, words, tags)
        return cls(
            count,
            separator,
            names,
            words if options.words is None else found.index(options.words, "words", path),
            tags if options.tags is None else found.index(options.tags, "tags", path),
        )

    def index(self, given: str, what: str, path: Path) -> int:
        """Return the column with a name or a number.

        Raises:
            InputError: There is none.
        """
        if given.lower() in self.names:
            return self.names.index(given.lower())
        if given.isdecimal() and int(given) < self.count:
            return int(given)
        known = did_you_mean(given, list(self.names)) if self.names else ""
        raise InputError(
            f"{what}={given!r} is no column of {path}, which has {self.count}. Give a number from "
            f"0 to {self.count - 1}. {known}".rstrip()
        )

    def reading(self) -> Reading | None:
        """Return how words and tags were found; None if there is no other possibility."""
        if self.count < 3:
            return None
        option = "words= and tags= of TagOptions, or --words and --target"
        if self.names:
            words, tags = self.names[self.words].upper(), self.names[self.tags].upper()
            what = f"CoNLL-U: words from {words}, tags from {tags}; ranges of words are skipped."
            others, override = ("xpos", "deprel"), f'tags="xpos": {option}'
        else:
            last = ", the last" if self.tags == self.count - 1 else ""
            what = f"Of {self.count} columns, {self.words} has the words and {self.tags}{last}, "
            what += "the tags (from 0)."
            others = tuple(map(str, range(self.words + 1, self.count - 1)))
            override = f'tags="1": {option}'
        return Reading("task", what, {"columns": self.count}, others, 0.8, override)


def read_conll(path: Path, options: TagOptions) -> TaggedSentences:
    """Read a file in a format of CoNLL; see ``TagData.from_conll``.

    Raises:
        InputError: A line has a word without a tag, or another number of columns than the first; or
            the columns cannot be found.
    """
    lines = read_lines(path)
    columns = Columns.of(lines, options, path)
    found = TaggedSentences()
    for words, tags, where in _sentences(lines, columns, path):
        found.add(words, tags, where)
    reading = columns.reading()
    found.readings = () if reading is None else (reading,)
    return found


def fields_of(line: str, separator: str) -> list[str]:
    """Return the fields of a line; other white space than spaces and tabs may be part of a word."""
    if separator == "\t":
        return [field.strip(" ") for field in line.rstrip(" \t").split("\t")]
    return [field for field in line.replace("\t", " ").split(" ") if field]


def _sentences(
    lines: Sequence[str], columns: Columns, path: Path
) -> Iterator[tuple[list[str], list[str], str]]:
    words: list[str] = []
    tags: list[str] = []
    first = 1
    for number, line in enumerate([*lines, ""], start=1):
        fields = fields_of(line, columns.separator) if line.strip(" \t") else []
        if fields and _is_skipped(line, fields, columns, within=bool(words)):
            continue
        if fields:
            _check(fields, columns, f"{path}, line {number}: {line!r:.40}")
            first = number if not words else first
            words.append(fields[columns.words])
            tags.append(fields[columns.tags])
        elif words:
            yield words, tags, f"{path}, line {first}"
            words, tags = [], []


def _is_skipped(line: str, fields: list[str], columns: Columns, *, within: bool) -> bool:
    """Return whether a line is a comment, or in CoNLL-U a range of words or an empty node."""
    if line.startswith("-DOCSTART-"):
        return True
    if columns.names:
        return line.startswith("#") or not fields[0].isdecimal()
    # "#" is a word within a sentence, and in a line like the others with the tag of an entity.
    is_like_others = len(fields) == columns.count and split_tag(fields[-1]) is not None
    return line.startswith("# ") and not within and not is_like_others


def _check(fields: list[str], columns: Columns, where: str) -> None:
    if len(fields) < 2:
        raise InputError(
            f"{where} has a word without a tag. Write the word, a space and its tag; blank lines "
            "end sentences."
        )
    if len(fields) != columns.count:
        raise InputError(
            f"{where} has {len(fields)} columns, but the first line with a word has "
            f"{columns.count}, so that it is not clear which one is the tag."
        )
    name = columns.names[columns.tags] if columns.names else ""
    if name and name not in _MAY_BE_EMPTY and fields[columns.tags] == "_":
        raise InputError(f"{where} has no {name.upper()} ('_'). Name another column: tags=….")


def _is_word(line: str) -> bool:
    return bool(line.strip(" \t")) and not line.startswith(("# ", "-DOCSTART-"))
