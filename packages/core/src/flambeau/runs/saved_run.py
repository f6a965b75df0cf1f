"""``SavedRun``: what the folder of a run says about it, also if files are missing or damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from flambeau.artefact.export_format import EXPORT_OF_RUN
from flambeau.callbacks.history_writer import read_history
from flambeau.callbacks.run_record import FORMAT, RECORD_NAME, SCHEMA_VERSION
from flambeau.errors import FlambeauError, InputError
from flambeau.plan import Plan
from flambeau.runs.run_status import newest_checkpoint, status_of_checkpoint, status_of_record
from flambeau.training.history import History
from flambeau.wording import type_and_first_line

PLAN_NAME, FOLDS_NAME = "plan.json", "folds.json"

_MARKS = (RECORD_NAME, FOLDS_NAME, "history.csv", "history.jsonl", "checkpoints")


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A run, as its folder describes it.

    Attributes:
        folder: The folder.
        status: "finished", "interrupted", "failed", "running", or "unknown".
        plan: The plan; None if it is not known.
        history: The rows of the history; without rows if there are none.
        record: The content of ``run.json``; empty for a run of an earlier release.
        problems: What could not be read, one line each.
        models: The models of ``fit_folds`` in the folder; empty for a single run.
    """

    folder: Path
    status: str
    plan: Plan | None
    history: History
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    problems: tuple[str, ...] = ()
    models: tuple[SavedRun, ...] = ()

    @property
    def members(self) -> int:
        """Number of models of ``fit_folds``; 0 for a single run."""
        return len(self.models)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name or str(self.folder)

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The plan's values by key; empty without a plan."""
        return {} if self.plan is None else self.plan.values

    @property
    def seed(self) -> int | None:
        """Seed of the run; None if it is not known."""
        seed: object = self.record.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def earlier_epochs(self) -> int:
        """Epochs of earlier fits of the same learner: the plan has those of the last one."""
        rows = self.history.rows
        done: object = rows[-1].get("epoch") if rows else None
        planned: object = self.values.get("epochs")
        return max(0, done - planned) if isinstance(done, int) and isinstance(planned, int) else 0

    @property
    def data(self) -> Mapping[str, Any]:
        """Values that identify the data (``Data.fingerprint``); empty if they are not known."""
        return _mapping(self.record.get("data"))

    @property
    def data_digest(self) -> str | None:
        """Six characters that differ for other data or other parts; None if they are not known."""
        if not self.data:
            return None
        text = json.dumps(self.data, sort_keys=True, default=str)
        return blake2b(text.encode(), digest_size=3).hexdigest()

    @property
    def model(self) -> Mapping[str, Any]:
        """Class, number of parameters and digest of the model; empty if they are not known."""
        return _mapping(self.record.get("model"))

    @property
    def options(self) -> Mapping[str, str]:
        """Training options that differ from the defaults, as text."""
        options = _mapping(self.record.get("options"))
        return {name: str(value) for name, value in options.items()}

    @property
    def machine(self) -> Mapping[str, Any]:
        """Host, processor, device and versions; empty if they are not known."""
        return _mapping(self.record.get("machine"))

    @property
    def git(self) -> Mapping[str, Any]:
        """Commit, branch and number of changed files; empty outside of git or if not known."""
        return _mapping(self.record.get("git"))

    @property
    def fits(self) -> list[Mapping[str, Any]]:
        """The fits of the run: start, end, status, reason."""
        found: object = self.record.get("fits")
        if not isinstance(found, list):
            return []
        return [_mapping(each) for each in cast("list[object]", found)]

    @property
    def started(self) -> str | None:
        """When the first fit started, in ISO format; None if it is not known."""
        if self.models:
            return min((each.started for each in self.models if each.started), default=None)
        started = self.fits[0].get("started") if self.fits else None
        return None if started is None else str(started)

    @property
    def reason(self) -> str | None:
        """Why the last fit ended early or failed; None if it is not known."""
        reason = self.fits[-1].get("reason") if self.fits else None
        return None if reason is None else str(reason)

    @property
    def seconds(self) -> float | None:
        """Seconds of training and evaluation over all epochs; None if they are not known."""
        found = numbers_of(self.history, "seconds")
        found += [each.seconds for each in self.models if each.seconds is not None]
        return math.fsum(found) if found else None

    @property
    def modes(self) -> Mapping[str, str]:
        """Whether smaller ("min") or larger ("max") values of a history column are better."""
        found = _mapping(self.record.get("modes"))
        return found or {"train_loss": "min", "valid_loss": "min"}

    @property
    def monitor(self) -> str | None:
        """The column of the history that selects the weights; None for those of the last epoch."""
        chosen = self.values.get("keep_best")
        return chosen if isinstance(chosen, str) else self.options.get("keep_best")

    @cached_property
    def scores(self) -> dict[str, float]:
        """The validation scores of the weights that the run ended with, without "valid_".

        For the models of ``fit_folds`` they are the means of their scores on the held-out folds.
        """
        if self.models:
            each = [model.scores for model in self.models]
            names = [name for name in each[0] if all(name in one for one in each)]
            return {name: math.fsum(one[name] for one in each) / len(each) for name in names}
        rows = self.history.rows
        if not rows:
            return {}
        row, monitor = rows[-1], self.monitor
        if monitor and monitor in self.modes:
            known = [each for each in rows if _is_finite(each.get(monitor))]
            pick = min if self.modes[monitor] == "min" else max
            row = pick(known, key=lambda each: float(each[monitor]), default=row)
        return {
            name.removeprefix("valid_"): float(value)
            for name, value in row.items()
            if name.startswith("valid_") and isinstance(value, int | float)
        }


