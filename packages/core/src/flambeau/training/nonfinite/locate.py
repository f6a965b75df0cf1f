"""Find the first non-finite value of a step by computing it again with hooks."""

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
class NonFiniteSource:
    """The first non-finite value of a step.

    Attributes:
        kind: "empty" (no samples), "input" (also targets and masks), "parameter", "output", "loss",
            "no target" (the weight of the step is 0), "gradient", or "unknown" if the step was
            finite when computed again.
        description: Text that names the layer or tensor.
        samples: Indices of the samples concerned; empty if unknown.
    """

    kind: str
    description: str
    samples: tuple[int, ...] = ()


_ADVICE: Mapping[str, str] = {
    "empty": "Let the loader leave out batches without samples (a collate_fn that drops all rows).",
    "input": (
        "Inspect these samples. Remove them, or fix the preprocessing (a logarithm of 0, a "
        "constant column, a missing value)."
    ),
    "parameter": "Load the weights again, or check the code that changed them before the fit.",
    "output": (
        "If earlier steps were finite, lower lr or clip gradients (clip_norm=1.0). With fp16 try "
        'precision "bf16" or "fp32". Otherwise check divisions, logarithms and roots in that layer.'
    ),
    "loss": (
        "If earlier steps were finite, lower lr or clip gradients (clip_norm=1.0). Otherwise check "
        "the range of the targets, and logarithms and divisions in the loss."
    ),
    "no target": (
        "Remove samples whose targets are all ignored (ignore_index) or whose sample_weight is 0, "
        "or choose a larger batch_size if only a few samples have targets."
    ),
    "gradient": (
        "Finite values can have non-finite gradients: check for a root or a norm at 0, and for a "
        "masked infinity. If earlier steps were finite, lower lr or clip gradients "
        "(clip_norm=1.0)."
    ),
    "unknown": (
        "Possible causes are carried state, several optimizers, a custom train_step, or a "
        "nondeterministic operation. Lower lr, clip gradients (clip_norm=1.0), or skip such steps "
        '(nonfinite="skip").'
    ),
}


def nonfinite_error(record: StepRecord, source: NonFiniteSource) -> NonFiniteError:
    """Return the error that names the step, its samples, the layer, and what to do."""
    samples = source.samples
    named = "Samples"
    if not samples:
        known = [int(i) for indices in record.indices if indices is not None for i in indices]
        samples, named = tuple(known), "Samples of the step"
    shown = ", ".join(map(str, samples[:_MOST_SAMPLES]))
    more = f" and {len(samples) - _MOST_SAMPLES} more" if len(samples) > _MOST_SAMPLES else ""
    where = f"{named}: {shown}{more}. " if samples else ""
    return NonFiniteError(
        f"Step {record.step} (step {record.epoch_step} of epoch {record.epoch + 1}) is not finite: "
        f"{source.description}. {where}The model has the weights from before that step. "
        f"{_ADVICE[source.kind]}"
    )


