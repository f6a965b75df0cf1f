"""Functions that read tagged sentences from files in the formats of CoNLL, among them CoNLL-U."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flambeau.data.reading import Reading
from flambeau.errors import InputError, did_you_mean
from flambeau_text.tagging.entities import split_tag
from flambeau_text.tagging.options import TagOptions
from flambeau_text.tagging.sources import TAG_NAMES, WORD_NAMES, TaggedSentences
from flambeau_text.text_lines import read_lines

CONLL_U = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""Names of the columns of CoNLL-U, see https://universaldependencies.org/format.html."""

_ID = re.compile(r"[0-9]+([-.][0-9]+)?")
_COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.+)")
_MAY_BE_EMPTY = ("feats", "deps", "misc")  # of CoNLL-U, in which "_" is a value
_SEEN = 100
_MOST = 0.9  # share of lines with the same form; the others are mistakes, which are named later
_SKIPPED = ("-DOCSTART-", "#begin document", "#end document")


@dataclass(frozen=True)
class Columns:
    """The columns of a file.

    Attributes:
        count: Number of columns of each line with a word.
        separator: A tab, or a space for any number of spaces and tabs.
        names: Names of the columns; empty if they have none.
        is_numbered: Whether the first column numbers the words, as in CoNLL-U.
        words: Column of the words, from 0.
        tags: Column of the tags.
    """

    count: int
    separator: str
    names: tuple[str, ...]
    is_numbered: bool
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
            InputError: A column does not exist, or the words cannot be found.
        """
        seen = [line for line in lines if _is_word(line)][:_SEEN]
        # With tabs a word may have spaces.
        separator = "\t" if sum("\t" in line for line in seen) >= _MOST * len(seen) else " "
        rows = [fields_of(line, separator) for line in seen]
        count = len(rows[0]) if rows else 0
        names = _names(lines, count)
        numbers = sum(_ID.fullmatch(row[0]) is not None for row in rows)
        is_numbered = count > 2 and numbers >= _MOST * len(rows)
        is_numbered = is_numbered and (bool(names) or count == len(CONLL_U) or _begins(rows))
        if is_numbered and not names and count == len(CONLL_U):
            names = CONLL_U
        found = cls(count, separator, names, is_numbered, 0, count - 1)
        defaults = _defaults(found)
        given = {"words": options.words, "tags": options.tags}
        at = {name: found.index(each, name, path, options) for name, each in given.items()}
        words = defaults[0] if at["words"] is None else at["words"]
        tags = defaults[1] if at["tags"] is None else at["tags"]
        if words is None or (is_numbered and words == 0):
            raise InputError(
                f"The first column of {path} numbers the words, and it is not known which one has "
                f"them: {' '.join(rows[0])!r:.60}. Give the numbers of the columns, from 0: "
                'TagOptions(words="1", tags="3"), or --words 1 --target 3.'
            )
        if words == tags and count > 1:
            raise InputError(f"Words and tags of {path} are the same column, {words}, from 0.")
        return replace(found, words=words, tags=tags)

    def index(self, given: str | None, what: str, path: Path, options: TagOptions) -> int | None:
        """Return the column with a name or a number; None for None.

        A column of an export (``options.like``) may be that of a table, and is used if it exists.

        Raises:
            InputError: The column does not exist.
        """
        if given is None:
            return None
        if given.lower() in self.names:
            return self.names.index(given.lower())
        if given.isdecimal() and int(given) < self.count:
            return int(given)
        if options.like is not None:
            return None
        known = did_you_mean(given, list(self.names)) if self.names else ""
        raise InputError(
            f"{path} has no column {what}={given!r}. Give a number from 0 to {self.count - 1}. "
            f"{known}".rstrip()
        )

    def reading(self, found: TaggedSentences) -> Reading | None:
        """Return how words and tags were found; None if there is no other possibility."""
        spaced = next((word for words in found.words for word in words if " " in word), None)
        if self.count < 3 and spaced is None:
            return None
        shown = [self.names[at].upper() if self.names else f"column {at}" for at in self._chosen]
        what = f"Words from {shown[0]}, tags from {shown[1]} of {self.count} columns"
        what += " of CoNLL-U" * (self.names == CONLL_U) + (", from 0." if not self.names else ".")
        if spaced is not None:
            what += f" Columns are separated by tabs: {spaced!r:.40} is one word."
        others = [
            self.names[at] if self.names else str(at)
            for at in range(self.count)
            if at not in self._chosen and not (at == 0 and self.is_numbered)
        ]
        example = f'TagOptions(tags="{others[0]}"), --target {others[0]}' if others else ""
        return Reading("task", what, {"columns": self.count}, tuple(others), 0.8, example)

    @property
    def _chosen(self) -> tuple[int, int]:
        return self.words, self.tags


def read_conll(files: Mapping[str, Path], options: TagOptions) -> TaggedSentences:
    """Read the file of each part in a format of CoNLL; see ``TagData.from_conll``.

    Raises:
        InputError: A line has a word without a tag, or another number of columns than the first; or
            the columns cannot be found, or differ from those of train.
    """
    found: dict[str, TaggedSentences] = {}
    train: Columns | None = None
    for part, path in files.items():
        lines = read_lines(path)
        columns = Columns.of(lines, options, path)
        _refuse_header(lines, columns, path)
        train = columns if train is None else train
        own = (columns.count, columns.names, columns.is_numbered)
        if lines and own != (train.count, train.names, train.is_numbered):
            raise InputError(
                f"{path} has {columns.count} columns{' with numbers' * columns.is_numbered}, but "
                f"the train file has {train.count}{' with numbers' * train.is_numbered}, so that "
                "it is not clear which ones have the words and tags. Give all files one format."
            )
        found[part] = TaggedSentences()
        for words, tags, where in _sentences(lines, columns, path):
            found[part].add(words, tags, where)
        if part == "train" and (reading := columns.reading(found[part])) is not None:
            found[part].readings = (reading,)
    return TaggedSentences.joined(found)


def read_words(path: Path) -> list[list[str]]:
    """Return the words of each sentence of a file in a format of CoNLL, with or without tags.

    Raises:
        InputError: The columns cannot be found, or a line has another number of columns than the
            first.
    """
    lines = read_lines(path)
    columns = Columns.of(lines, TagOptions(), path)
    _refuse_header(lines, columns, path)
    return [words for words, _, _ in _sentences(lines, columns, path, tagged=False)]


def fields_of(line: str, separator: str) -> list[str]:
    """Return the fields of a line; other white space than spaces and tabs may be part of a word."""
    if separator == "\t":
        return [field.strip(" ") for field in line.rstrip(" \t").split("\t")]
    return [field for field in line.replace("\t", " ").split(" ") if field]


def _names(lines: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the names in the first line of CoNLL-U Plus, if they are as many as the columns."""
    match = next((_COLUMNS.match(line) for line in lines if line.strip()), None)
    names = tuple(name.lower().split(":")[-1] for name in match[1].split()) if match else ()
    return names if len(names) == count else ()


