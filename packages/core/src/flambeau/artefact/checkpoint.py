"""Checkpoints: a tree of values and tensors in a folder a step, complete or not there.

    <folder>/checkpoints/step-00000123/tensors.safetensors
                                       state.json

What the tree means is the business of whoever saves it; nothing here knows of training.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.artefact.atomic import atomic_folder, clean_leftovers, remove_folder
from flambeau.artefact.tree import pack, unpack
from flambeau.errors import ArtefactError, FlambeauWarning

SCHEMA_VERSION = 1
_FORMAT = "flambeau-checkpoint"
_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})")


def save_checkpoint(folder: str | Path, tree: Any, step: int, keep: int = 2) -> Path:
    """Saves ``tree`` and returns the folder it is in.

    Args:
        folder: The run's folder; the checkpoint goes into its sub-folder "checkpoints".
        tree: What ``flambeau.artefact.tree.pack`` takes.
        step: Optimizer steps finished; a checkpoint of the same step is replaced, and those of
            later steps, which this run has not made, are removed.
        keep: How many of the newest to keep. The default leaves a second one for the case that
            the newest is damaged.

    Raises:
        ArtefactError: The tree holds something that cannot be saved; the message names the path.
        StorageError: The disk is full or the folder cannot be written. Older checkpoints stay.
    """
    if step < 0 or keep < 1:
        raise ArtefactError(f"step must be ≥ 0 and keep ≥ 1, not step={step} and keep={keep}.")
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
    # Later ones are left from another run in the folder; a resume would go on from them.
    newest = found.index(target)
    for path in (*found[:newest], *found[newest + keep :]):
        remove_folder(path)
    return target


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint of the run in ``folder``, whole or not; None where there is none."""
    found = _listed(folder)
    return found[0] if found else None


def load_latest_checkpoint(folder: str | Path) -> tuple[Path, Any] | None:
    """The newest whole checkpoint of the run in ``folder`` and its tree; None where there is none.

    A damaged one is passed over with a FlambeauWarning that names it and the one that is used.

    Raises:
        ArtefactError: Every checkpoint is damaged.
    """
    found = _listed(folder)
    faults: list[str] = []
    for path in found:
        try:
            tree = load_checkpoint(path)
        except ArtefactError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            warnings.warn(
                f"[damaged-checkpoint] {fault} The older {path.name} is used instead.",
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
    """The tree that was saved; its tensors are on the CPU.

    Raises:
        ArtefactError: The checkpoint is missing, damaged, truncated or of another version.
    """
    state, tensors = _read(Path(path))
    try:
        return unpack(state["tree"], tensors)
    except RecursionError as error:
        raise ArtefactError(f"{Path(path) / _STATE} is damaged: it is nested too deep.") from error


def checkpoint_step(path: str | Path) -> int:
    """Optimizer steps finished when the checkpoint was saved, from its name."""
    match = _NAME.fullmatch(Path(path).name)
    if match is None:
        raise ArtefactError(f"{path} is no checkpoint: its name is not step-00000123.")
    return int(match[1])


def _listed(folder: str | Path) -> list[Path]:
    """The run's checkpoints, newest first, once what killed writes left is cleaned up."""
    parent = Path(folder) / "checkpoints"
    clean_leftovers(parent)
    return _checkpoints(parent)


def _checkpoints(parent: Path) -> list[Path]:
    """The checkpoints in ``parent``, newest first."""
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
        raise ArtefactError(f"{path / _STATE} is damaged: it lacks the tree or the check sums.")
    expected = cast("dict[str, Any]", digests)
    try:
        text = json.dumps(state["tree"], allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path / _STATE} is damaged: {error}.") from error
    if _sha256(text) != expected.get("tree"):
        raise ArtefactError(
            f"{path / _STATE} is damaged: its check sum is not the one it was saved with."
        )
    return state, read_tensors(path / _TENSORS, str(expected.get(_TENSORS)))


# ---------------------------------------------------------------- files, for exports too


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes ``tensors`` as safetensors, each with memory of its own."""
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        # safetensors refuses two views of one memory (slices of a flat buffer): copy the second.
        separate[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    save_file(separate, path)


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, once its check sum is right.

    Raises:
        ArtefactError: The file is missing, or is not the one that was saved.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    if path.exists() and not path.is_file():
        raise ArtefactError(f"{path} is no ordinary file, so it is not read.")
    try:
        found = file_sha256(path)
        if found != sha256:
            raise ArtefactError(
                f"{path} is damaged or was exchanged: its sha256 is {found[:12]}…, but it was "
                f"saved with {sha256[:12]}…. Take another copy of the folder, or an older one."
            )
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}.{_pickle_hint(path)}") from error


def _pickle_hint(path: Path) -> str:
    """What to do with a file that ``torch.save`` wrote: unpickling could run code of anybody's."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError:
        return ""
    if not start.startswith((b"PK", b"\x80")):
        return ""
    return (
        " It is a pickle or a file of torch.save, not safetensors, and flambeau unpickles nothing. "
        "If you trust it: model.load_state_dict(torch.load(path, weights_only=True))."
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ArtefactError: The file is missing or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is damaged or no JSON at all: {error}.") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path} should hold a JSON object, not a {type(value).__name__}.")
    return cast("dict[str, Any]", value)


def check_schema(path: Path, record: Mapping[str, Any], known: int) -> None:
    """Raises an ArtefactError unless the record has the schema version ``known``."""
    version = record.get("schema_version")
    if version == known and type(version) is int:
        return
    newer = type(version) is int and version > known
    raise ArtefactError(
        f"{path} has schema_version {version!r}, and this flambeau reads {known}. "
        + ("Update flambeau to read it." if newer else "It is damaged, or was not written by us.")
    )


def file_sha256(path: Path) -> str:
    """The check sum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
