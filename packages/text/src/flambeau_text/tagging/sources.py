"""Functions that read sentences with the tags of their words from arrays and tables."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from token import STRING
from tokenize import generate_tokens
from typing import Any, cast

from flambeau.data.part_columns import read_part_column
from flambeau.data.reading import Reading
from flambeau.data.split import Rows
from flambeau.data.split_request import SplitRequest, consecutive_rows, rows_by_part
from flambeau.data.tables import Table, to_list
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_text.checked_text import is_missing_text
from flambeau_text.classification.columns import check_column
from flambeau_text.classification.data_sets import (
    is_hugging_face,
    parts_of_mapping,
    table_of_data_set,
    with_class_names,
)
from flambeau_text.part_column import part_column
from flambeau_text.tagging.options import TagOptions
from flambeau_text.tagging.preprocess import words_of

WORD_NAMES = ("words", "tokens", "word", "token")
"""Usual names of the column of words."""

TAG_NAMES = ("tags", "ner_tags", "pos_tags", "labels", "tag", "label", "ner", "pos", "upos")
"""Usual names of the column of tags."""

SENTENCE_NAMES = ("sentence_id", "sentence", "sentence #", "sent_id", "sentence_number")
"""Usual names of the column that tells sentences apart."""

_ROWS_SEEN = 100


@dataclass
class TaggedSentences:
    """Sentences with the tags of their words, as they were found.

    Attributes:
        words: The words of each sentence.
        tags: Their tags.
        locations: Where each sentence was found, for messages.
        given: Rows of each part, if the input defines the parts.
        readings: How a column with the parts was found.
    """

    words: list[list[str]] = field(default_factory=list[list[str]])
    tags: list[list[str]] = field(default_factory=list[list[str]])
    locations: list[str] = field(default_factory=list[str])
    given: Mapping[str, Rows] = field(default_factory=dict[str, Rows])
    readings: tuple[Reading, ...] = ()

    def __len__(self) -> int:
        return len(self.words)

    def add(self, words: Any, tags: Any, where: str) -> None:
        """Add a sentence: lists of words and tags, or texts, which are divided at white space.

        Raises:
            InputError: It has no words, or not one tag for each of them.
        """
        words, tags = _without_quotes(words, tags, where)
        found = words_of(words, where)
        if is_missing_text(tags):
            raise InputError(f"{where} has no tags ({tags!r}). Add them, or remove the sentence.")
        own: list[Any] = tags.split() if isinstance(tags, str) else to_list(tags)
        if len(found) != len(own):
            raise InputError(
                f"{where} has {len(found)} words, but {len(own)} tags. Give one per word."
            )
        for at, tag in enumerate(own):
            if is_missing_text(tag) or tag == "":
                raise InputError(f"{where}, word {at}: {found[at]!r:.40} has no tag ({tag!r}).")
        self.words.append(found)
        self.tags.append([str(tag) for tag in own])
        self.locations.append(where)

    def check_classes(self, classes: Sequence[str] | None) -> None:
        """Raise an InputError that names the first sentence with a tag not among the classes.

        Args:
            classes: The tags of the model; None permits all tags.
        """
        if classes is None:
            return
        known = set(classes)
        for tags, where in zip(self.tags, self.locations, strict=True):
            if unknown := [tag for tag in tags if tag not in known]:
                raise InputError(
                    f"{where} has the tag {unknown[0]!r}, which is not one of the classes "
                    f"{name_some(classes, most=20)}. Correct it, or omit classes= and like=."
                )

    @classmethod
    def joined(cls, parts: Mapping[str, TaggedSentences]) -> TaggedSentences:
        """Return the sentences of all parts, whose rows are those of the parts."""
        found = cls()
        for each in parts.values():
            found.words += each.words
            found.tags += each.tags
            found.locations += each.locations
        given = consecutive_rows({part: len(each) for part, each in parts.items()})
        found.given = given if len(parts) > 1 else parts["train"].given
        found.readings = parts["train"].readings
        return found


def read_pairs(sentences: Any, tags: Any, part: str) -> TaggedSentences:
    """Read sentences and their tags in memory.

    Raises:
        InputError: Their numbers differ, or a sentence cannot be used.
    """
    if len(sentences) != len(tags):
        raise InputError(
            f"There are {len(sentences):,} {part} sentences, but {len(tags):,} lists of tags. Give "
            "one list per sentence."
        )
    found = TaggedSentences()
    for row, (words, own) in enumerate(zip(sentences, tags, strict=True)):
        found.add(words, own, f"{part} sentence {row}")
    return found


# ---------------------------------------------------------------- tables


def read_tag_table(
    table: Table, options: TagOptions, split: str | None = None
) -> tuple[TaggedSentences, TagOptions]:
    """Read a table with a sentence, or a word, in each row; and the options with its columns.

    Args:
        table: The table.
        options: Names its columns.
        split: Name of the column with the part of each row.

    Raises:
        InputError: A column does not exist or cannot be found, or a row cannot be used.
        SplitError: A cell of the split column names no part.
    """
    others = [name for name in table.names if name != split]
    # Columns of an export may be those of a file without names.
    given = {
        name: None if options.like is not None and column not in table.names else column
        for name, column in (
            ("words", options.words),
            ("tags", options.tags),
            ("sentence", options.sentence),
        )
    }
    words = _column(table, others, given["words"], WORD_NAMES, "words", "--words")
    tags = _column(table, others, given["tags"], TAG_NAMES, "tags", "--target")
    sentence = given["sentence"]
    columns = [table.column(words), table.column(tags)]
    if sentence is None and _are_single_words(columns[0]):
        sentence = next((each for each in others if each.strip().lower() in SENTENCE_NAMES), None)
        if sentence is None:
            raise InputError(
                f"The column {words!r} of {table.name} has one word per row, and no column tells "
                f"the sentences apart. Name it: sentence=… (--sentence); {table.name} has "
                f"{name_some(map(repr, others), most=10)}."
            )
    parts: Sequence[str | None] | None = None
    if split is not None:
        check_column(table, split)
        parts = read_part_column(table.column(split), split, table.name)
    if sentence is None:
        found = TaggedSentences()
        for row, (own, its) in enumerate(zip(*columns, strict=True)):
            found.add(own, its, f"{table.name}, row {row}")
    else:
        check_column(table, sentence)
        found, parts = _grouped(table.name, columns, table.column(sentence), parts)
    if parts is not None:
        found.given = rows_by_part(parts)
    return found, options.updated({"words": words, "tags": tags, "sentence": sentence})


def read_tag_tables(
    tables: Mapping[str, Table], request: SplitRequest, options: TagOptions
) -> tuple[TaggedSentences, TagOptions]:
    """Read the table of each part; see `read_tag_table`."""
    found: dict[str, TaggedSentences] = {}
    column, readings = request.column, tuple[Reading, ...]()
    if len(tables) == 1:
        own = [each for each in (options.words, options.tags, options.sentence) if each]
        column, readings = part_column(tables["train"], request, own)
    for part, table in tables.items():
        # The columns of train are those of all parts.
        found[part], options = read_tag_table(table, options, column)
    found["train"].readings = readings
    return TaggedSentences.joined(found), options


def read_tag_data_sets(
    train: Any, request: SplitRequest, options: TagOptions
) -> tuple[TaggedSentences, TagOptions]:
    """Read data sets of Hugging Face, or of mappings or pairs; see ``TagData.from_datasets``.

    Raises:
        ArgumentError: A data set cannot be read.
        InputError: A column cannot be found, or parts number their classes differently.
    """
    sets: dict[str, Any] = {"train": train, **request.separate(object)}
    if isinstance(train, Mapping):
        sets = parts_of_mapping(cast("Mapping[str, Any]", train), request, "TagData")
    tables: dict[str, Table] = {}
    known: list[str] | None = None
    for part, items in sets.items():
        table = table_of_data_set(items, part, ("words", "tags"), "TagData")
        tags = _column(table, table.names, options.tags, TAG_NAMES, "tags", "--target")
        names: list[str] = []
        if is_hugging_face(items):
            table, names = with_class_names(table, items, tags, part)
        if known is not None and names != known:
            raise InputError(
                f"The tags of {part} are {name_some(names)}, but those of train are "
                f"{name_some(known)}, so the same number has two meanings. Give all data sets the "
                "same classes in the same order."
            )
        tables[part], known = table, names
    return read_tag_tables(tables, request, options)


def _column(
    table: Table,
    names: Sequence[str],
    given: str | None,
    usual: Sequence[str],
    what: str,
    option: str,
) -> str:
    if given is not None:
        check_column(table, given)
        return given
    found = [name for name in names if name.strip().lower() in usual]
    if len(found) == 1:
        return found[0]
    shown = name_some(map(repr, found or names), most=10) or "no columns"
    raise InputError(
        f"It is not clear which column of {table.name} has the {what}: {shown}. Name it: {what}=…, "
        f"on the command line {option}."
    )


def _are_single_words(cells: Sequence[Any]) -> bool:
    """Return whether the first cells are words, rather than lists or sentences."""
    seen = [cell for cell in cells[:_ROWS_SEEN] if not is_missing_text(cell)]
    return bool(seen) and all(isinstance(cell, str) and len(cell.split()) < 2 for cell in seen)


def _grouped(
    name: str,
    columns: Sequence[Sequence[Any]],
    sentences: Sequence[Any],
    parts: Sequence[str | None] | None,
) -> tuple[TaggedSentences, list[str | None] | None]:
    """Return the sentences of a table with one word per row, and the part of each.

    An empty cell in the column of sentences continues the sentence above, as in some exports of
    spreadsheets.
    """
    found = TaggedSentences()
    part_of: list[str | None] = []
    rows: list[int] = []
    seen: set[Any] = set()
    last: Any = None

    def end() -> None:
        if not rows:
            return
        where = f"{name}, row {rows[0]}"
        own, tags = ([column[row] for row in rows] for column in columns)
        for row, word in zip(rows, own, strict=True):
            if is_missing_text(word):
                raise InputError(
                    f"{name}, row {row} has no word ({word!r}). pandas reads words such as NA and "
                    "null as missing: read_csv(…, keep_default_na=False)."
                )
        if parts is not None:
            if len({parts[row] for row in rows}) > 1:
                raise InputError(f"The words of the sentence in {where} are in several parts.")
            part_of.append(parts[rows[0]])
        found.add(own, tags, where)

    for row, cell in enumerate(sentences):
        if not (is_missing_text(cell) or cell == "") and (cell != last or not rows):
            end()
            rows = []
            if cell in seen:
                raise InputError(
                    f"{name}, row {row}: the sentence {cell!r:.40} continues after another one. "
                    "Sort the rows, so that each sentence is in consecutive rows."
                )
            seen.add(cell)
            last = cell
        elif not rows:
            raise InputError(f"{name}, row {row} names no sentence ({cell!r}), nor does one above.")
        rows.append(row)
    end()
    return found, None if parts is None else part_of


def _without_quotes(words: Any, tags: Any, where: str) -> tuple[Any, Any]:
    """Return the lists that both cells of a text file write, such as ``["a", "b"]``.

    Raises:
        InputError: Both cells are in brackets, but at least one is no list.
    """
    if not (_is_bracketed(words) and _is_bracketed(tags)):
        return words, tags
    both = [_written_list(each) for each in (words, tags)]
    if None in both:
        raise InputError(
            f"{where} has lists that cannot be read: {words!r:.60} and {tags!r:.60}. Write them "
            'as JSON, ["New", "York"]: an array of NumPy is written without commas.'
        )
    return both[0], both[1]


def _is_bracketed(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip().startswith("[") and cell.strip().endswith("]")


def _written_list(cell: str) -> list[Any] | None:
    for read in (json.loads, _python_list):
        try:
            found: Any = read(cell.strip())
        except (ValueError, SyntaxError):
            continue
        if isinstance(found, list) and all(
            isinstance(each, str | int) for each in cast("list[Any]", found)
        ):
            return cast("list[Any]", found)
    return None


def _python_list(text: str) -> list[Any]:
    """Return the constants of a list; unlike ``literal_eval`` without joining adjacent texts."""
    tree = ast.parse(text, mode="eval").body
    if not isinstance(tree, ast.List) or not all(isinstance(e, ast.Constant) for e in tree.elts):
        raise ValueError(text)
    texts = [token for token in generate_tokens(StringIO(text).readline) if token.type == STRING]
    constants = [cast("ast.Constant", each).value for each in tree.elts]
    if len(texts) != sum(isinstance(each, str) for each in constants):
        raise ValueError(text)  # ['New' 'York'] is one text in Python
    return constants
