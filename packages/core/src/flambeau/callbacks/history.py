"""``HistoryWriter``: the history as a file that grows with the run."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from flambeau.artefact.atomic import explained
from flambeau.errors import FlambeauWarning, InputError, StorageError, nearest
from flambeau.training.events import Callback
from flambeau.training.history import Number
from flambeau.training.state import TrainState

_FORMATS = ("csv", "jsonl")


class HistoryWriter(Callback):
    """Appends each epoch's row to ``history.csv`` (or ``.jsonl``) in the run's folder.

    At the start of a fit the file is written anew from ``state.history``: a resumed run continues
    it, without the rows that an interrupted one had written after its last checkpoint. A run
    without a folder writes nothing.

    Args:
        format: "csv" (columns are added as they appear) or "jsonl" (one object a row; NaN and
            infinities, which JSON does not have, as null).

    Raises:
        InputError: The format is neither.
        StorageError: The file cannot be written at the start of a fit. Later that is a
            FlambeauWarning, and training goes on.
    """

    every_process = False

    def __init__(self, format: Literal["csv", "jsonl"] = "csv") -> None:
        if format not in _FORMATS:
            raise InputError(f"There is no history format {format!r}. {nearest(format, _FORMATS)}")
        self.format = format
        self._columns: list[str] = []
        self._stale = False

    def on_fit_start(self, state: TrainState) -> None:
        path = self._path(state)
        if path is not None:
            # Even where there is no row yet: a folder that cannot be written should be known now.
            self._rewrite(path, state.history.rows)

    def on_epoch_end(self, state: TrainState) -> None:
        path = self._path(state)
        if path is None:
            return
        row = state.history.rows[-1]
        whole = self._stale or not path.exists()
        try:
            if whole or (self.format == "csv" and not set(row) <= set(self._columns)):
                self._rewrite(path, state.history.rows)
                return
            with explained(path), path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text([row]))
        except StorageError as error:
            # The rows are in state.history too; the next epoch writes them all.
            self._stale = True
            warnings.warn(
                f"[history-not-written] {error} Training goes on.",
                FlambeauWarning,
                stacklevel=2,
            )

    def _path(self, state: TrainState) -> Path | None:
        return None if state.folder is None else Path(state.folder) / f"history.{self.format}"

    def _rewrite(self, path: Path, rows: Sequence[dict[str, Number]]) -> None:
        # dict.fromkeys keeps the order in which columns appeared.
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        header = ",".join(self._columns) + "\n" if self.format == "csv" and self._columns else ""
        part = path.with_name(path.name + ".part")
        try:
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(header + self._text(rows), encoding="utf-8", newline="")
                os.replace(part, path)
        finally:
            with suppress(OSError):  # there no longer, or in a place that refuses everything
                part.unlink()
        self._stale = False

    def _text(self, rows: Sequence[dict[str, Number]]) -> str:
        if self.format == "jsonl":
            return "".join(json.dumps(_without_nan(row)) + "\n" for row in rows)
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


def _without_nan(row: dict[str, Number]) -> dict[str, Number | None]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
