"""``SampleExplanation``: why a model predicts what it does for one sample."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flambeau.data.attributions import Attributions
from flambeau.inspect.inspect_tables import html_table, text_rows
from flambeau.wording import count_of, format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LAYER_HEADERS = ("layer", "type", "output", "mean", "rms", "largest", "zeros")
_LAYER_RIGHT = ("mean", "rms", "largest", "zeros")
_NEAREST_HEADERS = ("sample", "cosine", "target", "content")
_MOST_PARTS = 10
_CONTENT = 60


@dataclass(frozen=True)
class LayerOutput:
    """The output of a layer for one sample.

    Attributes:
        name: Name of the module; with the number of the call if it is called several times.
        kind: Its class.
        shape: Shape of the output, without the axis of samples if that is 1.
        mean: Mean of the values.
        rms: Root mean square of the values.
        largest: Largest absolute value.
        zeros: Share of the values that are 0.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    rms: float
    largest: float
    zeros: float


@dataclass(frozen=True)
class ExplainedNeighbour:
    """A train sample with similar features.

    Attributes:
        number: Its number, as in ``data.split``.
        similarity: Cosine of the angle between the features of both samples.
        target: Its target as text; empty if it has no single one.
        caption: What the sample is, from the preview of the data; empty if unknown.
        image: Content of an image file; None without an image.
    """

    number: int
    similarity: float
    target: str
    caption: str = ""
    image: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SampleExplanation:
    """Why a model predicts what it does for one sample; ``print`` shows tables.

    Attributes:
        sample: What the sample is: "sample 12 of valid".
        prediction: The prediction, as ``learner.predict`` returns it.
        predicted: The prediction as text: a class or a number.
        target: The target as text; empty if unknown.
        layers: The outputs of the layers, in the order of their calls.
        neighbours: The train samples with the most similar features before the head.
        attributions: How much each part of the sample moves an output; None if not known.
        notes: What is not known, and why.
        caption: What the sample is, from the preview of the data.
        image: Content of an image file of the sample; None without one.
        is_class: Whether the targets are classes.
    """

    sample: str
    prediction: object
    predicted: str
    target: str
    layers: tuple[LayerOutput, ...]
    neighbours: tuple[ExplainedNeighbour, ...] = ()
    attributions: Attributions | None = None
    notes: tuple[str, ...] = ()
    caption: str = ""
    image: bytes | None = field(default=None, repr=False)
    is_class: bool = False

    @property
    def agreement(self) -> float | None:
        """Share of the neighbours whose target is the predicted class; None for other tasks."""
        if not self.is_class or not self.neighbours:
            return None
        return sum(each.target == self.predicted for each in self.neighbours) / len(self.neighbours)

    def __str__(self) -> str:
        lines = [self._head(), "", *text_rows(_LAYER_HEADERS, self._layers(), _LAYER_RIGHT)]
        if self.neighbours:
            rows = text_rows(_NEAREST_HEADERS, self._neighbours(), ("sample", "cosine"))
            lines += ["", "Nearest train samples by the features before the head:", *rows]
            lines += self._agreement()
        if self.attributions is not None:
            lines += ["", self._attributions_head(self.attributions)]
            if self.attributions.parts:
                lines += text_rows(("part", "value"), self._parts(), ("value",))
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(self._head())}</p>"]
        parts.append(html_table(_LAYER_HEADERS, self._layers(), _LAYER_RIGHT))
        if self.neighbours:
            parts.append(html_table(_NEAREST_HEADERS, self._neighbours(), ("sample", "cosine")))
        if self.attributions is not None:
            parts.append(f"<p>{html.escape(self._attributions_head(self.attributions))}</p>")
            if self.attributions.parts:
                parts.append(html_table(("part", "value"), self._parts(), ("value",)))
        notes = [*self._agreement(), *self.notes]
        return "".join([*parts, *(f"<p>{html.escape(line)}</p>" for line in notes)])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Plot the attributions, and the nearest train samples if they are images.

        Args:
            path: File to write (.png, .pdf, .svg); None writes no file.

        Raises:
            InputError: There is nothing to plot.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau.inspect.explanation_figure import plot_explanation

        return plot_explanation(self, None if path is None else Path(path))

    def _head(self) -> str:
        target = f", target {self.target}" if self.target else ""
        return f"{self.sample}: predicted {self.prediction}{target}"

    def _layers(self) -> list[list[str]]:
        return [
            [
                each.name,
                each.kind,
                "×".join(map(str, each.shape)) or "scalar",
                format_number(each.mean),
                format_number(each.rms),
                format_number(each.largest),
                f"{each.zeros:.0%}",
            ]
            for each in self.layers
        ]

    def _neighbours(self) -> list[list[str]]:
        return [
            [str(each.number), f"{each.similarity:.4f}", each.target, _shortened(each.caption)]
            for each in self.neighbours
        ]

    def _agreement(self) -> Iterator[str] | list[str]:
        share = self.agreement
        if share is None:
            return []
        n = len(self.neighbours)
        if share == 1:
            return [f"All {n} have the predicted class."]
        counts = Counter(each.target for each in self.neighbours)
        shown = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        return [
            f"{count_of(round(share * n), 'sample')} of {n} with the predicted class "
            f"{self.predicted}: their targets disagree ({shown})."
        ]

    def _attributions_head(self, found: Attributions) -> str:
        total = "" if found.total is None else f"; they add up to {format_number(found.total)}"
        what = "parts" if found.parts else "pixels (see plot())"
        return f"What moves the output {found.output}: {what}, {found.method}{total}."

    def _parts(self) -> Sequence[Sequence[str]]:
        found = self.attributions
        pairs = [] if found is None else found.strongest(_MOST_PARTS)
        return [[name, f"{value:+.3g}"] for name, value in pairs]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CONTENT else f"{line[: _CONTENT - 1]}…"
