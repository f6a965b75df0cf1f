"""Read data as those of an export were read: ``like="export"`` of the data constructors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flambeau.artefact.export_format import ExportRecord, export_folder
from flambeau.errors import ArtefactError, InputError

_READING = "reading_options"


def read_record(folder: str | os.PathLike[str], domain: str, argument: str) -> ExportRecord:
    """Return the record of an export of the given domain.

    Args:
        folder: The folder that ``learner.export`` wrote, or that of a run with an export.
        domain: Name of the domain of the data.
        argument: The argument that names the folder, for messages: "start" or "like".

    Raises:
        ArtefactError: The export is missing or damaged, or belongs to another domain.
    """
    record = ExportRecord.read(export_folder(folder))
    if record.domain != domain:
        raise ArtefactError(
            f"{argument}={os.fspath(folder)!r} is an export of the domain {record.domain!r}, but "
            f"the data belong to {domain!r}. Give an export of the same kind of data."
        )
    return record


def filled_like(
    folder: str | os.PathLike[str], given: Mapping[str, Any], saved: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of data that are read like an export's.

    Args:
        folder: The export, for messages.
        given: The options that the user can set, by name; None if not set.
        saved: The values of the export by the same names; those that it does not know are None.

    Returns:
        The names of ``given`` with the user's values, or the export's where there is none.

    Raises:
        InputError: An option differs from the export's.
    """
    for name, value in given.items():
        known = saved.get(name)
        if value is not None and known is not None and value != known:
            raise InputError(
                f"{name} is {value!r}, but in the export {os.fspath(folder)} it is {known!r}, and "
                f"the data are read as those of the export. Omit {name} (on the command line "
                f"--{name.replace('_', '-')}), or omit like= (--like) if you gave it."
            )
    return {name: saved.get(name) if value is None else value for name, value in given.items()}


def reading_notes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notes of an export with ``data.reading_options``; empty if there are none."""
    return {_READING: dict(options)} if options else {}


def reading_options(record: ExportRecord) -> dict[str, Any]:
    """Return ``data.reading_options`` of the data on which an export was trained.

    They are defaults: another table may have other columns or another separator.
    """
    return dict(record.notes.get(_READING, {}))


def output_names(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the outputs in a task's arguments: classes, labels or target names.

    Empty if there are none, as for a user-defined task.
    """
    return tuple(map(str, arguments.get("classes", arguments.get("names", ()))))
