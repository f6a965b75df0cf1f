"""Gradients of ``nn.Embedding(sparse=True)``: dense for optimizers that need it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Optimizer, SparseAdam

from flambeau.torch_internals import is_from_torch


def convert_sparse(parameters: Iterable[nn.Parameter], optimizers: Sequence[Optimizer]) -> None:
    """Make sparse gradients dense, or coalesced where the optimizer has a sparse form.

    A dense gradient is exact and takes the memory of the parameter. SGD and Adagrad keep sparse
    gradients without fused kernel and weight decay, and so do ``SparseAdam`` and optimizers that
    are not torch's.

    Args:
        parameters: Those of layers with ``sparse=True``.
        optimizers: The optimizers that are stepped next.
    """
    keeping = {id(p) for each in optimizers for p in _kept_by(each)}
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.layout == torch.sparse_coo:
            is_kept = id(parameter) in keeping
            parameter.grad = gradient.coalesce() if is_kept else gradient.to_dense()


def entries(gradient: Tensor) -> Tensor:
    """Return the stored entries of a coalesced sparse gradient; a dense one is unchanged."""
    return gradient.values() if gradient.layout == torch.sparse_coo else gradient


def _kept_by(optimizer: Optimizer) -> Iterable[nn.Parameter]:
    is_own = not is_from_torch(type(optimizer))
    for group in optimizer.param_groups:
        plain = not group.get("fused") and not group.get("weight_decay")
        is_plain = isinstance(optimizer, SGD | Adagrad) and plain
        if is_own or is_plain or isinstance(optimizer, SparseAdam):
            yield from group["params"]
