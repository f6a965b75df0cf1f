"""Split documents into parts, and read the path and the options of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from flambeau.data.part_columns import part_in_name, part_of_name, read_part_column
from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau.data.split_request import (
    SplitRequest,
    consecutive_rows,
    parse_part_size,
    rows_by_part,
)
from flambeau.data.tables import Table, read_csv
from flambeau.errors import ArgumentError, InputError, SplitError, did_you_mean
from flambeau.wording import name_some
from flambeau_text.file_kinds import TABLE_SUFFIXES, suffix_of
from flambeau_text.language.documents import (
    Documents,
    read_column,
    read_documents,
    text_column,
    text_files,
)
from flambeau_text.language.lazy_texts import copies_as_groups
from flambeau_text.language.options import LanguageOptions
from flambeau_text.part_column import part_column, split_of_option

LanguageDataArguments: TypeAlias = tuple[Samples, Split, LanguageOptions, tuple[str, ...]]
"""The arguments of ``LanguageModelData``: samples, split, options, notes."""

_SETTINGS = (
    *("document", "text", "tokenizer", "vocab_size", "language", "lowercase", "normalization"),
    *("word_rules", "backward", "language_model", "like"),
)


def assemble(
    parts: Mapping[str, Documents],
    request: SplitRequest,
    options: LanguageOptions,
    table: Table | None = None,
    columns: Sequence[str] = (),
) -> LanguageDataArguments:
    """Join the documents of all parts in one table, and split it.

    Args:
        parts: The documents by part; those of "train" are split if no others are given.
        request: The split that was requested.
        options: Options of the data.
        table: The table that was read, if it may have a column with the part of each row.
        columns: The columns of the table with the texts.

    Raises:
        InputError: There are too few documents to draw a part.
    """
    given = consecutive_rows({part: each.n_rows for part, each in parts.items()})
    known = given if len(parts) > 1 else None
    documents = Documents()
    for each in parts.values():
        documents = documents.extended(each)
    notes = list(documents.notes)
    if table is not None and known is None:
        column, readings = part_column(table, request, columns)
        notes += map(str, readings)
        if column is not None:
            known = rows_by_part(read_part_column(table.column(column), column, table.name))
    n = len(documents)
    if known is None and request.to_draw() and n < 2:
        raise InputError(
            "There is one document, from which no validation part can be drawn. Give separate "
            'files (valid="valid.txt", --valid valid.txt), more documents, or divide it: '
            'LanguageOptions(document="line"), --document line.'
        )
    # Equal documents stay in one part, so that a drawn part has none of train.
    groups = copies_as_groups(documents.texts)
    repeated = n > 0 and int(groups.max()) + 1 < n
    split = request.resolve(
        documents.n_rows,
        kept=None if n == documents.n_rows else documents.rows,
        given=known,
        groups=groups if repeated else None,
    )
    if "by group" in split.method:
        split = replace(split, notes=(*split.notes, "a group is all copies of one document"))
    return documents.as_samples(), split, options, tuple(notes)


def read_parts(
    paths: Sequence[Path],
    separate: Mapping[str, Sequence[Path]],
    request: SplitRequest,
    options: LanguageOptions,
) -> LanguageDataArguments:
    """Read the files of each part and split them; the files of one folder may be named as parts.

    Args:
        paths: Files and folders.
        separate: Those of other parts than train.
        request: The split that was requested.
        options: How documents are read.

    Raises:
        InputError: There is no text, or a file cannot be read.
        SplitError: The parts cannot be formed.
    """
    taken = {file.resolve() for each in separate.values() for path in each for file in _files(path)}
    found: dict[str, Sequence[Path]] = {
        # Those of another part are often in the same folder.
        "train": [
            file
            for path in paths
            for file in _files(path)
            if not path.is_dir() or file.resolve() not in taken
        ]
    }
    if not found["train"]:
        raise InputError(f"Every file of {paths[0]} is given as another part: train has none.")
    notes: list[str] = []
    if len(paths) == 1 and paths[0].is_dir() and request.split is None:
        found, notes = _parts_of(paths[0], found["train"], request)
    if both := [part for part in separate if part in found]:
        raise SplitError(
            f"The part {both[0]} is given, but {paths[0]} has files of it, too "
            f"({name_some(each.name for each in found[both[0]])}). Omit one of the two."
        )
    parts = {
        part: read_documents(each, options.document, options.text)
        for part, each in {**found, **separate}.items()
    }
    parts["train"].notes += notes
    return assemble(parts, request, options)


def _files(path: Path) -> list[Path]:
    return text_files(path) if path.exists() else [path]


def read_tables(
    tables: Mapping[str, Table], request: SplitRequest, options: LanguageOptions
) -> LanguageDataArguments:
    """Read the column of texts in the table of each part, and split the rows.

    Raises:
        InputError: There is no such column, or a cell is no text; the message names the row.
        SplitError: The parts cannot be formed.
    """
    train = tables["train"]
    column = text_column(train.names, options.text, train.name)
    parts = {part: read_column(table, column) for part, table in tables.items()}
    return assemble(parts, request, options, train, [column])


def read_path(path: Path, options: Mapping[str, Any]) -> LanguageDataArguments:
    """Read the path and the options of the command line.

    Args:
        path: A text file; a folder with text files, which may be called train, valid and test; or a
            table with a column of texts.
        options: ``valid`` and ``test``, each a fraction, a number of documents, or a file;
            ``split``, the column of a table with the parts, or "none"; ``seed`` and the options of
            ``LanguageOptions``; ``evaluate``, the part that is scored.

    Raises:
        ArgumentError: An option is unknown.
        InputError: The path has no text.
    """
    given = {name: value for name, value in options.items() if value is not None}
    given.pop("classes", None)  # an option of other kinds of data
    task = given.pop("task", "language_model")
    if task != "language_model":
        raise ArgumentError(
            f"--task {task} does not apply to language models. Omit it, or use --domain to choose "
            "another kind of data."
        )
    chosen = {name: given.pop(name) for name in _SETTINGS if name in given}
    # --target is the general name of the column that is learned.
    if "target" in given:
        chosen.setdefault("text", given.pop("target"))
    settings = LanguageOptions(**chosen)
    request = take_request(given)
    if given:
        name = next(iter(given))
        known = ["valid", "test", "split", *_SETTINGS]
        raise ArgumentError(
            f"Unknown option {name!r} for a language model. {did_you_mean(name, known)}"
        )
    separate = request.separate(Path)
    if suffix_of(path) in TABLE_SUFFIXES:
        tables = {part: read_csv(file) for part, file in {"train": path, **separate}.items()}
        return read_tables(tables, request, settings)
    return read_parts([path], {part: [file] for part, file in separate.items()}, request, settings)


def take_request(given: dict[str, Any]) -> SplitRequest:
    """Remove the options of the split from those of ``flambeau fit``, and return them."""
    return SplitRequest(
        size_or_file("valid", given.pop("valid", 0.1)),
        size_or_file("test", given.pop("test", 0.0)),
        split_of_option(given.pop("split", None)),
        given.pop("seed", 0),
        scored=given.pop("evaluate", None),
        default_valid=0.1,
    )


def size_or_file(name: str, value: Any) -> Any:
    """Parse a command-line value: a fraction, a number of documents, or a file."""
    if not isinstance(value, str):
        return value
    try:
        return parse_part_size(value)
    except ValueError:
        pass
    file = Path(value)
    if not file.exists():
        raise ArgumentError(
            f"{name} is {value!r}; give a fraction such as 0.1, a number of documents, or a file "
            f"or folder: --{name} FILE."
        )
    return file


def _parts_of(
    folder: Path, files: Sequence[Path], request: SplitRequest
) -> tuple[dict[str, Sequence[Path]], list[str]]:
    """Return the files of each part, if the names of files or folders say so, and a note of it."""
    names = [file.relative_to(folder) for file in files]
    # Beside a train part the names may have further words: wiki.valid.tokens, news-dev.txt.
    anywhere = any(_part_of(name, anywhere=True) == "train" for name in names)
    parts: dict[str, list[Path]] = {}
    for file, name in zip(files, names, strict=True):
        parts.setdefault(_part_of(name, anywhere=anywhere) or "train", []).append(file)
    if len(parts) == 1 or "train" not in parts:
        return {"train": files}, []
    request.refuse_unused_sizes(dict.fromkeys(part for part in parts if part != "train"))
    found = {part: parts[part] for part in ("train", "valid", "test") if part in parts}
    shown = [
        f"{part} is {name_some(str(file.relative_to(folder)) for file in each)}"
        for part, each in found.items()
    ]
    return dict(found), [f"parts by the names of files: {'; '.join(shown)}"]


def _part_of(name: Path, *, anywhere: bool) -> str | None:
    """Return the part that the name of a file, or of its folder, denotes.

    Args:
        name: The file, relative to the folder of all.
        anywhere: Whether any word of the file's name may denote a part, or only the first.
    """
    first = name.parts[0] if len(name.parts) > 1 else re.split(r"[._]", name.name, maxsplit=1)[0]
    part = part_of_name(first)
    if part is None and anywhere and len(name.parts) == 1:
        part = part_in_name(name.name)
    return None if part == "calibration" else part
