"""Exports that store only the tensors that differ from another export's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flambeau.artefact.export_format import MODEL_FILE, RECORD_FILE, ExportRecord
from flambeau.artefact.model_tensors import with_aliases
from flambeau.artefact.verified_files import read_tensors
from flambeau.errors import ArtefactError


@dataclass(frozen=True)
class Base:
    """The export that completes another one.

    Attributes:
        folder: Its folder.
        sha256: SHA-256 of its file of weights.
        tensors: Its tensors by name, tied ones under all their names.
    """

    folder: Path
    sha256: str
    tensors: Mapping[str, Tensor]


def read_base(folder: Path) -> Base:
    """Read the weights of the export in ``folder``."""
    record = ExportRecord.read(folder)
    return Base(folder, record.sha256[MODEL_FILE], read_weights(folder, record))


def path_of_base(base: Path, folder: Path) -> str:
    """Return the path of the export ``base`` as the record of the export in ``folder`` stores it.

    Relative to ``folder``, so that both can be moved together; absolute on another drive.
    """
    target = base.resolve()
    try:
        return Path(os.path.relpath(target, folder.resolve())).as_posix()
    except ValueError:  # Windows has no relative path to another drive
        return target.as_posix()


def read_weights(
    folder: Path,
    record: ExportRecord,
    base: str | Path | None = None,
    *,
    takes_base: bool = False,
) -> dict[str, Tensor]:
    """Return the tensors of an export by name, tied ones under all their names.

    Args:
        folder: The export's folder.
        record: Its record.
        base: Folder of the export that completes it; None takes the recorded one.
        takes_base: Whether the caller's user can pass ``base``, for messages.

    Raises:
        ArtefactError: A file is missing or damaged, or ``base`` is another export.
    """
    file = folder / MODEL_FILE
    tensors = read_tensors(file, str(record.sha256.get(MODEL_FILE)))
    if record.base is not None:
        tensors |= _from_base(folder, record.base, base, takes_base)
    return with_aliases(tensors, record.aliases, str(file))


def _from_base(
    folder: Path, recorded: Mapping[str, Any], given: str | Path | None, takes_base: bool
) -> dict[str, Tensor]:
    path = (folder.resolve() / str(recorded["export"])).resolve() if given is None else Path(given)
    call = ", or pass it: Predictor.load(path, base=…)" if takes_base else ""
    fix = (
        f"write the folder of the right one, absolute or relative to {folder}, as base.export of "
        f"{folder / RECORD_FILE}{call}."
    )
    try:
        found = read_base(path)
    except ArtefactError as error:
        raise ArtefactError(
            f"{folder} stores only the difference from the export {path}, which cannot be read: "
            f"{error} If it was moved, {fix}"
        ) from error
    if found.sha256 != recorded["sha256"]:
        raise ArtefactError(
            f"{folder} stores the difference from another export than {path}: its weights have the "
            f"SHA-256 {found.sha256[:12]}…, but {str(recorded['sha256'])[:12]}… was recorded. To "
            f"use {folder}, {fix}"
        )
    return {name: found.tensors[name] for name in recorded["tensors"]}


def unchanged(tensors: Mapping[str, Tensor], base: Base) -> list[str]:
    """Return the names of the tensors that equal the base's bit for bit."""
    return [
        name
        for name, tensor in tensors.items()
        if name in base.tensors
        and tensor.dtype == base.tensors[name].dtype
        and torch.equal(_bits(tensor), _bits(base.tensors[name]))
    ]


def _bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor after its shape, so that NaN equals NaN and 0.0 is not -0.0."""
    own = tensor.detach().cpu().contiguous()
    if own.ndim == 0:
        own = own.reshape(1)
    return own.view(torch.uint8)
