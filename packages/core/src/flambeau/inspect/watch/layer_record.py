"""``LayerRecord``: the statistics of all watched steps on the host, and their JSON Lines file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.atomic_write import replace_text, storage_errors
from flambeau.errors import InputError, check_path, did_you_mean
from flambeau.inspect.watch.layer_watch import StepReading
from flambeau.inspect.watch.log_bins import N_BINS
from flambeau.inspect.watch.noise_scale import noise_scale
from flambeau.inspect.watch.watched_layer import COLUMNS, ROW_SIZE, WatchedLayer, WatchedWeight
from flambeau.inspect.watch.weight_watch import WEIGHT_COLUMNS
from flambeau.plotting import to_list

MOST_STEPS = 1000
"""Watched steps that are kept; of more, every second one is dropped."""

Series = dict[int, Tensor]
"""Rows by step."""


class LayerRecord:
    """The statistics of layers and weights over the watched steps of a training.

    Attributes:
        layers: The layers by name, in the order of the forward pass.
        weights: The parameters by name.
        rows: ``ROW_SIZE`` numbers by step, by layer.
        weight_rows: ``WEIGHT_COLUMNS`` by step, by weight.
        values: lr and other values by step.
        noise: Estimates of ``|G|²`` and ``tr(Σ)`` by step, of steps with accumulation.
        last_active: The last watched step in which each unit was not 0, by layer; -1 for never.
        notes: What could not be watched.
        deliberately_frozen: Whether the last phase froze parameters.
    """

    def __init__(self) -> None:
        self.layers: dict[str, WatchedLayer] = {}
        self.weights: dict[str, WatchedWeight] = {}
        self.rows: dict[str, Series] = {}
        self.weight_rows: dict[str, Series] = {}
        self.values: dict[int, dict[str, float]] = {}
        self.noise: dict[int, tuple[float, float]] = {}
        self.last_active: dict[str, Tensor] = {}
        self.notes: list[str] = []
        self.deliberately_frozen = False
        self._columns: dict[str, dict[int, list[float]]] = {}
        self._weight_columns: dict[str, dict[int, list[float]]] = {}

    @property
    def steps(self) -> list[int]:
        """The watched steps, in order."""
        return list(self.values)

    def add(self, readings: Iterable[StepReading]) -> None:
        """Append watched steps."""
        for reading in readings:
            self.values[reading.step] = reading.values
            for name, row in reading.layers.items():
                self.rows.setdefault(name, {})[reading.step] = row
            for name, row in reading.weights.items():
                self.weight_rows.setdefault(name, {})[reading.step] = row
            if reading.noise is not None:
                self.noise[reading.step] = reading.noise
            self._forget_columns()

    def thin_out(self) -> bool:
        """Drop every second step if there are more than ``MOST_STEPS``; return whether it did."""
        if len(self.values) <= MOST_STEPS:
            return False
        for step in self.steps[1::2]:
            every: Iterator[dict[int, Any]] = iter(
                [self.values, self.noise, *self.rows.values(), *self.weight_rows.values()]
            )
            for series in every:
                series.pop(step, None)
        # A layer that ran in none of the steps that are left has no series.
        self.rows = {name: series for name, series in self.rows.items() if series}
        self.weight_rows = {name: each for name, each in self.weight_rows.items() if each}
        self._forget_columns()
        return True

    def series(self, layer: str, column: str) -> dict[int, float]:
        """Return a statistic of a layer by step; steps without it are left out.

        Args:
            layer: Name of a layer.
            column: A name in ``COLUMNS``.

        Raises:
            InputError: There is no such layer or column.
        """
        _check_known(layer, [*self.layers, *self.rows], "layer")
        _check_known(column, COLUMNS, "statistic of a layer")
        rows = _numbers(self._columns, layer, self.rows, len(COLUMNS))
        return _column(rows, COLUMNS.index(column))

    def weight_series(self, weight: str, column: str) -> dict[int, float]:
        """Return a statistic of a weight by step, as ``series`` does.

        In place of a ``gradient_norm`` there may be ``weight_watch.NO_GRADIENT`` (-1), ``FROZEN``
        (-2), or ``NO_OPTIMIZER`` (-3).
        """
        _check_known(weight, [*self.weights, *self.weight_rows], "weight")
        _check_known(column, WEIGHT_COLUMNS, "statistic of a weight")
        rows = _numbers(self._weight_columns, weight, self.weight_rows, len(WEIGHT_COLUMNS))
        return _column(rows, WEIGHT_COLUMNS.index(column))

    def histograms(self, layer: str, *, gradients: bool = False) -> dict[int, Tensor]:
        """Return the shares of the values in each bin, ``(N_BINS,)``, by step."""
        _check_known(layer, self.rows, "layer")
        first = len(COLUMNS) + (N_BINS if gradients else 0)
        found = {step: row[first : first + N_BINS] for step, row in self.rows[layer].items()}
        return {step: row for step, row in found.items() if not bool(row.isnan().any())}

    def has_histograms(self, layer: str) -> bool:
        """Return whether any step has a histogram of the outputs of a layer."""
        return bool(self.series(layer, "mean"))

    def noise_scale(self) -> float | None:
        """Return the gradient noise scale in micro-batches; None without accumulation."""
        return noise_scale(list(self.noise.values()))

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return the record as JSON values and tensors."""
        return {
            "layers": [each.to_json() for each in self.layers.values()],
            "weights": [each.to_json() for each in self.weights.values()],
            "rows": {name: _stacked(series) for name, series in self.rows.items()},
            "weight_rows": {name: _stacked(series) for name, series in self.weight_rows.items()},
            "values": [[step, dict(values)] for step, values in self.values.items()],
            "noise": [[step, *pair] for step, pair in self.noise.items()],
            "last_active": dict(self.last_active),
            "notes": list(self.notes),
            "deliberately_frozen": self.deliberately_frozen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        self._forget_columns()
        self.layers = {each["name"]: _layer(each) for each in state["layers"]}
        self.weights = {each["name"]: _weight(each) for each in state["weights"]}
        self.rows = {name: _unstacked(each) for name, each in state["rows"].items()}
        self.weight_rows = {name: _unstacked(each) for name, each in state["weight_rows"].items()}
        self.values = {int(step): dict(values) for step, values in state["values"]}
        self.noise = {int(step): (a, b) for step, a, b in state["noise"]}
        self.last_active = dict(state["last_active"])
        self.notes = list(state["notes"])
        self.deliberately_frozen = bool(state["deliberately_frozen"])

    def _forget_columns(self) -> None:
        self._columns, self._weight_columns = {}, {}

    # The file

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record as JSON Lines: what is watched, then the steps and their layers.

        Raises:
            StorageError: The file cannot be written.
        """
        target = Path(path)
        replace_text(target, "".join(self._text(self.steps)))
        return target

    def append(self, path: Path, steps: Iterable[int]) -> None:
        """Append watched steps to a file that ``save`` has written.

        Raises:
            StorageError: The file cannot be written.
        """
        with storage_errors(path), path.open("a", encoding="utf-8") as file:
            file.writelines(self._text(steps))

    def lines_of(self, step: int) -> Iterator[dict[str, Any]]:
        """Yield the lines of a step: its values, then its layers."""
        values: dict[str, Any] = {"step": step, **_finite(self.values[step])}
        if step in self.noise:
            square, trace = self.noise[step]
            values |= {"gradient_square": _rounded(square), "noise_trace": _rounded(trace)}
        yield values
        of_layer: dict[str, dict[str, Any]] = {}
        for name, series in self.weight_rows.items():
            if step in series:
                numbers = zip(WEIGHT_COLUMNS, map(_rounded, to_list(series[step])), strict=True)
                found = {key: value for key, value in numbers if value is not None}
                of_layer.setdefault(self.weights[name].layer, {})[name] = found
        for name in dict.fromkeys((*self.layers, *of_layer)):
            row = self.rows.get(name, {}).get(step)
            line: dict[str, Any] = {"step": step, "layer": name}
            if row is not None:
                line |= _row_values(row)
            if name in of_layer:
                line["weights"] = of_layer[name]
            if len(line) > 2:
                yield line

    def header(self) -> dict[str, Any]:
        """Return the line that says what is watched; in a file the last such line counts."""
        return {
            "inspect": 1,
            "layers": [each.to_json() for each in self.layers.values()],
            "weights": [each.to_json() for each in self.weights.values()],
            "last_active": {
                name: list(map(int, to_list(each))) for name, each in self.last_active.items()
            },
            "notes": self.notes,
            "deliberately_frozen": self.deliberately_frozen,
        }

    def _text(self, steps: Iterable[int]) -> Iterator[str]:
        yield json.dumps(self.header()) + "\n"
        for step in steps:
            for line in self.lines_of(step):
                yield json.dumps(line) + "\n"


def load_record(path: str | os.PathLike[str]) -> LayerRecord:
    """Return the record in a JSON Lines file, or in the folder of a run.

    Raises:
        InputError: There is no such file, or it is not a record.
    """
    check_path(path, "path")
    target = Path(path)
    if target.is_dir():
        target = target / FILE_NAME
    try:
        lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
        # A process that was killed while it wrote leaves an incomplete last line.
        whole = [line for line in lines if line.endswith("\n")]
        return _from_lines(map(json.loads, whole))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{target} cannot be read as the record of learner.inspect ({error!r:.100}). Pass the "
            f"folder of a run that was inspected, or its file {FILE_NAME}."
        ) from error


FILE_NAME = "inspect.jsonl"
"""Name of the file in the folder of a run."""


def _from_lines(lines: Iterable[Mapping[str, Any]]) -> LayerRecord:
    record = LayerRecord()
    for line in lines:
        if "inspect" in line:
            _read_header(record, line)
            continue
        step = int(line["step"])
        if "layer" not in line:
            own = {name: value for name, value in line.items() if name != "step"}
            pair = own.pop("gradient_square", None), own.pop("noise_trace", None)
            if pair[0] is not None and pair[1] is not None:
                record.noise[step] = _number(pair[0]), _number(pair[1])
            record.values[step] = own
            continue
        for name, numbers in line.get("weights", {}).items():
            row = [_number(numbers.get(column)) for column in WEIGHT_COLUMNS]
            record.weight_rows.setdefault(name, {})[step] = torch.tensor(row)
        if "mean" in line:
            record.rows.setdefault(line["layer"], {})[step] = _row_of(line)
    return record


def _read_header(record: LayerRecord, line: Mapping[str, Any]) -> None:
    record.layers = {each["name"]: _layer(each) for each in line["layers"]}
    record.weights = {each["name"]: _weight(each) for each in line["weights"]}
    record.last_active = {
        name: torch.tensor(each, dtype=torch.int32) for name, each in line["last_active"].items()
    }
    record.notes = list(line["notes"])
    record.deliberately_frozen = bool(line["deliberately_frozen"])


def _check_known(name: str, known: Iterable[str], what: str) -> None:
    names = list(dict.fromkeys(known))
    if name not in names:
        raise InputError(f"No watched {what} is called {name!r}. {did_you_mean(name, names)}")


def _numbers(
    known: dict[str, dict[int, list[float]]], name: str, rows: Mapping[str, Series], size: int
) -> dict[int, list[float]]:
    """Return the first ``size`` numbers by step; read from the tensors once for all columns."""
    series = rows.get(name, {})
    if name not in known or len(known[name]) != len(series):
        table = torch.stack([row[:size] for row in series.values()]) if series else torch.empty(0)
        known[name] = dict(zip(series, cast("list[list[float]]", to_list(table)), strict=True))
    return known[name]


def _column(rows: Mapping[int, Sequence[float]], index: int) -> dict[int, float]:
    return {step: row[index] for step, row in rows.items() if not math.isnan(row[index])}


def _row_values(row: Tensor) -> dict[str, Any]:
    numbers = [_rounded(value) for value in to_list(row)]
    found: dict[str, Any] = {"mean": None}
    found |= {
        name: value for name, value in zip(COLUMNS, numbers, strict=False) if value is not None
    }
    first = len(COLUMNS)
    for name, shares in (
        ("histogram", numbers[first : first + N_BINS]),
        ("gradient_histogram", numbers[first + N_BINS :]),
    ):
        if None not in shares:
            found[name] = shares
    return found


def _row_of(line: Mapping[str, Any]) -> Tensor:
    row = [_number(line.get(column)) for column in COLUMNS]
    for name in ("histogram", "gradient_histogram"):
        row += line.get(name, [math.nan] * N_BINS)
    found = torch.tensor(row)
    if len(found) != ROW_SIZE:
        raise ValueError(f"a row has {len(found)} numbers, not {ROW_SIZE}")
    return found


def _number(value: Any) -> float:
    """Return a number of the file; infinity is written as text."""
    return math.nan if value is None else float(value)


def _rounded(value: float) -> float | str | None:
    """Return a number with five significant digits; None for NaN, text for infinity."""
    if math.isnan(value):
        return None
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _stacked(series: Series) -> dict[str, Any]:
    return {"steps": list(series), "rows": torch.stack(list(series.values()))}


def _unstacked(state: Mapping[str, Any]) -> Series:
    rows = torch.as_tensor(state["rows"])
    return {int(step): row for step, row in zip(state["steps"], rows, strict=True)}


def _layer(values: Mapping[str, Any]) -> WatchedLayer:
    return WatchedLayer(**{each.name: values[each.name] for each in fields(WatchedLayer)})


def _weight(values: Mapping[str, Any]) -> WatchedWeight:
    shape = tuple(map(int, values["shape"]))
    given: dict[str, Any] = {**values, "shape": shape}
    return WatchedWeight(**given)
