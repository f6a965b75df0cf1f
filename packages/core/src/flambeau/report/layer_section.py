"""The section of a report on the layers of the model, from the record of ``learner.inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambeau.inspect.watch.layer_figure import drawn_layers, plot_layer, plot_overview
from flambeau.plotting import can_plot
from flambeau.report.blocks import Block, Figures, Table, Text
from flambeau.report.page import Page

if TYPE_CHECKING:
    from flambeau.inspect.watch.inspection import Inspection

_COLOURS = (
    "Each column is a watched step, each row a range of values on a logarithmic scale with 0 in "
    "the middle. The brighter a cell, the more values of the layer are in it. The second plot of a "
    "layer shows the gradients of its outputs."
)


def layer_blocks(inspection: Inspection) -> list[Block]:
    """Return the verdicts on the layers, and a plot of each layer over the watched steps.

    Args:
        inspection: What ``learner.inspect`` or ``inspect(model)`` has recorded.
    """
    record, verdicts = inspection.record, inspection.verdicts()
    blocks: list[Block] = [Text("\n\n".join(inspection.summary_lines()))]
    if verdicts:
        rows = [[each.number or "–", each.layer, f"{each.text}.", each.fix] for each in verdicts]
        blocks.append(Table(["layer", "name", "found", "how to fix it"], rows, (1, 2, 3)))
    if not can_plot() or len(record.steps) < 2:
        return blocks
    blocks.append(Figures(plot_overview(record), min_width=320))
    names = drawn_layers(record, {each.layer for each in verdicts})
    figures = [(plot_layer(record, name), f"Histograms of {name} over the steps") for name in names]
    blocks += [Text(_COLOURS, note=True), Figures(figures, min_width=300)]
    called = sum(record.has_histograms(name) for name in record.layers)
    if len(names) < called:
        blocks.append(Text(f"{len(names)} of {called} layers are drawn.", note=True))
    return blocks


def layers_page(inspection: Inspection, title: str = "Layers of the model") -> Page:
    """Return a page with the section alone.

    Args:
        inspection: What ``learner.inspect`` or ``inspect(model)`` has recorded.
        title: Title of the page.
    """
    steps = inspection.record.steps
    subtitle = f"{len(steps)} watched steps" + (f", {steps[0]} to {steps[-1]}" if steps else "")
    page = Page(title, subtitle)
    page.add("Layers", *layer_blocks(inspection))
    return page
