"""Names of settings that the plan accepts and training implements."""

from __future__ import annotations

from collections.abc import Mapping

OPTIMIZER_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "adagrad": ("eps",),
    "adam": ("betas", "eps"),
    "adamw": ("betas", "eps"),
    "muon": ("betas", "momentum", "nesterov"),
    "rmsprop": ("alpha", "eps", "momentum"),
    "sgd": ("momentum", "nesterov"),
}
"""Settings of each optimizer besides "lr" and "weight_decay", by torch's names."""

OPTIMIZER_NAMES = tuple(OPTIMIZER_SETTINGS)
"""Optimizers of torch; ``training.optim.optimizer`` builds them."""

PRECISIONS = ("bf16", "fp16", "fp32")
"""Precisions of the forward and backward pass; see ``training.optim.precision``."""

COMPILE_MODES = ("off", "regions", "whole")
"""Parts of a model that are compiled: none, its repeated blocks, or its whole forward."""

MEMORY_FORMATS = ("channels_last", "contiguous_format")
"""Memory layouts of 4-d weights and images, by torch's names."""
