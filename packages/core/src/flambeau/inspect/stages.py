"""``Stage``: a value of a training step, and ``StepStages``, the stages in their order."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from flambeau.inspect.inspect_tables import html_table, text_rows
from flambeau.wording import format_number, type_and_first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal[
    "samples",
    "batch",
    "values",
    "transform",
    "output",
    "logits",
    "loss per sample",
    "loss",
    "carry",
    "gradient",
    "clipped gradient",
    "update",
    "weight",
    "statistic",
    "average",
    "note",
]
"""What a stage shows; see ``Stage``."""

DISPLAY = "computed for display"
"""Note of values that the step itself never forms, because a fused kernel does not store them."""

_HEADERS = ("stage", "name", "shape", "dtype", "range", "note")


@dataclass(frozen=True, eq=False)
class Stage:
    """A value of one training step.

    Attributes:
        kind: "samples" (raw samples), "batch" (the batch of the loader), "values" (lr and other
            values of the step), "transform" (a batch after a transform on the device), "output" (of
            a module), "logits", "loss per sample", "loss", "carry" (the carried state), "gradient"
            (of a parameter, before clipping), "clipped gradient", "update" (new weight minus old
            weight), "weight" (after the update), "statistic" (a buffer that the step changed),
            "average" (averaged weight), "note" (what the step does not show).
        name: Name of the tensor, module or parameter; within a kind unique, except for modules that
            are called several times and for a train step with several updates.
        value: A tensor on the CPU, a copy; for "samples" a list of texts, for "values" numbers by
            name; None if there is none, and ``note`` says why.
        note: What is special about the value.
        micro_batch: Number of the micro-batch, from 0; None for values of the whole step.
        images: For "samples" of images, the content of an image file for each.
    """

    kind: Kind
    name: str
    value: Any
    note: str = ""
    micro_batch: int | None = None
    images: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of a tensor; None for other values."""
        return tuple(self.value.shape) if isinstance(self.value, Tensor) else None

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of a tensor; None for other values."""
        return self.value.dtype if isinstance(self.value, Tensor) else None

    @property
    def range(self) -> tuple[float, float] | None:
        """Smallest and largest finite value; None if the value has no real numbers."""
        if not isinstance(self.value, Tensor) or self.value.is_complex():
            return None
        # float64 represents the values of all narrower types.
        finite = self.value[torch.isfinite(self.value)].double()
        if not finite.numel():
            return None
        low, high = torch.aminmax(finite)
        return float(low), float(high)

    @property
    def nonfinite(self) -> int:
        """Number of values that are NaN or infinite."""
        if not isinstance(self.value, Tensor):
            return 0
        return int((~torch.isfinite(self.value)).sum())

    def __str__(self) -> str:
        return "  ".join(cell for cell in cells_of(self) if cell)

    def show(self) -> Figure | str:
        """Return a figure of images, feature maps and filters, else a text.

        Figures need matplotlib (``flambeau[plot]``). A feature map shows the channels of the first
        sample.

        Raises:
            MissingDependencyError: The value is shown as a figure, and matplotlib is not installed.
        """
        from flambeau.inspect.stage_figure import figure_of, has_figure

        if has_figure(self):
            return figure_of(self)
        cells = zip(_HEADERS, cells_of(self), strict=True)
        lines = [f"{header}: {cell}" for header, cell in cells if cell]
        return "\n".join([*lines, *_content(self.value)])


class StepStages(Iterator[Stage]):
    """An iterator over the stages of a training step, in their order; ``print`` shows a table.

    The step is already complete, and the learner as it was before it. An error in the step is
    raised after the last stage that was reached.

    Args:
        stages: The stages.
        error: The error that ended the step, if any.

    Attributes:
        all: All stages, whether the iterator has returned them or not.
        error: The error that ended the step, if any.
    """

    def __init__(self, stages: Sequence[Stage], error: Exception | None = None) -> None:
        self.all = tuple(stages)
        self.error = error
        self._rest = iter(self.all)
        self._is_raised = error is None

    def __next__(self) -> Stage:
        stage = next(self._rest, None)
        if stage is not None:
            return stage
        if self.error is not None and not self._is_raised:
            self._is_raised = True
            raise self.error
        raise StopIteration

    def of(self, kind: Kind) -> list[Stage]:
        """Return all stages of one kind; the iterator does not advance."""
        return [stage for stage in self.all if stage.kind == kind]

    def __str__(self) -> str:
        lines = text_rows(_HEADERS, [cells_of(stage) for stage in self.all])
        return "\n".join([*lines, *self._end()])

    def _repr_html_(self) -> str:
        table = html_table(_HEADERS, [cells_of(stage) for stage in self.all])
        return table + "".join(f"<p>{html.escape(line)}</p>" for line in self._end())

    def _end(self) -> list[str]:
        if self.error is None:
            return []
        return [f"The step ended here: {type_and_first_line(self.error)}."]


def cells_of(stage: Stage) -> tuple[str, ...]:
    """Return the cells of a stage in the table."""
    name = stage.name
    if stage.micro_batch is not None:
        name = f"{name} (micro-batch {stage.micro_batch + 1})"
    shape = "" if stage.shape is None else "×".join(map(str, stage.shape)) or "scalar"
    dtype = "" if stage.dtype is None else str(stage.dtype).removeprefix("torch.")
    return stage.kind, name, shape, dtype, _range_cell(stage), stage.note


def named_tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a nested value, each with a name such as ``lstm[1][0]``."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in cast("Mapping[object, object]", value).items():
            yield from named_tensors(part, f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        for index, part in enumerate(cast("Sequence[object]", value)):
            yield from named_tensors(part, f"{name}[{index}]")
    else:
        for attribute in getattr(value, "__dataclass_fields__", ()):
            yield from named_tensors(getattr(value, attribute), f"{name}.{attribute}")


def _range_cell(stage: Stage) -> str:
    value = stage.value
    if isinstance(value, dict):
        numbers = cast("Mapping[str, float]", value)
        return ", ".join(f"{name} {format_number(each)}" for name, each in numbers.items())
    if isinstance(value, list):
        return f"{len(cast('list[str]', value))} shown"
    found, odd = stage.range, stage.nonfinite
    parts = [] if found is None else [_between(*found)]
    parts += [f"{odd:,} not finite"] if odd else []
    return ", ".join(parts)


def _between(low: float, high: float) -> str:
    return format_number(low) if low == high else f"{format_number(low)} … {format_number(high)}"


def _content(value: object) -> list[str]:
    """Return the lines of a value below its properties."""
    if value is None:
        return []
    if isinstance(value, list):
        return [str(each) for each in cast("list[object]", value)]
    return [str(value)]
