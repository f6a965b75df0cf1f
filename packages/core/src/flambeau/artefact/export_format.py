"""``ExportRecord``: the content of ``flambeau.json``, validated field by field when it is read.

    pets/flambeau.json              this record
         model.safetensors          parameters and buffers; tied tensors are stored once
         preprocessor.safetensors   only if the preprocessor has tensors

Names in the record are looked up among the builders of a domain; no code is read from the folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, cast

from flambeau.artefact.verified_files import check_schema, read_json
from flambeau.errors import ArtefactError, did_you_mean

SCHEMA_VERSION = 1
FORMAT = "flambeau-export"
RECORD_FILE = "flambeau.json"
EXPORT_OF_RUN = "model"
"""The folder of the export in that of a run of ``flambeau fit``."""
MODEL_FILE = "model.safetensors"
PREPROCESSOR_FILE = "preprocessor.safetensors"
FILES = (RECORD_FILE, MODEL_FILE, PREPROCESSOR_FILE)


@dataclass(frozen=True)
class BuilderSpec:
    """A registered builder and its arguments: the object is ``builder(**arguments)``.

    Attributes:
        builder: A name that the domain registers; None if the object has no builder and must be
            passed to ``Predictor.load``.
        arguments: Keyword arguments as JSON values.
        note: For readers of the file: the class, or what to pass if there is no builder.
    """

    builder: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    note: str = ""


@dataclass(frozen=True)
class ExportRecord:
    """Everything in an export except its tensors.

    Attributes:
        domain: Name of the domain whose builders are used.
        model: Builder and arguments of the model.
        task: Builder and arguments of the task.
        preprocessor: Builder and arguments of the preprocessor, which also needs its tensors.
        aliases: Name of a tied tensor → name under which it is stored.
        sha256: File name → SHA-256 checksum.
        plan: The plan of the training run, as JSON.
        notes: JSON values that the exporting code added (scores, remarks).
        versions: Package → version that wrote the export.
        created: Time of the export, ISO 8601 with time zone.
        base: If only a difference is stored, the export that completes it: ``{"export": folder,
            "sha256": of its weights, "tensors": [names taken from it]}``. "export" is relative to
            the folder of this export, or absolute.
    """

    domain: str
    model: BuilderSpec
    task: BuilderSpec
    preprocessor: BuilderSpec
    aliases: Mapping[str, str]
    sha256: Mapping[str, str]
    plan: Any
    notes: Mapping[str, Any]
    versions: Mapping[str, str]
    created: str
    base: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``flambeau.json``."""
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and validate the record of the export in ``folder``.

        Raises:
            ArtefactError: ``folder`` is not an export, or a field is missing, unknown or of a wrong
                type.
        """
        path = folder / RECORD_FILE
        if not folder.is_dir() or not path.is_file():
            why = "it does not exist" if not folder.exists() else f"it has no {RECORD_FILE}"
            fix = "Give the folder that learner.export(folder) wrote."
            if (export := export_folder(folder)) != folder:
                fix = f"The export of this run is {export}."
            elif (folder / "checkpoints").is_dir() or (folder / "history.csv").is_file():
                fix = (
                    "It is the folder of a run, whose weights learner.load(folder) reads; then "
                    "learner.export(path) writes an export."
                )
            raise ArtefactError(f"{folder} is not an export: {why}. {fix}")
        values = read_json(path)
        if values.pop("format", None) != FORMAT:
            raise ArtefactError(f'{path} is not an export: its "format" is not {FORMAT!r}.')
        check_schema(path, values, SCHEMA_VERSION)
        del values["schema_version"]
        _check_fields(path, "", values, cls)
        for name in ("model", "task", "preprocessor"):
            values[name] = _read_spec(path, name, values[name])
        for name in ("aliases", "sha256", "notes", "versions"):
            if not isinstance(values[name], dict):
                raise _wrong_type(path, name, values[name], "an object")
        for name in ("aliases", "sha256", "versions"):
            for key, value in values[name].items():
                if not isinstance(value, str):
                    raise _wrong_type(path, f"{name}.{key}", value, "a string")
        for name in ("domain", "created"):
            if not isinstance(values[name], str):
                raise _wrong_type(path, name, values[name], "a string")
        if values["base"] is not None:
            _check_base(path, values["base"])
        return cls(**values)


def export_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder of an export: ``path``, or ``path/model`` for a run of ``flambeau fit``."""
    folder = Path(path)
    inner = folder / EXPORT_OF_RUN
    is_run = not (folder / RECORD_FILE).exists() and (inner / RECORD_FILE).is_file()
    return inner if is_run else folder


