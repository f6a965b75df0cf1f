"""``WatchedLayer`` and ``WatchedWeight``: what is known of a layer besides its statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.inspect.hooks import modules_by_name
from flambeau.inspect.watch.attention_statistics import ATTENTION_COLUMNS
from flambeau.inspect.watch.layer_statistics import GRADIENT_COLUMNS, OUTPUT_COLUMNS
from flambeau.inspect.watch.log_bins import N_BINS
from flambeau.inspect.watch.unit_axis import CHANNELS_FIRST, FEATURES_LAST

COLUMNS = (*OUTPUT_COLUMNS, "silent", *GRADIENT_COLUMNS, *ATTENTION_COLUMNS)
"""Names of the statistics of a layer in a step; "silent": units that are 0 for the whole step."""

ROW_SIZE = len(COLUMNS) + 2 * N_BINS
"""Numbers of a layer in a step: ``COLUMNS``, histogram of outputs, histogram of gradients."""

MODEL = "(model)"
"""Name of the model itself."""

INPUT = "(input)"
"""Name of the model's input; further ones are "(input 2)", …"""

BOUNDS: Mapping[str, tuple[float, float]] = {
    "Sigmoid": (0.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "Hardsigmoid": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "tanh": (-1.0, 1.0),
    "Hardtanh": (-1.0, 1.0),
}
"""Usual range of the outputs of layers that saturate, by class or function; see ``bounds_of``."""

_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.RMSNorm, nn.LocalResponseNorm,
)  # fmt: skip

_WITHOUT_STATISTICS = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout, nn.Flatten, nn.Unflatten,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ZeroPad2d, nn.Upsample, nn.PixelShuffle,
)  # fmt: skip
"""Leaf modules that only move, drop or average the values of the layer before them."""


@dataclass
class WatchedLayer:
    """A layer: a module, an activation or attention function, or an input of the model.

    Attributes:
        name: As in ``model.named_modules()``; of a function "relu after conv1" or "attention in
            blocks.0".
        kind: Class of the module, or name of the function.
        number: Position in the forward pass, from 1; layers that are not called come last.
        units: Size of the axis of units; 0 if it is not called.
        per_sample: Number of output values per sample; 0 if it is not called.
        per_unit: Largest number of values of a unit in a watched step, over samples and positions.
        is_output: Whether its output is the output of the model.
        is_norm: Whether it normalises.
    """

    name: str
    kind: str
    number: int
    units: int = 0
    per_sample: int = 0
    per_unit: int = 0
    is_output: bool = False
    is_norm: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class WatchedWeight:
    """A parameter of a layer.

    Attributes:
        name: As in ``named_parameters()``.
        layer: Name of the layer that owns it.
        shape: Its shape.
        is_embedding: Whether its rows are looked up by index.
        dtype: Such as "bfloat16"; empty if unknown.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    is_embedding: bool = False
    dtype: str = ""

    @property
    def is_matrix(self) -> bool:
        """Whether it is the weight of a linear layer or a convolution."""
        return len(self.shape) >= 2 and not self.is_embedding

    @property
    def size(self) -> int:
        """Number of values."""
        found = 1
        for each in self.shape:
            found *= each
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)


def is_norm(module: nn.Module) -> bool:
    """Return whether a module normalises, by its class or the name of a user-defined class."""
    return isinstance(module, _NORMS) or type(module).__name__.lower().endswith("norm")


def has_statistics(module: nn.Module) -> bool:
    """Return whether the outputs of a module are a layer of their own.

    As in ``summary``, layers are modules without children, and those that own parameters.
    """
    if isinstance(module, _WITHOUT_STATISTICS):
        return False
    owns = any(True for _ in module.parameters(recurse=False))
    return owns or not any(True for _ in module.children())


def bounds_of(module: nn.Module) -> tuple[float, float] | None:
    """Return the range of the outputs of a layer that saturates; None for other layers."""
    if type(module) is nn.Hardtanh:
        return module.min_val, module.max_val
    return BOUNDS.get(type(module).__name__)


def may_be_silent(module: nn.Module) -> bool:
    """Return whether units of a module may be exactly 0, as after a ReLU."""
    return not isinstance(module, (*CHANNELS_FIRST, *FEATURES_LAST)) and not is_norm(module)


def watched_weights(trained: nn.Module) -> dict[str, WatchedWeight]:
    """Return all parameters of a module by name; one with several names has the first."""
    embeddings = {
        id(module.weight)
        for module in trained.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    }
    return {
        name: WatchedWeight(
            name,
            name.rpartition(".")[0] or MODEL,
            tuple(value.shape),
            id(value) in embeddings,
            str(value.dtype).removeprefix("torch."),
        )
        for name, value in trained.named_parameters()
    }


def names_of(model: nn.Module) -> dict[nn.Module, str]:
    """Return the first name of each module in the model, the model itself too."""
    return {module: name or MODEL for name, module in modules_by_name(model).items()}


def float_tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the real floating-point tensors in nested values that are not empty."""
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point() and value.numel() and value.layout is torch.strided:
                yield value
        elif isinstance(value, Mapping):
            yield from float_tensors(value.values())  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, tuple | list):
            yield from float_tensors(value)  # pyright: ignore[reportUnknownArgumentType]
