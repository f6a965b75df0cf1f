"""Write and read results as JSON lines: one line per side of a pair, and one per verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import flambeau
from flambeau.errors import ArtefactError, StorageError
from flambeau_bench import machine
from flambeau_bench.case import Case, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.pairing import MeasuredPairs, Pair
from flambeau_bench.verdict import Outcome

SCHEMA = 2
"""Version of the format of the lines. Lines of another version are refused."""

KINDS = ("run", "invalid", "result", "skipped")
"""The kinds of lines: "run" is one side of a pair, "invalid" one side of an invalid pair (without
times), "result" a verdict, "skipped" a case that could not run."""

Record = dict[str, Any]


def header(run_id: str, case: Case, size: Size) -> Record:
    """Return the fields common to all records of a case: case, time, machine and versions."""
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine.commit(),
        "case": case.name,
        "question": case.question,
        "size": asdict(size),
        "host": machine.host(),
        "device": machine.device(size.device),
        "torch": str(torch.__version__),
    }


def skipped_record(head: Mapping[str, Any], reason: str) -> Record:
    """Return the record of a case that cannot run here."""
    return {**head, "kind": "skipped", "reason": reason}


def comparison_records(
    head: Mapping[str, Any], measured: MeasuredPairs, outcomes: Sequence[Outcome]
) -> list[Record]:
    """Return all records of a comparison: noise floor, pairs, verdicts."""
    comparison = measured.comparison
    gate = outcomes[0].gate if outcomes else None
    passed = gate is not None and gate.passed
    sides = {
        "floor": (comparison.baseline, comparison.baseline),
        "pairs": (comparison.baseline, comparison.candidate),
    }
    records: list[Record] = []
    for phase, pairs in (("floor", measured.floor), ("pairs", measured.pairs)):
        for pair in pairs:
            for side, measurement in zip(
                sides[phase], (pair.baseline, pair.candidate), strict=True
            ):
                record = _run(measurement, pair, passed=passed)
                record |= {"variant": comparison.variant, "phase": phase, "side": side}
                records.append({**head, **record})
    for outcome in outcomes:
        records.append({**head, **_result(measured, outcome)})
    return records


def _run(measurement: Measurement, pair: Pair, *, passed: bool) -> Record:
    values = measurement.as_json()
    if pair.invalid or not passed:
        # If the quality condition is not met, a time must not be reported or quoted.
        values["figures"] = None
    return {
        "kind": "invalid" if pair.invalid else "run",
        "pair": pair.number,
        "order": pair.order,
        "side_version": flambeau.__version__,
        "gate": "passed" if passed else "failed",
        **({"reason": pair.invalid} if pair.invalid else {}),
        **values,
    }


def _result(measured: MeasuredPairs, outcome: Outcome) -> Record:
    comparison = measured.comparison
    return {
        "kind": "result",
        "variant": comparison.variant,
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "criterion": asdict(outcome.criterion),
        "interval": None if outcome.interval is None else outcome.interval.as_json(),
        "noise_floor": None if outcome.floor is None else outcome.floor.as_json(),
        "gate": asdict(outcome.gate),
        "verdict": outcome.verdict,
        "pairs": len(measured.pairs),
        "invalid_pairs": {str(number): why for number, why in outcome.invalid_pairs.items()},
        "may_differ": dict(comparison.may_differ),
        "notes": next((p.candidate.notes for p in measured.pairs if p.candidate.notes), ""),
    }


def append(folder: Path, run_id: str, records: Iterable[Mapping[str, Any]]) -> Path:
    """Append lines to ``folder/RUN_ID.jsonl``, which is created if it is missing.

    Raises:
        StorageError: The file cannot be written.
    """
    path = folder / f"{run_id}.jsonl"
    text = "".join(json.dumps(_finite(record)) + "\n" for record in records)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StorageError(
            f"The results cannot be written to {path}: {error}. Name another folder with --out."
        ) from error
    return path


def read(folder: Path) -> list[Record]:
    """Return all records of all ``*.jsonl`` files in ``folder``, oldest file first.

    Raises:
        ArtefactError: There are no results, or a line is damaged or has another version; the
            message names file and line.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise ArtefactError(
            f"No results (*.jsonl) in {folder}. Measure first: flambeau bench run quick."
        )
    return [record for path in paths for record in _lines(path)]


def read_if_any(folder: Path) -> list[Record]:
    """Return all records in ``folder`` as ``read`` does; none if it has no results.

    Raises:
        ArtefactError: As for ``read``.
    """
    return read(folder) if any(folder.glob("*.jsonl")) else []


def _lines(path: Path) -> list[Record]:
    found: list[Record] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ArtefactError(
                f"Line {number} of {path} is not valid JSON ({error}). Remove the line or the file."
            ) from error
        version = record.get("schema") if isinstance(record, dict) else None
        if version != SCHEMA:
            raise ArtefactError(
                f"Line {number} of {path} has schema {version!r}, but this release reads schema "
                f"{SCHEMA}. Read it with the release that wrote it, or move the file away."
            )
        if record.get("kind") not in KINDS:
            raise ArtefactError(
                f"Line {number} of {path} has the unknown kind {record.get('kind')!r}; known are "
                f"{', '.join(KINDS)}. Remove the line or the file."
            )
        found.append(record)
    return found


def _finite(value: Any) -> Any:
    """Return ``value`` with NaN and infinities, which JSON lacks, replaced by None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
