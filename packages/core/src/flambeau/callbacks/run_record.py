"""``RunRecord``: writes what a run is to its folder: plan, data, machine, commit, how it ended."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from torch import nn

from flambeau.atomic_write import replace_text
from flambeau.errors import FlambeauWarning, StorageError
from flambeau.machine import git_state, machine_facts
from flambeau.training.events import Callback
from flambeau.training.options import TrainingOptions
from flambeau.training.state import TrainState
from flambeau.wording import class_name, type_and_first_line

RECORD_NAME = "run.json"
"""The file with the record, in the folder of a run."""

FORMAT = "flambeau-run"
SCHEMA_VERSION = 1

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class RunRecord(Callback):
    """Writes ``run.json`` to the run's folder at the start and at the end of each fit.

    The file has the plan, the identity of the data, the model, the training options, seed, machine,
    git commit of the current folder, the direction of the metrics, and for each fit when it started
    and how it ended. ``flambeau runs`` reads it. A file that cannot be written gives a warning, and
    the training continues.
    """

    every_process = False

    def __init__(self) -> None:
        self._record: dict[str, Any] = {}
        self._warns = True

    def on_fit_start(self, state: TrainState) -> None:
        if state.folder is None:
            return
        # Without finished steps it is a new run, also in the folder of a failed one.
        earlier = _fits_in(state.folder) if state.position.step else []
        fit = {
            "started": _now(),
            "ended": None,
            "status": "running",
            "process": os.getpid(),
            "first_step": state.position.step,
        }
        self._warns = True
        try:
            facts = _facts(state)
        except Exception as error:  # noqa: BLE001 - such as the repr of a user's model
            self._record = {}
            self._warn(f"The run cannot be described ({type_and_first_line(error)}).")
            return
        self._record = {**facts, "fits": [*earlier, fit]}
        self._write(state)

    def on_fit_end(self, state: TrainState) -> None:
        self._end(state, "finished", state.stop_reason)

    def on_exception(self, state: TrainState) -> None:
        error = state.exception
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        reason = None if interrupted or error is None else type_and_first_line(error)
        # The error that ends the fit is shown; a warning beside it would only hide it.
        self._warns = False
        self._end(state, "interrupted" if interrupted else "failed", reason)

    def _end(self, state: TrainState, status: str, reason: str | None) -> None:
        if state.folder is None or not self._record:
            return
        last = {"ended": _now(), "status": status, "reason": reason}
        self._record["fits"][-1].update(last, last_step=state.position.step)
        # A planner and probes may have changed the plan during the fit.
        self._record["plan"] = dict(state.plan())
        self._write(state)

    def _write(self, state: TrainState) -> None:
        path = Path(str(state.folder)) / RECORD_NAME
        text = json.dumps(self._record, indent=1, ensure_ascii=False, default=str) + "\n"
        try:
            replace_text(path, text)
        except StorageError as error:
            self._warn(str(error))

    def _warn(self, what: str) -> None:
        if not self._warns:
            return
        self._warns = False  # once per fit
        warnings.warn(
            f"[run-not-recorded] {what} Training continues; `flambeau runs` will lack this run's "
            "data, machine and commit.",
            FlambeauWarning,
            stacklevel=3,
        )


def _facts(state: TrainState) -> dict[str, Any]:
    git = _git_of_current_folder()
    plan = dict(state.plan())
    in_plan = {each["key"] for each in plan.get("choices", ())}
    options = {} if state.options is None else described_options(state.options)
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "flambeau": version("flambeau"),
        "seed": state.seed,
        "plan": plan,
        "data": dict(state.data),
        "model": _model_facts(state.model),
        "task": class_name(state.task),
        "options": {name: text for name, text in options.items() if name not in in_plan},
        "modes": dict(state.history.modes),
        "machine": machine_facts(state.device),
        "git": None if git is None else dict(git),
    }


def _git_of_current_folder() -> Mapping[str, Any] | None:
    try:
        return git_state(Path.cwd())
    except OSError:  # the current folder was removed
        return None


def _model_facts(model: nn.Module) -> dict[str, Any]:
    """Return class, number of parameters, and a digest of the layers, which tells models apart."""
    named = [(name, tuple(each.shape)) for name, each in model.named_parameters()]
    layers = _ADDRESS.sub("", f"{model!r}{named}")
    return {
        "class": type(model).__name__,
        "parameters": sum(each.numel() for each in model.parameters()),
        "digest": blake2b(layers.encode(), digest_size=8).hexdigest(),
    }


def described_options(options: TrainingOptions) -> dict[str, str]:
    """Return the options that differ from the defaults, by name, as text without addresses."""
    usual = TrainingOptions()
    return {
        each.name: _described(value)
        for each in fields(options)
        if each.name != "doctor"
        and (value := getattr(options, each.name)) != getattr(usual, each.name)
    }


def _described(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return ", ".join(_described(each) for each in cast("tuple[Any, ...]", value))
    if isinstance(value, Mapping):
        named = cast("Mapping[str, Any]", value)
        return ", ".join(f"{name}: {_described(each)}" for name, each in named.items())
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return class_name(value)
    return _ADDRESS.sub("", repr(value))


def _fits_in(folder: Path) -> list[dict[str, Any]]:
    """Return the fits of the run that this one continues; one that never ended was interrupted."""
    try:
        saved = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        fits = [dict(each) for each in saved["fits"]]
    except (OSError, ValueError, KeyError, TypeError):  # no record, or one that was cut off
        return []
    for each in fits:
        if each.get("status") == "running":
            each["status"] = "interrupted"
    return fits


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
