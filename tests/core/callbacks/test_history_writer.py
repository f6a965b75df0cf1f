"""HistoryWriter: the file equals the history, also after a resume or an error."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flambeau.callbacks import HistoryWriter
from flambeau.errors import FlambeauWarning, InputError, StorageError
from flambeau.training.state import TrainState

NewState = Callable[..., TrainState]


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def same(found: list[dict[str, Any]], rows: list[dict[str, Any]], format: str) -> bool:
    if format == "jsonl":
        return found == rows
    return [{k: v for k, v in row.items() if v != ""} for row in found] == [
        {name: str(value) for name, value in row.items()} for row in rows
    ]


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_the_file_grows_with_the_run(
    format: str, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    state = new_state(tmp_path / "run", epochs=3)
    sizes = []

    class Sizes(HistoryWriter):
        def on_epoch_end(self, state: TrainState) -> None:
            super().on_epoch_end(state)
            sizes.append(len(read(tmp_path / f"run/history.{format}")))

    fit([Sizes(format)], state)
    assert sizes == [1, 2, 3]
    assert same(read(tmp_path / f"run/history.{format}"), state.history.rows, format)


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_resumed_run_writes_no_row_twice(
    format: str, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    # Killed in epoch 4 after its last checkpoint at the end of epoch 2: row 3 is written again.
    killed = fit([HistoryWriter(format)], new_state(tmp_path, epochs=3))
    resumed = new_state(tmp_path, epochs=4)
    resumed.history.rows.extend(killed.history.rows[:2])
    resumed.position.phase_epoch = resumed.position.epoch = 2
    resumed.position.step = 6
    fit([HistoryWriter(format)], resumed)
    rows = read(tmp_path / f"history.{format}")
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert same(rows, resumed.history.rows, format)


def test_a_column_that_appears_later(tmp_path: Path, new_state: NewState) -> None:
    writer, state = HistoryWriter(), new_state(tmp_path)
    writer.on_fit_start(state)
    rows = [{"epoch": 1}, {"epoch": 2, "note": 'a "quoted", note'}, {"epoch": 3}]
    for row in rows:
        state.history.add(row)
        writer.on_epoch_end(state)
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == "epoch,note"
    assert same(read(tmp_path / "history.csv"), rows, "csv")


def test_nan_and_infinity_become_null(tmp_path: Path, new_state: NewState) -> None:
    writer, state = HistoryWriter("jsonl"), new_state(tmp_path)
    state.history.add({"epoch": 1, "loss": float("nan"), "best": float("inf")})
    writer.on_epoch_end(state)
    assert read(tmp_path / "history.jsonl") == [{"epoch": 1, "loss": None, "best": None}]


def test_no_temporary_file_remains(tmp_path: Path, new_state: NewState, fit: Any) -> None:
    fit([HistoryWriter()], new_state(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_an_unwritable_folder_is_refused(tmp_path: Path, new_state: NewState) -> None:
    (tmp_path / "file").write_text("in the way")
    state = new_state(tmp_path / "file")
    with pytest.raises(StorageError, match=r"Cannot write .*file.history\.csv"):
        HistoryWriter().on_fit_start(state)


def test_a_folder_that_fails_later_gives_a_warning(tmp_path: Path, new_state: NewState) -> None:
    state, writer = new_state(tmp_path / "run"), HistoryWriter()
    writer.on_fit_start(state)
    (tmp_path / "run").rename(tmp_path / "gone")
    (tmp_path / "run").write_text("in the way")
    state.history.add({"epoch": 1})
    with pytest.warns(FlambeauWarning, match=r"history-not-written.*Training continues"):
        writer.on_epoch_end(state)
    (tmp_path / "run").unlink()
    state.history.add({"epoch": 2})
    writer.on_epoch_end(state)
    assert (tmp_path / "run" / "history.csv").read_text() == "epoch\n1\n2\n"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match=r"Unknown history format 'json'. Did you mean 'jsonl'"):
        HistoryWriter("json")
