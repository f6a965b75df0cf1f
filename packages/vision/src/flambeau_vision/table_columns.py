"""Find the columns of a table that have the image files and the labels."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flambeau.data.ordered_names import in_order
from flambeau.data.part_columns import is_group_name
from flambeau.data.reading import Reading
from flambeau.data.tables import Table, read_csv
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_vision.foreign_files import describe_foreign_file
from flambeau_vision.image_files import IMAGE_EXTENSIONS
from flambeau_vision.options import ImageOptions

# Rows of a column that are compared with the extensions of images.
_ROWS_SEEN = 20


@dataclass(frozen=True)
class TableSource:
    """A table of files and labels.

    Attributes:
        columns: The table.
        root: The folder that relative paths start from.
        file: Name of the column of paths; None finds it.
        label: Name of the column of labels, or of several; None finds it.
        orders: The categories of the columns that have an order of their own.
    """

    columns: Table
    root: Path
    file: str | None = None
    label: str | Sequence[str] | None = None
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True)
class ImageColumns:
    """The columns of image files and labels, and how they were found."""

    file: str
    label: str | tuple[str, ...]
    readings: tuple[Reading, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all these columns."""
        labels = (self.label,) if isinstance(self.label, str) else self.label
        return (self.file, *labels)


def read_image_csv(path: str | os.PathLike[str], rows: int | None = None) -> Table:
    """Read a CSV file of images; without a header the columns are named "0", "1", ….

    The first line is a header unless one of its cells is the path of an image.

    Raises:
        InputError: The file is not a text table but an archive, a workbook or a Parquet file.
    """
    if os.path.isfile(path) and (cause := describe_foreign_file(Path(path))) is not None:
        raise InputError(f"{path} cannot be read as a table. {cause}")
    return read_csv(path, rows=rows, header=lambda cells: not any(map(is_image_path, cells)))


def csv_source(
    path: str | os.PathLike[str],
    root: Path,
    file: str | None,
    label: str | Sequence[str] | None,
    options: ImageOptions,
) -> TableSource:
    """Return the table in a CSV file; the label "a,b" names two columns unless "a,b" is one."""
    columns = read_image_csv(path)
    if isinstance(label, str) and label not in columns and "," in label:
        label = label.split(",")
    table, _ = name_columns(TableSource(columns, root, file, label), options)
    return replace(table, columns=with_number_columns(columns, table.file))


def name_columns(table: TableSource, options: ImageOptions) -> tuple[TableSource, ImageOptions]:
    """Return the table with the columns that the options name, and the options.

    If neither the table nor the options name a column, the column of the export ``like`` is used if
    the table has it.
    """
    saved = {
        name: value
        for name, value in options.of_like.items()
        if name in ("file", "label", "weight") and _has_columns(table.columns, value)
    }
    named = replace(
        table,
        file=table.file or options.file or saved.get("file"),
        label=table.label or options.label or saved.get("label"),
    )
    return named, options.updated({"weight": options.weight or saved.get("weight")})


def _has_columns(table: Table, names: str | Sequence[str]) -> bool:
    return all(name in table for name in ([names] if isinstance(names, str) else names))


def with_number_columns(columns: Table, file: str | None) -> Table:
    """Return the table with numbers in place of number-like text, except in the column of files.

    The file name "1.10" is not the number 1.1.

    Args:
        columns: The table, all text.
        file: Name of the column of files; None finds it.
    """
    name = guess_columns(columns, file)[0]
    return columns.with_numbers(text=() if name is None else (name,))


def is_image_path(value: object) -> bool:
    """Return whether a cell ends with an extension of image files."""
    return Path(str(value)).suffix.lower() in IMAGE_EXTENSIONS


