"""The record in the folder of ``fit_folds`` that says what is trained in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from flambeau.artefact.export_format import as_json_value
from flambeau.atomic_write import replace_text
from flambeau.data.data import Data
from flambeau.errors import ArgumentError
from flambeau.learner.run_folder import run_exists_error
from flambeau.learner.setup import Setup

RECORD = "folds.json"
"""The file with the record."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record in a folder; None without one."""
    file = folder / RECORD
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def check_folder(
    setup: Setup, folds: Sequence[Data], arguments: Mapping[str, Any], *, resume: bool
) -> None:
    """Write what is trained to the folder, or compare it with what is written there.

    Args:
        setup: The setup of the learner.
        folds: The data of each fold.
        arguments: The arguments of ``fit_folds``.
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
    wanted = {**arguments, "folds": folds_of_data, "plan": _kept_values(setup)}
    wanted = as_json_value(wanted, "the arguments of fit_folds")
    file = folder / RECORD
    if not file.exists():
        if resume:
            raise ArgumentError(
                f"There is nothing to resume in {folder}: it has no {RECORD}. Omit resume=True."
            )
        others = [each.name for each in folder.iterdir()] if folder.exists() else []
        if set(others) - {"plan.json"}:
            raise run_exists_error(folder, sorted(others)[0])
        replace_text(file, json.dumps(wanted, indent=2))
        return
    if not resume:
        raise ArgumentError(
            f"{folder} already contains the models of fit_folds. Continue them with the same "
            "arguments and resume=True (--resume), or use another folder."
        )
    _compare(folder, json.loads(file.read_text(encoding="utf-8")), wanted)


def _compare(folder: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, now in wanted.items():
        before = saved.get(key)
        if before == now:
            continue
        shown = key
        if isinstance(now, Mapping) and isinstance(before, Mapping):
            values, others = cast("Mapping[str, Any]", now), cast("Mapping[str, Any]", before)
            shown = next(n for n in {**others, **values} if others.get(n) != values.get(n))
            before, now = others.get(shown), values.get(shown)  # noqa: PLW2901
        reason = "" if key == "folds" else f" ({before!r:.60} there, {now!r:.60} now)"
        raise ArgumentError(
            f"The models in {folder} were trained with other {key}: {shown} differs{reason}. Use "
            "the same data and arguments to resume, or another folder."
        )


def _kept_values(setup: Setup) -> dict[str, Any]:
    """Return the values of the plan that do not belong to the machine."""
    rules, values = setup.plan.rules, setup.plan.values
    return {key: value for key, value in values.items() if not rules[key].of_machine}
