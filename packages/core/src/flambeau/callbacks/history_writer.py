"""``HistoryWriter``: writes the history to a file while the run proceeds."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from flambeau.atomic_write import replace_text, storage_errors
from flambeau.errors import FlambeauWarning, InputError, StorageError, did_you_mean
from flambeau.training.events import Callback
from flambeau.training.history import History, Number
from flambeau.training.state import TrainState

_FORMATS = ("csv", "jsonl")


class HistoryWriter(Callback):
    """Appends each epoch's row to ``history.csv`` (or ``.jsonl``) in the run's folder.

    At the start of a fit the file is rewritten from ``state.history``: a resumed run continues the
    file without the rows that the interrupted run wrote after its last checkpoint. A run without a
    folder writes nothing.

    Args:
        format: "csv" (columns are added when they first appear) or "jsonl" (one JSON object per
            row; NaN and infinity become null).

    Raises:
        InputError: The format is unknown.
        StorageError: The file cannot be written at the start of a fit. A later failure only gives
            a FlambeauWarning, and training continues.
    """

    every_process = False

    def __init__(self, format: Literal["csv", "jsonl"] = "csv") -> None:
        if format not in _FORMATS:
            raise InputError(f"Unknown history format {format!r}. {did_you_mean(format, _FORMATS)}")
        self.format = format
        self._columns: list[str] = []
        self._stale = False

    def on_fit_start(self, state: TrainState) -> None:
        path = self._path(state)
        if path is not None:
            # Even without rows: an unwritable folder must be reported at the start.
            self._rewrite(path, state.history.rows)

    def on_epoch_end(self, state: TrainState) -> None:
        path = self._path(state)
        if path is None:
            return
        row = state.history.rows[-1]
        rewrite = self._stale or not path.exists()
        try:
            if rewrite or (self.format == "csv" and not set(row) <= set(self._columns)):
                self._rewrite(path, state.history.rows)
                return
            with storage_errors(path), path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text([row]))
        except StorageError as error:
            # The rows are in state.history; the next epoch writes them all.
            self._stale = True
            warnings.warn(
                f"[history-not-written] {error} Training continues.",
                FlambeauWarning,
                stacklevel=2,
            )

    def _path(self, state: TrainState) -> Path | None:
        return None if state.folder is None else Path(state.folder) / f"history.{self.format}"

    def _rewrite(self, path: Path, rows: Sequence[dict[str, Number]]) -> None:
        # dict.fromkeys keeps the order in which columns first appeared.
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        header = ",".join(self._columns) + "\n" if self.format == "csv" and self._columns else ""
        replace_text(path, header + self._text(rows))
        self._stale = False

    def _text(self, rows: Sequence[dict[str, Number]]) -> str:
        if self.format == "jsonl":
            return "".join(json.dumps(_without_nan(row)) + "\n" for row in rows)
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


def read_history(folder: Path) -> History | None:
    """Return the history in ``history.csv`` or ``history.jsonl`` of a run; None without a file.

    Values that are not numbers are kept as text; the losses of single steps are not in the file.
    """
    from flambeau.data.tables import read_csv

    rows: list[Mapping[str, Any]] = []
    for path in (folder / f"history.{ending}" for ending in _FORMATS):
        if not path.is_file() or not path.stat().st_size:
            continue
        if path.suffix == ".csv":
            table = read_csv(path)
            columns = {name: table.column(name) for name in table.names}
            rows = [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    history = History()
    for row in rows:
        values = {name: _number(value) for name, value in row.items()}
        history.add({name: value for name, value in values.items() if value not in ("", None)})
    return history if history.rows else None


def _number(value: Any) -> Any:
    try:
        return int(value) if str(value).lstrip("-").isdigit() else float(value)
    except (TypeError, ValueError):
        return value


def _without_nan(row: dict[str, Number]) -> dict[str, Number | None]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