def find_columns(source: TableSource, without: Collection[str] = ()) -> ImageColumns:
    """Return the columns of files and labels.

    By default the columns are "file" and "label"; if these do not exist, the only column of image
    paths and the only other column.

    Args:
        source: The table.
        without: Columns that have neither files nor labels, such as the column of the parts.

    Raises:
        InputError: A column cannot be found, or the table was read with its first row as header.
    """
    table, readings = source.columns, list[Reading]()
    if wrong := [name for name in table.names if is_image_path(name)]:
        raise InputError(
            f"The table ({table.name}) has a column named {wrong[0]!r}, which is the path of an "
            "image: its first row was read as a header. Read it without one: "
            "pandas.read_csv(…, header=None)."
        )
    file, label = guess_columns(table, source.file, without)
    if source.label is not None:
        given = source.label
        label = given if isinstance(given, str) else tuple(in_order(given, "label", "column"))
    if file is None:
        raise _not_inferred(table, "images", "file=…, on the command line --file")
    if label is None:
        raise _not_inferred(table, "labels", "label=…, on the command line --target")
    guessed = [
        f"the {what} are in the column {name!r}"
        for what, name, given in (("images", file, source.file), ("labels", label, source.label))
        if given is None and name not in ("file", "label")
    ]
    if guessed:
        no_header = table.names == tuple(map(str, range(len(table.names))))
        header = "The first line is not a header, because it has the path of an image; " * no_header
        what = f"{header}{' and '.join(guessed)} of {table.name}."
        readings.append(
            Reading(
                "targets",
                what[0].upper() + what[1:],
                {"columns": list(table.names)},
                (),
                0.9,
                "Name the columns with file=… and label=…, on the command line --file and "
                "--target.",
            )
        )
    return ImageColumns(file, label, tuple(readings))


def unused_columns(table: Table, used: Collection[str], *, is_drawn: bool) -> list[Reading]:
    """Report the columns that are not used; doubtful if one has groups and the parts are drawn.

    Args:
        table: The table.
        used: Names of the columns of images, labels, weights and parts.
        is_drawn: Whether the parts are drawn at random, and the user did not ask for it.
    """
    unused = [name for name in table.names if name not in used]
    if not unused:
        return []
    what = f"Columns of {table.name} that are not used: {name_some(unused, most=10)}."
    readings = [Reading("targets", what, {"unused": len(unused)}, (), 0.9)]
    for name in unused if is_drawn else ():
        n_groups = len(set(map(str, table.column(name))))
        if not is_group_name(name) or not 1 < n_groups <= len(table.column(name)) / 2:
            continue
        readings.append(
            Reading(
                "split",
                f"The column {name!r} of {table.name} has {n_groups:,} values, each in several "
                f"rows. The parts are drawn without it, so rows of one may be in train and valid.",
                {"column": name, "groups": n_groups},
                ("by group",),
                0.4,
                f"Pass ImageOptions(group={name!r}), on the command line --group {name}. If the "
                "parts may share them: split=False, --split none.",
            )
        )
    return readings


def _not_inferred(table: Table, what: str, option: str) -> InputError:
    return InputError(
        f"It is unknown which column of {table.name} has the {what}; its columns are "
        f"{', '.join(table.names)}. " + (single_column_hint(table) or f"Name it with {option}.")
    )


def single_column_hint(table: Table) -> str:
    """Return how columns are separated if the table has only one; "" for several columns."""
    if len(table.names) > 1:
        return ""
    return (
        "It has a single column: in a .csv file columns are separated by comma, semicolon or tab, "
        "in a .tsv file by tab."
    )


def guess_columns(
    table: Table, file: str | None = None, without: Collection[str] = ()
) -> tuple[str | None, str | None]:
    """Return the columns of image paths and of labels; None if a column cannot be inferred."""
    if file is None:
        files = [name for name in table.names if has_image_paths(table.column(name))]
        file = "file" if "file" in table else files[0] if len(files) == 1 else None
    others = [name for name in table.names if name != file and name not in without]
    label = others[0] if len(others) == 1 and file is not None else None
    return file, "label" if "label" in table else label


def column_of(table: Table, argument: str, name: str) -> list[Any]:
    """Return a column; ``argument`` ("file", "label") names the column, for messages."""
    option = {"label": "target"}.get(argument, argument)
    try:
        return table.column(name)
    except InputError as error:
        raise InputError(
            f"{error} Name the column with {argument}=…, on the command line --{option}."
        ) from None


def has_image_paths(cells: Sequence[Any]) -> bool:
    """Return whether the first cells of a column are paths of images."""
    return bool(cells) and all(map(is_image_path, cells[:_ROWS_SEEN]))
