"""Ensembles in exports: one folder with the weights, tasks and preprocessors of all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from flambeau.artefact.export_format import BuilderSpec
from flambeau.artefact.rebuild import rebuild
from flambeau.data.joint_preprocessor import JointPreprocessor
from flambeau.data.preprocess import Preprocessor
from flambeau.domain import Domain
from flambeau.errors import ArtefactError
from flambeau.task.model_ensemble import EnsembleTask, ModelEnsemble

ENSEMBLE = EnsembleTask.builder
"""Name of the builders of the model and the task of an ensemble."""


def with_ensembles(domain: Domain) -> Domain:
    """Return the domain with core's builders of ensembles, which call those of the domain."""

    def model(members: Sequence[Mapping[str, Any]]) -> nn.Module:
        return ModelEnsemble(rebuild("model", _spec(each), domain.models) for each in members)

    def joint(members: Sequence[Mapping[str, Any]], **tensors: Tensor) -> Preprocessor:
        builders = domain.preprocessors
        return JointPreprocessor(
            [
                rebuild("preprocessor", _spec(each), builders, _tensors_of(tensors, number))
                for number, each in enumerate(members)
            ]
        )

    return replace(
        domain,
        models={**domain.models, ENSEMBLE: model},
        tasks={**domain.tasks, ENSEMBLE: EnsembleTask},
        preprocessors={**domain.preprocessors, "joint": joint},
    )


def ensemble_spec(members: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return builder and arguments of an ensemble; None if a model has no builder.

    Args:
        members: Builder and arguments of each model.
    """
    found: list[dict[str, Any]] = []
    for each in members:
        if each is None:
            return None
        arguments = dict(each["arguments"])
        if "weights" in arguments:
            arguments["weights"] = None  # the exported weights replace pretrained ones
        found.append({"builder": each["builder"], "arguments": arguments})
    return {"builder": ENSEMBLE, "arguments": {"members": found}}


def _spec(member: Mapping[str, Any]) -> BuilderSpec:
    try:
        return BuilderSpec(member["builder"], member["arguments"])
    except (KeyError, TypeError) as error:
        raise ArtefactError(
            f"A member of the ensemble is damaged: {member!r:.60} has no builder and arguments. "
            "Export the ensemble again."
        ) from error


def _tensors_of(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
