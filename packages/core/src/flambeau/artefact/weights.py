"""Weights alone, in one safetensors file: what ``learner.save`` writes and ``load`` takes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from torch import nn

from flambeau.artefact.atomic import explained
from flambeau.artefact.checkpoint import file_sha256, read_tensors, write_tensors
from flambeau.artefact.rebuild import load_weights, state_tensors, tied
from flambeau.artefact.record import MODEL_FILE


def save_model(model: nn.Module, path: str | Path) -> Path:
    """Writes parameters and buffers to ``path``, complete or not at all; returns the path.

    Args:
        model: Tied tensors are written once.
        path: The file; ``.safetensors`` is added where it has no ending.

    Raises:
        StorageError: The file cannot be written.
    """
    target = Path(path)
    target = target if target.suffix else target.with_suffix(".safetensors")
    part = target.with_name(f".{target.name}.part")
    try:
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(part, tied(state_tensors(model))[0])
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
    finally:
        with suppress(OSError):  # there no longer, or in a place that refuses everything
            part.unlink()
    return target


def load_model(model: nn.Module, path: str | Path) -> None:
    """Writes the weights of a file, or of an export's folder, into ``model``.

    Raises:
        ArtefactError: The file is missing or damaged, or belongs to another model.
    """
    place = Path(path)
    if place.is_dir():
        place = place / MODEL_FILE
    elif not place.suffix:
        place = place.with_suffix(".safetensors")
    tensors = read_tensors(place, file_sha256(place) if place.exists() else "")
    aliases = {
        name: kept
        for name, kept in tied(state_tensors(model))[1].items()
        if name not in tensors and kept in tensors
    }
    load_weights(model, tensors, aliases, str(place))
