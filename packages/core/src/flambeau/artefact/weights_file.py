"""Weights in one safetensors file: written by ``learner.save``, read by ``learner.load``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from torch import nn

from flambeau.artefact.difference import read_weights
from flambeau.artefact.export_format import MODEL_FILE, RECORD_FILE, ExportRecord
from flambeau.artefact.model_tensors import load_weights, split_tied, state_tensors, with_aliases
from flambeau.artefact.serialization import to_storable
from flambeau.artefact.verified_files import file_sha256, read_tensors, write_tensors
from flambeau.atomic_write import storage_errors


def save_model(model: nn.Module, path: str | Path) -> Path:
    """Write parameters and buffers to ``path`` atomically and return the path.

    Args:
        model: Tied tensors are written once.
        path: The file; ``.safetensors`` is appended if it has no suffix.

    Raises:
        StorageError: The file cannot be written.
        ArtefactError: A tensor is not dense, or safetensors does not support its dtype.
    """
    target = Path(path)
    target = target if target.suffix else target.with_suffix(".safetensors")
    part = target.with_name(f".{target.name}.part")
    kept, _ = split_tied(state_tensors(model))
    weights = {name: to_storable(tensor, f"The model's {name!r}") for name, tensor in kept.items()}
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(part, weights)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
    finally:
        with suppress(OSError):  # already renamed, or the folder refuses every access
            part.unlink()
    return target


def load_model(model: nn.Module, path: str | Path) -> None:
    """Load the weights of a file, or of an export's folder, into ``model``.

    Raises:
        ArtefactError: The file is missing or damaged, or belongs to another model.
    """
    file = Path(path)
    if (file / RECORD_FILE).is_file():
        load_weights(model, read_weights(file, ExportRecord.read(file)), str(file / MODEL_FILE))
        return
    if file.is_dir():
        file = file / MODEL_FILE
    elif not file.suffix:
        file = file.with_suffix(".safetensors")
    tensors = read_tensors(file, file_sha256(file) if file.exists() else "")
    aliases = {
        name: kept
        for name, kept in split_tied(state_tensors(model))[1].items()
        if name not in tensors and kept in tensors
    }
    load_weights(model, with_aliases(tensors, aliases, str(file)), str(file))
