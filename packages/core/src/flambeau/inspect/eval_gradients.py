"""``eval_gradients``: allow gradients of a model with recurrent layers in eval mode."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def eval_gradients(model: nn.Module) -> Generator[None]:
    """Use no cuDNN in the ``with`` block if the model has recurrent layers.

    cuDNN computes gradients of nn.RNN, nn.LSTM and nn.GRU in train mode alone, in which dropout
    and batch norm would change the outputs; the kernels of torch compute them in eval mode, too.

    Args:
        model: Any module; nothing changes for one without recurrent layers.

    Example:
        >>> with eval_gradients(nn.GRU(2, 2)):
        ...     torch.backends.cudnn.enabled
        False
    """
    before = torch.backends.cudnn.enabled
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
