"""``nearest_samples``: the samples with the most similar features before the head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.inspect.watch.watched_layer import float_tensors
from flambeau.plotting import to_list
from flambeau.training.optim.groups import layer_groups

Forward = Callable[[Batch], Any]
"""Calls the model with a batch."""


@dataclass(frozen=True)
class NearestSample:
    """A sample with similar features.

    Attributes:
        number: Its number, as in ``data.split``; its position in the part if the loader does not
            number the samples of the data.
        similarity: Cosine of the angle between the features of both samples, from -1 to 1.
        target: Its target: a number or an index of a class; None without a single one.
    """

    number: int
    similarity: float
    target: float | None


def nearest_samples(
    model: nn.Module,
    forward: Forward,
    sample: Batch,
    batches: Iterable[Batch],
    *,
    n: int = 5,
    exclude: int | None = None,
) -> list[NearestSample]:
    """Return the samples with the most similar features, compared with all samples, exactly.

    The features are the first input of the head, which is the last parameter group of the model;
    axes of positions (of an image or a sequence) are averaged. A batch at a time is compared, so
    the memory does not depend on the number of samples.

    Args:
        model: The model, in eval mode.
        forward: Calls it.
        sample: A batch with one sample, ready for the model.
        batches: Batches of the samples to compare with.
        n: Number of samples to return.
        exclude: Number of a sample that is left out: the sample itself.

    Raises:
        InputError: The head is not called with one row of real numbers for each sample.
    """
    with _HeadInput(model) as head, torch.no_grad():
        own = head.features(forward, sample)[0]
        found: list[NearestSample] = []
        done = 0
        for batch in batches:
            similarities = head.features(forward, batch) @ own
            numbers = batch.indices
            if numbers is None:
                numbers = torch.arange(done, done + len(batch))
            done += len(batch)
            if exclude is not None:
                similarities[(numbers == exclude).to(similarities.device)] = -torch.inf
            best = similarities.topk(min(n, len(similarities)))
            targets = _targets(batch)
            for value, index in zip(to_list(best.values), to_list(best.indices), strict=True):
                place = int(index)
                if value > -torch.inf:
                    target = None if targets is None else float(targets[place])
                    found.append(NearestSample(int(numbers[place]), value, target))
            found = sorted(found, key=lambda each: -each.similarity)[:n]
    return found


class _HeadInput:
    """Records the first input of the head in the block."""

    def __init__(self, model: nn.Module) -> None:
        groups = list(layer_groups(model).values())
        parts = groups[-1] if groups else []
        # Parameters of the model itself have no module in which they are called.
        self._modules = [each for each in parts if isinstance(each, nn.Module)] or [model]
        self._found: Tensor | None = None

    def __enter__(self) -> _HeadInput:
        self._handles = [
            each.register_forward_pre_hook(self._keep, with_kwargs=True) for each in self._modules
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, module: nn.Module, arguments: Any, named: Any) -> None:
        if self._found is None:
            first = next(float_tensors([arguments, named]), None)
            self._found = None if first is None else first.detach()

    def features(self, forward: Forward, batch: Batch) -> Tensor:
        """Return the features of a batch as rows of length 1, float32 ``(batch, features)``."""
        self._found = None
        forward(batch)
        found, self._found = self._found, None
        if found is None or found.ndim < 2 or len(found) != len(batch):
            shape = "no real numbers" if found is None else f"a tensor {tuple(found.shape)}"
            raise InputError(
                f"The head of the model gets {shape} for {len(batch)} samples, so their features "
                "cannot be compared: it needs one row for each. Define layer_groups() of the model "
                "so that the last group is called with the features."
            )
        found = found.float()
        if found.ndim > 3:
            found = found.flatten(2).mean(2)  # (batch, channels, height, width)
        elif found.ndim == 3:
            found = found.mean(1)  # (batch, positions, features)
        return F.normalize(found, dim=1)


def _targets(batch: Batch) -> Tensor | None:
    """Return the only target of each sample; None if there are several or none."""
    values = list(batch.targets.values())
    if len(values) != 1 or values[0].numel() != len(batch):
        return None
    return values[0].reshape(-1).cpu()