def _check_base(path: Path, base: Any) -> None:
    if not isinstance(base, dict):
        raise _wrong_type(path, "base", base, "an object or null")
    for name, kind in (("export", str), ("sha256", str), ("tensors", list)):
        value = cast("dict[str, Any]", base).get(name)
        if not isinstance(value, kind):
            raise _wrong_type(path, f"base.{name}", value, f"a {kind.__name__}")


def _read_spec(path: Path, name: str, value: Any) -> BuilderSpec:
    if not isinstance(value, dict):
        raise _wrong_type(path, name, value, "an object")
    entries = cast("dict[str, Any]", value)
    _check_fields(path, f"{name}.", entries, BuilderSpec)
    if not isinstance(entries["builder"], str | None):
        raise _wrong_type(path, f"{name}.builder", entries["builder"], "a string or null")
    if not isinstance(entries["note"], str):
        raise _wrong_type(path, f"{name}.note", entries["note"], "a string")
    if not isinstance(entries["arguments"], dict):
        raise _wrong_type(path, f"{name}.arguments", entries["arguments"], "an object")
    return BuilderSpec(**entries)


def _check_fields(path: Path, prefix: str, values: Mapping[str, Any], kind: type[Any]) -> None:
    known = [entry.name for entry in fields(kind)]
    for name in known:
        if name not in values:
            raise ArtefactError(f"{path} is damaged: the field {prefix + name!r} is missing.")
    for name in values:
        if name not in known:
            raise ArtefactError(
                f"{path} has the unknown field {prefix + name!r}: it is damaged, or another "
                f"program wrote it. {did_you_mean(name, known)}"
            )


def _wrong_type(path: Path, name: str, value: Any, expected: str) -> ArtefactError:
    return ArtefactError(
        f"{path}: the field {name!r} must be {expected}, not a {type(value).__name__}."
    )


def as_json_value(value: Any, path: str) -> Any:
    """Return ``value`` as JSON restores it: for example, tuples become lists.

    Args:
        value: None, bool, int, finite float, str, and lists, tuples and mappings of these.
        path: Name of the value in error messages, such as "notes".

    Raises:
        ArtefactError: JSON cannot represent a part of ``value``; the message has its path.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise ArtefactError(
            f"{path} is {value}, which JSON cannot represent. Use a finite number or None."
        )
    if isinstance(value, list | tuple):
        parts = cast("list[Any]", value)
        return [as_json_value(part, f"{path}[{i}]") for i, part in enumerate(parts)]
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value)
        for name in entries:
            if not isinstance(name, str):
                raise ArtefactError(f"{path} has the key {name!r}; keys in JSON must be strings.")
        return {name: as_json_value(part, f"{path}[{name!r}]") for name, part in entries.items()}
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    if callable(value):
        raise ArtefactError(
            f"{path} is {name}, which is code. An export contains no code, so that loading it runs "
            "none. Move the code to a preprocessor, task or model class that a domain registers "
            "by name, with plain values as arguments."
        )
    raise ArtefactError(
        f"{path} has the type {name}, which JSON cannot represent. Use dict, list, str, int, "
        "float, bool or None; tensors belong in tensors()."
    )
