"""The content of an export as bytes, for pickles: no pickle contains a model, data or code."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flambeau.artefact.predictor import Predictor

if TYPE_CHECKING:
    from flambeau.learner import Learner


def artefact_bytes(learner: Learner) -> dict[str, bytes]:
    """Return the files of the learner's export by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = learner.export(Path(folder) / "model")
        return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def predictor_from_bytes(files: Mapping[str, bytes], device: str | None = None) -> Predictor:
    """Return the predictor of an export, given its files by name.

    Raises:
        ArtefactError: A file is missing or damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / Path(name).name).write_bytes(content)
        return Predictor.load(folder, device=device)
