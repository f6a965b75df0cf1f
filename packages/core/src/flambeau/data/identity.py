"""What tells data from other data of the same shape: a run is only continued on its own."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from flambeau.data.data import Data
from flambeau.data.split import PARTS
from flambeau.tensors.data import TensorData

_FACTS = ("class_names", "class_counts", "target_distinct", "target_min", "target_max")
_ROWS = 32


def identity(data: Data) -> dict[str, Any]:
    """Classes, targets and the rows of each part, as plain values that a message can name.

    Of arrays also a digest of the first and last train rows; files are known by their number and
    order alone, so that a folder may move. A loader of the user's own says too little to compare.
    """
    facts = data.facts()
    found = {name: facts[name] for name in _FACTS if name in facts}
    if "loader_batch_size" in facts:
        return found
    for part in PARTS:
        rows = data.split.part(part)
        found[f"{part} rows"] = f"{len(rows):,} (digest {_digest(rows.tobytes())})"
    if isinstance(data, TensorData):
        train = data.dataset("train", data.preprocessor({}), {})
        columns = (*train.inputs.values(), *train.targets.values())
        ends = [part for value in columns for part in (value[:_ROWS], value[-_ROWS:])]
        found["first and last train rows"] = f"digest {_digest(b''.join(map(_bytes, ends)))}"
    return found


def _bytes(value: Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=6).hexdigest()
