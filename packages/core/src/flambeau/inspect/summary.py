"""``summary``: a table of a model's layers with output shapes and parameter counts."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from flambeau.inspect.hooks import Hooks, Inputs, modules_by_name, run_in_eval_mode
from flambeau.inspect.inspect_tables import html_table, text_rows
from flambeau.plan.choice import Choice
from flambeau.training.freeze import has_running_statistics
from flambeau.wording import format_bytes, name_some


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
    """

    name: str
    class_name: str
    output: str
    parameters: int
    trainable: int
    training: bool
    calls: int
    shared: bool


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
    """

    model: str
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    parameter_bytes: int
    buffer_bytes: int
    norms: str = ""

    def __str__(self) -> str:
        lines = text_rows(_HEADERS, [self._cells(layer) for layer in self.layers], _RIGHT)
        return "\n".join([f"{self.model}:", *lines, *self._totals()])

    def _repr_html_(self) -> str:
        table = html_table(_HEADERS, [self._cells(layer) for layer in self.layers], _RIGHT)
        totals = "<br>".join(map(html.escape, self._totals()))
        return f"<b>{html.escape(self.model)}</b>{table}<p>{totals}</p>"

    def _cells(self, layer: Layer) -> tuple[str, ...]:
        if not layer.parameters:
            trainable = ""
        elif layer.trainable == layer.parameters:
            trainable = "yes"
        else:
            trainable = "partly" if layer.trainable else "no"
        times = f" ×{layer.calls}" if layer.calls > 1 else ""
        count = f"{layer.parameters:,}" if layer.parameters else ""
        return (
            layer.name or "(model)",
            layer.class_name,
            layer.output + times,
            f"{count} shared".strip() if layer.shared else count,
            trainable,
            "train" if layer.training else "eval",
        )

    def _totals(self) -> list[str]:
        unused = [layer.name for layer in self.layers if not layer.calls and layer.parameters]
        lines = [
            f"{self.parameters:,} parameters ({format_bytes(self.parameter_bytes)}), "
            f"{self.trainable:,} trainable; buffers {format_bytes(self.buffer_bytes)}."
        ]
        if self.norms:
            lines.append(self.norms)
        if unused:
            names = name_some(unused, most=3)
            lines.append(f"Not called in this forward pass: {names}.")
        return lines


_HEADERS = ("layer", "type", "output", "parameters", "trainable", "mode")
_RIGHT = ("parameters",)


def summary(
    model: nn.Module,
    inputs: Inputs,
    *,
    forward: Callable[[], Any] | None = None,
    bn: Choice | None = None,
    frozen: Collection[int] = (),
) -> Summary:
    """Return the layers of ``model``, with output shapes from one forward pass in eval mode.

    The model is unchanged afterwards: modes are restored and no gradients are computed.

    Args:
        model: Any module.
        inputs: One tensor, or the arguments of ``forward`` in order, such as ``batch.inputs``;
            on the model's device.
        forward: Function without arguments that calls the model, if the model needs more than
            ``inputs``; None calls ``model(*inputs)``.
        bn: The plan's choice of the batch norm policy, shown if the model has norm layers with
            running statistics.
        frozen: ``id`` of parameters to count as frozen, in addition to those that need no gradient.
    """
    with Hooks(model, keep=_shape) as hooks:
        outputs = run_in_eval_mode(model, inputs, forward)
    shapes = {"": [_shape(outputs)], **hooks.outputs}
    seen: set[Tensor] = set()
    layers: list[Layer] = []
    for name, module in modules_by_name(model).items():
        own = list(module.parameters(recurse=False))
        if not own and any(True for _ in module.children()):
            continue
        new = [p for p in dict.fromkeys(own) if p not in seen]
        calls = shapes.get(name, [])
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
    )


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
