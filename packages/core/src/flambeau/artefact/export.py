"""``export``: write a trained model as a folder from which any process can predict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.artefact.difference import path_of_base, read_base, unchanged
from flambeau.artefact.export_format import (
    FILES,
    MODEL_FILE,
    PREPROCESSOR_FILE,
    RECORD_FILE,
    BuilderSpec,
    ExportRecord,
    as_json_value,
)
from flambeau.artefact.model_tensors import check_same_state, split_tied, state_tensors
from flambeau.artefact.rebuild import Builders, rebuild
from flambeau.artefact.serialization import to_storable
from flambeau.artefact.task_spec import spec_of_task
from flambeau.artefact.verified_files import file_sha256, write_tensors
from flambeau.atomic_write import atomic_folder
from flambeau.data.preprocess import Preprocessor
from flambeau.domain import Domain, get_domain
from flambeau.errors import ArtefactError
from flambeau.task.task import Task
from flambeau.wording import name_some


def export(
    folder: str | Path,
    *,
    domain: Domain | str,
    model: nn.Module,
    model_spec: Mapping[str, Any] | None,
    task: Task,
    preprocessor: Preprocessor,
    plan: Mapping[str, Any] | str | None = None,
    notes: Mapping[str, Any] | None = None,
    base: Path | None = None,
) -> Path:
    """Write an export to ``folder``, for ``Predictor.load``, and return its path.

    Model, task and preprocessor are first rebuilt from the values to be written, so that this
    function already raises an error for an export that could not be loaded. The folder is written
    atomically; an existing export in it is replaced.

    Args:
        folder: A folder that does not exist, is empty, or contains an export.
        domain: The domain whose builders rebuild model, task and preprocessor, or its name.
        model: Its parameters and buffers are written unchanged, in their dtype.
        model_spec: ``{"builder": name, "arguments": {...}}``, or None for a user-defined module, of
            which only the weights are written. An argument "weights" (pretrained weights to start
            from) is written as None, because the exported weights replace it.
        task: A task without a registered builder is not written; pass it to ``Predictor.load``.
            For metric and loss objects the name is written under which core or the domain
            registers them. Unregistered metrics are omitted, with a warning and a note.
        preprocessor: The domain must register its builder, and its arguments must be JSON values.
        plan: The plan as JSON, for the record.
        notes: Further JSON values to store (scores, remarks).
        base: Folder of another export; only tensors that differ from its tensors are written.

    Raises:
        ArtefactError: The folder contains other files, or a value or an object cannot be saved.
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
    _check_target(target)
    record = get_domain(domain) if isinstance(domain, str) else domain
    specs = {
        "model": _model_spec(model, model_spec, record.models),
        "task": spec_of_task(task, record),
    }
    specs["preprocessor"], tensors = _preprocessor_spec(preprocessor, record.preprocessors)
    named = state_tensors(model)
    kept, aliases = split_tied(named)
    weights = {name: to_storable(tensor, f"The model's {name!r}") for name, tensor in kept.items()}
    base_record = None
    if base is not None:
        if base.resolve() == target:
            raise ArtefactError(
                f"base is {target}, but an export cannot store the difference from itself. Export "
                "to another folder, or omit base."
            )
        found = read_base(base)
        same = unchanged(weights, found)
        weights = {name: tensor for name, tensor in weights.items() if name not in set(same)}
        path = path_of_base(base, target)
        base_record = {"export": path, "sha256": found.sha256, "tensors": same}
    plan_json = json.loads(plan) if isinstance(plan, str) else as_json_value(plan, "plan")
    with atomic_folder(target) as part:
        sha256 = _write(part, weights, tensors)
        content = ExportRecord(
            domain=record.name,
            aliases=aliases,
            sha256=sha256,
            plan=plan_json,
            notes=as_json_value(notes or {}, "notes"),
            versions={"flambeau": _version("flambeau"), "torch": torch.__version__},
            base=base_record,
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            **specs,
        )
        text = json.dumps(content.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        (part / RECORD_FILE).write_text(text + "\n", encoding="utf-8")
    return target


def _check_target(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ArtefactError(f"{target} is a file. Choose a folder that does not exist yet.")
    content = sorted(path.name for path in target.iterdir())
    if not content:
        return
    if RECORD_FILE not in content:
        raise ArtefactError(
            f"{target} contains other files ({name_some(content, 3)}), which an export would "
            "delete. Choose a folder that does not exist yet."
        )
    others = [name for name in content if name not in FILES]
    if others:
        raise ArtefactError(
            f"{target} contains an export and other files ({name_some(others, 3)}), which a new "
            "export would delete. Move them, or choose another folder."
        )


def _model_spec(
    model: nn.Module, given: Mapping[str, Any] | None, builders: Builders
) -> BuilderSpec:
    if given is None:
        return BuilderSpec(
            None,
            note=f"A user-defined {type(model).__qualname__}: only its weights are stored. Load "
            "with Predictor.load(path, model=...) and a module of the same class.",
        )
    arguments = as_json_value(given["arguments"], "The model's arguments")
    if "weights" in arguments:
        arguments["weights"] = None
    spec = BuilderSpec(given["builder"], arguments, note=type(model).__qualname__)
    check_same_state(model, rebuild("model", spec, builders), given["builder"])
    return spec


def _preprocessor_spec(
    preprocessor: Preprocessor, builders: Builders
) -> tuple[BuilderSpec, dict[str, Tensor]]:
    name = type(preprocessor).__qualname__
    arguments = as_json_value(preprocessor.arguments(), f"{name}.arguments()")
    tensors = {
        key: to_storable(tensor, f"{name}.tensors()[{key!r}]")
        for key, tensor in preprocessor.tensors().items()
    }
    spec = BuilderSpec(preprocessor.builder, arguments, note=name)
    rebuilt = rebuild("preprocessor", spec, builders, tensors)
    if type(rebuilt) is not type(preprocessor):
        raise ArtefactError(
            f"The preprocessor is a {name}, but its builder {spec.builder!r} builds a "
            f"{type(rebuilt).__qualname__}. Register {name} in the domain under a new name, and "
            "return that name from its builder property."
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
