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
) -> tuple[list[NearestSample], int]:
    """Return the samples with the most similar features, compared with all samples, exactly.

    The features are the first input of the head, which is the last parameter group of the model;
    axes of positions (of an image or a sequence) are averaged. A batch at a time is compared, so
    the memory does not depend on the number of samples. The second value is the number of samples
    that are left out because their features are not finite.

    Args:
        model: The model, in eval mode.
        forward: Calls it.
        sample: A batch with one sample, ready for the model.
        batches: Batches of the samples to compare with.
        n: Number of samples to return.
        exclude: Number of a sample that is left out: the sample itself.

    Raises:
        InputError: The head is not called with one row of real numbers for each sample, or the
            features of the sample are not finite.
    """
    with _HeadInput(model) as head, torch.no_grad():
        own = head.features(forward, sample)[0]
        if not own.isfinite().all():
            raise InputError("The features of the sample are not finite (NaN or infinity).")
        found: list[NearestSample] = []
        done = left_out = 0
        for batch in batches:
            # Rounding can give a little more than 1.
            similarities = (head.features(forward, batch) @ own).clamp(-1, 1)
            is_finite = similarities.isfinite()
            left_out += len(similarities) - int(is_finite.sum())
            similarities[~is_finite] = -torch.inf
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
    return found, left_out


class _HeadInput:
    """Records the first input of the head in the block."""

    def __init__(self, model: nn.Module) -> None:
        groups = list(layer_groups(model).values())
        parts = groups[-1] if groups else []
        # Parameters of the model itself have no module in which they are called.
        self._modules = [each for each in parts if isinstance(each, nn.Module)] or [model]
        self._found: Tensor | None = None
        self._head: nn.Module | None = None  # the module that was called with the features
        self._positions: int | None = None

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
            self._head = module

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
            found = self._without_positions(found)
        return F.normalize(found, dim=1)

    def _without_positions(self, found: Tensor) -> Tensor:
        """Return the mean over the positions of a sequence; the head says which axis has them."""
        shape, name = tuple(found.shape), type(self._head).__name__
        if isinstance(self._head, nn.Conv1d):
            return found.mean(2)  # (batch, channels, positions)
        if not isinstance(self._head, nn.Linear | nn.LayerNorm):
            raise InputError(
                f"The head ({name}) gets a tensor {shape}, and it is not known which of its axes "
                "has the positions. Define layer_groups() of the model so that the last group is "
                "called with one row of features for each sample."
            )
        if self._positions not in (None, shape[1]):
            raise InputError(
                f"The head ({name}) gets sequences of different lengths, so some are padded, and "
                "their mean would contain the padding. Define layer_groups() of the model so that "
                "the last group is called with one row of features for each sample."
            )
        self._positions = shape[1]
        return found.mean(1)  # (batch, positions, features)


def _targets(batch: Batch) -> Tensor | None:
    """Return the only target of each sample; None if there are several or none."""
    values = list(batch.targets.values())
    if len(values) != 1 or values[0].numel() != len(batch):
        return None
    return values[0].reshape(-1).cpu()
