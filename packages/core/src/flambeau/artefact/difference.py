"""Exports that store only the tensors in which they differ from another export, the base."""

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
    """An export from which another export stores only the difference.

    Attributes:
        folder: Folder of the base export.
        sha256: SHA-256 of the weights file in this folder.
        tensors: All tensors of the base by name; a tied tensor is under each of its names.
    """

    folder: Path
    sha256: str
    tensors: Mapping[str, Tensor]


def read_base(folder: Path) -> Base:
    """Read the export in ``folder`` as a base: its checksum and its tensors."""
    record = ExportRecord.read(folder)
    return Base(folder, record.sha256[MODEL_FILE], read_weights(folder, record))


def path_of_base(base: Path, folder: Path) -> str:
    """Return the path to the base that the record of the export in ``folder`` stores.

    The path is relative to ``folder``, so that both folders can be moved together, or absolute if
    ``base`` is on another drive (Windows).
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
    """Return the tensors of an export by name; a tied tensor is under each of its names.

    Args:
        folder: The export's folder.
        record: The export's record.
        base: Folder of the base, if the export stores only a difference; None uses the folder in
            the record.
        takes_base: Whether messages suggest passing ``base`` to ``Predictor.load``.

    Raises:
        ArtefactError: A file is missing or damaged, or ``base`` is not the export's base.
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
        f"write the correct folder, absolute or relative to {folder}, as base.export of "
        f"{folder / RECORD_FILE}{call}."
    )
    try:
        found = read_base(path)
    except ArtefactError as error:
        raise ArtefactError(
            f"{folder} stores only the difference from the export {path}, which cannot be read: "
            f"{error} If that export was moved, {fix}"
        ) from error
    if found.sha256 != recorded["sha256"]:
        raise ArtefactError(
            f"{folder} stores the difference from another export than {path}, whose weights have "
            f"the SHA-256 {found.sha256[:12]}… instead of {str(recorded['sha256'])[:12]}…. To use "
            f"{folder}, {fix}"
        )
    return {name: found.tensors[name] for name in recorded["tensors"]}


def unchanged(tensors: Mapping[str, Tensor], base: Base) -> list[str]:
    """Return the names of the tensors that are bit-for-bit equal to those of the base."""
    return [
        name
        for name, tensor in tensors.items()
        if name in base.tensors
        and tensor.dtype == base.tensors[name].dtype
        and torch.equal(_bits(tensor), _bits(base.tensors[name]))
    ]


def _bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor as uint8, so that NaN equals NaN and 0.0 differs from -0.0."""
    own = tensor.detach().cpu().contiguous()
    if own.ndim == 0:
        own = own.reshape(1)
    return own.view(torch.uint8)
