"""Checkpoints: one folder per saved step, written atomically.

    <folder>/checkpoints/step-00000123/tensors.safetensors
                                       state.json

A checkpoint stores a nested tree of plain values and tensors. Its content is defined by the caller;
this module does not depend on training.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.artefact.serialization import pack, unpack
from flambeau.artefact.verified_files import (
    check_schema,
    file_sha256,
    read_json,
    read_tensors,
    write_tensors,
)
from flambeau.atomic_write import atomic_folder, clean_leftovers, remove_folder
from flambeau.errors import ArtefactError, FlambeauWarning

SCHEMA_VERSION = 1
_FORMAT = "flambeau-checkpoint"
_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})")
_ALIGNMENT = 64  # bytes: torch's allocator on the CPU


def save_checkpoint(folder: str | Path, tree: Any, step: int, keep: int = 2) -> Path:
    """Save ``tree`` as a checkpoint and return its folder.

    Args:
        folder: The run's folder; the checkpoint is written to its subfolder "checkpoints".
        tree: Values that ``flambeau.artefact.serialization.pack`` accepts.
        step: Number of finished optimizer steps. A checkpoint of the same step is replaced;
            checkpoints of later steps come from another run and are deleted.
        keep: Number of newest checkpoints to keep. By default two, in case the newest is damaged.

    Raises:
        ArtefactError: The tree contains a value that cannot be saved; the message has its path.
        StorageError: The disk is full or the folder cannot be written. Older checkpoints remain.
    """
    if step < 0 or keep < 1:
        raise ArtefactError(f"step must be ≥ 0 and keep ≥ 1, got step={step} and keep={keep}.")
    packed, tensors = pack(tree)
    parent = Path(folder) / "checkpoints"
    target = parent / f"step-{step:08d}"
    with atomic_folder(target) as part:
        write_tensors(part / _TENSORS, tensors)
        text = json.dumps(packed, allow_nan=False)
        state = {
            "format": _FORMAT,
            "schema_version": SCHEMA_VERSION,
            "step": step,
            "torch": torch.__version__,
            "sha256": {_TENSORS: file_sha256(part / _TENSORS), "tree": _sha256(text)},
            "tree": packed,
        }
        (part / _STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
    found = _checkpoints(parent)
    # Later steps come from another run in this folder; resume would continue from them.
    newest = found.index(target)
    for path in (*found[:newest], *found[newest + keep :]):
        remove_folder(path)
    return target


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest checkpoint of the run in ``folder``, even a damaged one; None without."""
    found = _cleaned_checkpoints(folder)
    return found[0] if found else None


def checkpoints_of(folder: str | Path) -> list[Path]:
    """Return the checkpoints of the run in ``folder``, the newest first; change nothing."""
    return _checkpoints(Path(folder) / "checkpoints")


def load_latest_checkpoint(folder: str | Path) -> tuple[Path, Any] | None:
    """Return the path and the saved tree of the newest undamaged checkpoint of a run.

    None if the run in ``folder`` has no checkpoint.

    A damaged checkpoint is skipped with a FlambeauWarning, which also names the checkpoint used.

    Raises:
        ArtefactError: Every checkpoint is damaged.
    """
    found = _cleaned_checkpoints(folder)
    faults: list[str] = []
    for path in found:
        try:
            tree = load_checkpoint(path)
        except ArtefactError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            warnings.warn(
                f"[damaged-checkpoint] {fault} The older checkpoint {path.name} is used.",
                FlambeauWarning,
                stacklevel=2,
            )
        return path, tree
    if not found:
        return None
    raise ArtefactError(
        f"All {len(found)} checkpoints in {found[0].parent} are damaged, so the run cannot be "
        "resumed: " + " ".join(faults)
    )


def load_checkpoint(path: str | Path) -> Any:
    """Return the tree that ``save_checkpoint`` saved, with its tensors on the CPU.

    Raises:
        ArtefactError: The checkpoint is missing, damaged, or has another schema version.
    """
    state, tensors = _read(Path(path))
    try:
        return unpack(state["tree"], tensors)
    except RecursionError as error:
        raise ArtefactError(f"{Path(path) / _STATE} is damaged: nested too deeply.") from error


def checkpoint_step(path: str | Path) -> int:
    """Return the number of finished optimizer steps, read from the checkpoint's name."""
    match = _NAME.fullmatch(Path(path).name)
    if match is None:
        raise ArtefactError(f"{path} is not a checkpoint: expected a name such as step-00000123.")
    return int(match[1])


def _cleaned_checkpoints(folder: str | Path) -> list[Path]:
    """Remove leftovers of killed writes, then return the run's checkpoints, newest first."""
    parent = Path(folder) / "checkpoints"
    clean_leftovers(parent)
    return _checkpoints(parent)


def _checkpoints(parent: Path) -> list[Path]:
    """Return the checkpoints in ``parent``, newest first."""
    if not parent.is_dir():
        return []
    found = [path for path in parent.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=checkpoint_step, reverse=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    state = read_json(path / _STATE)
    if state.get("format") != _FORMAT:
        raise ArtefactError(f"{path / _STATE} is not the state of a flambeau checkpoint.")
    check_schema(path, state, SCHEMA_VERSION)
    digests = state.get("sha256")
    if not isinstance(digests, dict) or "tree" not in state:
        raise ArtefactError(f"{path / _STATE} is damaged: tree or checksums are missing.")
    expected = cast("dict[str, Any]", digests)
    try:
        text = json.dumps(state["tree"], allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path / _STATE} is damaged: {error}.") from error
    if _sha256(text) != expected.get("tree"):
        raise ArtefactError(
            f"{path / _STATE} is damaged: its checksum differs from the recorded one."
        )
    tensors = read_tensors(path / _TENSORS, str(expected.get(_TENSORS)))
    return state, {name: _aligned(tensor) for name, tensor in tensors.items()}


def _aligned(tensor: Tensor) -> Tensor:
    """Return the tensor in memory that is aligned as torch allocates it.

    The tensors of a safetensors file are views into it at any address. Matrix and dot products of a
    CPU may round differently there, so a resumed run would not make the same steps.
    """
    return tensor.clone() if tensor.data_ptr() % _ALIGNMENT else tensor


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
