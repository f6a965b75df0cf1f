"""``feature_similarity``: how similar the outputs of the layers of two models are (linear CKA)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.inspect.hooks import modules_by_name
from flambeau.inspect.watch.watched_layer import float_tensors
from flambeau.plotting import to_list
from flambeau.training.run_state.preserve import preserve

LEAST_SAMPLES = 4
"""Samples that the unbiased estimate needs."""

Forward = Callable[[nn.Module, Any], Any]
"""Calls a model with a batch."""


@dataclass
class _Sums:
    """Sums of HSIC estimates over the batches: of both, of the first, of the second."""

    values: list[Tensor] = field(default_factory=list[Tensor])

    def add(self, first: Tensor, second: Tensor) -> None:
        one, other = _gram(first), _gram(second)
        self.values.append(torch.stack([_hsic(one, other), _hsic(one, one), _hsic(other, other)]))

    def similarity(self) -> float:
        both, first, second = to_list(torch.stack(self.values).sum(0))
        product = first * second
        return both / math.sqrt(product) if product > 0 and first > 0 else math.nan


def feature_similarity(
    first: nn.Module, second: nn.Module, batches: Iterable[Any], forward: Forward
) -> tuple[dict[str, float], int]:
    """Return the linear CKA of the outputs of layers with the same name, and the samples used.

    1 if the outputs of a layer differ only by a rotation, a scale and an offset, near 0 if they
    have nothing in common. Both models run in eval mode and are unchanged afterwards. Only products
    between the samples of a batch are kept, so the memory does not depend on the number of samples.
    Batches of fewer than four samples are taken together with the next ones. Layers whose output
    does not have one row per sample are left out; so are the last samples if they are fewer than
    four.

    Args:
        first: A model.
        second: The other model.
        batches: Batches, each with the number of its samples as ``len()``.
        forward: Calls a model with a batch.

    Source:
        Kornblith et al., "Similarity of neural network representations revisited" (2019), with the
        estimate over batches of Nguyen et al., "Do wide and deep networks learn the same things?"
        (2021). It is unbiased: with more features than samples the usual estimate is near 1 for
        any two models.
    """
    sums: dict[str, _Sums] = {}
    n_samples = 0
    with preserve(first), preserve(second), torch.no_grad():
        for model in (first, second):
            for module in model.modules():
                module.training = False
        for group in _groups(batches):
            n_samples += sum(map(len, group))
            products = [_products(model, group, forward) for model in (first, second)]
            for name, output in products[0].items():
                if name in products[1]:
                    sums.setdefault(name, _Sums()).add(output, products[1][name])
    return {name: each.similarity() for name, each in sums.items()}, n_samples


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield consecutive batches with at least four samples together."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if sum(map(len, group)) >= LEAST_SAMPLES:
            yield group
            group = []


def _products(model: nn.Module, group: Sequence[Any], forward: Forward) -> dict[str, Tensor]:
    """Return the last output of each layer as ``(samples, samples)`` products, by name."""
    found = [_rows(model, batch, forward) for batch in group]
    products: dict[str, Tensor] = {}
    for name, first in found[0].items():
        parts = [each[name] for each in found if name in each]
        if len(parts) < len(found) or any(part.shape[1] != first.shape[1] for part in parts):
            continue
        rows = torch.cat(parts)
        rows = rows - rows.mean(0)  # the estimate ignores it; it keeps the digits
        products[name] = (rows @ rows.T).double()
    return products


def _rows(model: nn.Module, batch: Any, forward: Forward) -> dict[str, Tensor]:
    """Return the last output of each layer as ``(samples, values)``, by name."""
    found: dict[str, Tensor] = {}
    size = len(batch)

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            first = next(float_tensors([output]), None)
            if first is not None and first.ndim > 1 and first.shape[0] == size:
                found[name] = first.detach().flatten(1).float()

        return keep

    handles = [
        module.register_forward_hook(hook(name or "(model)"))
        for name, module in modules_by_name(model).items()
    ]
    try:
        forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _gram(products: Tensor) -> Tensor:
    return products - torch.diag(products.diagonal())


def _hsic(one: Tensor, other: Tensor) -> Tensor:
    """Return the unbiased estimate HSIC₁ of Song et al. (2012); the diagonals must be 0."""
    n = one.shape[0]
    trace = (one * other).sum()
    sums = one.sum() * other.sum() / ((n - 1) * (n - 2))
    rows = (one.sum(0) * other.sum(0)).sum() * 2.0 / (n - 2)
    return (trace + sums - rows) / (n * (n - 3))
