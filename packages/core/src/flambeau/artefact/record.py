"""``ExportRecord``: what ``flambeau.json`` says, checked field by field when it is read.

    pets/flambeau.json              this record
         model.safetensors          parameters and buffers, tied ones once
         preprocessor.safetensors   only where the preprocessor has tensors

Every name in it is looked up in a registered domain; nothing in it is ever run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, cast

from flambeau.artefact.checkpoint import check_schema, read_json
from flambeau.errors import ArtefactError, nearest

SCHEMA_VERSION = 1
FORMAT = "flambeau-export"
RECORD_FILE = "flambeau.json"
MODEL_FILE = "model.safetensors"
PREPROCESSOR_FILE = "preprocessor.safetensors"
FILES = (RECORD_FILE, MODEL_FILE, PREPROCESSOR_FILE)


@dataclass(frozen=True)
class Spec:
    """What rebuilds one object: ``builder(**arguments)``.

    Attributes:
        builder: A name that the domain registers; None where the object has no builder and must
            be passed to ``Predictor.load``.
        arguments: JSON values.
        note: For the reader: the class, and what to do where there is no builder.
    """

    builder: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    note: str = ""


@dataclass(frozen=True)
class ExportRecord:
    """An export without its tensors.

    Attributes:
        domain: Name of the domain whose builders are used.
        model: How to rebuild the model.
        task: How to rebuild the task.
        preprocessor: How to rebuild the preprocessor, together with its tensors.
        aliases: Name of a tied tensor → name under which it is stored.
        sha256: File name → check sum.
        plan: The plan it was trained with, as JSON.
        notes: Whatever the maker wanted to keep (scores, remarks), as JSON.
        versions: Package → version that wrote it.
        created: When, ISO 8601 with time zone.
    """

    domain: str
    model: Spec
    task: Spec
    preprocessor: Spec
    aliases: Mapping[str, str]
    sha256: Mapping[str, str]
    plan: Any
    notes: Mapping[str, Any]
    versions: Mapping[str, str]
    created: str

    def as_json(self) -> dict[str, Any]:
        """The content of ``flambeau.json``."""
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The record of the export in ``folder``.

        Raises:
            ArtefactError: There is no export, or a field is missing, unknown or of a wrong type.
        """
        path = folder / RECORD_FILE
        if not folder.is_dir() or not path.is_file():
            what = "does not exist" if not folder.exists() else f"holds no {RECORD_FILE}"
            raise ArtefactError(
                f"{folder} {what}, so it is no export. Name the folder that "
                "learner.export(folder) wrote."
            )
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
                raise _wrong(path, name, values[name], "an object")
        for name in ("aliases", "sha256", "versions"):
            for key, value in values[name].items():
                if not isinstance(value, str):
                    raise _wrong(path, f"{name}.{key}", value, "a string")
        for name in ("domain", "created"):
            if not isinstance(values[name], str):
                raise _wrong(path, name, values[name], "a string")
        return cls(**values)


def _read_spec(path: Path, name: str, value: Any) -> Spec:
    if not isinstance(value, dict):
        raise _wrong(path, name, value, "an object")
    entries = cast("dict[str, Any]", value)
    _check_fields(path, f"{name}.", entries, Spec)
    if not isinstance(entries["builder"], str | None):
        raise _wrong(path, f"{name}.builder", entries["builder"], "a string or null")
    if not isinstance(entries["note"], str):
        raise _wrong(path, f"{name}.note", entries["note"], "a string")
    if not isinstance(entries["arguments"], dict):
        raise _wrong(path, f"{name}.arguments", entries["arguments"], "an object")
    return Spec(**entries)


def _check_fields(path: Path, prefix: str, values: Mapping[str, Any], kind: type[Any]) -> None:
    known = [entry.name for entry in fields(kind)]
    for name in known:
        if name not in values:
            raise ArtefactError(f"{path} lacks the field {prefix + name!r}: it is damaged.")
    for name in values:
        if name not in known:
            raise ArtefactError(
                f"{path} has the unknown field {prefix + name!r}: it is damaged, or was written "
                f"by something else. {nearest(name, known)}"
            )


def _wrong(path: Path, name: str, value: Any, wanted: str) -> ArtefactError:
    return ArtefactError(
        f"{path}: the field {name!r} should be {wanted}, not a {type(value).__name__}."
    )


def plain_json(value: Any, where: str) -> Any:
    """A copy of ``value`` as JSON gives it back: tuples become lists.

    Raises:
        ArtefactError: Something in it is no JSON value; the message names the place.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise ArtefactError(
            f"{where} is {value}, which JSON does not have. Give a finite number or None."
        )
    if isinstance(value, list | tuple):
        parts = cast("list[Any]", value)
        return [plain_json(part, f"{where}[{i}]") for i, part in enumerate(parts)]
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value)
        for name in entries:
            if not isinstance(name, str):
                raise ArtefactError(f"{where} has the key {name!r}; JSON has str keys only.")
        return {name: plain_json(part, f"{where}[{name!r}]") for name, part in entries.items()}
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    if callable(value):
        raise ArtefactError(
            f"{where} is {name}, which is code. An export holds no code, because loading it must "
            "run none. Put it into a preprocessor, task or model class that a domain registers "
            "under a name, with plain values as arguments."
        )
    raise ArtefactError(
        f"{where} is of type {name}, which JSON does not have. Use dict, list, str, int, float, "
        "bool or None; tensors belong in tensors()."
    )
