"""The facts about images that the plan's rules read, measured on train rows only."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.data import Facts
from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau_vision.labels import Targets

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def image_facts(samples: Samples, targets: Targets, split: Split) -> Facts:
    """Return core's facts (see `flambeau.data.data.Facts`) and facts about the images.

    ``short_side_min``, ``short_side_median``, ``short_side_max`` in pixels; ``same_size`` (bool);
    ``grey`` (bool, all train images are); ``array_channels`` (int) of arrays with other than 1 or 3
    channels; ``modes`` and ``formats`` with the count of each; ``n_images`` in all parts;
    ``label_kind``, the task inferred from the labels. ``ImageData`` adds ``cache_folder``.
    """
    train = np.array(split.train)
    widths, heights = np.asarray(samples["width"])[train], np.asarray(samples["height"])[train]
    short = np.minimum(widths, heights)
    modes = Counter(samples["mode"][row] for row in train)
    items = samples["image"]
    in_memory = isinstance(items, Tensor)
    channels = items.shape[1] if isinstance(items, Tensor) else 1 if _all_grey(modes) else 3
    shape = [int(channels), int(np.median(heights)), int(np.median(widths))]
    facts: dict[str, Any] = {
        **{f"n_{part}": len(split.part(part)) for part in ("train", "valid", "test")},
        "split": split.describe(),
        "inputs": {"image": {"shape": shape, "dtype": "uint8"}},
        "in_memory": in_memory,
        "n_images": len(samples),
        "short_side_min": int(short.min()),
        "short_side_median": float(np.median(short)),
        "short_side_max": int(short.max()),
        "same_size": len(set(zip(widths.tolist(), heights.tolist(), strict=True))) == 1,
        "grey": channels == 1,
        "modes": dict(modes.most_common()),
        "formats": dict(Counter(samples["format"][row] for row in train).most_common()),
        **_target_facts(targets.select(split.train)),
    }
    if isinstance(items, Tensor):
        facts["memory_bytes"] = items.nbytes
        if channels not in (1, 3):
            facts["array_channels"] = int(channels)
    return facts


def _all_grey(modes: Counter[str]) -> bool:
    return all(mode in GREY_MODES for mode in modes)


def _target_facts(targets: Targets) -> dict[str, Any]:
    values = targets.values
    distinct = torch.unique(values)
    facts: dict[str, Any] = {
        "label_kind": targets.kind,
        "target_dtype": str(values.dtype).removeprefix("torch."),
        "target_shape": list(values.shape[1:]),
        "target_distinct": len(distinct),
        "target_min": distinct.min().item(),
        "target_max": distinct.max().item(),
        "target_binary": bool(((distinct == 0) | (distinct == 1)).all()),
    }
    if targets.kind != "regression":
        facts["class_names"] = list(targets.names)
        facts["class_counts"] = dict(targets.counts())
    return facts
