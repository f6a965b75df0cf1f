"""Exports that store only the tensors that differ from another export's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flambeau.artefact.export_format import MODEL_FILE, ExportRecord
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


def read_weights(
    folder: Path, record: ExportRecord, base: str | Path | None = None
) -> dict[str, Tensor]:
    """Return the tensors of an export by name, tied ones under all their names.

    Args:
        folder: The export's folder.
        record: Its record.
        base: Folder of the export that completes it; None takes the recorded one.

    Raises:
        ArtefactError: A file is missing or damaged, or ``base`` is another export.
    """
    file = folder / MODEL_FILE
    tensors = read_tensors(file, str(record.sha256.get(MODEL_FILE)))
    if record.base is not None:
        tensors |= _from_base(folder, record.base, base)
    return with_aliases(tensors, record.aliases, str(file))


def _from_base(
    folder: Path, recorded: Mapping[str, Any], given: str | Path | None
) -> dict[str, Tensor]:
    path = Path(str(recorded["export"])) if given is None else Path(given)
    try:
        found = read_base(path)
    except ArtefactError as error:
        raise ArtefactError(
            f"{folder} stores only the difference from the export {path}, which cannot be read: "
            f"{error} If it was moved, pass its folder: Predictor.load(path, base=…)."
        ) from error
    if found.sha256 != recorded["sha256"]:
        raise ArtefactError(
            f"{folder} stores the difference from another export than {path}: its weights have the "
            f"SHA-256 {found.sha256[:12]}…, but {str(recorded['sha256'])[:12]}… was recorded. Pass "
            "the folder of the right one: Predictor.load(path, base=…)."
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
