"""Weights in one safetensors file: written by ``learner.save``, read by ``learner.load``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from torch import nn

from flambeau.artefact.difference import read_weights
from flambeau.artefact.export_format import MODEL_FILE, RECORD_FILE, ExportRecord
from flambeau.artefact.model_tensors import load_weights, split_tied, state_tensors, with_aliases
from flambeau.artefact.rebuild import rebuild_preprocessor
from flambeau.artefact.serialization import to_storable
from flambeau.artefact.verified_files import file_sha256, read_metadata, read_tensors, write_tensors
from flambeau.atomic_write import storage_errors
from flambeau.data.preprocess import HasVocabulary, Preprocessor
from flambeau.domain import Domain
from flambeau.errors import ArtefactError

_VOCABULARY = "vocabulary"
"""Name of the vocabulary's digest in the header of a file."""


def save_model(
    model: nn.Module, path: str | Path, preprocessor: Preprocessor | None = None
) -> Path:
    """Write parameters and buffers to ``path`` atomically and return the path.

    Args:
        model: Tied tensors are written once.
        path: The file; ``.safetensors`` is appended if it has no suffix.
        preprocessor: The digest of its vocabulary, if it has one, is written too.

    Raises:
        StorageError: The file cannot be written.
        ArtefactError: A tensor is not dense, or safetensors does not support its dtype.
    """
    target = Path(path)
    target = target if target.suffix else target.with_suffix(".safetensors")
    part = target.with_name(f".{target.name}.part")
    kept, _ = split_tied(state_tensors(model))
    digest = _digest_of(preprocessor)
    metadata = {} if digest is None else {_VOCABULARY: digest}
    weights = {name: to_storable(tensor, f"The model's {name!r}") for name, tensor in kept.items()}
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(part, weights, metadata)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
    finally:
        with suppress(OSError):  # already renamed, or the folder refuses every access
            part.unlink()
    return target


def load_model(
    model: nn.Module,
    path: str | Path,
    preprocessor: Preprocessor | None = None,
    domain: Domain | None = None,
) -> None:
    """Load the weights of a file, or of an export's folder, into ``model``.

    Args:
        model: The module.
        path: The file or folder.
        preprocessor: If it has a vocabulary, the weights must have been trained with the same one.
        domain: Rebuilds the preprocessor of an export.

    Raises:
        ArtefactError: The file is missing or damaged, belongs to another model, or was trained with
            another vocabulary.
    """
    file = Path(path)
    own = _digest_of(preprocessor)
    if (file / RECORD_FILE).is_file():
        record = ExportRecord.read(file)
        if own is not None and domain is not None and record.domain == domain.name:
            _check_vocabulary(own, _digest_of(rebuild_preprocessor(file, record, domain)), file)
        load_weights(model, read_weights(file, record), str(file / MODEL_FILE))
        return
    if file.is_dir():
        file = file / MODEL_FILE
    elif not file.suffix:
        file = file.with_suffix(".safetensors")
    tensors = read_tensors(file, file_sha256(file) if file.exists() else "")
    if own is not None:
        _check_vocabulary(own, read_metadata(file).get(_VOCABULARY), file)
    aliases = {
        name: kept
        for name, kept in split_tied(state_tensors(model))[1].items()
        if name not in tensors and kept in tensors
    }
    load_weights(model, with_aliases(tensors, aliases, str(file)), str(file))


def _digest_of(preprocessor: Preprocessor | None) -> str | None:
    return preprocessor.vocabulary_digest() if isinstance(preprocessor, HasVocabulary) else None


def _check_vocabulary(own: str, stored: str | None, file: Path) -> None:
    """Refuse weights that were trained with another vocabulary; files without one are accepted."""
    if stored not in (None, own):
        raise ArtefactError(
            f"The weights in {file} were trained with another vocabulary (digest {stored}) than "
            f"that of these data ({own}): the same token ids denote other tokens, so predictions "
            "would be meaningless. To train an export further on these data with its own "
            "vocabulary: Learner(data, start=EXPORT), or flambeau fit … --start EXPORT."
        )
