"""Read data with the options of an export: the argument ``like`` of the data constructors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from flambeau.artefact.export_format import BuilderSpec, ExportRecord, export_folder
from flambeau.errors import ArtefactError, InputError
from flambeau.task.task import Task

_READING = "reading_options"


def read_record(folder: str | os.PathLike[str], domain: str, argument: str) -> ExportRecord:
    """Return the record of an export of the given domain.

    Args:
        folder: The folder that ``learner.export`` wrote, or the folder of a run with an export.
        domain: Name of the domain of the data.
        argument: The argument that names the folder, for messages: "start" or "like".

    Raises:
        ArtefactError: The export is missing or damaged, or belongs to another domain.
    """
    record = first_member(ExportRecord.read(export_folder(folder)))
    if record.domain != domain:
        raise ArtefactError(
            f"{argument}={os.fspath(folder)!r} is an export of the domain {record.domain!r}, but "
            f"the data belong to {domain!r}. Give an export of the same kind of data."
        )
    return record


def first_member(record: ExportRecord) -> ExportRecord:
    """Return the record as if the first model of an ensemble were exported; others unchanged.

    All models of an ensemble read data alike.
    """
    if not is_ensemble(record):
        return record
    task = next(iter(record.task.arguments["tasks"].values()))
    found = [record.model.arguments["members"][0], record.preprocessor.arguments["members"][0]]
    return replace(
        record,
        model=BuilderSpec(found[0]["builder"], found[0]["arguments"]),
        task=BuilderSpec(task["name"], task["arguments"]),
        preprocessor=BuilderSpec(found[1]["builder"], found[1]["arguments"]),
    )


def is_ensemble(record: ExportRecord) -> bool:
    """Return whether an export contains several models that predict as one."""
    return all(each.builder == "ensemble" for each in (record.model, record.task))


def refuse_ensemble(folder: Path, argument: str) -> None:
    """Raise an ArtefactError if the export in ``folder`` is an ensemble.

    Args:
        folder: The export.
        argument: The argument that names it, for messages.
    """
    record = ExportRecord.read(folder)
    if is_ensemble(record):
        n = len(record.model.arguments["members"])
        raise ArtefactError(
            f"{argument}={os.fspath(folder)!r} is an ensemble of {n} models, each with its own "
            "preprocessor, and a learner trains one. Give the export of a single model."
        )


def filled_like(
    folder: str | os.PathLike[str], given: Mapping[str, Any], saved: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options for reading data, completed with the values of an export.

    Args:
        folder: The export, for messages.
        given: The options that the user can set, by name; None if not set.
        saved: The export's values by the same names; None or absent if it has no value.

    Returns:
        The options in ``given``; those that the user did not set have the export's value.

    Raises:
        InputError: An option that the user set differs from the export's value.
    """
    for name, value in given.items():
        known = saved.get(name)
        if value is not None and known is not None and value != known:
            raise InputError(
                f"{name} is {value!r}, but in the export {os.fspath(folder)} it is {known!r}, and "
                f"data for its model must be read the same way. Omit {name} (on the command line "
                f"--{name.replace('_', '-')}), or omit like= (--like) if you gave it."
            )
    return {name: saved.get(name) if value is None else value for name, value in given.items()}


def reading_notes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``data.reading_options`` as an entry for the notes of an export; empty without any."""
    return {_READING: dict(options)} if options else {}


def reading_options(record: ExportRecord) -> dict[str, Any]:
    """Return the ``reading_options`` of the data on which an export was trained.

    Use them as defaults only: another table may have other columns or another separator.
    """
    return dict(record.notes.get(_READING, {}))


def output_names(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the outputs in a task's arguments: classes, labels or target names.

    Empty if there are none, as for a user-defined task. Those of a ``CombinedTask`` have the name
    of their target as a prefix, as in ``CombinedTask.output_names``.
    """
    if parts := nested_tasks(arguments):
        return tuple(f"{name}.{output}" for name, own in parts for output in output_names(own))
    return tuple(map(str, arguments.get("classes", arguments.get("names", ()))))


def target_scales(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a task that say what its outputs mean, besides their names.

    They are "mean", "std" and "log" of the targets, and the levels "quantiles". Those of a
    ``CombinedTask`` have the name of their target as a prefix: "age.mean".
    """
    kept = ("mean", "std", "quantiles")
    found = {name: arguments[name] for name in kept if name in arguments}
    if "std" in arguments:  # arguments of Regression omit a log of None
        found["log"] = arguments.get("log")
    for part, own in nested_tasks(arguments):
        found |= {f"{part}.{name}": value for name, value in target_scales(own).items()}
    return found


def nested_tasks(arguments: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return name and arguments of each task in the arguments of a ``CombinedTask``.

    Args:
        arguments: What ``Task.arguments`` returns, or what an export stores.
    """
    parts: Any = arguments.get("tasks", {})
    if not isinstance(parts, Mapping):
        return []
    entries = cast("Mapping[str, Any]", parts)
    return [
        (name, part.arguments() if isinstance(part, Task) else part["arguments"])
        for name, part in entries.items()
    ]
