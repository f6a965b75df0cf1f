"""Names of settings that the plan offers and training implements."""

from __future__ import annotations

OPTIMIZER_NAMES = ("adagrad", "adam", "adamw", "rmsprop", "sgd")
"""Optimizers of torch; ``training.optim.optimizer`` builds them."""

PRECISIONS = ("bf16", "fp16", "fp32")
"""Precisions of the forward and backward pass; see ``training.optim.precision``."""

COMPILE_MODES = ("off", "regions", "whole")
"""How much of a model is compiled: nothing, its repeated blocks, or its forward as a whole."""

MEMORY_FORMATS = ("channels_last", "contiguous_format")
"""Memory layouts of 4-d weights and images, by torch's names."""
