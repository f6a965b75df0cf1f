"""Where a step stopped being finite: found by computing it once more, with hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flambeau.data.batch import Batch
from flambeau.errors import NonFiniteError
from flambeau.nested import tensors_in
from flambeau.task.task import StepContext, Task
from flambeau.training.nonfinite.guard import StepRecord
from flambeau.training.run_state.preserve import preserve

_MOST_SAMPLES = 10

_Key = tuple[int, int]


@dataclass(frozen=True)
class Culprit:
    """What was the first to be not finite.

    Attributes:
        kind: "input" (also targets and masks), "parameter", "output", "loss", "gradient", or
            "unknown" where the step was finite when computed once more.
        what: In words, with the name of the layer or tensor.
        samples: Numbers of the samples it concerns, where that can be told.
    """

    kind: str
    what: str
    samples: tuple[int, ...] = ()


_ADVICE: Mapping[str, str] = {
    "input": (
        "Look at these samples; drop them, or mend the preprocessing (a logarithm of 0, a column "
        "without spread, a missing value)."
    ),
    "parameter": "Load the weights again, or look at what was done to them before the fit.",
    "output": (
        "Lower lr or clip gradients (clip_norm=1.0) if it came after good steps; in fp16 try "
        'precision "bf16" or "fp32"; else look for a division, logarithm or root in that layer.'
    ),
    "loss": "Look at the targets' range, and for a logarithm or division in the loss.",
    "gradient": (
        "Look for a root or a norm at 0, or a masked-out infinity: finite values can have "
        "gradients that are not. Lower lr or clip gradients (clip_norm=1.0) if it came after good "
        "steps."
    ),
    "unknown": (
        "So it hangs on something that the replay does not have: carried state, several "
        "optimizers, a train_step of your own, or an operation that is not deterministic. "
        'Lower lr, clip gradients (clip_norm=1.0), or leave such steps out (nonfinite="skip").'
    ),
}


def nonfinite_error(record: StepRecord, culprit: Culprit) -> NonFiniteError:
    """The error with step, samples, layer, and what to do."""
    samples = culprit.samples
    named = "Samples"
    if not samples:
        known = [int(i) for indices in record.indices if indices is not None for i in indices]
        samples, named = tuple(known), "Samples of the step"
    shown = ", ".join(map(str, samples[:_MOST_SAMPLES]))
    more = f" and {len(samples) - _MOST_SAMPLES} more" if len(samples) > _MOST_SAMPLES else ""
    where = f"{named}: {shown}{more}. " if samples else ""
    return NonFiniteError(
        f"Step {record.step} (step {record.epoch_step} of epoch {record.epoch + 1}) is not finite: "
        f"{culprit.what}. {where}The weights are as they were before that step. "
        f"{_ADVICE[culprit.kind]}"
    )


def find_culprit(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    context: StepContext,
    *,
    record: StepRecord | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Culprit:
    """Computes a bad step once more and names the first thing that is not finite.

    Model, gradients and generators are left as they were. Carried state starts empty.

    Args:
        model: With the weights of the bad step, in the modes in which it ran.
        task: Loss and forward pass.
        batches: The step's micro-batches, ready for the model.
        context: As in the step.
        record: Gives the generators' states of the step, so that dropout draws the same.
        autocast: The run's precision.
    """
    for batch in batches:
        found = _in_batch(batch)
        if found is not None:
            return found
    for name, parameter in model.named_parameters():
        if not _is_finite(parameter):
            return Culprit("parameter", f"the parameter {name!r} was so already")
    with preserve(model):
        _set_generators(model, record)
        for batch in batches:
            found = _replay(model, task, batch, context, autocast)
            if found is not None:
                return found
    return Culprit("unknown", "its loss or a gradient, but it was finite when computed once more")


def _replay(
    model: nn.Module,
    task: Task,
    batch: Batch,
    context: StepContext,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Culprit | None:
    watch = _Watch(batch)
    handles = watch.hook(model)
    try:
        context.carry = None
        with torch.enable_grad(), autocast():
            outputs = task.forward(model, batch, context)
            if watch.first_output is None:
                watch.see_output("the model's answer", outputs)
            if watch.first_output is not None:
                return watch.first_output
            loss_sum, weight = task.loss(outputs, batch)
            if not _is_finite(loss_sum) or not _is_finite(torch.as_tensor(weight)):
                return Culprit("loss", "the loss, although the model's answer is finite")
            mean = loss_sum / weight
            if not _is_finite(mean):
                return Culprit("loss", f"the loss, a sum divided by the weight {float(weight)}")
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(mean, parameters, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    if watch.first_gradient is not None:
        return watch.first_gradient
    # torch's stubs know nothing of allow_unused, which gives None.
    for name, gradient in zip(names, cast("tuple[Tensor | None, ...]", gradients), strict=True):
        if gradient is not None and not _is_finite(gradient):
            return Culprit("gradient", f"the gradient of the parameter {name!r}")
    return None


class _Watch:
    """Hooks on every module: the first output, and the first gradient, that is not finite."""

    def __init__(self, batch: Batch) -> None:
        self.first_output: Culprit | None = None
        self.first_gradient: Culprit | None = None
        self._batch = batch
        self._users: dict[_Key, str] = {}
        self._makers: dict[_Key, str] = {}
        self._watched: set[_Key] = set()
        self._kept: list[object] = []  # alive, so that no id stands for two things

    def hook(self, model: nn.Module) -> list[RemovableHandle]:
        """Puts the hooks; the caller removes them."""
        handles: list[RemovableHandle] = []
        for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
            label = f"{name!r} ({type(module).__name__})" if name else f"{type(module).__name__}"
            handles.append(module.register_forward_pre_hook(self._before(label)))
            handles.append(module.register_forward_hook(self._after(label)))
        return handles

    def see_output(self, label: str, value: object) -> None:
        """Notes ``value`` if it is the first that is not finite."""
        for tensor in _tensors(value):
            if self.first_output is None and not _is_finite(tensor):
                rows = _bad_samples(tensor, self._batch)
                self.first_output = Culprit("output", f"the output of {label}", rows)

    def _before(self, label: str) -> Callable[[nn.Module, Any], None]:
        def note_user(module: nn.Module, inputs: Any) -> None:
            for tensor in _tensors(inputs):
                # An inner module is called after the one around it: the last note is the nearest.
                self._users[self._watch_gradient(tensor)] = label

        return note_user

    def _after(self, label: str) -> Callable[[nn.Module, Any, Any], None]:
        def note_output(module: nn.Module, inputs: Any, outputs: Any) -> None:
            self.see_output(label, outputs)
            for tensor in _tensors(outputs):
                self._makers.setdefault(self._watch_gradient(tensor), label)

        return note_output

    def _watch_gradient(self, tensor: Tensor) -> _Key:
        # The node, not the tensor: a layer that works in place gives the tensor another node.
        node = tensor.grad_fn
        key = (id(tensor), 0) if node is None else (id(node), tensor.output_nr)
        self._kept.append(tensor if node is None else node)
        if not tensor.requires_grad or key in self._watched:
            return key
        self._watched.add(key)

        def see_gradient(gradient: Tensor) -> None:
            # Backward runs from the loss to the stem, so the first one to fire is the last layer
            # that made a bad gradient of a good one: the one that used this tensor.
            if self.first_gradient is None and not _is_finite(gradient):
                user, maker = self._users.get(key), self._makers.get(key)
                if user is not None:
                    what = f"the gradient that {user} gives back to its input"
                else:
                    what = f"the gradient of the loss, or of code after {maker}, to its output"
                rows = _bad_samples(gradient, self._batch)
                self.first_gradient = Culprit("gradient", what, rows)

        cast("Any", tensor).register_hook(see_gradient)
        return key


def _in_batch(batch: Batch) -> Culprit | None:
    for kind, parts in (
        ("input", batch.inputs),
        ("target", batch.targets),
        ("mask", batch.masks),
    ):
        for name, value in parts.items():
            if not _is_finite(value):
                what = f"the {kind} {name!r} has a NaN or an infinity before the model sees it"
                return Culprit("input", what, _bad_samples(value, batch))
    return None


def _bad_samples(value: Tensor, batch: Batch) -> tuple[int, ...]:
    """Sample numbers of the rows that are not finite; none where the first axis is no sample."""
    if value.ndim == 0 or value.shape[0] != len(batch):
        return ()
    rows = (~torch.isfinite(value.detach())).reshape(len(batch), -1).any(1).nonzero().flatten()
    positions = rows.cpu()
    numbers = positions if batch.indices is None else batch.indices[positions]
    return tuple(int(number) for number in numbers)


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a nested value."""
    return (tensor for tensor in tensors_in(value) if tensor.is_floating_point())


def _set_generators(model: nn.Module, record: StepRecord | None) -> None:
    """Set torch's generators to their states of the step, so that dropout draws the same."""
    if record is None:
        return
    torch.set_rng_state(record.cpu_generator)
    for parameter in model.parameters():
        if parameter.is_cuda and record.device_generator is not None:
            torch.cuda.set_rng_state(record.device_generator, parameter.device)
        break
