"""Measure the input statistics of norm layers; compare or replace (``adapt``) the stored ones.

The train batches are prepared as for evaluation: normalised, without augmentation on the device.
Norm layers normalise with the statistics of each batch; all other layers are in eval mode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from flambeau.errors import FlambeauWarning
from flambeau.task.task import StepContext
from flambeau.training.components import Components
from flambeau.training.freeze import has_running_statistics
from flambeau.training.norm.first_batches import first_batches
from flambeau.training.run_state.preserve import preserve
from flambeau.wording import name_some

if TYPE_CHECKING:
    from flambeau.training.run import Run

MEASURED_BATCHES = 20
"""Largest number of train batches to measure the distance between statistics and data."""

ADAPTED_BATCHES = 100
"""Largest number of train batches from which ``adapt`` computes the statistics."""

_WORST = 10.0
"""Upper limit on the divergence of a channel, so that an inactive channel does not dominate."""

# torch's layers whose statistics are means over samples, not over all values.
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of the input of a norm layer, over one batch or several.

    Tensors are float64 ``(channels,)`` on the CPU.

    Attributes:
        count: Number of values per channel; for instance norm, number of instances.
        mean: Mean of the values.
        variance: Variance of the values, without Bessel's correction.
        is_mean_of_variances: For instance norm: ``variance`` is the mean over the instances.
    """

    count: int
    mean: Tensor
    variance: Tensor
    is_mean_of_variances: bool = False


@dataclass(frozen=True)
class LayerShift:
    """The distance between the stored statistics of a layer and the data.

    Attributes:
        distance: Symmetric Kullback–Leibler divergence, in nats, between a Gaussian with the stored
            statistics and one with the statistics of the data; the mean over the channels.
        noise: The same divergence, but between the statistics of single batches and of all batches.
    """

    distance: float
    noise: float


def layers_with_statistics(model: nn.Module) -> dict[str, nn.Module]:
    """Return the norm layers with running statistics, by name."""
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    return {name: module for name, module in modules if has_running_statistics(module)}


def have_initial_statistics(layers: Mapping[str, nn.Module]) -> bool:
    """Return whether all statistics are the initial ones: means of 0 and variances of 1."""
    for module in layers.values():
        mean, variance = _stored(module)
        if mean.any() or (variance is not None and not (variance == 1).all()):
            return False
    return True


def measure_statistics(
    components: Components,
    epoch: int,
    context: StepContext,
    autocast: Callable[[], AbstractContextManager[object]],
    at_most: int,
) -> dict[str, list[LayerStatistics]]:
    """Return the input statistics of each norm layer for each of the first train batches.

    The model is restored. Layers whose input has no axis with as many channels (layers of other
    libraries with an unusual input shape) are skipped.

    Args:
        components: Model, train loader and task.
        epoch: Epoch whose batches are read.
        context: The context of a step; carried state is not used.
        autocast: Context manager of the precision of the run.
        at_most: Largest number of batches.

    Raises:
        InputError: The train loader cannot give the same batches twice.
    """
    model, task = components.model, components.task
    layers = layers_with_statistics(model)
    found: dict[str, list[LayerStatistics]] = {name: [] for name in layers}
    hooks = [
        module.register_forward_pre_hook(_InputRecorder(module, found[name]), with_kwargs=True)
        for name, module in layers.items()
    ]
    try:
        with preserve(model, task), torch.no_grad(), autocast():
            model.eval()
            for batch in first_batches(components, epoch, at_most):
                _set_training(layers, len(batch) > 1)
                context = replace(context, carry=None)  # otherwise as in a step
                task.forward(model, components.on_device(batch), context)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: seen for name, seen in found.items() if seen}


def combine_statistics(seen: Sequence[LayerStatistics]) -> LayerStatistics:
    """Return the statistics of several batches combined, as if they were one large batch."""
    counts = torch.tensor([each.count for each in seen], dtype=torch.float64)
    weights = (counts / counts.sum()).unsqueeze(1)
    means = torch.stack([each.mean for each in seen])
    mean = (weights * means).sum(0)
    variance = (weights * torch.stack([each.variance for each in seen])).sum(0)
    of_instances = seen[0].is_mean_of_variances
    if not of_instances:
        variance = variance + (weights * (means - mean) ** 2).sum(0)
    return LayerStatistics(int(counts.sum()), mean, variance, of_instances)


