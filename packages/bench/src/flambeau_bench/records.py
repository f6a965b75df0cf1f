"""One JSON line a side and pair, one a verdict; appended, never rewritten; read by version."""

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
from flambeau_bench.pairing import Measured, Pair
from flambeau_bench.verdict import Outcome

SCHEMA = 1
"""Version of the lines; a reader refuses every other."""

KINDS = ("run", "void", "result", "skipped")
"""A timed side of a pair; such a side of a void pair, without its times; a verdict; a case that
could not run."""

Record = dict[str, Any]


def header(run_id: str, case: Case, size: Size) -> Record:
    """What every line of a case says: where, when and of what it is."""
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine.commit(),
        "case": case.name,
        "asks": case.asks,
        "size": asdict(size),
        "host": machine.host(),
        "device": machine.device(size.device),
        "torch": str(torch.__version__),
    }


def skipped(head: Mapping[str, Any], why: str) -> Record:
    """The line of a case that cannot run here."""
    return {**head, "kind": "skipped", "why": why}


def of_comparison(
    head: Mapping[str, Any], measured: Measured, outcomes: Sequence[Outcome]
) -> list[Record]:
    """All lines of a comparison: its floor, its pairs, its verdicts."""
    comparison = measured.comparison
    gate = outcomes[0].gate if outcomes else None
    passed = gate is not None and gate.passed
    sides = {
        "floor": (comparison.baseline, comparison.baseline),
        "pairs": (comparison.baseline, comparison.candidate),
    }
    lines: list[Record] = []
    for phase, pairs in (("floor", measured.floor), ("pairs", measured.pairs)):
        for pair in pairs:
            for side, measurement in zip(
                sides[phase], (pair.baseline, pair.candidate), strict=True
            ):
                line = _run(measurement, pair, passed=passed)
                line |= {"variant": comparison.variant, "phase": phase, "side": side}
                lines.append({**head, **line})
    for outcome in outcomes:
        lines.append({**head, **_result(measured, outcome)})
    return lines


def _run(measurement: Measurement, pair: Pair, *, passed: bool) -> Record:
    values = measurement.as_json()
    told = passed and not pair.void
    if not told:
        # A time whose gate has not passed is no result, not even one that could be quoted.
        values["figures"] = None
    return {
        "kind": "void" if pair.void else "run",
        "pair": pair.number,
        "order": pair.order,
        "side_version": flambeau.__version__,
        "gate": "passed" if passed else "failed",
        **({"why": pair.void} if pair.void else {}),
        **values,
    }


def _result(measured: Measured, outcome: Outcome) -> Record:
    comparison, question = measured.comparison, outcome.question
    return {
        "kind": "result",
        "variant": comparison.variant,
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "question": asdict(question),
        "interval": None if outcome.interval is None else outcome.interval.as_json(),
        "noise_floor": None if outcome.floor is None else outcome.floor.as_json(),
        "gate": asdict(outcome.gate),
        "verdict": outcome.verdict,
        "pairs": len(measured.pairs),
        "voided": {str(number): why for number, why in outcome.voided.items()},
        "may_differ": dict(comparison.may_differ),
        "notes": next((p.candidate.notes for p in measured.pairs if p.candidate.notes), ""),
    }


def append(folder: Path, run_id: str, records: Iterable[Mapping[str, Any]]) -> Path:
    """Adds lines to ``folder/RUN_ID.jsonl``, which is made where it is missing.

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
    """Every line of every ``*.jsonl`` in ``folder``, oldest file first.

    Raises:
        ArtefactError: There is none, or a line is damaged or of another version; with file and
            line.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise ArtefactError(
            f"There are no results (*.jsonl) in {folder}. Measure first: flambeau bench run quick."
        )
    return [record for path in paths for record in _lines(path)]


def _lines(path: Path) -> list[Record]:
    found: list[Record] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ArtefactError(
                f"Line {number} of {path} is no JSON ({error}). Remove the line, or the file."
            ) from error
        version = record.get("schema") if isinstance(record, dict) else None
        if version != SCHEMA:
            raise ArtefactError(
                f"Line {number} of {path} has schema {version!r}, but this release reads {SCHEMA}. "
                "Read it with the release that wrote it, or move the file away."
            )
        if record.get("kind") not in KINDS:
            raise ArtefactError(
                f"Line {number} of {path} is of the kind {record.get('kind')!r}, but there are "
                f"only {', '.join(KINDS)}. Remove the line, or the file."
            )
        found.append(record)
    return found


def _finite(value: Any) -> Any:
    """The same with NaN and infinities, which JSON does not have, as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
