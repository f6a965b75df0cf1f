"""What norm layers see of the data at hand, how far their stored statistics are from it, ``adapt``.

All of it looks at train batches as evaluation would see them: normalised, without augmentation on
the device. Norm layers normalise with each batch, every other layer is in eval mode.
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
from flambeau.training.norm.first_batches import first_batches
from flambeau.training.norm.freeze import keeps_statistics
from flambeau.training.run_state.preserve import preserve

if TYPE_CHECKING:
    from flambeau.training.run import Run

MEASURED_BATCHES = 20
"""Train batches from which the distance of the data is measured, at most."""

ADAPTED_BATCHES = 100
"""Train batches from which ``adapt`` takes the statistics, at most; fewer where the epoch ends."""

_WORST = 10.0
"""A channel counts at most this: one that was dead on the old data is not the whole layer."""

# Of torch's own layers, whose statistics are means over samples rather than over all values.
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@dataclass(frozen=True)
class Seen:
    """What a layer saw of one batch, or of many: float64 ``(channels,)``, on the CPU.

    Attributes:
        count: Values of each channel (instances, for instance norm).
        mean: Their mean.
        variance: Their variance, not corrected for the sample.
        is_mean_of_variances: Instance norm: the variance within an instance, averaged.
    """

    count: int
    mean: Tensor
    variance: Tensor
    is_mean_of_variances: bool = False


@dataclass(frozen=True)
class LayerShift:
    """How the stored statistics of a layer fit the data.

    Attributes:
        distance: Symmetric Kullback–Leibler divergence of two Gaussians a channel, the stored
            statistics and those of the data; the mean over the channels, in nats.
        noise: The same between single batches and all of them: how far a batch is off by chance.
    """

    distance: float
    noise: float


def stored_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The norm layers that keep statistics, by name."""
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    return {name: module for name, module in modules if keeps_statistics(module)}


def are_fresh(layers: Mapping[str, nn.Module]) -> bool:
    """Whether no layer has taken statistics yet: all means are 0 and all variances 1."""
    for module in layers.values():
        mean, variance = _stored(module)
        if mean.any() or (variance is not None and not (variance == 1).all()):
            return False
    return True


def see(
    components: Components,
    epoch: int,
    context: StepContext,
    autocast: Callable[[], AbstractContextManager[object]],
    at_most: int,
) -> dict[str, list[Seen]]:
    """Return what each norm layer sees of each of the first train batches of an epoch.

    The model stays as it was. Layers whose input has no axis of their channels (another library's,
    of an unusual shape) are left out.

    Args:
        components: Model, train loader and task.
        epoch: Which epoch's batches are read.
        context: As in a step; carried state is not used.
        autocast: The run's precision.
        at_most: Batches.

    Raises:
        InputError: The train loader cannot give the same batches twice.
    """
    model, task = components.model, components.task
    layers = stored_layers(model)
    found: dict[str, list[Seen]] = {name: [] for name in layers}
    hooks = [
        module.register_forward_pre_hook(_Noting(module, found[name]), with_kwargs=True)
        for name, module in layers.items()
    ]
    try:
        with preserve(model), torch.no_grad(), autocast():
            model.eval()
            for batch in first_batches(components, epoch, at_most):
                _set_training(layers, len(batch) > 1)
                context = replace(context, carry=None)  # else the same as in a step
                task.forward(model, components.on_device(batch), context)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: seen for name, seen in found.items() if seen}


def together(seen: Sequence[Seen]) -> Seen:
    """The statistics of all batches as if they were one."""
    counts = torch.tensor([each.count for each in seen], dtype=torch.float64)
    weights = (counts / counts.sum()).unsqueeze(1)
    means = torch.stack([each.mean for each in seen])
    mean = (weights * means).sum(0)
    variance = (weights * torch.stack([each.variance for each in seen])).sum(0)
    of_instances = seen[0].is_mean_of_variances
    if not of_instances:
        variance = variance + (weights * (means - mean) ** 2).sum(0)
    return Seen(int(counts.sum()), mean, variance, of_instances)


