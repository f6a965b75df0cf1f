"""``ForwardWatch``: statistics of outputs and their gradients, by hooks, in one training step.

Hooks are registered for one step and removed after it, so other steps cost nothing. They copy a
part of each output at once, because a layer after it may change the output in place. They change
nothing: the step computes what it computes without them, bit for bit.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flambeau.inspect.watch import attention_statistics, layer_statistics
from flambeau.inspect.watch.function_watch import FunctionWatch
from flambeau.inspect.watch.layer_step import LayerStep
from flambeau.inspect.watch.step_hook import copied_as_nothing
from flambeau.inspect.watch.unit_axis import UnitAxis
from flambeau.inspect.watch.watched_layer import (
    BOUNDS,
    INPUT,
    MODEL,
    WatchedLayer,
    bounds_of,
    float_tensors,
    has_statistics,
    is_norm,
    may_be_silent,
    names_of,
)
from flambeau.nested import tensors_in
from flambeau.torch_internals import is_compiled, without_function_modes
from flambeau.wording import name_some, type_and_first_line

_MOST_CALLS = 8
"""Calls of a layer in a step of which all statistics are computed: a recurrent cell has many."""

_MOST_INPUTS = 8

_ATTENTION = ("attention", "multi_head_attention", "softmax")
"""Functions that compute attention weights; a softmax may also compute something else."""


class _Calls(threading.local):
    """The calls of modules in which this thread is, and the size of the first input of each."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.sizes: list[Tensor | None] = []


