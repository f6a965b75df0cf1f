"""``Meaning``: what a model's inputs and outputs mean, to refuse weights trained for others."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.artefact.export_format import BuilderSpec, ExportRecord
from flambeau.artefact.read_like import output_names, target_scales
from flambeau.artefact.rebuild import rebuild_preprocessor
from flambeau.artefact.task_spec import stored_calibration
from flambeau.data.preprocess import HasVocabulary, Preprocessor
from flambeau.domain import Domain
from flambeau.errors import ArtefactError
from flambeau.task.task import Task
from flambeau.wording import name_some

_TOLERANCE = 1e-4  # of statistics that another machine computed from the same data
_MOST_TEXT = 4096  # characters of a value in a checkpoint
_MOST_HEADER = 2**16  # characters in the header of a weights file
_OF_MACHINE = ("memory_format",)  # arguments that do not change the values of the inputs
_START = (
    "To train an export further on these data: Learner(data, start=EXPORT), or flambeau fit … "
    "--start EXPORT."
)


@dataclass(frozen=True)
class Meaning:
    """What the inputs and outputs of a learner's model mean.

    Attributes:
        preprocessor: The preprocessor that creates the inputs of the model.
        task: The task, which names the outputs.
        domain: The domain, whose builders rebuild the preprocessor of an export.
    """

    preprocessor: Preprocessor
    task: Task
    domain: Domain

    def metadata(self) -> dict[str, str]:
        """Return the texts for the header of a file of weights."""
        settings = self.settings()
        found = {name: json.dumps(settings[name]) for name in ("outputs", "targets")}
        preprocessor = json.dumps(settings["preprocessor"], default=_plain_tensor)
        if len(preprocessor) < _MOST_HEADER:
            found["preprocessor"] = preprocessor
        if self.task.calibration:
            fitted = {"calibration": dict(self.task.calibration)}
            found["task"] = json.dumps({"builder": self.task.builder, "arguments": fitted})
        vocabulary = settings["vocabulary"]
        return found if vocabulary is None else {**found, "vocabulary": vocabulary}

    def settings(self) -> dict[str, Any]:
        """Return what checkpoints store: JSON values and tensors; long values as digests."""
        preprocessor = _settings(self.preprocessor)
        return {
            "outputs": list(self.task.output_names),
            "targets": dict(target_scales(self.task.arguments())),
            "vocabulary": _vocabulary(self.preprocessor),
            "preprocessor": {name: _short(value) for name, value in preprocessor.items()},
        }

    def check_settings(self, saved: Mapping[str, Any], path: object) -> None:
        """Check what ``settings`` returned when the weights were saved; None is not checked.

        Raises:
            ArtefactError: The outputs, the scale of the targets, the vocabulary or the preprocessor
                differ from those of this learner.
        """
        own = self.settings()
        self._check_names(saved.get("outputs") or (), path)
        self._check_targets(saved.get("targets") or {}, path)
        if saved.get("vocabulary", own["vocabulary"]) != own["vocabulary"]:
            raise _other_vocabulary(path)
        if (preprocessor := saved.get("preprocessor")) is not None:
            self._check_preprocessor(own["preprocessor"], preprocessor, path)

    def check_file(self, metadata: Mapping[str, str], file: Path) -> dict[str, Any]:
        """Check the header of a weights file; an entry that is missing is not checked.

        Returns:
            The calibration stored in the file (temperature, thresholds), empty if there is none.

        Raises:
            ArtefactError: As ``check_settings``.
        """
        texts = ("outputs", "targets", "preprocessor")
        saved = {name: json.loads(metadata[name]) for name in texts if name in metadata}
        own = _vocabulary(self.preprocessor)
        self.check_settings({**saved, "vocabulary": metadata.get("vocabulary", own)}, file)
        spec = BuilderSpec(**json.loads(metadata.get("task", '{"builder": null}')))
        return stored_calibration(spec, self.task.builder)

    def check_export(self, record: ExportRecord, folder: Path) -> dict[str, Any]:
        """Check the record of an export.

        Returns:
            The calibration stored in the file (temperature, thresholds), empty if there is none.

        Raises:
            ArtefactError: The domain, the outputs, the scale of the targets, the vocabulary or the
                preprocessor of the export differ from those of this learner.
        """
        if record.domain != self.domain.name:
            raise ArtefactError(
                f"{folder} is an export of the domain {record.domain!r}, but the data belong to "
                f"{self.domain.name!r}. Load an export of the same kind of data."
            )
        saved = record.task.arguments
        self._check_names(output_names(saved), folder)
        self._check_targets(target_scales(saved), folder)
        stored = rebuild_preprocessor(folder, record, self.domain)
        if _vocabulary(self.preprocessor) != _vocabulary(stored):
            raise _other_vocabulary(folder)
        self._check_preprocessor(_settings(self.preprocessor), _settings(stored), folder)
        return stored_calibration(record.task, self.task.builder)

    def _check_targets(self, saved: Mapping[str, Any], path: object) -> None:
        own = target_scales(self.task.arguments())
        for name, value in saved.items():
            if name in own and not _equal(own[name], value):
                is_scale = name.endswith(("mean", "std"))
                what = "targets scaled with " if is_scale else "targets with "
                raise ArtefactError(
                    f"The weights in {path} predict {what}{name} "
                    f"{value!r:.60}, but the task of this learner has {own[name]!r:.60}: "
                    f"predictions would be in other units. {_START}"
                )

    def _check_preprocessor(
        self, own: Mapping[str, Any], stored: Mapping[str, Any], path: object
    ) -> None:
        differing = _differing(own, stored)
        if differing:
            raise ArtefactError(
                f"The weights in {path} were trained with another preprocessor than that of "
                f"these data: {name_some(differing, 3)} (here / there). The same inputs "
                f"would reach the model with other values, so predictions would be wrong. {_START}"
            )

    def _check_names(self, saved: Sequence[Any], path: object) -> None:
        own = list(self.task.output_names)
        stored = list(map(str, saved))
        if own and stored and own != stored:
            raise ArtefactError(
                f"The outputs of the weights in {path} are {name_some(stored, 5)} in this order, "
                f"but those of this learner are {name_some(own, 5)}: predictions would have wrong "
                f"names. Create the data with the same classes in the same order "
                f"(class_names=[…]). {_START}"
            )


def _vocabulary(preprocessor: Preprocessor) -> str | None:
    return preprocessor.vocabulary_digest() if isinstance(preprocessor, HasVocabulary) else None


def _other_vocabulary(path: object) -> ArtefactError:
    return ArtefactError(
        f"The weights in {path} were trained with another vocabulary (or other columns) "
        "than those of these data: the same numbers in a batch mean something else, so predictions "
        f"would be wrong. {_START}"
    )


def _settings(preprocessor: Preprocessor) -> dict[str, Any]:
    """Return the preprocessor's settings that can change the values of the model's inputs."""
    arguments = json.loads(json.dumps(dict(preprocessor.arguments()), default=list))
    for name in _OF_MACHINE:
        arguments.pop(name, None)
    for value in arguments.values():
        if isinstance(value, dict):  # of packages: another one may compute the same
            cast("dict[str, Any]", value).pop("versions", None)
    return {"builder": preprocessor.builder, **arguments, **preprocessor.tensors()}


def _short(value: Any) -> Any:
    """Return a value, or the digest of its JSON form if that is long (categories of a table)."""
    if isinstance(value, Tensor):
        return value
    text = json.dumps(value)
    if len(text) < _MOST_TEXT:
        return value
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _plain_tensor(value: Any) -> Any:
    return value.tolist()


def _differing(own: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """Return "name (own value / stored value)" for the settings that differ."""
    return [
        f"{name} ({_shown(own.get(name))} / {_shown(stored.get(name))})"
        for name in dict.fromkeys((*own, *stored))
        if not _equal(own.get(name), stored.get(name))
    ]


def _equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal; floats may differ by rounding."""
    if isinstance(one, Tensor) and isinstance(other, list):  # from the header of a file
        other = torch.tensor(other)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        one, other = one.detach().cpu().double(), other.detach().cpu().double()
        close = one.shape == other.shape and torch.allclose(
            one, other, rtol=_TOLERANCE, atol=0.0, equal_nan=True
        )
        return close
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = (cast("Sequence[Any]", one), cast("Sequence[Any]", other))
        return len(pairs[0]) == len(pairs[1]) and all(map(_equal, *pairs))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE)
    return bool(one == other)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        value = value.flatten()[:4].tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return f"{value!r:.60}"
