"""``layer_costs``: FLOPs, memory, time and receptive field of each module in a forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flambeau.device import finish_queue
from flambeau.inspect.hooks import Inputs, modules_by_name, run_in_eval_mode
from flambeau.inspect.receptive_fields import Field, ReceptiveFields
from flambeau.nested import tensors_in

_TIMED_PASSES = 3


@dataclass(frozen=True)
class LayerCost:
    """Cost of a module in one forward pass, without the modules inside it; summed over its calls.

    Attributes:
        flops: Floating-point operations of matrix products, convolutions and attention, two for
            each multiply-add; None if they could not be counted.
        output_bytes: Memory of its outputs.
        seconds: Time of the module.
        field: Receptive field of its output; None if it has none.
    """

    flops: int | None = 0
    output_bytes: int = 0
    seconds: float = 0.0
    field: Field | None = None


@dataclass(frozen=True)
class Costs:
    """Costs of the modules by name, the model itself is ""; and of the whole pass.

    Attributes:
        layers: Cost of each module that was called.
        flops: All FLOPs; None if they could not be counted.
        seconds: All seconds.
    """

    layers: Mapping[str, LayerCost]
    flops: int | None
    seconds: float


def layer_costs(
    model: nn.Module, inputs: Inputs, forward: Callable[[], Any] | None = None
) -> Costs:
    """Return what each module of the model costs in a forward pass in eval mode.

    FLOPs are those of ``torch.utils.flop_counter``. The time of a module is the shortest of three
    further passes; on an accelerator the host waits for the end of each module.

    Args:
        model: Any module; it is unchanged afterwards.
        inputs: As for ``summary``.
        forward: As for ``summary``.
    """
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    counted, flops = _count_flops(model, inputs, forward)
    fields = _fields(model, inputs, forward)
    timed = [_time(model, inputs, forward, device) for _ in range(_TIMED_PASSES)]
    # A model may call other modules in each pass.
    names = dict.fromkeys(name for each in timed for name in each.own)
    seconds = {name: min(each.own[name] for each in timed if name in each.own) for name in names}
    layers = {
        name: LayerCost(
            None if flops is None else round(counted.own.get(name, 0.0)),
            next(each.output_bytes[name] for each in timed if name in each.output_bytes),
            seconds[name],
            fields.get(name),
        )
        for name in names
    }
    return Costs(layers, flops, sum(seconds.values()))


def _time(
    model: nn.Module, inputs: Inputs, forward: Callable[[], Any] | None, device: torch.device
) -> _Divided:
    def now() -> float:
        finish_queue(device)
        return time.perf_counter()

    with _Divided(model, now) as divided:
        run_in_eval_mode(model, inputs, forward)
    return divided


def _count_flops(
    model: nn.Module, inputs: Inputs, forward: Callable[[], Any] | None
) -> tuple[_Divided, int | None]:
    """Return the FLOPs of the modules and of the whole pass; None if they cannot be counted."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    divided = _Divided(model, counter.get_total_flops)
    try:
        with _without_fused_layers(), counter, divided:
            run_in_eval_mode(model, inputs, forward)
    except Exception:  # noqa: BLE001 - the pass itself works: operators without a known cost
        return divided, None
    return divided, counter.get_total_flops()


def _fields(
    model: nn.Module, inputs: Inputs, forward: Callable[[], Any] | None
) -> dict[str, Field]:
    """Return the receptive field of the last output of each module that has one."""
    given = inputs.values() if isinstance(inputs, Mapping) else inputs
    fields = ReceptiveFields([given] if isinstance(given, Tensor) else given)
    found: dict[str, Field] = {}

    def keep(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        field = fields.of(next(tensors_in(output), None))
        if field is not None:
            found[name] = field

    handles = [
        module.register_forward_hook(partial(keep, name))
        for name, module in modules_by_name(model).items()
    ]
    try:
        with _without_fused_layers(), fields.following():
            run_in_eval_mode(model, inputs, forward)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def _without_fused_layers() -> Generator[None]:
    """Let recurrent and attention layers run as several operators instead of one without a cost."""
    attention, onednn = cast("Any", torch.backends.mha), cast("Any", torch.backends.mkldnn)
    before = attention.get_fastpath_enabled(), onednn.enabled
    attention.set_fastpath_enabled(False)
    onednn.enabled = False
    try:
        yield
    finally:
        attention.set_fastpath_enabled(before[0])
        onednn.enabled = before[1]


class _Divided:
    """Divides a quantity that grows in a forward pass among the modules that make it grow.

    Args:
        model: The model, whose modules get hooks inside the block.
        read: Returns the quantity so far.

    Attributes:
        own: Growth in each module by name, without the modules inside it.
        output_bytes: Memory of the outputs of each module.
    """

    def __init__(self, model: nn.Module, read: Callable[[], float]) -> None:
        self._modules, self._read = modules_by_name(model), read
        self._handles: list[RemovableHandle] = []
        self._open: list[list[float]] = []  # quantity at the start, and growth in inner modules
        self.own: dict[str, float] = {}
        self.output_bytes: dict[str, int] = {}

    def __enter__(self) -> Self:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_pre_hook(self._start))
            self._handles.append(module.register_forward_hook(partial(self._end, name)))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _start(self, module: nn.Module, arguments: Any) -> None:
        self._open.append([self._read(), 0.0])

    def _end(self, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        started, inside = self._open.pop()
        growth = self._read() - started
        self.own[name] = self.own.get(name, 0.0) + growth - inside
        if self._open:
            self._open[-1][1] += growth
        found = sum(value.nbytes for value in tensors_in(output))
        self.output_bytes[name] = self.output_bytes.get(name, 0) + found
