"""Load the weights of a trained language model into the encoder of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from flambeau.artefact.difference import read_weights
from flambeau.artefact.export_format import MODEL_FILE, ExportRecord
from flambeau.errors import ArtefactError
from flambeau.wording import name_some
from flambeau_text.models.awd_lstm import AwdEncoder
from flambeau_text.models.vocabulary_transplant import transplanted

_EMBEDDING = "embedding.embedding.weight"


def load_language_model(
    encoder: AwdEncoder, folder: str, sha256: str, rows: Sequence[int] | None = None
) -> None:
    """Load embedding and recurrent layers of the language model in an export.

    Args:
        encoder: The encoder.
        folder: The export.
        sha256: Checksum of its weights, when the plan was made.
        rows: For each token of the encoder its number in the language model, or -1 for a new one,
            which gets the mean vector; None if both have the same vocabulary.

    Raises:
        ArtefactError: The export is missing or was replaced, or its layers have other sizes.
    """
    path = Path(folder)
    record = ExportRecord.read(path)
    if record.sha256[MODEL_FILE] != sha256:
        raise ArtefactError(
            f"The language model in {path} differs from the one with which the data were made: "
            "the export was replaced. Restore it, or create the data anew with language_model=…."
        )
    stored = dict(read_weights(path, record))
    if rows is not None:
        stored[_EMBEDDING] = transplanted(stored[_EMBEDDING], rows)
    own = encoder.state_dict()
    shapes = {name: tuple(value.shape) for name, value in stored.items()}
    unfit = [
        f"{name} ({tuple(value.shape)} / {shapes.get(name, 'absent')})"
        for name, value in own.items()
        if shapes.get(name) != tuple(value.shape)
    ]
    if unfit:
        raise ArtefactError(
            f"The language model in {path} does not fit the encoder: {name_some(unfit, 3)} "
            "(encoder / language model). Omit the sizes in model_config: by default they are those "
            "of the language model."
        )
    with torch.no_grad():
        encoder.load_state_dict({name: stored[name] for name in own})


def encoder_config(record: ExportRecord) -> dict[str, Any]:
    """Return the sizes of a language model's encoder, as the configuration of a classifier."""
    config: Mapping[str, Any] = record.model.arguments.get("config") or {}
    names = ("embedding_dim", "hidden_size", "num_layers", "tie")
    return {name: config[name] for name in names if name in config}
