"""``summary``: a model's layers with their output shapes and parameters."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from flambeau.inside.hooks import Hooks, Inputs, modules_of, run
from flambeau.plan.choice import Choice
from flambeau.training.norm.freeze import keeps_statistics


@dataclass(frozen=True)
class Layer:
    """One row of a summary.

    Attributes:
        name: As in ``model.named_modules()``.
        kind: The module's class.
        output: Shape of its output, "–" when the forward pass did not call it.
        parameters: Numbers of its own, without its children's; a parameter that an earlier row
            has counts there.
        trainable: How many of them require a gradient.
        training: Whether the module is in training mode.
        calls: How often the forward pass called it.
        shared: Whether an earlier row has some of its parameters.
    """

    name: str
    kind: str
    output: str
    parameters: int
    trainable: int
    training: bool
    calls: int
    shared: bool


@dataclass(frozen=True)
class Summary:
    """A model's layers; prints as a table.

    Attributes:
        model: The model's class.
        layers: Modules without children and those that hold parameters of their own.
        parameters: Numbers in the model, shared ones counted once.
        trainable: How many of them require a gradient.
        parameter_bytes: Memory that the parameters take.
        buffer_bytes: Memory of the buffers (batch norm's statistics).
        norms: What becomes of norm layers that keep statistics, in words; empty without any.
    """

    model: str
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    parameter_bytes: int
    buffer_bytes: int
    norms: str = ""

    def __str__(self) -> str:
        rows = [_HEADERS, *(self._cells(layer) for layer in self.layers)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADERS))]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
        lines.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join([f"{self.model}:", *lines, *self._totals()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{header}</th>" for header in _HEADERS)
        body = "".join(
            "<tr>" + "".join(_html_cell(i, cell) for i, cell in enumerate(row)) + "</tr>"
            for row in map(self._cells, self.layers)
        )
        totals = "<br>".join(map(html.escape, self._totals()))
        return (
            f"<b>{html.escape(self.model)}</b>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{totals}</p>"
        )

    def _cells(self, layer: Layer) -> tuple[str, ...]:
        if not layer.parameters:
            learns = ""
        elif layer.trainable == layer.parameters:
            learns = "yes"
        else:
            learns = "partly" if layer.trainable else "frozen"
        times = f" ×{layer.calls}" if layer.calls > 1 else ""
        count = f"{layer.parameters:,}" if layer.parameters else ""
        return (
            layer.name or "(model)",
            layer.kind,
            layer.output + times,
            f"{count} shared".strip() if layer.shared else count,
            learns,
            "train" if layer.training else "eval",
        )

    def _totals(self) -> list[str]:
        unused = [layer.name for layer in self.layers if not layer.calls and layer.parameters]
        lines = [
            f"{self.parameters:,} parameters ({_bytes(self.parameter_bytes)}), "
            f"{self.trainable:,} trainable; buffers {_bytes(self.buffer_bytes)}."
        ]
        if self.norms:
            lines.append(self.norms)
        if unused:
            names = ", ".join(unused[:3]) + (", …" if len(unused) > 3 else "")
            lines.append(f"Not called as modules in this forward pass: {names}.")
        return lines


_HEADERS = ("layer", "type", "output", "parameters", "learns", "mode")


def summary(model: nn.Module, inputs: Inputs, *, bn: Choice | None = None) -> Summary:
    """The layers of ``model`` as one forward pass in eval mode sees them.

    The model stays as it was: modes are put back, no gradient is computed.

    Args:
        model: Any module.
        inputs: One tensor, or the arguments of ``forward`` in their order, as ``batch.inputs``;
            on the model's device.
        bn: The plan's choice of what norm layers do in training, shown where the model has any
            that keep statistics.
    """
    with Hooks(model, keep=_shape) as hooks:
        answer = run(model, inputs)
    shapes = {"": [_shape(answer)], **hooks.outputs}
    seen: set[Tensor] = set()
    layers: list[Layer] = []
    for name, module in modules_of(model).items():
        own = list(module.parameters(recurse=False))
        if not own and any(True for _ in module.children()):
            continue
        new = [p for p in dict.fromkeys(own) if p not in seen]
        calls = shapes.get(name, [])
        layers.append(
            Layer(
                name=name,
                kind=type(module).__name__,
                output=calls[0] if calls else "–",
                parameters=sum(p.numel() for p in new),
                trainable=sum(p.numel() for p in new if p.requires_grad),
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
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        parameter_bytes=sum(p.nbytes for p in model.parameters()),
        buffer_bytes=sum(b.nbytes for b in model.buffers()),
        norms="" if bn is None else _norms(model, bn),
    )


def _norms(model: nn.Module, bn: Choice) -> str:
    count = sum(map(keeps_statistics, model.modules()))
    if not count:
        return ""
    return f"{count} norm layer{'s' * (count > 1)} with statistics, bn={bn.value!r}. {bn.reason}"


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        return "×".join(map(str, output.shape)) or "number"
    if isinstance(output, Mapping):
        parts = cast("Mapping[str, Any]", output)
        return ", ".join(f"{name}: {_shape(part)}" for name, part in parts.items())
    if isinstance(output, tuple | list):
        return ", ".join(map(_shape, cast("Sequence[Any]", output)))
    return type(output).__name__


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if header == "parameters" else cell.ljust(width)
        for header, cell, width in zip(_HEADERS, row, widths, strict=True)
    ]


def _html_cell(column: int, cell: str) -> str:
    side = "right" if _HEADERS[column] == "parameters" else "left"
    return f'<td style="text-align:{side}">{html.escape(cell)}</td>'


def _bytes(count: int) -> str:
    size, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
