"""``StepRecorder``: copies the values of a training step while the loop makes it.

It wraps operations of a run that is made for one step; other runs are not changed. Values that a
kernel never stores are computed in addition, after the step has computed its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.data.transform import Transform
from flambeau.global_rng import preserve_generators
from flambeau.inspect.hooks import modules_by_name
from flambeau.inspect.stages import DISPLAY, Kind, Stage, named_tensors
from flambeau.nested import map_tensors
from flambeau.task.task import Task
from flambeau.training.events import Callback
from flambeau.training.optim.clip import optimized_parameters
from flambeau.training.run_state.preserve import preserve_objects
from flambeau.training.state import TrainState
from flambeau.wording import class_name, format_number, type_and_first_line

if TYPE_CHECKING:
    from flambeau.training.run import Run


@runtime_checkable
class ComputesLogits(Protocol):
    """Outputs from which the loss computes logits in pieces, without storing them."""

    def logits(self) -> Tensor:
        """Return the logits that the loss does not store."""
        ...


class StepRecorder:
    """Records the stages of one step, in the order in which the step computes them.

    Attributes:
        stages: The stages so far.
    """

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._paused = True  # before the step, and while it is computed again or for display
        self._size = 1  # micro-batches of the step
        self._ready = 0  # micro-batches that the device transforms have returned
        self._current: int | None = None  # micro-batch of the forward pass
        self._batch: dict[str, Tensor] = {}  # its tensors before the next transform
        self._pending: tuple[Any, Batch, Task] | None = None  # outputs without a loss so far
        self._parameters: dict[str, nn.Parameter] = {}
        self._weights: dict[str, Tensor] = {}  # before the next update
        self._statistics: dict[str, Tensor] = {}
        self._optimized: set[int] = set()
        self._chosen: set[int] | None = None  # parameters of the named update
        self._has_mean = False

    # The parts of the step, in their order

    def batches(self, group: list[Batch]) -> None:
        """Record the micro-batches as the loader returned them."""
        self._size = len(group)
        for index, batch in enumerate(group):
            for name, value in _tensors_of(batch).items():
                self._add("batch", name, value, micro_batch=index)

    def transform(self, transform: Transform) -> Transform:
        """Return the transform, which then records what it changes."""
        name = class_name(transform)

        def recorded(batch: Batch, seed: int) -> Batch:
            self._start_batch(batch)
            return self._after_transform(name, transform(batch, seed))

        return recorded

    def on_device(self, function: Callable[[Batch], Batch]) -> Callable[[Batch], Batch]:
        """Return ``on_device`` of the preprocessor, which then records what it changes."""

        def recorded(batch: Batch) -> Batch:
            self._start_batch(batch)
            return self._after_transform("on_device", function(batch))

        return recorded

    def start_batch(self) -> None:
        """Start recording the transforms of the next micro-batch."""
        self._batch = {}

    def end_batch(self) -> None:
        """Count a micro-batch that is ready for the model."""
        self._ready += 1

    @contextmanager
    def recording(self, run: Run) -> Generator[None]:
        """Record what the operations of ``run`` compute inside the block."""
        self._parameters = dict(run.trained.named_parameters())
        self._weights = {name: _copy(value) for name, value in self._parameters.items()}
        self._statistics = {name: _copy(value) for name, value in run.trained.named_buffers()}
        self._optimized = set(map(id, optimized_parameters(run.optimizers.values())))
        self._wrap(run)
        self._paused, self._ready = False, 0
        handles = [
            module.register_forward_hook(self._output_of(name or "(model)"))
            for name, module in _shown_modules(run.components.model)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            # The wrappers refer to the run, which is to be freed with its last reference.
            for name in ("forward", "backward", "update", "update_with"):
                vars(run.step).pop(name)
            vars(run.update).pop("clip")

    def values(self, values: Mapping[str, float], scale: float | None) -> None:
        """Record lr and the other values of the step."""
        found = dict(values) if scale is None else {**values, "loss scale": scale}
        self.stages.append(Stage("values", "scheduled values", found))

    def note(self, name: str, text: str) -> None:
        """Record what the step does not show."""
        self.stages.append(Stage("note", name, None, text))

    def finish(self, run: Run) -> None:
        """Record what the step changed besides the weights that its updates recorded."""
        last = run.state.last
        if not self._has_mean and last is not None:
            self._add("loss", "mean", last.loss, "returned by the train step")
        if last is not None and not float(last.weight):
            self.note("update", "No sample of the step has a target, so it changes no weights.")
        self._updates("changed outside of step.update")
        for name, value in run.trained.named_buffers():
            before = self._statistics.get(name)
            if before is None or not _same(before, _copy(value)):
                self._add("statistic", name, value)
        if run.average is not None:
            state = run.average.state_dict()
            if not state["updates"]:
                self.note("average", "The average does not include this step.")
            for name, value in state["tensors"].items() if state["updates"] else ():
                self._add("average", name, value)

    # Recording

    def _add(
        self,
        kind: Kind,
        name: str,
        value: Tensor,
        note: str = "",
        *,
        micro_batch: int | None = None,
    ) -> None:
        if not self._paused:
            number = micro_batch if self._size > 1 else None
            self.stages.append(Stage(kind, name, _copy(value), note, number))

    @contextmanager
    def _pause(self) -> Generator[None]:
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _start_batch(self, batch: Batch) -> None:
        if not self._batch:
            self._batch = {name: _copy(value) for name, value in _tensors_of(batch).items()}

    def _after_transform(self, transform: str, batch: Batch) -> Batch:
        before = self._batch
        self._batch = {name: _copy(value) for name, value in _tensors_of(batch).items()}
        for name, value in self._batch.items():
            if name not in before or not _same(before[name], value):
                self._add("transform", f"{transform}: {name}", value, micro_batch=self._ready)
        return batch

    def _output_of(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        calls = 0

        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            nonlocal calls
            if self._paused:
                return
            calls += 1
            note = type(module).__name__
            if calls > 1 and self._size == 1:
                note += f", call {calls}"
            for label, value in named_tensors(outputs, name):
                self._add("output", label, value, note, micro_batch=self._current)

        return hook

    # The operations of the run

    def _wrap(self, run: Run) -> None:
        self._wrap_forward(run)
        self._wrap_backward(run)
        self._wrap_clip(run)
        self._wrap_update(run)
        self._wrap_closure(run)

    def _wrap_forward(self, run: Run) -> None:
        forward, position = run.step.forward, -1

        def recorded(model: nn.Module, batch: Batch, task: Task) -> Any:
            nonlocal position
            position = next(
                (i for i, each in enumerate(run.step.micro_batches) if each is batch), position + 1
            )
            self._current = position
            outputs = forward(model, batch, task)
            # A copy, because a loss may change outputs in place.
            self._pending = (map_tensors(_clone, outputs), batch, task)
            return outputs

        run.step.forward = recorded

    def _wrap_backward(self, run: Run) -> None:
        backward = run.step.backward

        def recorded(loss: Tensor, divisor: float = 1.0, *, retain_graph: bool = False) -> None:
            self._losses_of_samples(run)
            note = f"before the division by the step's weight {divisor:g}" if divisor != 1.0 else ""
            self._add("loss", "backward", loss, note, micro_batch=self._current)
            backward(loss, divisor, retain_graph=retain_graph)
            for name, value in named_tensors(run.state.context.carry, "carry"):
                self._add("carry", name, value, micro_batch=self._current)

        run.step.backward = recorded

    def _losses_of_samples(self, run: Run) -> None:
        """Record the loss of each sample, and logits that the loss does not store, if known."""
        pending, self._pending = self._pending, None
        if pending is None or self._paused:
            return
        outputs, batch, task = pending
        logits = losses = None
        why = "not available: the outputs do not have one row per sample"
        with self._pause(), preserve_objects(task), preserve_generators(), torch.no_grad():
            try:
                # The outputs of transformers have a tensor of this name.
                if isinstance(outputs, ComputesLogits) and callable(outputs.logits):
                    with run.step.autocast():
                        logits = outputs.logits()
                losses = task.sample_losses(outputs, batch)
            except Exception as error:  # noqa: BLE001 - user code that only a report calls else
                why = f"not available: {type_and_first_line(error)}"
        if logits is not None:
            self._add("logits", "logits", logits, DISPLAY, micro_batch=self._current)
        if losses is None:
            self.stages.append(Stage("loss per sample", "samples", None, why, self._number()))
        else:
            note = f"{DISPLAY}: each sample alone"
            self._add("loss per sample", "samples", losses, note, micro_batch=self._current)

    def _number(self) -> int | None:
        return self._current if self._size > 1 else None

    def gradients_ready(self) -> None:
        """Record the gradient of each parameter; the run calls it before clipping."""
        for name, parameter in self._parameters.items():
            if self._paused or not self._is_chosen(parameter):
                continue
            if parameter.grad is None:
                frozen = not parameter.requires_grad
                why = "none: frozen" if frozen else "none: the loss does not depend on it"
                self.stages.append(Stage("gradient", name, None, why))
            else:
                unused = id(parameter) not in self._optimized
                note = "no optimizer has this parameter" if unused else ""
                self._add("gradient", name, parameter.grad, note)

    def _is_chosen(self, parameter: nn.Parameter) -> bool:
        return self._chosen is None or id(parameter) in self._chosen

    def _wrap_clip(self, run: Run) -> None:
        clip, limit = run.update.clip, run.options.clip_norm

        def recorded(chosen: Any) -> list[Tensor]:
            found = clip(chosen)
            if limit is not None and not self._paused:
                norm = float(found[0])
                note = f"norm {format_number(norm)}, at most {limit:g}"
                note += ": unchanged" if norm <= limit else ""  # not for NaN
                for name, parameter in self._parameters.items():
                    if parameter.grad is not None and self._is_chosen(parameter):
                        self._add("clipped gradient", name, parameter.grad, note)
            return found

        run.update.clip = recorded

    def _wrap_update(self, run: Run) -> None:
        update = run.step.update

        def recorded(loss: Tensor | None = None, name: str | None = None) -> None:
            if loss is not None:
                self._mean(loss)
            self._choose(run, name)
            update(loss, name)
            self._updates()
            self._chosen = None

        run.step.update = recorded

    def _wrap_closure(self, run: Run) -> None:
        update_with = run.step.update_with

        def recorded(closure: Callable[[], Tensor], name: str | None = None) -> Tensor:
            evaluations = 0

            def counted() -> Tensor:
                nonlocal evaluations
                evaluations += 1
                self._paused = evaluations > 1
                loss = closure()
                self._mean(loss)
                return loss

            self._choose(run, name)
            try:
                loss = update_with(counted, name)
            finally:
                self._paused = False
            self._updates(f"of {evaluations} evaluations of the loss, of which the first is shown")
            self._chosen = None
            return loss

        run.step.update_with = recorded

    def _choose(self, run: Run, name: str | None) -> None:
        if name is not None and name in run.optimizers:
            self._chosen = set(map(id, optimized_parameters([run.optimizers[name]])))

    def _mean(self, loss: Tensor) -> None:
        self._add("loss", "mean", loss)
        self._has_mean = True

    def _updates(self, note: str = "") -> None:
        """Record the changes of the weights since the last call, and the new weights.

        Args:
            note: Text of the update; with it only parameters that changed are recorded.
        """
        chosen = {
            name: _copy(parameter)
            for name, parameter in self._parameters.items()
            if self._is_chosen(parameter) and parameter.requires_grad
        }
        moved = {name: new for name, new in chosen.items() if not _same(self._weights[name], new)}
        shown = moved if note else chosen
        text = f"{DISPLAY}{', ' * bool(note)}{note}"
        for name, new in shown.items():
            self._add("update", name, new - self._weights[name], text)
        for name, new in shown.items():
            self._add("weight", name, new)
        self._weights |= chosen


class GradientListener(Callback):
    """Lets the recorder copy the gradients before they are clipped."""

    def __init__(self, recorder: StepRecorder) -> None:
        self._recorder = recorder

    def on_gradients_ready(self, state: TrainState) -> None:
        self._recorder.gradients_ready()


def _shown_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules whose outputs are shown: those of ``summary``, and the model."""
    for name, module in modules_by_name(model).items():
        owns = any(True for _ in module.parameters(recurse=False))
        if not name or owns or not any(True for _ in module.children()):
            yield name, module


def _tensors_of(batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch by a name that says what they are."""
    kinds: Iterable[tuple[str, Mapping[str, Tensor]]] = (
        ("input", batch.inputs),
        ("target", batch.targets),
        ("mask", batch.masks),
        ("task input", batch.task_inputs),
    )
    found = {f"{kind} {name}": value for kind, parts in kinds for name, value in parts.items()}
    if batch.sample_weight is not None:
        found["sample weight"] = batch.sample_weight
    return found


def _copy(value: Tensor) -> Tensor:
    value = value.detach()
    if value.layout is not torch.strided:
        value = value.to_dense()
    return value.to("cpu", copy=True)


def _clone(value: Tensor) -> Tensor:
    return value.detach().clone()


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal; NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    is_float = one.is_floating_point() or one.is_complex()
    return torch.equal(one, other) or (
        is_float and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    )
