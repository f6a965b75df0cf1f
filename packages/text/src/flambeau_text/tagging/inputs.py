"""Read the sentences of a file for prediction: their words, without or despite their tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flambeau.data.tables import Table, read_csv
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_text.classification.sources import read_json_lines
from flambeau_text.file_kinds import CONLL_SUFFIXES, JSON_SUFFIXES, TABLE_SUFFIXES, suffix_of
from flambeau_text.tagging.conll import read_words
from flambeau_text.tagging.options import TagOptions
from flambeau_text.tagging.preprocess import refuse_single_words
from flambeau_text.tagging.sources import WORD_NAMES, read_tag_table
from flambeau_text.text_lines import read_lines


def read_sentences(path: Path) -> Sequence[str] | Sequence[list[str]]:
    """Return the sentences of a file.

    They are the rows of a table or of JSON lines (or several rows, if each has a word), the
    sentences of a file in a format of CoNLL, whose tags are not read, or the lines of another file,
    whose words are divided at white space.

    Raises:
        InputError: The file cannot be read, or it is not clear where its words or sentences are.
    """
    suffix = suffix_of(path)
    if suffix in TABLE_SUFFIXES:
        return _words_of_table(read_csv(path))
    if suffix in JSON_SUFFIXES:
        return _words_of_table(read_json_lines(path))
    if suffix in CONLL_SUFFIXES:
        return read_words(path)
    lines = read_lines(path)
    refuse_single_words([line for line in lines if line.strip()])
    return lines


def _words_of_table(table: Table) -> list[list[str]]:
    column = _word_column(table)
    # Its tags are not read, if it has any: each word stands for its own.
    found, _ = read_tag_table(table, TagOptions(words=column, tags=column))
    return found.words


def _word_column(table: Table) -> str:
    usual = [name for name in table.names if name.strip().lower() in WORD_NAMES]
    if len(usual) == 1:
        return usual[0]
    if len(table.names) == 1:
        return table.names[0]
    if not usual and "text" in table.names:
        return "text"
    raise InputError(
        f"It is not clear which column of {table.name} has the words: "
        f"{name_some(map(repr, usual or table.names), most=10)}. Name it 'words'."
    )
