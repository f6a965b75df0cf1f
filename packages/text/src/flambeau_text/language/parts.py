"""Split documents into parts, and read the path and the options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from flambeau.data.part_columns import read_part_column
from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau.data.split_request import (
    SplitRequest,
    consecutive_rows,
    parse_part_size,
    rows_by_part,
)
from flambeau.data.tables import Table, read_csv
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.language.documents import (
    TABLE_SUFFIXES,
    Documents,
    read_column,
    read_documents,
    text_files,
)
from flambeau_text.language.options import LanguageOptions

LanguageDataArguments: TypeAlias = tuple[Samples, Split, LanguageOptions, tuple[str, ...]]
"""The arguments of ``LanguageModelData``: samples, split, options, notes."""

_SETTINGS = (
    *("document", "text", "tokenizer", "vocab_size", "language", "lowercase", "normalization"),
    *("word_rules", "like"),
)
_PART_NAMES = {"valid": ("valid", "val", "validation", "dev"), "test": ("test",)}


def assemble(
    parts: Mapping[str, Documents],
    request: SplitRequest,
    options: LanguageOptions,
    table: Table | None = None,
) -> LanguageDataArguments:
    """Join the documents of all parts in one table, and split it.

    Args:
        parts: The documents by part; those of "train" are split if no others are given.
        request: The split that was requested.
        options: Options of the data.
        table: The table that was read, whose column ``request.column`` may name the parts.

    Raises:
        InputError: There are too few documents to draw a part.
    """
    given = consecutive_rows({part: len(each) for part, each in parts.items()})
    known = given if len(parts) > 1 else None
    documents = Documents()
    for each in parts.values():
        documents = documents.extended(each)
    if request.split and documents.problems:
        raise InputError(
            f"{documents.problems[0]}. With split=… every row needs a text, because parts are rows "
            "of the input. Fill or drop such rows."
        )
    if table is not None and (column := request.column) is not None:
        known = rows_by_part(read_part_column(table.column(column), column, table.name))
    n = len(documents)
    if known is None and request.to_draw() and n < 2:
        raise InputError(
            "There is one document, from which no validation part can be drawn. Give separate "
            'files (valid="valid.txt", --valid valid.txt), more documents, or divide it: '
            'LanguageOptions(document="line"), --document line.'
        )
    # Equal documents stay in one part, so that a drawn part has none of train.
    numbers: dict[str, int] = {}
    groups = np.array([numbers.setdefault(text, len(numbers)) for text in documents.texts])
    repeated = len(numbers) < n
    split = request.resolve(n, given=known, groups=groups if repeated else None)
    if "by group" in split.method:
        split = replace(split, notes=(*split.notes, "a group is all copies of one document"))
    return documents.as_samples(), split, options, tuple(documents.notes)


def read_path(path: Path, options: Mapping[str, Any]) -> LanguageDataArguments:
    """Read the path and the options of the command line.

    Args:
        path: A text file; a folder with text files, which may be called train, valid and test; or a
            table with a column of texts.
        options: ``valid`` and ``test``, each a fraction, a number of documents, or a file;
            ``split``, the column of a table with the parts; ``seed`` and the options of
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
    request = SplitRequest(
        _size_or_file("valid", given.pop("valid", 0.1)),
        _size_or_file("test", given.pop("test", 0.0)),
        given.pop("split", None),
        given.pop("seed", 0),
        scored=given.pop("evaluate", None),
        default_valid=0.1,
    )
    if given:
        name = next(iter(given))
        known = ["valid", "test", "split", *_SETTINGS]
        raise ArgumentError(
            f"Unknown option {name!r} for a language model. {did_you_mean(name, known)}"
        )
    if path.suffix.lower() in TABLE_SUFFIXES:
        table = read_csv(path)
        return assemble({"train": read_column(table, settings.text)}, request, settings, table)
    separate = request.separate(Path)
    files = {"train": [path], **{part: [file] for part, file in separate.items()}}
    if path.is_dir() and not separate:
        files = _parts_of(path, request)
    parts = {
        part: read_documents(each, settings.document, settings.text) for part, each in files.items()
    }
    return assemble(parts, request, settings)


def _size_or_file(name: str, value: Any) -> Any:
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


def _parts_of(folder: Path, request: SplitRequest) -> dict[str, list[Path]]:
    """Return the files of each part, if the names of files or folders say so."""
    files = text_files(folder)
    parts: dict[str, list[Path]] = {}
    for file in files:
        names = [each.lower().split(".")[0] for each in file.relative_to(folder).parts]
        part = next(
            (
                part
                for part, known in _PART_NAMES.items()
                if names[0] in known or (len(names) == 1 and names[-1].split("_")[0] in known)
            ),
            "train",
        )
        parts.setdefault(part, []).append(file)
    if "train" not in parts:
        return {"train": files}
    request.refuse_unused_sizes(dict.fromkeys(part for part in parts if part != "train"))
    return {part: parts[part] for part in ("train", "valid", "test") if part in parts}
