"""The predictions for a part in one file, from which two runs can be compared sample by sample."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flambeau.artefact.verified_files import read_metadata, write_tensors
from flambeau.atomic_write import replaced_file
from flambeau.errors import ArtefactError
from flambeau.report.predictions import Predictions
from flambeau.task.batch_summary import Summary

FORMAT = "flambeau-predictions"
SCHEMA_VERSION = 1
_KEY, _LABELS = "flambeau", "sums/labels"


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """The predictions of one model for the samples of a part.

    Attributes:
        part: Name of the part.
        predictions: The predictions; of ``summary.sums`` only what scores need.
        groups: Group numbers of the samples ``(n,)``; None if they are independent.
        data: Values that identify the data (``Data.fingerprint``); empty if unknown.
    """

    part: str
    predictions: Predictions
    groups: Tensor | None = None
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def save(self, folder: str | Path) -> Path:
        """Write the predictions to the folder of a run, and return the path of the file.

        Raises:
            StorageError: The file cannot be written.
        """
        found, path = self.predictions, predictions_path(folder, self.part)
        samples = found.summary.samples
        tensors = {f"samples/{n}": v for n, v in samples.items() if isinstance(v, Tensor)}
        tensors["ids"] = found.ids
        for name, value in (("weights", found.weights), ("groups", self.groups)):
            if value is not None:
                tensors[name] = value
        if found.kind == "multi_label":
            tensors[_LABELS] = found.summary.sums["labels"]
        record = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "part": self.part,
            "kind": found.kind,
            "n_outputs": found.summary.n_outputs,
            "scores": dict(found.scores),
            "data": dict(self.data),
        }
        text = json.dumps(record, default=str)
        plain = {name: each.detach().cpu().contiguous() for name, each in tensors.items()}
        with replaced_file(path) as part:
            write_tensors(part, plain, {_KEY: text})
        return path


def predictions_path(folder: str | Path, part: str) -> Path:
    """Return the path of the predictions for a part in the folder of a run."""
    return Path(folder) / f"predictions-{part}.safetensors"


def load_predictions(path: str | Path) -> StoredPredictions:
    """Return the predictions that ``StoredPredictions.save`` wrote.

    Raises:
        ArtefactError: The file is missing, damaged, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    path = Path(path)
    try:
        record = json.loads(read_metadata(path)[_KEY])
        if record["format"] != FORMAT or record["schema_version"] != SCHEMA_VERSION:
            raise ArtefactError(
                f"{path} has the format {record['format']!r}, version {record['schema_version']!r};"
                f" this flambeau reads {FORMAT!r}, version {SCHEMA_VERSION}. Write it again: "
                "learner.interpret(part).save(folder)."
            )
        tensors = load_file(path)
        samples = {
            name.removeprefix("samples/"): value
            for name, value in tensors.items()
            if name.startswith("samples/")
        }
        sums = {"labels": tensors[_LABELS]} if _LABELS in tensors else {}
        summary = Summary(record["kind"], samples, sums, record["n_outputs"])
        ids, weights = tensors["ids"].to(torch.int64), tensors.get("weights")
        found = Predictions(ids, summary, record["scores"], weights)
        return StoredPredictions(record["part"], found, tensors.get("groups"), record["data"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise ArtefactError(
            f"{path} is damaged, or no file of predictions ({error!r:.120}). Delete it, and write "
            "it again: learner.interpret(part).save(folder)."
        ) from error