def _begins(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the numbers begin as those of a sentence do."""
    return re.split("[-.]", rows[0][0])[0] in ("0", "1")


def _defaults(found: Columns) -> tuple[int | None, int]:
    """Return the columns of words and tags if none are named; None if they are not known."""
    if "form" in found.names:
        upos = found.names.index("upos") if "upos" in found.names else found.count - 1
        return found.names.index("form"), upos
    return (None if found.is_numbered else 0), found.count - 1


def _sentences(
    lines: Sequence[str], columns: Columns, path: Path, *, tagged: bool = True
) -> Iterator[tuple[list[str], list[str], str]]:
    words: list[str] = []
    tags: list[str] = []
    first = 1
    known = _tags_of_words(lines, columns)
    for number, line in enumerate([*lines, ""], start=1):
        fields = fields_of(line, columns.separator) if line.strip(" \t") else []
        if fields and _is_skipped(line, fields, columns, known, within=bool(words)):
            continue
        if fields:
            _check(fields, columns, tagged, f"{path}, line {number}: {line!r:.40}")
            first = number if not words else first
            words.append(fields[columns.words])
            tags.append(fields[columns.tags])
        elif words:
            yield words, tags, f"{path}, line {first}"
            words, tags = [], []


def _tags_of_words(lines: Sequence[str], columns: Columns) -> set[str]:
    """Return the tags of the lines that cannot be comments: all but those with "#" at a start."""
    found: set[str] = set()
    within = False
    for line in lines:
        within = bool(line.strip(" \t")) and (within or _is_word(line))
        fields = fields_of(line, columns.separator) if within else []
        if fields and len(fields) == columns.count:
            found.add(fields[columns.tags])
    return found


def _is_skipped(
    line: str, fields: list[str], columns: Columns, known: Collection[str], *, within: bool
) -> bool:
    """Return whether a line is a comment, or in CoNLL-U a range of words or an empty node."""
    if line.startswith(_SKIPPED):
        return True
    if columns.is_numbered:
        is_range = _ID.fullmatch(fields[0]) is not None and not fields[0].isdecimal()
        return line.startswith("#") or is_range
    if not line.startswith("#") or within:
        return False
    # "#" may be the first word of a sentence, in a line like the others with a tag.
    is_like_others = len(fields) == columns.count
    if not is_like_others:
        return True
    tag = fields[columns.tags]
    return line.startswith("# ") and split_tag(tag) is None and tag not in known


def _check(fields: list[str], columns: Columns, tagged: bool, where: str) -> None:
    between = "a tab" if columns.separator == "\t" else "a space"
    if tagged and len(fields) < 2:
        raise InputError(
            f"{where} has a word without a tag. Write the word, {between} and its tag; blank lines "
            "end sentences."
        )
    if len(fields) != columns.count:
        raise InputError(
            f"{where} has {len(fields)} columns, separated by {between}, but the first line with a "
            f"word has {columns.count}, so that it is not clear which one is the tag."
        )
    if columns.is_numbered and not fields[0].isdecimal():
        raise InputError(
            f"{where} begins with {fields[0]!r}, but the first column numbers the words. Correct "
            "the line."
        )
    if not fields[columns.words]:
        raise InputError(f"{where} has no word before the tab. Write it, or remove the line.")
    name = columns.names[columns.tags] if tagged and columns.names else ""
    if name and name not in _MAY_BE_EMPTY and fields[columns.tags] == "_":
        raise InputError(f"{where} has no {name.upper()} ('_'). Name another column: tags=….")


def _refuse_header(lines: Sequence[str], columns: Columns, path: Path) -> None:
    """Raise an InputError if the first line has usual names of the columns, as a table has."""
    first = next((line for line in lines if _is_word(line)), "")
    fields = fields_of(first, columns.separator)
    if not fields or len(fields) != columns.count:
        return
    has_tag_name = columns.count == 1 or fields[columns.tags].lower() in TAG_NAMES
    if fields[columns.words].lower() in WORD_NAMES and has_tag_name:
        raise InputError(f"{path} begins with names of columns, {first!r:.60}. Remove that line.")


def _is_word(line: str) -> bool:
    return bool(line.strip(" \t")) and not line.startswith(("#", *_SKIPPED))
