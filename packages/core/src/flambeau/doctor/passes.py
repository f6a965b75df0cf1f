"""One forward pass and one backward pass of a model, looked at and undone."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.doctor.readings import named_modules
from flambeau.global_rng import TemporarySeed
from flambeau.nested import detach
from flambeau.task.task import StepContext, Task

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)
_WATCHED = (*_WEIGHTED, nn.ReLU, nn.Embedding, nn.LayerNorm, nn.GroupNorm)

_Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]


@dataclass
class Pass:
    """What a forward pass showed.

    Attributes:
        outputs: The model's answer.
        last: What made it, by autograd's name ("SoftmaxBackward0"); empty where that is unknown.
        seen: What the layers with weights that see the data get, by the layer's name.
        silent: Share of the units of a ReLU layer that are 0 for all samples, by its name.
        in_a_channel: Numbers from which a norm layer takes the statistics of a channel, by name.
    """

    outputs: Any = None
    last: str = ""
    seen: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    silent: dict[str, float] = field(default_factory=dict[str, float])
    in_a_channel: dict[str, int] = field(default_factory=dict[str, int])


def look(model: nn.Module, task: Task, batch: Batch, context: StepContext) -> Pass:
    """Runs the model on the batch as the first step would, and puts back what that changes."""
    found = Pass()
    watch = _Watch(found, everything_learns=all(p.requires_grad for p in model.parameters()))
    hooks = [
        module.register_forward_hook(watch.of(name))
        for name, module in named_modules(model)
        if isinstance(module, _WATCHED) or hasattr(module, "running_mean")
    ]
    try:
        with left_as_it_was(model, context.seed), torch.enable_grad():
            outputs = task.forward(model.train(), batch, context)
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(outputs, Tensor) and outputs.grad_fn is not None:
        found.last = outputs.grad_fn.name()
    found.outputs = detach(outputs)
    return found


def gradient_sizes(
    model: nn.Module, task: Task, batch: Batch, context: StepContext
) -> dict[str, float | None]:
    """The largest gradient of each parameter that learns; None where the loss has none for it."""
    names: list[str] = []
    learning: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            names.append(name)
            learning.append(parameter)
    with left_as_it_was(model, context.seed), torch.enable_grad():
        total, _ = task.loss(task.forward(model.train(), batch, context), batch)
        if not learning or not total.requires_grad:
            return dict.fromkeys(names)
        # Not backward(): what lies in .grad stays.
        gradients = cast(
            "tuple[Tensor | None, ...]",
            torch.autograd.grad(total, learning, allow_unused=True),
        )
    return {
        name: None if gradient is None else float(gradient.detach().abs().max())
        for name, gradient in zip(names, gradients, strict=True)
    }


@contextmanager
def left_as_it_was(model: nn.Module, seed: int) -> Generator[None]:
    """Puts back what code of the user's may change: buffers, modes, what learns, generators."""
    buffers = [
        (module, name, value, value.clone())
        for module in model.modules()
        for name, value in module.named_buffers(recurse=False)
    ]
    modes = {module: module.training for module in model.modules()}
    learns = {parameter: parameter.requires_grad for parameter in model.parameters()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    accelerators = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(accelerators),  # pyright: ignore[reportUnknownMemberType]
            TemporarySeed().at(keyed.key(seed, "doctor")),
        ):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, learned in learns.items():
            parameter.requires_grad_(learned)
        with torch.no_grad():
            for module, name, value, content in buffers:
                if getattr(module, name) is not value:  # a forward pass may have assigned another
                    setattr(module, name, value)
                value.copy_(content)


class _Watch:
    """Forward hooks that write down what a pass shows."""

    def __init__(self, found: Pass, *, everything_learns: bool) -> None:
        self.found = found
        self.everything_learns = everything_learns
        self.begun = False  # whether a layer with weights has run

    def of(self, name: str) -> _Hook:
        """The hook of the layer of that name."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(module, nn.ReLU):
                self._relu(name, output)
                return
            value = inputs[0] if inputs else None
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1:
                if isinstance(module, _WEIGHTED):
                    self._weighted(name, value)
                elif module.training and isinstance(getattr(module, "running_mean", None), Tensor):
                    numbers = value.numel() // value.shape[1]
                    known = self.found.in_a_channel.get(name, numbers)
                    self.found.in_a_channel[name] = max(numbers, known)
            self.begun = True

        return hook

    def _weighted(self, name: str, value: Tensor) -> None:
        # What no weights have touched is the data, however forward has scaled them. Frozen weights
        # leave no trace in autograd: then only the very first layer is sure to see the data.
        if not value.requires_grad and (self.everything_learns or not self.begun):
            self.found.seen[name] = value.detach()

    def _relu(self, name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 1 and output.numel():
            share = _silent_share(output.detach())
            self.found.silent[name] = min(share, self.found.silent.get(name, 1.0))


def _silent_share(output: Tensor) -> float:
    """Of the units along axis 1, or the last one where a sample is a sequence: the lower share."""
    axes = {1, 2} if output.ndim == 3 else {1}
    shares: list[float] = []
    for axis in axes:
        others = [other for other in range(output.ndim) if other != axis]
        shares.append(float((output.amax(others) <= 0).float().mean()))
    return min(shares)
