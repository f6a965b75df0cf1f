"""`MappedStore`: an array is written once, checked when it is read, and removed when unused."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from flambeau.data.mapped_store import MappedStore
from flambeau.errors import StorageError

ROWS = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


class Writer:
    """Writes rows, and counts how often."""

    def __init__(self, rows: np.ndarray = ROWS, **details: Any) -> None:
        self.rows, self.details, self.calls = rows, details, 0

    def __call__(self, file: IO[bytes]) -> Mapping[str, Any]:
        self.calls += 1
        file.write(self.rows[:1].tobytes())
        file.write(self.rows[1:].tobytes())
        return self.details


def load(folder: Path, write: Writer, key: str = "a", **options: Any) -> torch.Tensor:
    store = MappedStore("arrays", folder, advice=" Buy a disk.")
    found = store.load(key, (2, 3), write, most_rows=4, **options)
    assert dict(found.details) == write.details
    return found.values


def test_an_array_is_written_once_and_not_changed_by_its_readers(tmp_path: Path) -> None:
    write = Writer(ROWS, left_out=[7])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load(tmp_path, write), range(4)))
    assert all(torch.equal(each, torch.from_numpy(ROWS)) for each in found)
    assert write.calls == 1
    found[0].zero_()
    assert torch.equal(load(tmp_path, write), torch.from_numpy(ROWS))
    assert [path.name for path in (tmp_path / "arrays").iterdir()] == ["a"]  # no lock remains
    assert load(tmp_path, Writer(ROWS[:0]), "none").shape == (0, 2, 3)


@pytest.mark.parametrize("damage", ["short", "long", "no record", "other key", "no details"])
def test_a_damaged_array_is_written_again(tmp_path: Path, damage: str) -> None:
    write = Writer()
    load(tmp_path, write)
    array, record = (tmp_path / "arrays" / "a" / name for name in ("array.bin", "record.json"))
    content = json.loads(record.read_text())
    if damage == "short":
        array.write_bytes(array.read_bytes()[:-6])
    elif damage == "long":
        array.write_bytes(array.read_bytes() + b"\0")
    elif damage == "no record":
        record.unlink()
    elif damage == "other key":
        record.write_text(json.dumps({**content, "key": "b"}))
    else:
        del content["details"]
        record.write_text(json.dumps(content))
    assert torch.equal(load(tmp_path, write), torch.from_numpy(ROWS))
    assert write.calls == 2


def test_an_array_whose_details_are_refused_is_written_again(tmp_path: Path) -> None:
    load(tmp_path, Writer(ROWS, complete=False))
    write = Writer(ROWS, complete=True)
    for _ in range(2):
        load(tmp_path, write, accepts=lambda details: details["complete"])
    assert write.calls == 1


def test_the_longest_unused_array_is_removed_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MappedStore, "available_bytes", lambda store: 2 * ROWS.nbytes)
    for at, key in enumerate(("a", "b"), start=1):
        load(tmp_path, Writer(), key)
        os.utime(tmp_path / "arrays" / key / "record.json", (at, at))
    mapped = load(tmp_path, Writer(), "a")  # used again, so b goes first
    load(tmp_path, Writer(), "c")
    kept = MappedStore("arrays", tmp_path).list_arrays()
    assert sorted(path.name for _, _, path in kept) == ["a", "c"]
    assert [size for _, size, _ in kept] == [24, 24]
    assert torch.equal(mapped, torch.from_numpy(ROWS))
    monkeypatch.setattr(MappedStore, "available_bytes", lambda store: ROWS.nbytes - 1)
    write = Writer()
    with pytest.raises(StorageError, match=r"The arrays need 24 B, but .* 23 B .*\. Buy a disk\."):
        load(tmp_path, write, "d")
    assert write.calls == 0