def find_nonfinite_source(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    context: StepContext,
    *,
    record: StepRecord | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> NonFiniteSource:
    """Compute a bad step again and return its first non-finite value.

    Afterwards model, gradients and generators are restored. Carried state starts empty.

    Args:
        model: The model with the weights and module modes of the bad step.
        task: Defines the forward pass and the loss.
        batches: The micro-batches of the step, ready for the model.
        context: The context of the step.
        record: Contains the generator states of the step, so that dropout draws the same numbers.
        autocast: Context manager of the precision of the run.
    """
    for batch in batches:
        found = _in_batch(batch)
        if found is not None:
            return found
    for name, parameter in model.named_parameters():
        if not _is_finite(parameter):
            return NonFiniteSource(
                "parameter", f"the parameter {name!r} was not finite before the step"
            )
    with preserve(model, task):
        _set_generators(model, record)
        weights: list[float] = []
        for batch in batches:
            found = _replay(model, task, batch, context, autocast, weights)
            if found is not None:
                return found
    if weights and not any(weights):
        return NonFiniteSource(
            "no target", "no sample has a target, so the loss is divided by the weight 0"
        )
    return NonFiniteSource(
        "unknown", "its loss or a gradient; computed again, all of its values are finite"
    )


def _replay(
    model: nn.Module,
    task: Task,
    batch: Batch,
    context: StepContext,
    autocast: Callable[[], AbstractContextManager[Any]],
    weights: list[float],
) -> NonFiniteSource | None:
    """Return the first non-finite value of a micro-batch, and add its weight to ``weights``."""
    watch = _Watch(batch)
    handles = watch.hook(model)
    try:
        context.carry = None
        with torch.enable_grad(), autocast():
            outputs = task.forward(model, batch, context)
            if watch.first_output is None:
                watch.check_output("the model", outputs)
            if watch.first_output is not None:
                return watch.first_output
            loss_sum, weight = task.loss(outputs, batch)
            if not _is_finite(loss_sum) or not _is_finite(torch.as_tensor(weight)):
                return NonFiniteSource(
                    "loss", "the loss, although the output of the model is finite"
                )
            weights.append(float(weight))
            # Other micro-batches of the step may have targets.
            mean = loss_sum / weight if weights[-1] else loss_sum
            if not _is_finite(mean):
                return NonFiniteSource(
                    "loss", f"the loss, a sum divided by the weight {float(weight)}"
                )
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(mean, parameters, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    if watch.first_gradient is not None:
        return watch.first_gradient
    # torch's stubs do not include the None of allow_unused.
    for name, gradient in zip(names, cast("tuple[Tensor | None, ...]", gradients), strict=True):
        if gradient is not None and not _is_finite(gradient):
            return NonFiniteSource("gradient", f"the gradient of the parameter {name!r}")
    return None


class _Watch:
    """Hooks on every module that record the first non-finite output and gradient."""

    def __init__(self, batch: Batch) -> None:
        self.first_output: NonFiniteSource | None = None
        self.first_gradient: NonFiniteSource | None = None
        self._batch = batch
        self._users: dict[_Key, str] = {}
        self._makers: dict[_Key, str] = {}
        self._watched: set[_Key] = set()
        self._kept: list[object] = []  # kept alive, so that no id is used twice

    def hook(self, model: nn.Module) -> list[RemovableHandle]:
        """Register the hooks and return their handles; the caller removes them."""
        handles: list[RemovableHandle] = []
        for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
            label = f"{name!r} ({type(module).__name__})" if name else f"{type(module).__name__}"
            handles.append(module.register_forward_pre_hook(self._before(label)))
            handles.append(module.register_forward_hook(self._after(label)))
        return handles

    def check_output(self, label: str, value: object) -> None:
        """Record ``value`` if it is the first non-finite output."""
        for tensor in _tensors(value):
            if self.first_output is None and not _is_finite(tensor):
                rows = _bad_samples(tensor, self._batch)
                self.first_output = NonFiniteSource("output", f"the output of {label}", rows)

    def _before(self, label: str) -> Callable[[nn.Module, Any], None]:
        def note_user(module: nn.Module, inputs: Any) -> None:
            for tensor in _tensors(inputs):
                # An inner module is called after the outer one, so the last entry is the innermost.
                self._users[self._watch_gradient(tensor)] = label

        return note_user

    def _after(self, label: str) -> Callable[[nn.Module, Any, Any], None]:
        def note_output(module: nn.Module, inputs: Any, outputs: Any) -> None:
            self.check_output(label, outputs)
            for tensor in _tensors(outputs):
                self._makers.setdefault(self._watch_gradient(tensor), label)

        return note_output

    def _watch_gradient(self, tensor: Tensor) -> _Key:
        # The node, not the tensor: an in-place operation gives the tensor another node.
        node = tensor.grad_fn
        key = (id(tensor), 0) if node is None else (id(node), tensor.output_nr)
        self._kept.append(tensor if node is None else node)
        if not tensor.requires_grad or key in self._watched:
            return key
        self._watched.add(key)

        def check_gradient(gradient: Tensor) -> None:
            # Backward runs from the loss to the stem, so the first hook that is called belongs to
            # the layer that turned a finite gradient into a bad one: the user of this tensor.
            if self.first_gradient is None and not _is_finite(gradient):
                user, maker = self._users.get(key), self._makers.get(key)
                if user is not None:
                    what = f"the gradient that {user} computes for its input"
                else:
                    what = f"the gradient that the loss, or code before it, computes for {maker}"
                rows = _bad_samples(gradient, self._batch)
                self.first_gradient = NonFiniteSource("gradient", what, rows)

        cast("Any", tensor).register_hook(check_gradient)
        return key


def _in_batch(batch: Batch) -> NonFiniteSource | None:
    for kind, parts in (
        ("input", batch.inputs),
        ("target", batch.targets),
        ("mask", batch.masks),
        ("task input", batch.task_inputs),
    ):
        for name, value in parts.items():
            if not _is_finite(value):
                what = f"the {kind} {name!r} has a NaN or an infinity before the forward pass"
                return NonFiniteSource("input", what, _bad_samples(value, batch))
    return None


def _bad_samples(value: Tensor, batch: Batch) -> tuple[int, ...]:
    """Return the sample indices of non-finite rows; empty if the first axis is not the batch."""
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
    """Set torch's generators to their states before the step, so that dropout draws the same."""
    if record is None:
        return
    torch.set_rng_state(record.cpu_generator)
    for parameter in model.parameters():
        if parameter.is_cuda and record.device_generator is not None:
            torch.cuda.set_rng_state(record.device_generator, parameter.device)
        break
