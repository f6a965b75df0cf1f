"""Weights in one safetensors file: written by ``learner.save``, read by ``learner.load``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from flambeau.artefact.difference import read_weights
from flambeau.artefact.export_format import MODEL_FILE, RECORD_FILE, ExportRecord
from flambeau.artefact.model_tensors import (
    check_tensors_fit,
    load_weights,
    split_tied,
    state_tensors,
    with_aliases,
)
from flambeau.artefact.serialization import to_storable
from flambeau.artefact.verified_files import file_sha256, read_metadata, read_tensors, write_tensors
from flambeau.artefact.weights_meaning import Meaning
from flambeau.atomic_write import replaced_file
from flambeau.errors import StorageError


def save_model(model: nn.Module, path: str | Path, meaning: Meaning | None = None) -> Path:
    """Write parameters and buffers to ``path`` atomically and return the path.

    Args:
        model: Tied tensors are written once.
        path: The file; ``.safetensors`` is appended if it has no suffix.
        meaning: Outputs, vocabulary and calibration, which are stored in the file's header so that
            ``load_model`` can check them; None stores nothing.

    Raises:
        StorageError: The file cannot be written, or is a folder.
        ArtefactError: A tensor is not dense, or safetensors does not support its dtype.
    """
    target = Path(path)
    if not target.name or target.is_dir():
        raise StorageError(f"{target} is a folder. Give the path of a file: model.safetensors.")
    target = target if target.suffix else target.with_suffix(".safetensors")
    kept, _ = split_tied(state_tensors(model))
    metadata = meaning.metadata() if meaning else None
    weights = {name: to_storable(tensor, f"The model's {name!r}") for name, tensor in kept.items()}
    with replaced_file(target) as part:
        write_tensors(part, weights, metadata)
        with part.open("rb") as file:
            os.fsync(file.fileno())
    return target


def load_model(
    model: nn.Module, path: str | Path, meaning: Meaning | None = None
) -> dict[str, Any]:
    """Load the weights of a file, or of an export's folder, into ``model``.

    Args:
        model: The module.
        path: The file or folder.
        meaning: What the inputs and outputs of ``model`` mean. The weights must have been trained
            with the same outputs and vocabulary, and the weights of an export also with the same
            preprocessor. None accepts all weights whose names and shapes match.

    Returns:
        The calibration that is stored with the weights; empty without one or without ``meaning``.

    Raises:
        ArtefactError: The file is missing or damaged, or belongs to another model, other outputs,
            or another preprocessor.
    """
    file = Path(path)
    if (file / RECORD_FILE).is_file():
        record = ExportRecord.read(file)
        weights = read_weights(file, record)
        check_tensors_fit(model, weights, str(file / MODEL_FILE))
        fitted = meaning.check_export(record, file) if meaning else {}
        load_weights(model, weights, str(file / MODEL_FILE))
        return fitted
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
    full = with_aliases(tensors, aliases, str(file))
    check_tensors_fit(model, full, str(file))
    fitted = meaning.check_file(read_metadata(file), file) if meaning else {}
    load_weights(model, full, str(file))
    return fitted
