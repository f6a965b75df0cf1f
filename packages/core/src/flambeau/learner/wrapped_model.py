"""Unwrap models: ``torch.compile``, ``DataParallel``, ``DistributedDataParallel``."""

from __future__ import annotations

import warnings
from typing import Any, cast

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from flambeau.errors import FlambeauWarning
from flambeau.torch_internals import compiled_module


def unwrapped_model(model: nn.Module) -> tuple[nn.Module, bool]:
    """Return the model inside the wrappers, and whether one of them compiled it.

    Wrappers are removed because they add a prefix to weight names and hide the layer groups.

    Warns:
        FlambeauWarning: A parallel wrapper was removed.
    """
    is_compiled = False
    while True:
        inner = compiled_module(model)
        if inner is not None:
            model, is_compiled = inner, True
        elif isinstance(model, DataParallel | DistributedDataParallel):
            name = type(cast("Any", model)).__name__
            model = cast("nn.Module", cast("Any", model).module)
            warnings.warn(
                f"[wrapper-removed] The model was wrapped in {name}; the wrapper was removed. To "
                "train on several devices, start one process for each: flambeau launch.",
                FlambeauWarning,
                stacklevel=4,
            )
        else:
            return model, is_compiled
