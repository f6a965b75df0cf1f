"""``SavedRun``: what the folder of a run says about it, also if files are missing or damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
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
        members: Number of models of ``fit_folds`` in the folder; 0 for a single run.
    """

    folder: Path
    status: str
    plan: Plan | None
    history: History
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    problems: tuple[str, ...] = ()
    members: int = 0

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
        return self.record.get("seed")

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
        return _mapping(self.record.get("options"))

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
        return str(self.fits[0].get("started")) if self.fits else None

    @property
    def reason(self) -> str | None:
        """Why the last fit ended early or failed; None if it is not known."""
        return self.fits[-1].get("reason") if self.fits else None

    @property
    def seconds(self) -> float | None:
        """Seconds of training and evaluation over all epochs; None if they are not known."""
        found = _numbers(self.history, "seconds")
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
        """The validation scores of the weights that the run ended with, without "valid_"."""
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
    members = len(list(folder.glob("fold-*"))) if (folder / FOLDS_NAME).is_file() else 0
    is_exported = (folder / EXPORT_OF_RUN).is_dir()
    status = status_of_record(record) if record else status_of_checkpoint(checkpoint)
    if status == "unknown" and is_exported:  # an export is written after the training
        status = "finished"
    return SavedRun(folder, status, plan, history, record, tuple(problems), members)


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


def _numbers(history: History, name: str) -> list[float]:
    found = [row[name] for row in history.rows if name in row]
    return [float(value) for value in found if isinstance(value, int | float)]
