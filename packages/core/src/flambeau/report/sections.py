"""From an interpretation to the sections of its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from flambeau.data.preview import Preview
from flambeau.figures import can_plot, panels
from flambeau.plan.table import LOW_CONFIDENCE, value_text
from flambeau.report.blocks import (
    Block,
    Cards,
    Figures,
    Matrix,
    Preformatted,
    Table,
    Text,
    number_text,
)
from flambeau.report.confusion import ClassScores, Confusion
from flambeau.report.intervals import Interval
from flambeau.report.page import Page
from flambeau.report.plots import history_panels, plot_confusion
from flambeau.report.plots_answers import (
    plot_calibration,
    plot_scores,
    residual_panels,
    shares_of,
)
from flambeau.report.top_losses import TopLoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flambeau.report.interpretation import Interpretation

_PANEL = (4.2, 3.3)  # inches: 403 pixels wide, a phone's width
_MOST_CELLS = 20  # classes whose matrix is written out; beyond, it is drawn
_MOST_CLASSES = 50  # classes with a line each in the table
_MOST_VALUES = 4  # numbers a sample whose residuals are drawn
_TOP = 12


def make_page(found: Interpretation) -> Page:
    """Scores, curves, mistakes, calibration, data and plan: a section for each that there is."""
    background = found.background
    page = Page(background.title, _subtitle(found))
    page.add("Scores", *_scores(found))
    if background.history is not None and background.history.rows and can_plot():
        draws = history_panels(background.history)
        page.add("Training", Figures(_drawn(draws, "Curve by epoch"), least_width=300))
    finite = found.answers.outputs is None or bool(found.answers.outputs.isfinite().all())
    kind = found.answers.kind
    if kind in ("classification", "multi_label"):
        page.add("Classes", *_classes(found))
    if kind == "regression" and finite and can_plot():
        page.add("Errors", *_errors(found))
    if found.answers.losses is not None:
        page.add("Highest losses", *_top_losses(found))
    if kind in ("classification", "multi_label") and finite and bool((_counted(found)).any()):
        page.add("Calibration", *_calibration(found))
    if background.data is not None:
        page.add("Data", Preformatted(background.data.report()))
    if background.plan is not None:
        page.add("Plan", *_plan(found))
    page.add("About", *_about(found, finite))
    return page


def _subtitle(found: Interpretation) -> str:
    samples = "sample" if len(found) == 1 else "samples"
    return f"{len(found):,} {found.part} {samples}, {found.made:%d %B %Y, %H:%M}"


# ---------------------------------------------------------------- scores


def _scores(found: Interpretation) -> list[Block]:
    baselines = found.baselines
    headers = ["score", "value", "95% interval", *baselines]
    rows = [
        [
            name.replace("_", " "),
            value,
            _range(found.intervals.get(name)),
            *(scores.get(name) for scores in baselines.values()),
        ]
        for name, value in found.scores.items()
    ]
    blocks: list[Block] = [Table(headers, rows)]
    if can_plot() and shares_of(found.intervals):
        drawing = plot_scores(found.intervals, baselines)
        blocks.append(Figures([(drawing, "Scores with their intervals")], least_width=300))
    notes: list[str] = []
    if found.intervals:
        notes.append(
            "The interval is where the score would fall for other samples of the same kind, 95 "
            "times in 100; it does not tell what another training run would give."
        )
    if found.part == "valid":
        notes.append(
            "Choices are made on the valid samples, so their scores flatter a little: look at test "
            "once, at the end."
        )
    if not can_plot():
        notes.append("There are no plots: matplotlib is not installed (flambeau[plot]).")
    return [*blocks, Text("\n\n".join(notes), note=True)]


def _range(interval: Interval | None) -> str | None:
    if interval is None:
        return None
    return f"{number_text(interval.low)} to {number_text(interval.high)}"


# ---------------------------------------------------------------- mistakes


def _classes(found: Interpretation) -> list[Block]:
    scores = found.table()
    confusion = found.confusion()
    blocks: list[Block] = []
    if isinstance(confusion, Confusion):
        if len(confusion.classes) <= _MOST_CELLS:
            blocks.append(Matrix(confusion.classes, confusion.matrix))
        elif can_plot():
            drawing = plot_confusion(confusion.matrix, confusion.classes)
            blocks.append(Figures([(drawing, "Confusion matrix")], least_width=680))
        pairs = confusion.most_confused(10)
        if pairs:
            rows = [[pair.truth, pair.predicted, pair.count, f"{pair.share:.1%}"] for pair in pairs]
            blocks.append(Text("Taken for another most often:"))
            blocks.append(Table(["true", "taken for", "samples", "of the class"], rows))
    absent = [each.name for each in scores if not each.support]
    if absent:
        blocks.append(
            Text(f"No {found.part} sample of {_listed(absent)}: nothing can be said of them.")
        )
    return [*blocks, *_class_table(scores)]


def _class_table(scores: Sequence[ClassScores]) -> list[Block]:
    """The classes in their order, or the worst of many."""
    shown = list(scores)
    blocks: list[Block] = []
    if len(shown) > _MOST_CLASSES:
        known = [each for each in shown if each.f1 is not None and each.support]
        shown = sorted(known, key=lambda each: each.f1 or 0.0)[:_MOST_CLASSES]
        blocks.append(Text(f"The {len(shown)} classes of {len(scores)} with the lowest F1:"))
    rows = [
        [
            each.name,
            each.support,
            each.predicted,
            *_with_range(each.precision),
            *_with_range(each.recall),
            each.f1,
        ]
        for each in shown
    ]
    headers = ["class", "samples", "predicted", "precision", "95%", "recall", "95%", "F1"]
    return [*blocks, Table(headers, rows)]


def _with_range(interval: Interval | None) -> list[object]:
    if interval is None:
        return [None, None]
    return [interval.value, f"{interval.low:.2f}–{interval.high:.2f}"]


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _errors(found: Interpretation) -> list[Block]:
    outputs, targets = found.answers.outputs, found.answers.targets
    if outputs is None or targets is None:
        return [Text("No numbers.")]
    names = found.names[:_MOST_VALUES]
    draws = residual_panels(outputs[:, : len(names)], targets[:, : len(names)], names)
    blocks: list[Block] = [
        Text(
            "On the dashed lines the prediction is right. A bend or a funnel in the errors asks "
            "for another target (its logarithm), or for what is missing among the inputs."
        ),
        Figures(_drawn(draws, "Predicted and true values, and errors"), least_width=300),
    ]
    if len(found.names) > len(names):
        blocks.append(Text(f"Drawn for the first {len(names)} of {len(found.names)} values."))
    return blocks


def _top_losses(found: Interpretation) -> list[Block]:
    data = found.background.data
    top = found.top_losses(_TOP)
    cards: list[Preview] = []
    for each in top:
        picture = None if data is None else data.preview(each.id)
        words = "\n".join(_loss_lines(each))
        if picture is None:
            cards.append(Preview(f"sample {each.id}\n{words}"))
        else:
            cards.append(Preview(f"{picture.caption}\n{words}", picture.image))
    lead = (
        "The samples on which the model is most wrong: look here for wrong labels, unusual samples "
        "and what the model cannot see."
    )
    return [Text(lead), Cards(cards)]


def _loss_lines(each: TopLoss) -> list[str]:
    lines = [f"loss {each.loss:.3g}" if math.isfinite(each.loss) else "loss not finite"]
    if each.truth:
        given = each.probability
        sure = "" if given is None or not math.isfinite(given) else f" (given {given:.1%})"
        lines = [f"true: {each.truth}{sure}", f"predicted: {each.predicted}", *lines]
    return lines


# ---------------------------------------------------------------- calibration


def _counted(found: Interpretation) -> torch.Tensor:
    """Which targets count, for classes and labels."""
    targets = found.answers.targets
    return torch.zeros(1).bool() if targets is None else targets >= 0


def _calibration(found: Interpretation) -> list[Block]:
    result = found.calibration()
    more = result.confidence > result.accuracy
    what = "labels apply" if found.answers.kind == "multi_label" else "answers are right"
    words = (
        f"On average the model gives a probability of {result.confidence:.1%} where "
        f"{result.accuracy:.1%} of the {what}: it is {'over' if more else 'under'}confident by "
        f"{abs(result.confidence - result.accuracy):.1%}. Expected calibration error "
        f"{result.ece:.3f}, Brier score {result.brier:.3f} (both 0 at best)."
    )
    blocks: list[Block] = [Text(words)]
    if can_plot():
        drawing = plot_calibration(result)
        blocks.append(Figures([(drawing, "Share right by confidence")], least_width=300))
    rows = [
        [
            each.confidence,
            each.right.value,
            f"{each.right.low:.2f}–{each.right.high:.2f}",
            each.count,
        ]
        for each in result.bins
    ]
    return [*blocks, Table(["confidence", "share right", "95%", "samples"], rows)]


# ---------------------------------------------------------------- data, plan, about


def _plan(found: Interpretation) -> list[Block]:
    plan = found.background.plan
    choices = [] if plan is None else [plan[key] for key in plan]
    doubtful = any(choice.confidence < LOW_CONFIDENCE for choice in choices)
    rows = [
        [
            choice.key,
            value_text(choice.value),
            choice.source + (" ?" if choice.confidence < LOW_CONFIDENCE else ""),
            choice.reason,
            choice.override,
        ]
        for choice in choices
    ]
    table = Table(["choice", "value", "made by", "reason", "how to change it"], rows, (1, 3, 4))
    note = "? marks a choice made with low confidence: check it first."
    return [table, Text(note, note=True)] if doubtful else [table]


def _about(found: Interpretation, finite: bool) -> list[Block]:
    notes: dict[str, str] = dict(found.notes)
    notes["task"] = type(found.task).__name__
    notes["versions"] = f"flambeau {version('flambeau')}, torch {torch.__version__}"
    blocks: list[Block] = [Table(["", ""], list(notes.items()), prose=(1,))]
    if not finite:
        blocks.insert(
            0,
            Text(
                "Some outputs of the model are not finite, so its probabilities and errors are not "
                "shown. Train with a lower learning rate or look for extreme inputs."
            ),
        )
    return blocks


def _drawn(draws: Sequence[Callable[[Axes], None]], label: str) -> list[tuple[Figure, str]]:
    """A figure for each panel, so that they can stand below one another."""
    return [(panels([draw], *_PANEL, None), label) for draw in draws]
