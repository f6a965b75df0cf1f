"""Read the path and the options of the command line, and the inputs to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flambeau.data.split_request import SplitRequest, parse_part_size
from flambeau.data.tables import Table, read_csv
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.classification import sources
from flambeau_text.classification.assemble import TextDataArguments, assemble
from flambeau_text.classification.columns import TextTable
from flambeau_text.classification.folders import read_folder, text_files_of
from flambeau_text.classification.options import TextOptions
from flambeau_text.file_kinds import JSON_SUFFIXES, TABLE_SUFFIXES, suffix_of
from flambeau_text.text_lines import read_lines

_PARTS = ("valid", "test", "calibration")


def read_path(path: Path, options: Mapping[str, Any]) -> TextDataArguments:
    """Read a table, a JSON-lines file or a folder of class folders.

    Args:
        path: The file or folder.
        options: "target" (the column of the labels, or several with commas); "valid", "test" and
            "calibration", each a share, a number of texts, or a file; "split", the column with the
            parts; "seed"; "evaluate", the part that is scored; and the fields of ``TextOptions``.

    Raises:
        ArgumentError: An option is unknown.
        InputError: The path cannot be read.
    """
    given = {name: value for name, value in options.items() if value is not None}
    label = given.pop("target", None)
    sizes = {part: _size_or_file(part, given.pop(part)) for part in _PARTS if part in given}
    split = given.pop("split", None)
    request = SplitRequest(
        **sizes,
        split=False if split == "none" else split,
        seed=given.pop("seed", 0),
        scored=given.pop("evaluate", None),
    )
    known = [name for name, each in TextOptions.__dataclass_fields__.items() if each.init]
    if unknown := [name for name in given if name not in known]:
        names = ["target", "split", "seed", *_PARTS, *known]
        raise ArgumentError(
            f"Unknown option {unknown[0]!r} for texts. {did_you_mean(unknown[0], names)}"
        )
    chosen = TextOptions(**given)
    separate = request.separate(Path)
    if path.is_dir():
        if label is not None or separate:
            raise ArgumentError(
                f"{path} is a folder: its labels are the names of the folders in it, and its parts "
                "are folders or shares. Omit --target and files in --valid and --test."
            )
        return assemble(read_folder(path, chosen), request, chosen)
    files = {"train": path, **separate}
    tables = {part: _table_of_file(file) for part, file in files.items()}
    csv = [part for part, file in files.items() if suffix_of(file) in TABLE_SUFFIXES]
    only_csv = len(csv) == len(files)
    if not only_csv:
        # Numbers of JSON are numbers, which cells of text would not equal.
        tables |= {part: tables[part].with_numbers() for part in csv}
    table, rows = sources.join_tables(tables)
    source = (
        sources.csv_source(table, None, label, chosen)
        if only_csv
        else TextTable(table, None, label)
    )
    return sources.assemble_table(source, rows, request, chosen)


def _table_of_file(path: Path) -> Table:
    suffix = suffix_of(path)
    if suffix in TABLE_SUFFIXES:
        return read_csv(path)
    if suffix in JSON_SUFFIXES:
        return sources.read_json_lines(path)
    raise InputError(
        f"{path} is neither a table nor a folder. Give a file {', '.join(TABLE_SUFFIXES)} or "
        f"{', '.join(JSON_SUFFIXES)} with a column of texts and one of labels, or a folder with a "
        "sub-folder per class. Read other files with pandas and use TextData.from_df."
    )


def _size_or_file(name: str, value: Any) -> Any:
    """Parse a command-line value: a share, a number of texts, or a file."""
    if not isinstance(value, str):
        return value
    try:
        return parse_part_size(value)
    except ValueError:
        pass
    file = Path(value)
    if not file.exists():
        raise ArgumentError(
            f"{name} is {value!r}; give a share such as 0.1, a number of texts, or a file: "
            f"--{name} FILE."
        )
    return file


def read_inputs(path: Path) -> Sequence[Any]:
    """Return the inputs of a file: the rows of a table, or the lines of a text file.

    Those of a folder are the paths of its text files.

    Raises:
        InputError: The file cannot be read.
    """
    if path.is_dir():
        return text_files_of(path)
    suffix = suffix_of(path)
    if suffix in TABLE_SUFFIXES:
        return sources.rows_of_csv(path)
    if suffix in JSON_SUFFIXES:
        return sources.rows_of_json(path)
    return read_lines(path)
