"""``LayerWatch``: watches all layers of a model in single training steps, without host reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.inspect.watch.forward_watch import ForwardWatch
from flambeau.inspect.watch.noise_scale import NoiseScale
from flambeau.inspect.watch.watched_layer import WatchedLayer, WatchedWeight
from flambeau.inspect.watch.weight_watch import WeightWatch
from flambeau.plotting import to_list


@dataclass
class StepReading:
    """The statistics of one step, read to the host.

    Attributes:
        step: The step, from 0.
        layers: ``ROW_SIZE`` numbers by name of the layer.
        weights: ``WEIGHT_COLUMNS`` by name of the weight.
        noise: Estimates of ``|G|²`` and ``tr(Σ)``; None without accumulation.
        values: lr and other values of the step.
    """

    step: int
    layers: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    noise: tuple[float, float] | None = None
    values: dict[str, float] = field(default_factory=dict[str, float])


class LayerWatch:
    """Collects statistics of layers and weights in watched steps, on the device.

    A watched step is ``start_step``, the step itself, ``gradients_ready``, the update, then
    ``end_step``. Between two watched steps nothing is registered or computed. ``read`` waits for
    the device; the other methods do not.

    Args:
        model: The model that is called in a step.
        trained: The model, together with the parameters of the task if it has any; None for the
            model alone.
        n_ranks: Number of processes over which the gradients of a step are averaged.

    With fp16 the gradients of outputs include the scale of the loss; those of weights do not.

    Attributes:
        last_active: For each layer with units that may be silent, the last watched step in which
            each unit was not 0, int32; -1 if there is none.
    """

    def __init__(
        self, model: nn.Module, trained: nn.Module | None = None, n_ranks: int = 1
    ) -> None:
        self._forward = ForwardWatch(model, self._pass_started, n_ranks)
        self._weights = WeightWatch(model if trained is None else trained)
        self._noise = NoiseScale(n_ranks)
        self._step: StepReading | None = None
        self._parameters: list[nn.Parameter] = []
        self._trained = model if trained is None else trained
        self._pending: list[StepReading] = []
        self._pending_noise: list[Tensor | None] = []
        self.last_active: dict[str, Tensor] = {}

    @property
    def layers(self) -> Mapping[str, WatchedLayer]:
        """The layers so far, by name."""
        return self._forward.layers

    @property
    def weights(self) -> Mapping[str, WatchedWeight]:
        """The parameters by name."""
        return self._weights.weights

    @property
    def initial_embeddings(self) -> dict[str, Tensor]:
        """Weights of embeddings in the first watched step, if no optimizer tells unused rows."""
        return self._weights.first

    @property
    def notes(self) -> list[str]:
        """What cannot be watched."""
        return self._forward.hidden

    @property
    def is_watching(self) -> bool:
        """Whether a watched step has started and not ended."""
        return self._step is not None

    def continue_from(
        self,
        layers: Mapping[str, WatchedLayer],
        last_active: Mapping[str, Tensor],
        initial_embeddings: Mapping[str, Tensor],
    ) -> None:
        """Continue the record of an earlier run."""
        device = next((p.device for p in self._trained.parameters()), torch.device("cpu"))
        self._forward.layers.update(layers)
        # Copied here, not in a step, where the host would wait for the device.
        self.last_active = {name: each.to(device) for name, each in last_active.items()}
        self._weights.first = {name: each.to(device) for name, each in initial_embeddings.items()}

    def start_step(self, step: int, *, in_user_loop: bool = False) -> None:
        """Register hooks and copy the weights.

        Args:
            step: The step, from 0.
            in_user_loop: Whether unknown code makes the step: it may evaluate the model within it,
                and change the gradients before the update.
        """
        self.cancel()
        self._step = StepReading(step)
        self._parameters = list(self._trained.parameters())
        self._noise.start(self._parameters, changed_later=in_user_loop)
        self._weights.start()
        self._forward.start(only_training=in_user_loop)

    def gradients_ready(
        self, factor: float | Tensor = 1.0, updated: Collection[nn.Parameter] | None = None
    ) -> None:
        """Compute the norms of the gradients; no effect outside a watched step.

        Args:
            factor: By what the gradients were multiplied since the backward passes.
            updated: The parameters that are updated next; None for all.
        """
        if self._step is not None:
            with torch.no_grad():
                self._weights.gradients_ready(updated)
                self._noise.gradients_ready(self._parameters, factor)

    def end_step(
        self, optimizers: Iterable[Optimizer], values: Mapping[str, float] | None = None
    ) -> None:
        """Remove the hooks and keep the statistics on the device; no effect if none started.

        Args:
            optimizers: The optimizers that update weights.
            values: lr and other values of the step.
        """
        if self._step is None:
            return
        step, self._step = self._step, None
        step.values = dict(values or {})
        with torch.no_grad():
            for name, active in self._forward.active().items():
                self._update_active(name, active, step.step)
            step.layers = self._forward.stop()
            step.weights = self._weights.end(optimizers)
        self._parameters = []
        self._pending.append(step)
        self._pending_noise.append(self._noise.end())

    def cancel(self) -> None:
        """Remove the hooks after an error, and discard the step."""
        if self._step is not None:
            self._step, self._parameters = None, []
            self._forward.stop()
            self._noise.release()
            self._weights.release()

    def thin_out(self, most: int) -> bool:
        """Drop every second unread step if there are more than ``most``; return whether it did.

        They are on the device, and an epoch may have any number of steps.
        """
        if len(self._pending) <= most:
            return False
        self._pending, self._pending_noise = self._pending[::2], self._pending_noise[::2]
        return True

    def read(self) -> list[StepReading]:
        """Return the watched steps since the last call, read from the device."""
        steps, self._pending = self._pending, []
        noises, self._pending_noise = self._pending_noise, []
        tensors = [
            value
            for step in steps
            for part in (step.layers, step.weights)
            for value in part.values()
        ]
        tensors += [noise for noise in noises if noise is not None]
        values = iter(_to_host(tensors))
        for step in steps:
            step.layers = {name: next(values) for name in step.layers}
            step.weights = {name: next(values) for name in step.weights}
        for step, noise in zip(steps, noises, strict=True):
            if noise is not None:
                square, trace = to_list(next(values))
                step.noise = square, trace
        return steps

    def _pass_started(self) -> None:
        with torch.no_grad():
            self._noise.pass_started(self._parameters)

    def _update_active(self, name: str, active: Tensor, step: int) -> None:
        last = self.last_active.get(name)
        if last is None or last.shape != active.shape:
            last = torch.full(active.shape, -1, dtype=torch.int32, device=active.device)
        self.last_active[name] = torch.where(active, torch.full_like(last, step), last)


def _to_host(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors on the host, with one transfer per device."""
    found: dict[int, Tensor] = {}
    for device in dict.fromkeys(each.device for each in tensors):
        chosen = [i for i, each in enumerate(tensors) if each.device == device]
        joined = torch.cat([tensors[i] for i in chosen]).cpu()
        start = 0
        for index in chosen:
            end = start + len(tensors[index])
            found[index], start = joined[start:end], end
    return [found[i] for i in range(len(tensors))]
