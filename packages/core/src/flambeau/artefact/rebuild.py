"""Rebuild the objects of an export with the builders that its domain registers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.artefact.export_format import PREPROCESSOR_FILE, BuilderSpec, ExportRecord
from flambeau.artefact.model_tensors import check_tensors_fit
from flambeau.artefact.verified_files import read_tensors
from flambeau.data.preprocess import Preprocessor
from flambeau.domain import Domain
from flambeau.errors import ArtefactError, did_you_mean

Builders = Mapping[str, Callable[..., Any]]


def rebuild(
    kind: str,
    spec: BuilderSpec,
    builders: Builders,
    tensors: Mapping[str, Tensor] | None = None,
) -> Any:
    """Return ``builders[spec.builder](**spec.arguments, **tensors)``.

    The state of torch's global generator is restored afterwards.

    Args:
        kind: "model", "task", "metric" …, for error messages.
        spec: Name and arguments of the builder.
        builders: The builders that the domain registers for this kind.
        tensors: Further keyword arguments.

    Raises:
        ArtefactError: The name is unknown, or the builder rejects the arguments or fails.
    """
    if spec.builder is None or spec.builder not in builders:
        raise ArtefactError(
            f"The domain does not register the {kind} builder {spec.builder!r}. "
            f"{did_you_mean(str(spec.builder), builders)} A newer version of the domain's package "
            "may have it."
        )
    builder = builders[spec.builder]
    arguments = {**spec.arguments, **(tensors or {})}
    try:
        inspect.signature(builder).bind(**arguments)
    except TypeError as error:
        raise ArtefactError(
            f"The {kind} builder {spec.builder!r} does not accept the saved arguments "
            f"({', '.join(arguments) or 'none'}): {error}. The package that registers it has "
            "changed since the export; install the version that wrote it."
        ) from error
    try:
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            return builder(**arguments)
    except Exception as error:  # a foreign builder may raise anything; the message must name it
        raise ArtefactError(
            f"The {kind} builder {spec.builder!r} failed with the saved arguments: "
            f"{type(error).__name__}: {error}"
        ) from error


def rebuild_preprocessor(folder: Path, record: ExportRecord, domain: Domain) -> Preprocessor:
    """Rebuild the preprocessor of the export in ``folder``.

    Raises:
        ArtefactError: The preprocessor's file is missing or damaged, or its builder is unknown or
            fails.
    """
    tensors = {}
    if PREPROCESSOR_FILE in record.sha256:
        tensors = read_tensors(folder / PREPROCESSOR_FILE, record.sha256[PREPROCESSOR_FILE])
    return rebuild("preprocessor", record.preprocessor, domain.preprocessors, tensors)


def rebuild_model(
    spec: BuilderSpec,
    builders: Builders,
    tensors: Mapping[str, Tensor],
    file: str,
) -> nn.Module:
    """Rebuild the model of an export, after checking that its shapes match ``tensors``.

    The check builds the model on the meta device: if the record describes a model of 10 GB but the
    weights file has 1 MB, an error is raised before memory is allocated.

    Raises:
        ArtefactError: The builder is unknown or fails, or builds another model.
    """
    try:
        with torch.device("meta"):
            on_meta = rebuild("model", spec, builders)
    except ArtefactError:
        pass  # some builders cannot run on meta; the call below reports errors of the model itself
    else:
        check_tensors_fit(on_meta, tensors, file)
    return rebuild("model", spec, builders)