def shift_of(module: nn.Module, seen: Sequence[Seen]) -> LayerShift:
    """How the layer's stored statistics fit what it has seen."""
    everything = together(seen)
    mean, variance = _stored(module)
    stored = Seen(0, mean, everything.variance if variance is None else variance)
    epsilon = float(getattr(module, "eps", 1e-5))
    by_chance = [_divergence(each, everything, epsilon) for each in seen]
    return LayerShift(_divergence(stored, everything, epsilon), sum(by_chance) / len(by_chance))


def adapt(run: Run) -> None:
    """Takes the statistics of all norm layers from the train data; the loop does it once a fit.

    Raises:
        InputError: The train loader cannot give the same batches twice.

    Warns:
        FlambeauWarning: A layer keeps its old statistics, since the batches do not show its
            channels.
    """
    state = run.state
    seen_here = see(
        run.components, state.position.epoch, state.context, run.step.autocast, ADAPTED_BATCHES
    )
    told = run.gathered(seen_here)
    left: list[str] = []
    for name, module in stored_layers(run.components.model).items():
        seen = [each for process in told for each in process.get(name, ())]
        if seen:
            _store(module, together(seen))
        else:
            left.append(name)
    run.update.keep_statistics()
    if left:
        warnings.warn(
            f"[not-adapted] {len(left)} norm layers ({', '.join(left[:3])}) keep the statistics "
            "that they had: the train batches do not reach them in evaluation, or their inputs "
            'have no axis of their channels. Choose bn="train" if they should follow the data.',
            FlambeauWarning,
            stacklevel=2,
        )


class _Noting:
    """A hook that notes the statistics of a layer's input."""

    def __init__(self, module: nn.Module, found: list[Seen]) -> None:
        self._found = found
        self._channels = cast(Tensor, module.running_mean).numel()
        self._by_instance = isinstance(module, _INSTANCE_NORMS)

    def __call__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        values = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        axis = None if values is None else self._axis(values)
        if values is None or axis is None:
            return
        # float64 on the host: a mean of many, far from 0, costs float32 its variance.
        rows = values.detach().to("cpu", torch.float64).movedim(axis, 0)
        if self._by_instance:
            means, variances = rows.flatten(2).mean(2), rows.flatten(2).var(2, correction=0)
            seen = Seen(rows.shape[1], means.mean(1), variances.mean(1), True)
        else:
            flat = rows.reshape(self._channels, -1)
            seen = Seen(flat.shape[1], flat.mean(1), flat.var(1, correction=0))
        self._found.append(seen)

    def _axis(self, values: Tensor) -> int | None:
        """Torch's axis of channels, 1; the last one for layers that have it there."""
        sizes = tuple(values.shape)
        if values.ndim < (3 if self._by_instance else 2) or not values.is_floating_point():
            return None
        return next((axis for axis in (1, len(sizes) - 1) if sizes[axis] == self._channels), None)


def _stored(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Running mean and variance, float64 ``(channels,)`` on the host; a layer may have no variance.

    Outside of any step: the values are read here.
    """
    found: list[Tensor | None] = []
    for name in ("running_mean", "running_var"):
        value = getattr(module, name, None)
        is_there = isinstance(value, Tensor)
        found.append(value.detach().to("cpu", torch.float64).flatten() if is_there else None)
    return cast(Tensor, found[0]), found[1]


@torch.no_grad()
def _store(module: nn.Module, seen: Seen) -> None:
    """Writes what was seen into the layer, its variance corrected for the sample as torch's is."""
    correction = 1.0 if seen.is_mean_of_variances else seen.count / max(1, seen.count - 1)
    for name, value in (("running_mean", seen.mean), ("running_var", seen.variance * correction)):
        buffer = getattr(module, name, None)
        if isinstance(buffer, Tensor):
            buffer.copy_(value.reshape(buffer.shape))


def _divergence(one: Seen, other: Seen, epsilon: float) -> float:
    """Mean over the channels of KL(one, other) + KL(other, one) of two Gaussians, in nats.

    ``epsilon`` is the layer's own: what is smaller than it does not matter to the layer.
    """
    first, second = one.variance + epsilon, other.variance + epsilon
    apart = (one.mean - other.mean) ** 2
    divergence = ((first + apart) / second + (second + apart) / first) / 2 - 1
    return float(divergence.clamp(max=_WORST).mean())


def _set_training(layers: Mapping[str, nn.Module], training: bool) -> None:
    # torch refuses batch statistics of one sample where it has one value a channel.
    for module in layers.values():
        module.training = training
