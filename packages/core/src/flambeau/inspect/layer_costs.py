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
    timed = [_time(model, inputs, forward, device) for _ in range(_TIMED_PASSES)]
    seconds = {name: min(each.own[name] for each in timed) for name in timed[0].own}
    layers = {
        name: LayerCost(
            None if flops is None else round(counted.own.get(name, 0.0)),
            output_bytes,
            seconds[name],
            counted.fields.get(name),
        )
        for name, output_bytes in timed[0].output_bytes.items()
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
    """Return the FLOPs and receptive fields of the modules, and the FLOPs of the whole pass."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    given = inputs.values() if isinstance(inputs, Mapping) else inputs
    fields = ReceptiveFields([given] if isinstance(given, Tensor) else given)
    divided = _Divided(model, counter.get_total_flops, fields)
    try:
        with _without_fused_layers(), counter, fields.following(), divided:
            run_in_eval_mode(model, inputs, forward)
    except Exception:  # noqa: BLE001 - the pass itself works: operators without a known cost
        return divided, None
    return divided, counter.get_total_flops()


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
        fields: Has the receptive field of outputs; None does not follow them.

    Attributes:
        own: Growth in each module by name, without the modules inside it.
        total: Growth in all modules.
        output_bytes: Memory of the outputs of each module.
        fields: Receptive field of the last output of each module that has one.
    """

    def __init__(
        self, model: nn.Module, read: Callable[[], float], fields: ReceptiveFields | None = None
    ) -> None:
        self._modules, self._read, self._following = modules_by_name(model), read, fields
        self._handles: list[RemovableHandle] = []
        self._open: list[list[float]] = []  # quantity at the start, and growth in inner modules
        self.own: dict[str, float] = {}
        self.output_bytes: dict[str, int] = {}
        self.fields: dict[str, Field] = {}
        self.total = 0.0

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
        else:
            self.total += growth
        tensors = list(tensors_in(output))
        found = sum(value.nbytes for value in tensors)
        self.output_bytes[name] = self.output_bytes.get(name, 0) + found
        field = None if self._following is None or not tensors else self._following.of(tensors[0])
        if field is not None:
            self.fields[name] = field
