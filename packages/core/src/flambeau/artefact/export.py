"""``export``: a trained model as a folder of weights and JSON that any process can predict with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flambeau import domain as domains
from flambeau.artefact.atomic import atomic_folder
from flambeau.artefact.checkpoint import file_sha256, write_tensors
from flambeau.artefact.rebuild import Builders, check_same_state, rebuild, state_tensors, tied
from flambeau.artefact.record import (
    FILES,
    MODEL_FILE,
    PREPROCESSOR_FILE,
    RECORD_FILE,
    ExportRecord,
    Spec,
    plain_json,
)
from flambeau.artefact.tree import storable
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import ArtefactError
from flambeau.task.task import Task


def export(
    folder: str | Path,
    *,
    domain: str,
    model: nn.Module,
    model_spec: Mapping[str, Any] | None,
    task: Task,
    preprocessor: Preprocessor,
    plan: Mapping[str, Any] | str | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``folder``, from which ``Predictor.load`` predicts; returns its path.

    Everything is built once more from what will be written, so that an export which could not be
    loaded is refused now. The folder appears complete or not at all; an earlier export in it is
    replaced.

    Args:
        folder: Where to; it must not exist, be empty, or hold an export.
        domain: Name of the domain whose builders make model, task and preprocessor.
        model: Its parameters and buffers are written as they are, in their dtype.
        model_spec: ``{"builder": name, "arguments": {...}}``, or None for a bare module, whose
            weights alone are written. An argument "weights" (where a model starts from) is
            written as None, because the exported weights take its place.
        task: A task that no builder makes is left out, and passed to ``Predictor.load``.
        preprocessor: It must be one that the domain's builders make, from plain values.
        plan: The plan as JSON, for the record.
        notes: Further JSON values to keep (scores, remarks).

    Raises:
        ArtefactError: The folder holds something else, or a value or an object cannot be saved.
        StorageError: The disk is full or the folder cannot be written.

    Example:
        >>> export(
        ...     "pets",
        ...     domain="tensors",
        ...     model=net,
        ...     model_spec=None,
        ...     task=task,
        ...     preprocessor=preprocessor,
        ... )  # doctest: +SKIP
    """
    target = Path(folder).resolve()
    _refuse_foreign(target)
    record = domains.get(domain)
    specs = {
        "model": _model_spec(model, model_spec, record.models),
        "task": _task_spec(task, record.tasks),
    }
    specs["preprocessor"], tensors = _preprocessor_spec(preprocessor, record.builders)
    named = state_tensors(model)
    kept, aliases = tied(named)
    weights = {name: storable(tensor, f"The model's {name!r}") for name, tensor in kept.items()}
    plan_json = json.loads(plan) if isinstance(plan, str) else plain_json(plan, "plan")
    with atomic_folder(target) as part:
        sha256 = _write(part, weights, tensors)
        content = ExportRecord(
            domain=domain,
            aliases=aliases,
            sha256=sha256,
            plan=plan_json,
            notes=plain_json(notes or {}, "notes"),
            versions={"flambeau": _version("flambeau"), "torch": torch.__version__},
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            **specs,
        )
        text = json.dumps(content.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        (part / RECORD_FILE).write_text(text + "\n", encoding="utf-8")
    return target


def _refuse_foreign(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ArtefactError(f"{target} is a file. Name a folder that does not exist yet.")
    content = sorted(path.name for path in target.iterdir())
    if not content:
        return
    if RECORD_FILE not in content:
        raise ArtefactError(
            f"{target} holds other things ({', '.join(content[:3])}), which an export would "
            "replace. Name a folder that does not exist yet."
        )
    others = [name for name in content if name not in FILES]
    if others:
        raise ArtefactError(
            f"{target} holds an export and also {', '.join(others[:3])}, which a new export would "
            "delete. Move that away, or name another folder."
        )


def _model_spec(model: nn.Module, given: Mapping[str, Any] | None, builders: Builders) -> Spec:
    if given is None:
        return Spec(
            None,
            note=f"A bare {type(model).__qualname__}: only its weights are here. Load with "
            "Predictor.load(path, model=...), giving a module of the same kind.",
        )
    arguments = plain_json(given["arguments"], "The model's arguments")
    if "weights" in arguments:
        arguments["weights"] = None
    spec = Spec(given["builder"], arguments, note=type(model).__qualname__)
    check_same_state(model, rebuild("model", spec, builders), given["builder"])
    return spec


def _task_spec(task: Task, builders: Builders) -> Spec:
    name = type(task).__qualname__
    if task.builder in builders:
        spec = Spec(task.builder, plain_json(task.arguments(), f"{name}.arguments()"), note=name)
        # A class of the user's own inherits the name, but the builder would make its base.
        if type(rebuild("task", spec, builders)) is type(task):
            return spec
    return Spec(
        None,
        note=f"{name} is registered by no domain. Load with Predictor.load(path, task=...).",
    )


def _preprocessor_spec(
    preprocessor: Preprocessor, builders: Builders
) -> tuple[Spec, dict[str, Tensor]]:
    name = type(preprocessor).__qualname__
    arguments = plain_json(preprocessor.arguments(), f"{name}.arguments()")
    tensors = {
        key: storable(tensor, f"{name}.tensors()[{key!r}]")
        for key, tensor in preprocessor.tensors().items()
    }
    spec = Spec(preprocessor.builder, arguments, note=name)
    made = rebuild("preprocessor", spec, builders, tensors)
    if type(made) is not type(preprocessor):
        raise ArtefactError(
            f"The preprocessor is a {name}, but its builder {spec.builder!r} makes a "
            f"{type(made).__qualname__}. Register {name} in the domain under a name of its own, "
            "and return that name from its builder property."
        )
    return spec, tensors


def _write(
    part: Path, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, str]:
    contents = {MODEL_FILE: weights}
    if tensors:
        contents[PREPROCESSOR_FILE] = tensors
    for name, content in contents.items():
        write_tensors(part / name, content)
    return {name: file_sha256(part / name) for name in contents}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