def is_run(folder: Path) -> bool:
    """Return whether a folder has the files of a run.

    Raises:
        OSError: The folder cannot be read.
    """
    return any((folder / name).exists() for name in _MARKS)


def read_run(folder: str | Path) -> SavedRun:
    """Return what the folder of a run says about it.

    Damaged files are listed in ``problems``; what other files say is used.

    Raises:
        InputError: The folder does not exist or has no file of a run.
    """
    folder = Path(folder)
    try:
        found = is_run(folder) or (folder / PLAN_NAME).is_file()
    except OSError as error:
        raise InputError(f"Cannot read {folder}: {error.strerror}.") from error
    if not found:
        what = "is not a run: it has no run.json, plan.json, history or checkpoint"
        raise InputError(
            f"{folder} {what if folder.is_dir() else 'does not exist'}. Give the folder of a run; "
            "`flambeau runs FOLDER` lists those in a folder."
        )
    problems: list[str] = []
    record = _read_record(folder, problems)
    history = _read_history(folder, problems)
    checkpoint = newest_checkpoint(folder, problems) if not record else {}
    plan = _read_plan(folder, record, checkpoint, problems)
    if not history.rows and checkpoint:
        history.rows.extend(checkpoint.get("rows", ()))
    is_exported = (folder / EXPORT_OF_RUN).is_dir()
    models: tuple[SavedRun, ...] = ()
    if (folder / FOLDS_NAME).is_file():
        models = _read_models(folder, problems)
    if models:
        status = _status_of_folds(folder, models, problems)
        plan = plan or models[0].plan
        record = {key: models[0].record.get(key) for key in ("machine", "git", "options", "modes")}
    else:
        status = status_of_record(record) if record else status_of_checkpoint(checkpoint)
    if status == "unknown" and is_exported:  # an export is written after the training
        status = "finished"
    return SavedRun(folder, status, plan, history, record, tuple(problems), models)


def _read_models(folder: Path, problems: list[str]) -> tuple[SavedRun, ...]:
    found: list[SavedRun] = []
    for each in sorted(folder.glob("fold-*")):
        try:
            found.append(read_run(each))
        except InputError as error:
            problems.append(str(error).rstrip("."))
    return tuple(found)


def _status_of_folds(folder: Path, models: Sequence[SavedRun], problems: list[str]) -> str:
    """Return "finished" if all models are there and finished, else what keeps it from that."""
    statuses = [each.status for each in models]
    for status in ("running", "failed", "interrupted", "unknown"):
        if status in statuses:
            return status
    path = folder / FOLDS_NAME
    try:
        asked: Any = json.loads(path.read_text(encoding="utf-8"))
        is_complete = len(models) >= len(asked["folds"]) * len(asked["seeds"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        problems.append(f"{path} cannot be read ({type_and_first_line(error)})")
        return "unknown"
    return "finished" if is_complete else "interrupted"


def _read_record(folder: Path, problems: list[str]) -> dict[str, Any]:
    path = folder / RECORD_NAME
    if not path.exists():
        return {}
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path} cannot be read ({type_and_first_line(error)})")
        return {}
    record = _mapping(found)
    if record.get("format") != FORMAT:
        problems.append(f"{path} is not the record of a run")
        return {}
    if record.get("schema_version") != SCHEMA_VERSION:
        version = record.get("schema_version")
        problems.append(
            f"{path} has version {version!r}, but this flambeau reads {SCHEMA_VERSION}: read it "
            "with the release that wrote it"
        )
        return {}
    return dict(record)


def _read_history(folder: Path, problems: list[str]) -> History:
    try:
        return read_history(folder) or History()
    except (FlambeauError, OSError, ValueError) as error:
        problems.append(f"{folder}/history cannot be read ({type_and_first_line(error)})")
        return History()


def _read_plan(
    folder: Path, record: Mapping[str, Any], checkpoint: Mapping[str, Any], problems: list[str]
) -> Plan | None:
    """Return the plan of plan.json, which has what was measured last, else that of the record."""
    path = folder / PLAN_NAME
    if path.is_file():
        try:
            return Plan.load(path)
        except FlambeauError as error:
            problems.append(str(error).rstrip("."))
    for source, content in ((RECORD_NAME, record.get("plan")), ("checkpoint", checkpoint)):
        saved = checkpoint.get("plan") if source == "checkpoint" else content
        if saved:
            try:
                return Plan.from_json(_mapping(saved))
            except FlambeauError as error:
                problems.append(
                    f"{folder}: the plan in the {source} is invalid: {error}".rstrip(".")
                )
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def numbers_of(history: History, name: str) -> list[float]:
    """Return the numbers in a column; rows without one are left out."""
    found = [row[name] for row in history.rows if name in row]
    return [float(value) for value in found if isinstance(value, int | float)]