def layer_shift(module: nn.Module, seen: Sequence[LayerStatistics]) -> LayerShift:
    """Return the distance between the stored statistics of a layer and the measured ones."""
    everything = combine_statistics(seen)
    mean, variance = _stored(module)
    stored = LayerStatistics(0, mean, everything.variance if variance is None else variance)
    epsilon = float(getattr(module, "eps", 1e-5))
    by_chance = [_divergence(each, everything, epsilon) for each in seen]
    return LayerShift(_divergence(stored, everything, epsilon), sum(by_chance) / len(by_chance))


def adapt(run: Run) -> None:
    """Compute the statistics of all norm layers from train data; called once per fit.

    Raises:
        InputError: The train loader cannot give the same batches twice.

    Warns:
        FlambeauWarning: A layer keeps its old statistics because its input was not measured.
    """
    state = run.state
    seen_here = measure_statistics(
        run.components, run.data_epoch, state.context, run.step.autocast, ADAPTED_BATCHES
    )
    gathered = run.gather(seen_here)
    left: list[str] = []
    for name, module in layers_with_statistics(run.components.model).items():
        seen = [each for process in gathered for each in process.get(name, ())]
        if seen:
            _store(module, combine_statistics(seen))
        else:
            left.append(name)
    run.update.save_statistics()
    if left:
        warnings.warn(
            f"[not-adapted] {len(left)} norm layers ({name_some(left, 3)}) keep their previous "
            "statistics: they are not used in evaluation, or their inputs have no channel axis. "
            'Use bn="train" if their statistics should follow the data.',
            FlambeauWarning,
            stacklevel=2,
        )


class _InputRecorder:
    """A forward pre-hook that records the statistics of a layer's input."""

    def __init__(self, module: nn.Module, found: list[LayerStatistics]) -> None:
        self._found = found
        self._channels = cast(Tensor, module.running_mean).numel()
        self._by_instance = isinstance(module, _INSTANCE_NORMS)

    def __call__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        values = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        axis = None if values is None else self._axis(values)
        if values is None or axis is None:
            return
        # float64 on the host: with a mean far from 0 the variance in float32 is inaccurate.
        rows = values.detach().to("cpu", torch.float64).movedim(axis, 0)
        if self._by_instance:
            means, variances = rows.flatten(2).mean(2), rows.flatten(2).var(2, correction=0)
            seen = LayerStatistics(rows.shape[1], means.mean(1), variances.mean(1), True)
        else:
            flat = rows.reshape(self._channels, -1)
            seen = LayerStatistics(flat.shape[1], flat.mean(1), flat.var(1, correction=0))
        # A step with this batch is skipped, or ends the run.
        if seen.mean.isfinite().all() and seen.variance.isfinite().all():
            self._found.append(seen)

    def _axis(self, values: Tensor) -> int | None:
        """Return the channel axis: 1, as in torch, or else the last axis; None if neither fits."""
        sizes = tuple(values.shape)
        if values.ndim < (3 if self._by_instance else 2) or not values.is_floating_point():
            return None
        return next((axis for axis in (1, len(sizes) - 1) if sizes[axis] == self._channels), None)


def _stored(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return running mean and variance, float64 ``(channels,)`` on the CPU; variance may be None.

    Reads the values from the device, so call it outside a step.
    """
    found: list[Tensor | None] = []
    for name in ("running_mean", "running_var"):
        value = getattr(module, name, None)
        is_there = isinstance(value, Tensor)
        found.append(value.detach().to("cpu", torch.float64).flatten() if is_there else None)
    return cast(Tensor, found[0]), found[1]


@torch.no_grad()
def _store(module: nn.Module, seen: LayerStatistics) -> None:
    """Write statistics into the layer, the variance with Bessel's correction as in torch."""
    correction = 1.0 if seen.is_mean_of_variances else seen.count / max(1, seen.count - 1)
    for name, value in (("running_mean", seen.mean), ("running_var", seen.variance * correction)):
        buffer = getattr(module, name, None)
        if isinstance(buffer, Tensor):
            buffer.copy_(value.reshape(buffer.shape))


def _divergence(one: LayerStatistics, other: LayerStatistics, epsilon: float) -> float:
    """Return KL(one, other) + KL(other, one) of two Gaussians in nats, the mean over channels.

    ``epsilon`` is the ``eps`` of the layer, which is added to both variances.
    """
    first, second = one.variance + epsilon, other.variance + epsilon
    apart = (one.mean - other.mean) ** 2
    divergence = ((first + apart) / second + (second + apart) / first) / 2 - 1
    return float(divergence.clamp(max=_WORST).mean())


def _set_training(layers: Mapping[str, nn.Module], training: bool) -> None:
    # torch refuses batch statistics of a sample with a single value per channel.
    for module in layers.values():
        module.training = training
