"""``summary``: a table of a model's layers with output shapes and parameter counts."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flambeau.errors import FlambeauError, InputError
from flambeau.inspect.hooks import Hooks, Inputs, modules_by_name, run_in_eval_mode
from flambeau.inspect.inspect_tables import html_table, text_rows
from flambeau.inspect.layer_costs import LayerCost, layer_costs
from flambeau.nested import map_tensors
from flambeau.plan.choice import Choice
from flambeau.training.freeze import has_running_statistics
from flambeau.training.optim.groups import parameter_groups
from flambeau.wording import format_bytes, format_count, format_seconds, name_some


@dataclass(frozen=True)
class Layer:
    """One row of a summary.

    Attributes:
        name: As in ``model.named_modules()``.
        class_name: Class of the module.
        output: Shape of its output; "–" if the forward pass did not call it.
        parameters: Number of parameters of the module itself, without its children. Parameters
            that it shares with an earlier row are counted only there.
        trainable: Number of parameters that require a gradient.
        training: Whether the module is in training mode.
        calls: Number of calls in the forward pass.
        shared: Whether it shares parameters with an earlier row.
        flops: Floating-point operations of its matrix products, convolutions and attention in the
            forward pass, two for each multiply-add; None if they could not be counted.
        output_bytes: Memory of its outputs in the forward pass.
        time_share: Percent of the time of the forward pass.
        receptive_field: Of a convolution or pooling: how many input positions along each spatial
            dimension an output position depends on; None if unknown.
    """

    name: str
    class_name: str
    output: str
    parameters: int
    trainable: int
    training: bool
    calls: int
    shared: bool
    flops: int | None = None
    output_bytes: int = 0
    time_share: float = 0.0
    receptive_field: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Summary:
    """The layers of a model; prints as a table.

    Attributes:
        model: Class of the model.
        layers: Modules without children, and modules that own parameters directly.
        parameters: Number of parameters in the model; shared ones are counted once.
        trainable: Number of parameters that require a gradient.
        parameter_bytes: Memory of the parameters.
        buffer_bytes: Memory of the buffers (batch norm statistics).
        norms: How training treats norm layers with running statistics, as a sentence; empty
            without such layers.
        flops: Floating-point operations of the forward pass, as in ``Layer``.
        seconds: Time of the forward pass.
        inputs: Shapes of the inputs of the forward pass.
        groups: Parameter groups from stem to head: number of parameters, and of those that train.
    """

    model: str
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    parameter_bytes: int
    buffer_bytes: int
    norms: str = ""
    flops: int | None = None
    seconds: float = 0.0
    inputs: str = ""
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def __str__(self) -> str:
        lines = text_rows(self._headers, [self._cells(layer) for layer in self.layers], _RIGHT)
        return "\n".join([f"{self.model}:", *lines, *self._totals()])

    def _repr_html_(self) -> str:
        table = html_table(self._headers, [self._cells(layer) for layer in self.layers], _RIGHT)
        totals = "<br>".join(map(html.escape, self._totals()))
        return f"<b>{html.escape(self.model)}</b>{table}<p>{totals}</p>"

    @property
    def _headers(self) -> tuple[str, ...]:
        has_field = any(layer.receptive_field for layer in self.layers)
        return (*_HEADERS, "receptive field") if has_field else _HEADERS

    def _cells(self, layer: Layer) -> tuple[str, ...]:
        if not layer.parameters:
            trainable = ""
        elif layer.trainable == layer.parameters:
            trainable = "yes"
        else:
            trainable = "partly" if layer.trainable else "no"
        times = f" ×{layer.calls}" if layer.calls > 1 else ""
        count = f"{layer.parameters:,}" if layer.parameters else ""
        sizes = "×".join(map(str, layer.receptive_field or ()))
        cells = (
            layer.name or "(model)",
            layer.class_name,
            layer.output + times,
            f"{count} shared".strip() if layer.shared else count,
            trainable,
            "train" if layer.training else "eval",
            format_count(layer.flops) if layer.flops else "",
            format_bytes(layer.output_bytes) if layer.calls else "",
            f"{layer.time_share:.0f} %" if layer.calls else "",
            sizes,
        )
        return cells[: len(self._headers)]

    def _totals(self) -> list[str]:
        unused = [layer.name for layer in self.layers if not layer.calls and layer.parameters]
        lines = [
            f"{self.parameters:,} parameters ({format_bytes(self.parameter_bytes)}), "
            f"{self.trainable:,} trainable; buffers {format_bytes(self.buffer_bytes)}."
        ]
        lines += self._costs()
        if len(self.groups) > 1:
            lines.append(f"Parameter groups from stem to head: {self._groups()}.")
        if self.norms:
            lines.append(self.norms)
        if unused:
            names = name_some(unused, most=3)
            lines.append(f"Not called in this forward pass: {names}.")
        return lines

    def _costs(self) -> list[str]:
        duration = f"The forward pass of inputs {self.inputs} takes "
        duration += format_seconds(self.seconds)
        if self.flops is None:
            return [f"{duration}; its FLOPs cannot be counted."]
        listed = sum(layer.flops or 0 for layer in self.layers)
        outside = 100 * (self.flops - listed) / self.flops if self.flops else 0.0
        text = f"{duration} and {format_count(self.flops)} FLOPs"
        if outside >= 1:
            text += f", {outside:.0f} % of them outside the listed layers"
        return [f"{text}."]

    def _groups(self) -> str:
        found = [
            f"{name} ({count:,}{'' if trainable == count else _PARTLY[trainable > 0]})"
            for name, (count, trainable) in self.groups.items()
        ]
        return name_some(found, most=8)


_HEADERS = (
    "layer", "type", "output", "parameters", "trainable", "mode", "FLOPs", "memory", "time",
)  # fmt: skip
_RIGHT = ("parameters", "FLOPs", "memory", "time")
_PARTLY = (", frozen", ", partly frozen")


def summary(
    model: nn.Module,
    inputs: Inputs,
    *,
    forward: Callable[[], Any] | None = None,
    bn: Choice | None = None,
    frozen: Collection[int] = (),
) -> Summary:
    """Return the layers of ``model``, with output shapes from one forward pass in eval mode.

    Four more passes count FLOPs and measure the time. The model is unchanged afterwards: modes are
    restored and no gradients are computed.

    Args:
        model: Any module.
        inputs: One tensor, or the arguments of ``forward`` in order, such as ``batch.inputs``;
            on the model's device.
        forward: Function without arguments that calls the model, if the model needs more than
            ``inputs``; None calls ``model(*inputs)``.
        bn: The plan's choice of the batch norm policy, shown if the model has norm layers with
            running statistics.
        frozen: ``id`` of parameters to count as frozen, in addition to those that need no gradient.

    Raises:
        InputError: There are no inputs, or the pass does not call a lazy layer.
    """
    inputs, shown = map_tensors(Tensor.clone, inputs), _shape(inputs)
    with Hooks(model, keep=_shape) as hooks:
        outputs = run_in_eval_mode(model, inputs, forward)
    _check_initialised(model)
    shapes = {"": [_shape(outputs)], **hooks.outputs}
    costs = layer_costs(model, inputs, forward)
    seen: set[Tensor] = set()
    layers: list[Layer] = []
    for name, module in modules_by_name(model).items():
        own = list(module.parameters(recurse=False))
        if not own and any(True for _ in module.children()):
            continue
        new = [p for p in dict.fromkeys(own) if p not in seen]
        calls = shapes.get(name, [])
        cost = costs.layers.get(name, LayerCost())
        is_local = cost.field is not None and hasattr(module, "kernel_size")
        layers.append(
            Layer(
                name=name,
                class_name=type(module).__name__,
                output=calls[0] if calls else "–",
                parameters=sum(p.numel() for p in new),
                trainable=_count_trainable(new, frozen),
                training=module.training,
                calls=len(calls),
                shared=any(p in seen for p in own),
                flops=cost.flops,
                output_bytes=cost.output_bytes,
                time_share=100 * cost.seconds / costs.seconds if costs.seconds else 0.0,
                receptive_field=cost.field.rounded() if cost.field and is_local else None,
            )
        )
        seen.update(new)
    return Summary(
        model=type(model).__name__,
        layers=tuple(layers),
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=_count_trainable(model.parameters(), frozen),
        parameter_bytes=sum(p.nbytes for p in model.parameters()),
        buffer_bytes=sum(b.nbytes for b in model.buffers()),
        norms="" if bn is None else _norms(model, bn),
        flops=costs.flops,
        seconds=costs.seconds,
        inputs=shown,
        groups=_groups(model, frozen),
    )


def _check_initialised(model: nn.Module) -> None:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, value in tensors if is_lazy(value)]
    if lazy:
        raise InputError(
            f"{name_some(lazy, most=3)} of lazy layers have no shape, because this forward pass "
            "does not call these layers. Give them their sizes, or remove them."
        )


def _groups(model: nn.Module, frozen: Collection[int]) -> dict[str, tuple[int, int]]:
    try:
        groups = parameter_groups(model)
    except FlambeauError:  # a fit reports layer groups that do not fit the model
        return {}
    return {
        name: (sum(p.numel() for p in parameters), _count_trainable(parameters, frozen))
        for name, parameters in groups.items()
    }


def _count_trainable(parameters: Iterable[Tensor], frozen: Collection[int]) -> int:
    return sum(p.numel() for p in parameters if p.requires_grad and id(p) not in frozen)


def _norms(model: nn.Module, bn: Choice) -> str:
    count = sum(map(has_running_statistics, model.modules()))
    if not count:
        return ""
    layers = f"{count} norm layer{'s' * (count > 1)} with running statistics"
    return f"{layers}, bn={bn.value!r}. {bn.reason}"


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        return "×".join(map(str, output.shape)) or "scalar"
    if isinstance(output, Mapping):
        parts = cast("Mapping[str, Any]", output)
        return ", ".join(f"{name}: {_shape(part)}" for name, part in parts.items())
    if isinstance(output, tuple | list):
        return ", ".join(map(_shape, cast("Sequence[Any]", output)))
    return type(output).__name__
