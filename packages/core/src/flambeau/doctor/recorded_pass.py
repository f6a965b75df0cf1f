"""A forward pass with its layer statistics, and a backward pass; both leave the model unchanged."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.doctor.typed_torch import named_modules
from flambeau.global_rng import TemporarySeed
from flambeau.nested import detach
from flambeau.task.task import StepContext, Task
from flambeau.training.run_state.preserve import preserve

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)
_HOOKED = (*_WEIGHTED, nn.ReLU, nn.Embedding, nn.LayerNorm, nn.GroupNorm)

_Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]


@dataclass
class PassRecord:
    """The outputs and layer statistics recorded during one forward pass.

    Attributes:
        outputs: The outputs of the model.
        last_operation: Name of the autograd node of the outputs ("SoftmaxBackward0"), or empty.
        layer_inputs: Inputs of the layers with weights that receive the data directly, by layer.
        zero_shares: Share of the units of a ReLU layer that are 0 for all samples, by layer.
        values_per_channel: Number of values from which a norm layer computes the statistics of a
            channel, by layer.
    """

    outputs: Any = None
    last_operation: str = ""
    layer_inputs: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    zero_shares: dict[str, float] = field(default_factory=dict[str, float])
    values_per_channel: dict[str, int] = field(default_factory=dict[str, int])


def record_forward_pass(
    model: nn.Module, task: Task, batch: Batch, context: StepContext
) -> PassRecord:
    """Run the model on the batch in training mode, then restore the state that this changed."""
    record = PassRecord()
    recorder = _LayerRecorder(
        record, all_trainable=all(p.requires_grad for p in model.parameters())
    )
    hooks = [
        module.register_forward_hook(recorder.hook_of(name))
        for name, module in named_modules(model)
        if isinstance(module, _HOOKED) or hasattr(module, "running_mean")
    ]
    try:
        with preserved_with_seed(model, context.seed, task), torch.enable_grad():
            outputs = task.forward(model.train(), batch, context)
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(outputs, Tensor) and outputs.grad_fn is not None:
        record.last_operation = outputs.grad_fn.name()
    record.outputs = detach(outputs)
    return record


def max_gradients(
    model: nn.Module, task: Task, batch: Batch, context: StepContext
) -> dict[str, float | None]:
    """Return the largest absolute gradient of each trainable parameter; None without a gradient."""
    names: list[str] = []
    trainable: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            names.append(name)
            trainable.append(parameter)
    with preserved_with_seed(model, context.seed, task), torch.enable_grad():
        total, _ = task.loss(task.forward(model.train(), batch, context), batch)
        if not trainable or not total.requires_grad:
            return dict.fromkeys(names)
        # Not backward(), which would change the parameters' .grad.
        gradients = cast(
            "tuple[Tensor | None, ...]",
            torch.autograd.grad(total, trainable, allow_unused=True),
        )
    return {
        name: None if gradient is None else float(gradient.detach().abs().max())
        for name, gradient in zip(names, gradients, strict=True)
    }


@contextmanager
def preserved_with_seed(model: nn.Module, seed: int, *objects: object) -> Generator[None]:
    """Seed the generators in the ``with`` block; restore them, model and objects at its end."""
    with preserve(model, *objects), TemporarySeed().at(keyed.key(seed, "doctor")):
        yield


class _LayerRecorder:
    """Forward hooks that fill a ``PassRecord``."""

    def __init__(self, record: PassRecord, *, all_trainable: bool) -> None:
        self.record = record
        self.all_trainable = all_trainable
        self.started = False  # whether a layer with weights has run

    def hook_of(self, name: str) -> _Hook:
        """Return the hook for the layer ``name``."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(module, nn.ReLU):
                self._record_relu(name, output)
                return
            value = inputs[0] if inputs else None
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1:
                if isinstance(module, _WEIGHTED):
                    self._record_input(name, value)
                elif module.training and isinstance(getattr(module, "running_mean", None), Tensor):
                    count = value.numel() // value.shape[1]
                    known = self.record.values_per_channel.get(name, count)
                    self.record.values_per_channel[name] = max(count, known)
            self.started = True

        return hook

    def _record_input(self, name: str, value: Tensor) -> None:
        # A value that requires no gradient has passed no trainable weight, so it is the data,
        # possibly scaled by forward. Frozen weights are invisible to autograd: if there are any,
        # only the very first layer is known to receive the data.
        if not value.requires_grad and (self.all_trainable or not self.started):
            self.record.layer_inputs[name] = value.detach()

    def _record_relu(self, name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 1 and output.numel():
            share = _zero_share(output.detach())
            self.record.zero_shares[name] = min(share, self.record.zero_shares.get(name, 1.0))


def _zero_share(output: Tensor) -> float:
    """Return the share of units that are 0 for all samples.

    Units lie along axis 1, or along the last axis of a sequence ``(batch, length, units)``; for
    three axes the lower of the two shares is returned.
    """
    axes = {1, 2} if output.ndim == 3 else {1}
    shares: list[float] = []
    for axis in axes:
        others = [other for other in range(output.ndim) if other != axis]
        shares.append(float((output.amax(others) <= 0).float().mean()))
    return min(shares)