class ForwardWatch:
    """Watches the modules and functions of a model in the steps between ``start`` and ``stop``.

    Modules inside a region of ``torch.compile`` cannot be watched; ``hidden`` names them.

    Args:
        model: Any module.
        on_pass: Called before each pass through the model in a watched step.
        n_ranks: Number of processes over which the gradients of a step are averaged.

    Attributes:
        layers: The layers by name, in the order of their first call.
        hidden: Notes on what cannot be seen.
    """

    def __init__(
        self, model: nn.Module, on_pass: Callable[[], None] = lambda: None, n_ranks: int = 1
    ) -> None:
        self.layers: dict[str, WatchedLayer] = {}
        self.hidden: list[str] = []
        self._model, self._on_pass, self._n_ranks = model, on_pass, n_ranks
        self._steps: dict[str, LayerStep] = {}
        self._handles: list[RemovableHandle] = []
        self._names: dict[nn.Module, str] = {}
        self._calls = _Calls()
        self._axis = UnitAxis()
        self._functions = FunctionWatch(self._on_function)
        self._last = ""  # layer that was called last
        self._called: dict[str, int] = {}  # calls of functions in this pass
        self._last_output: tuple[str, Tensor] | None = None
        self._last_softmax: tuple[str, Tensor] | None = None
        self._first: nn.Module | None = None  # module with which a pass starts
        self._paused = True
        self._enters_mode = False
        self._only_training = False

    def start(self, *, only_training: bool = False) -> None:
        """Register the hooks.

        Args:
            only_training: Ignore calls without gradients: a loop may evaluate within the step.
        """
        compiled = [module for module in self._model.modules() if is_compiled(module)]
        inside = {each for region in compiled for each in region.modules()}
        self._names = {m: name for m, name in names_of(self._model).items() if m not in inside}
        self._note_compiled(compiled)
        # Under such a mode a compiled region would be compiled anew.
        self._enters_mode, self._only_training = not compiled, only_training
        self._steps, self._first, self._paused = {}, None, False
        self._calls = _Calls()
        before, after = copied_as_nothing(self._before), copied_as_nothing(self._after)
        for module in self._names:
            self._handles += [
                module.register_forward_pre_hook(before),
                module.register_forward_hook(after, always_call=True),
            ]

    def stop(self) -> dict[str, Tensor]:
        """Remove the hooks; return a row of ``ROW_SIZE`` numbers per layer, on its device."""
        self._paused = True
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._leave()
        steps, self._steps = self._steps, {}
        self._last_output = self._last_softmax = None
        with torch.no_grad():
            return {name: s.row() for name, s in steps.items() if s.outputs or s.attention}

    def active(self) -> dict[str, Tensor]:
        """Return which units were active in the step, bool, by layer; before ``stop``."""
        found = {name: step.active for name, step in self._steps.items()}
        return {name: active for name, active in found.items() if active is not None}

    # The hooks

    def _before(self, module: nn.Module, arguments: Any) -> None:
        if not self._records():
            return
        calls = self._calls
        calls.modules.append(module)
        if self._first is None or module is self._first:
            self._first = module
            self._start_pass()
        if module is self._model:
            self._record_inputs(arguments)
        # Before the call, because the module may change its input in place.
        reads = has_statistics(module)
        calls.sizes.append(self._size_of(module, arguments) if reads else None)
        if len(calls.modules) == 1 and self._enters_mode:
            self._functions.__enter__()

    def _after(self, module: nn.Module, arguments: Any, output: Any) -> None:
        calls = self._calls
        if self._paused or module not in calls.modules:
            return
        while calls.modules.pop() is not module:  # an error ended the calls inside
            calls.sizes.pop()
        size, name = calls.sizes.pop(), self._names[module]
        if output is not None and self._records():
            if has_statistics(module):
                first = next(float_tensors([output]), None)
                if first is not None:
                    self._record_module(name, module, size, first)
            if module is self._model:
                self._end_call(output)
        if not calls.modules:
            self._leave()

    def _leave(self) -> None:
        if self._functions.is_active:
            self._functions.__exit__(None, None, None)

    def _records(self) -> bool:
        return not self._paused and (torch.is_grad_enabled() or not self._only_training)

    def _start_pass(self) -> None:
        """Start a pass through the model; it may begin inside it, with a part that a task calls."""
        self._axis.start()
        self._called, self._last = {}, ""
        self._last_output = self._last_softmax = None
        self._on_pass()

    def _record_inputs(self, arguments: Any) -> None:
        for number, value in enumerate(float_tensors([arguments]), start=1):
            if number > _MOST_INPUTS:
                break
            name = INPUT if number == 1 else f"(input {number})"
            axis = 1 if value.ndim > 3 else value.ndim - 1
            self._record(name, "input", value, axis)

    def _end_call(self, output: Any) -> None:
        outputs = list(float_tensors([output]))
        last, softmax = self._last_output, self._last_softmax
        if last is not None and any(value is last[1] for value in outputs):
            self.layers[last[0]].is_output = True
        if softmax is not None and any(value is softmax[1] for value in outputs):
            self._remove_attention(softmax[0])

    def _remove_attention(self, name: str) -> None:
        """Remove the figures of a softmax whose result is the output: probabilities, no weights."""
        step = self._steps[name]
        step.attention.clear()
        if not step.outputs:  # no module, which is a layer in any case
            del self._steps[name]
            if self.layers[name].number == max(each.number for each in self.layers.values()):
                del self.layers[name]

    def _size_of(self, module: nn.Module, arguments: Any) -> Tensor | None:
        """Return the root mean square of the first input of a module, 0-d."""
        first = next(float_tensors([arguments]), None)
        found = None
        if first is not None:
            with self._guarded(f"the inputs of {self._names[module]}", first):
                found = layer_statistics.root_mean_square(first)
        return found

    def _record_module(
        self, name: str, module: nn.Module, size: Tensor | None, output: Tensor
    ) -> None:
        kind = type(module).__name__
        axis = self._axis.after(module, output)
        layer = self._record(
            name,
            kind,
            output,
            axis,
            bounds=bounds_of(module),
            input_size=size,
            finds_silent=may_be_silent(module),
            never_negative=isinstance(module, nn.ReLU | nn.ReLU6),
        )
        layer.is_norm = is_norm(module)
        self._last = name

    def _on_function(
        self, function: str, arguments: Sequence[Any], named: Mapping[str, Any], found: Any
    ) -> None:
        """Record an attention function, or an activation that no module of its own computes."""
        inside = self._calls.modules[-1] if self._calls.modules else self._model
        if self._paused or not self._records():
            return
        # What is computed here calls such functions, too: the guard also pauses.
        if function in _ATTENTION:
            with self._guarded(function, found):
                self._record_attention(function, inside, arguments, named, found)
        elif not _is_leaf(inside) and isinstance(found, Tensor) and found.is_floating_point():
            where = f"after {self._last}" if self._last else f"of {INPUT}"
            name = self._numbered(f"{function} {where}")
            axis = self._axis.after(None, found)
            bounds = BOUNDS.get(function)
            self._record(
                name,
                function,
                found,
                axis,
                bounds=bounds,
                finds_silent=True,
                never_negative=function in ("relu", "relu6"),
            )

    def _record_attention(
        self,
        function: str,
        inside: nn.Module,
        arguments: Sequence[Any],
        named: Mapping[str, Any],
        found: Any,
    ) -> None:
        row = _attention_row(function, arguments, named, found)
        if row is None:
            return
        if _is_leaf(inside) and inside in self._names:
            name, kind = self._names[inside], type(inside).__name__
        else:
            kind = "softmax" if function == "softmax" else "attention"
            name = self._numbered(f"{kind} in {self._names.get(inside, MODEL)}")
        self._layer(name, kind)
        self._step_of(name).attention.append(row)
        if function == "softmax":
            self._last_softmax = name, found

    def _numbered(self, name: str) -> str:
        """Return a name that distinguishes several calls in one pass."""
        count = self._called[name] = self._called.get(name, 0) + 1
        return name if count == 1 else f"{name}, {count}"

    # Recording

    def _record(
        self,
        name: str,
        kind: str,
        output: Tensor,
        axis: int,
        *,
        bounds: tuple[float, float] | None = None,
        input_size: Tensor | None = None,
        finds_silent: bool = False,
        never_negative: bool = False,
    ) -> WatchedLayer:
        with self._guarded(name, output):
            self._add(
                name,
                kind,
                output,
                axis,
                bounds=bounds,
                input_size=input_size,
                finds_silent=finds_silent,
                never_negative=never_negative,
            )
        return self._layer(name, kind)

    @contextmanager
    def _guarded(self, name: str, value: Any) -> Generator[None]:
        """Compute statistics in the block: without gradients, in the precision of the tensors.

        Nothing is recorded of what the block calls. An error in it becomes a note, because
        statistics must not end a training.

        Args:
            name: Of what the statistics are, for the note.
            value: The tensors of which they are computed.
        """
        before, self._paused = self._paused, True
        device = next((each.device.type for each in tensors_in(value)), "cpu")
        try:
            with (
                without_function_modes(),
                torch.no_grad(),
                torch.autocast(device, enabled=False),
            ):
                yield
        except Exception as error:  # noqa: BLE001 - see above
            self._note(f"No statistics of {name}: {type_and_first_line(error)}.")
        finally:
            self._paused = before

    def _add(
        self,
        name: str,
        kind: str,
        output: Tensor,
        axis: int,
        *,
        bounds: tuple[float, float] | None = None,
        input_size: Tensor | None = None,
        finds_silent: bool = False,
        never_negative: bool = False,
    ) -> None:
        layer, step = self._layer(name, kind), self._step_of(name)
        layer.units = output.shape[axis] if axis else 1
        layer.per_sample = math.prod(output.shape[1:])
        step.per_unit += output.numel() // max(1, layer.units)
        layer.per_unit = max(layer.per_unit, step.per_unit)
        self._last_output = name, output
        if finds_silent:
            active = layer_statistics.active_units(output, axis, never_negative=never_negative)
            step.add_active(active)
        if len(step.outputs) >= _MOST_CALLS:
            return
        row, histogram = layer_statistics.output_statistics(output, axis, bounds)
        if input_size is not None:
            row[-1] = input_size
        step.outputs.append(row)
        step.histograms.append(histogram)
        if output.requires_grad and output.grad_fn is not None:
            cast("Any", output).register_hook(self._gradient_hook(name, step, axis))

    def _gradient_hook(self, name: str, step: LayerStep, axis: int) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if self._steps and gradient.layout is torch.strided:  # not after the step
                with self._guarded(f"the gradients of {name}", gradient):
                    if self._n_ranks > 1:  # the part of these samples in the loss of the step
                        gradient = gradient / self._n_ranks
                    row, histogram = layer_statistics.gradient_statistics(gradient, axis)
                    step.gradients.append(row)
                    step.gradient_histograms.append(histogram)

        return hook

    def _layer(self, name: str, kind: str) -> WatchedLayer:
        if name not in self.layers:
            number = 0 if kind == "input" else 1 + sum(n.number > 0 for n in self.layers.values())
            self.layers[name] = WatchedLayer(name, kind, number)
        return self.layers[name]

    def _step_of(self, name: str) -> LayerStep:
        return self._steps.setdefault(name, LayerStep())

    # Notes

    def _note_compiled(self, compiled: Sequence[nn.Module]) -> None:
        if not compiled:
            return
        every = names_of(self._model)
        inside = [
            each
            for region in compiled
            for each in region.modules()
            if has_statistics(each) and each in every
        ]
        regions = name_some([every[region] for region in compiled], most=3)
        self._note(
            f"torch.compile hides the outputs of {len(set(inside))} layers in {regions}, and all "
            "functions that are not modules. Their weights and gradients are watched. To see the "
            'outputs, train some steps with compile "off".'
        )

    def _note(self, text: str) -> None:
        if text not in self.hidden:
            self.hidden.append(text)


def _is_leaf(module: nn.Module) -> bool:
    """Return whether a module has no children and parameters, so that it is recorded as a whole."""
    owns = any(True for _ in module.parameters(recurse=False))
    return not owns and not any(True for _ in module.children())


def _attention_row(
    function: str, arguments: Sequence[Any], named: Mapping[str, Any], found: Any
) -> Tensor | None:
    if function == "attention":
        return attention_statistics.of_sdpa(arguments, named)
    if function == "multi_head_attention":
        return attention_statistics.of_multi_head(arguments, named)
    axis = arguments[1] if len(arguments) > 1 else named.get("dim")
    is_last = isinstance(found, Tensor) and axis in (-1, found.ndim - 1)
    return attention_statistics.of_weights(found) if is_last else None
