"""Convert sparse gradients (``nn.Embedding(sparse=True)``) to what an optimizer needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Optimizer, SparseAdam

from flambeau.torch_internals import is_from_torch


def convert_sparse(parameters: Iterable[Tensor], optimizers: Sequence[Optimizer]) -> None:
    """Make sparse gradients dense, or only coalesce them if the optimizer supports them.

    A dense gradient is exact, but takes as much memory as the parameter. Sparse gradients are kept
    for SGD and Adagrad if they are not fused and have no weight decay, for ``SparseAdam``, and for
    optimizers that are not torch's.

    Args:
        parameters: Parameters with sparse gradients.
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
