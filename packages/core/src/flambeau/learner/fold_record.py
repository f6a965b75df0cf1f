"""The record in the folder of ``fit_folds`` that says what is trained in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from flambeau.artefact.export_format import as_json_value
from flambeau.artefact.model_tensors import load_weights, state_tensors
from flambeau.artefact.saved_weights import read_saved_weights
from flambeau.artefact.verified_files import write_tensors
from flambeau.atomic_write import replace_text, storage_errors
from flambeau.data.data import Data
from flambeau.errors import ArgumentError
from flambeau.learner.build import UserObjects
from flambeau.learner.run_folder import run_exists_error
from flambeau.learner.setup import Setup
from flambeau.task.task import Task
from flambeau.wording import class_name

RECORD = "folds.json"
"""The file with the record."""

FIRST_WEIGHTS = "first_weights.safetensors"
"""The file with the weights of the user's module before the training."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record in a folder; None without one."""
    file = folder / RECORD
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def check_folder(
    setup: Setup,
    folds: Sequence[Data],
    arguments: Mapping[str, Any],
    given: UserObjects,
    *,
    resume: bool,
) -> None:
    """Write what is trained to the folder, or compare it with what is written there.

    Args:
        setup: The setup of the learner.
        folds: The data of each fold.
        arguments: The arguments of ``fit_folds``.
        given: The user's module and task. The first weights of the module are written too; if
            resumed, it gets them back: a script that does not seed torch makes other ones each
            time.
        resume: Whether to continue.

    Raises:
        ArgumentError: There is no folder to resume from, it contains something else, or it
            contains this and ``resume`` is not set.
    """
    folder = setup.folder
    if folder is None:
        if resume:
            raise ArgumentError(
                "resume=True needs the folder of the models. Give it to the learner: "
                "Learner(data, folder=…)."
            )
        return
    folds_of_data = [dict(each.fingerprint()) for each in folds]
    module, task = given.model, {} if given.task is None else _settings(given.task)
    wanted = {**arguments, "folds": folds_of_data, "plan": _kept_values(setup), "task": task}
    wanted = as_json_value(wanted, "the arguments of fit_folds")
    file = folder / RECORD
    if not file.exists():
        if resume:
            raise ArgumentError(
                f"There is nothing to resume in {folder}: it has no {RECORD}. Omit resume=True."
            )
        others = [each.name for each in folder.iterdir()] if folder.exists() else []
        if set(others) - {"plan.json", FIRST_WEIGHTS}:
            raise run_exists_error(folder, sorted(others)[0])
        if module is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with storage_errors(folder / FIRST_WEIGHTS):
                write_tensors(folder / FIRST_WEIGHTS, state_tensors(module))
        replace_text(file, json.dumps(wanted, indent=2))
        return
    if not resume:
        raise ArgumentError(
            f"{folder} already contains the models of fit_folds. Continue them with the same "
            "arguments and resume=True (--resume), or use another folder."
        )
    _compare(folder, json.loads(file.read_text(encoding="utf-8")), wanted)
    weights = folder / FIRST_WEIGHTS
    if module is not None and weights.is_file():
        load_weights(module, read_saved_weights(weights), str(weights))


def _compare(folder: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        before, now, shown = saved.get(key), value, key
        if before == now or key not in saved:  # a record of an earlier release has fewer keys
            continue
        if key == "folds":
            pairs = zip(cast("list[Any]", before or []), cast("list[Any]", now), strict=False)
            before, now = next((pair for pair in pairs if pair[0] != pair[1]), (before, now))
        if isinstance(now, Mapping) and isinstance(before, Mapping):
            values, others = cast("Mapping[str, Any]", now), cast("Mapping[str, Any]", before)
            shown = next(n for n in {**others, **values} if others.get(n) != values.get(n))
            before, now = others.get(shown), values.get(shown)
        reason = f" ({before!r:.60} there, {now!r:.60} now)"
        raise ArgumentError(
            f"The models in {folder} were trained with other {key}: {shown} differs{reason}. Use "
            "the same data and arguments to resume, or another folder."
        )


def _settings(task: Task) -> dict[str, Any]:
    """Return the class of a task, its arguments, and its attributes that are plain values."""
    plain = {
        name: value for name, value in vars(task).items() if type(value) in (bool, int, float, str)
    }
    content = {"class": class_name(task), **plain, **task.arguments()}
    return json.loads(json.dumps(content, default=class_name))


def _kept_values(setup: Setup) -> dict[str, Any]:
    """Return the values of the plan that do not belong to the machine."""
    rules, values = setup.plan.rules, setup.plan.values
    return {key: value for key, value in values.items() if not rules[key].of_machine}
