"""Checkpoints are saved completely, found again, and never loaded when damaged."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau.artefact.checkpoint_files import (
    checkpoint_step,
    latest_checkpoint,
    load_checkpoint,
    load_latest_checkpoint,
    save_checkpoint,
)
from flambeau.errors import ArtefactError, FlambeauWarning


def tree(step: int) -> dict[str, Any]:
    torch.manual_seed(step)
    model = nn.Linear(3, 2)
    return {"model": model.state_dict(), "step": step, "betas": (0.9, float("inf"))}


def steps(folder: Path) -> list[int]:
    return sorted(checkpoint_step(path) for path in (folder / "checkpoints").iterdir())


def test_round_trip(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, tree(123), 123)
    assert path == tmp_path / "checkpoints" / "step-00000123"
    assert sorted(p.name for p in path.iterdir()) == ["state.json", "tensors.safetensors"]
    loaded = load_checkpoint(path)
    assert loaded["step"] == 123
    assert loaded["betas"] == (0.9, float("inf"))
    for name, tensor in tree(123)["model"].items():
        assert torch.equal(loaded["model"][name], tensor)


def test_loaded_tensors_are_aligned_as_torch_allocates_them(tmp_path: Path) -> None:
    saved = {f"{n} values": torch.rand(n) for n in (1, 3, 7, 58, 100)}
    found = load_checkpoint(save_checkpoint(tmp_path, saved, 1))
    for name, tensor in saved.items():
        assert torch.equal(found[name], tensor)
        assert found[name].data_ptr() % 64 == tensor.data_ptr() % 64 == 0


def test_the_newest_are_kept_and_found(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100_000_000):
        save_checkpoint(tmp_path, tree(step), step, keep=3)
    assert steps(tmp_path) == [10, 15, 100_000_000]
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert checkpoint_step(found) == 100_000_000  # by number, not by name


def test_the_checkpoint_just_written_is_never_deleted(tmp_path: Path) -> None:
    for step in (100, 200, 7):
        save_checkpoint(tmp_path, tree(step), step, keep=1)
    assert 7 in steps(tmp_path)


def test_checkpoints_of_later_steps_are_deleted(tmp_path: Path) -> None:
    for step in (400, 500):
        save_checkpoint(tmp_path, tree(step), step)
    save_checkpoint(tmp_path, tree(10), 10)  # a new run in the same folder
    assert steps(tmp_path) == [10]
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert checkpoint_step(found) == 10


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"v": 1, "old": torch.zeros(1)}, 3)
    path = save_checkpoint(tmp_path, {"v": 2}, 3)
    assert load_checkpoint(path) == {"v": 2}
    assert steps(tmp_path) == [3]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert load_latest_checkpoint(tmp_path / "missing") is None
    with pytest.raises(ArtefactError, match="Cannot read"):
        load_checkpoint(tmp_path)


def test_a_tree_that_cannot_be_saved_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"tree\['f'\]"):
        save_checkpoint(tmp_path, {"f": len}, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("step", "keep"), [(-1, 1), (0, 0)])
def test_step_and_keep_out_of_range_are_refused(tmp_path: Path, step: int, keep: int) -> None:
    with pytest.raises(ArtefactError, match=f"got step={step} and keep={keep}"):
        save_checkpoint(tmp_path, {}, step, keep)


def test_slices_of_one_storage_are_saved(tmp_path: Path) -> None:
    flat = torch.arange(6.0)
    loaded = load_checkpoint(save_checkpoint(tmp_path, [flat[:3], flat[3:], flat], 0))
    assert [part.tolist() for part in loaded] == [[0, 1, 2], [3, 4, 5], [0, 1, 2, 3, 4, 5]]


def edit(path: Path, field: str, value: Any) -> None:
    state = json.loads((path / "state.json").read_text())
    state[field] = value
    (path / "state.json").write_text(json.dumps(state))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "tensors flipped": (
        lambda p: flip_a_bit(p / "tensors.safetensors"),
        "damaged or was replaced",
    ),
    "tensors cut": (lambda p: os.truncate(p / "tensors.safetensors", 40), "damaged or was repl"),
    "tensors missing": (lambda p: (p / "tensors.safetensors").unlink(), "Cannot read"),
    "state cut": (lambda p: os.truncate(p / "state.json", 60), "damaged or not a JSON"),
    "state empty": (lambda p: os.truncate(p / "state.json", 0), "damaged or not a JSON"),
    "state missing": (lambda p: (p / "state.json").unlink(), "Cannot read"),
    "state is a list": (lambda p: (p / "state.json").write_text("[]"), "not a list"),
    "state not text": (lambda p: (p / "state.json").write_bytes(b"\xff\xfe"), "not a JSON"),
    "tree changed": (lambda p: edit(p, "tree", {"step": 9}), "checksum"),
    "no checksums": (lambda p: edit(p, "sha256", None), "checksums are missing"),
    "foreign": (lambda p: edit(p, "format", "other"), "not the state of a flambeau checkpoint"),
    "newer": (lambda p: edit(p, "schema_version", 2), "schema_version 2.*Update flambeau"),
    "no version": (lambda p: edit(p, "schema_version", None), "schema_version None.*damaged"),
    "version true": (lambda p: edit(p, "schema_version", True), "schema_version True"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_an_older_one(tmp_path: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    older = save_checkpoint(tmp_path, tree(1), 1)
    newer = save_checkpoint(tmp_path, tree(2), 2)
    damage(newer)
    with pytest.raises(ArtefactError, match=message):
        load_checkpoint(newer)
    with pytest.warns(
        FlambeauWarning, match=r"damaged-checkpoint.*older checkpoint step-00000001 is used"
    ):
        found = load_latest_checkpoint(tmp_path)
    assert found is not None
    assert (found[0], found[1]["step"]) == (older, 1)
    assert latest_checkpoint(tmp_path) == newer
    damage(older)
    with pytest.raises(ArtefactError, match="All 2 checkpoints"):
        load_latest_checkpoint(tmp_path)


def test_other_files_beside_checkpoints_are_ignored(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, tree(1), 1)
    (path.parent / "step-00000009").write_text("a file")
    (path.parent / "best").mkdir()
    found = load_latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == path
    with pytest.raises(ArtefactError, match="best is not a checkpoint"):
        checkpoint_step(path.parent / "best")


def test_a_loaded_tree_stays_valid_without_its_files(tmp_path: Path) -> None:
    loaded = load_checkpoint(save_checkpoint(tmp_path, {"x": torch.arange(5000.0)}, 1))
    save_checkpoint(tmp_path, {}, 2, keep=1)
    assert steps(tmp_path) == [2]
    loaded["x"] += 1
    assert loaded["x"][-1] == 5000
