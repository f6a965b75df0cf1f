"""``ImageFacts``: measurements of the train images, the input of the plan's rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.facts import ColumnFacts, Facts
from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.data.targets import Targets
from flambeau_vision.assemble import BITS, LARGEST, WHITE

if TYPE_CHECKING:
    from typing import Required  # typing has ReadOnly from Python 3.13

    from typing_extensions import ReadOnly

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


class ImageFacts(Facts, total=False):
    """The facts of all data, and facts about the train images.

    Attributes:
        n_images: Number of images in all parts.
        short_side_min: Shortest side of the smallest image, in pixels.
        short_side_median: Median of the shorter sides, in pixels.
        short_side_max: Largest of the shorter sides, in pixels.
        aspect_deciles: Width divided by height: the smallest, the deciles and the largest value.
        same_size: Whether all images have the same size.
        grey: Whether all images are grey.
        modes: Number of images of each Pillow mode.
        formats: Number of images of each file format.
        label_kind: The task inferred from the labels.
        bits: Number of significant bits of 16-bit train images; absent if there are none.
        white: The value of white in images of floats; absent if there are none.
        float_max: The largest value of the train images of floats; absent if there are none.
        array_channels: Number of channels of arrays, if it is neither 1 nor 3.
        cache_folder: The folder that the user chose for the cache; None is the default folder.
    """

    inputs: ReadOnly[Required[Mapping[str, ColumnFacts]]]
    in_memory: ReadOnly[Required[bool]]
    target_dtype: ReadOnly[Required[str]]
    target_shape: ReadOnly[Required[list[int]]]
    target_min: ReadOnly[Required[float]]
    target_max: ReadOnly[Required[float]]
    n_images: ReadOnly[Required[int]]
    short_side_min: ReadOnly[Required[int]]
    short_side_median: ReadOnly[Required[float]]
    short_side_max: ReadOnly[Required[int]]
    aspect_deciles: ReadOnly[list[float]]
    same_size: ReadOnly[Required[bool]]
    grey: ReadOnly[Required[bool]]
    modes: ReadOnly[Required[Mapping[str, int]]]
    formats: ReadOnly[Required[Mapping[str, int]]]
    label_kind: ReadOnly[Required[str]]
    bits: ReadOnly[int]
    white: ReadOnly[int]
    float_max: ReadOnly[float]
    array_channels: ReadOnly[int]
    cache_folder: ReadOnly[str | None]


def image_facts(
    samples: Samples, targets: Targets, split: Split, cache_folder: str | None = None
) -> ImageFacts:
    """Return the facts of the train images; ``cache_folder`` is stored as it is."""
    train = np.array(split.train)
    widths, heights = np.asarray(samples["width"])[train], np.asarray(samples["height"])[train]
    short = np.minimum(widths, heights)
    modes = Counter(samples["mode"][row] for row in train)
    items = samples["image"]
    in_memory = isinstance(items, Tensor)
    channels = items.shape[1] if isinstance(items, Tensor) else 1 if _all_grey(modes) else 3
    shape = [int(channels), int(np.median(heights)), int(np.median(widths))]
    facts: dict[str, Any] = {
        **{f"n_{part}": len(split.part(part)) for part in PARTS},
        "split": split.describe(),
        "inputs": {"image": {"shape": shape, "dtype": "uint8"}},
        "in_memory": in_memory,
        "n_images": len(samples),
        "short_side_min": int(short.min()),
        "short_side_median": float(np.median(short)),
        "short_side_max": int(short.max()),
        "aspect_deciles": [round(float(q), 3) for q in _deciles(widths / heights)],
        "same_size": len(set(zip(widths.tolist(), heights.tolist(), strict=True))) == 1,
        "grey": channels == 1,
        "modes": dict(modes.most_common()),
        "formats": dict(Counter(samples["format"][row] for row in train).most_common()),
        "cache_folder": cache_folder,
        **_target_facts(targets.select(split.train)),
    }
    bits = [samples[BITS][row] for row in train] if BITS in samples.columns else []
    if known := [each for each in bits if each is not None]:
        facts["bits"] = max(known)
    if LARGEST in samples.columns:
        facts["white"] = next(each for each in samples[WHITE] if each is not None)
        largest = samples[LARGEST]
        in_train = [largest[row] for row in train if largest[row] is not None]
        facts["float_max"] = max(in_train or [each for each in largest if each is not None])
    if isinstance(items, Tensor):
        facts["memory_bytes"] = items.nbytes
        if channels not in (1, 3):
            facts["array_channels"] = int(channels)
    return cast("ImageFacts", facts)


def _deciles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, np.linspace(0, 1, 11))


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
        facts["class_counts"] = list(targets.counts().values())
    return facts
