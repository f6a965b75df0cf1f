"""``make_page``: the sections of an interpretation's report."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from flambeau.data.preview import Preview
from flambeau.plan.table import LOW_CONFIDENCE, value_text
from flambeau.plotting import can_plot, draw_panels
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
from flambeau.report.page import Page, Section
from flambeau.report.plots_history import history_panels
from flambeau.report.plots_predictions import (
    plot_calibration,
    plot_confusion,
    plot_scores,
    residual_panels,
    scores_between_0_and_1,
)
from flambeau.report.top_losses import TopLoss
from flambeau.wording import count_of, name_some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flambeau.plan.choice import Choice
    from flambeau.report.interpretation import Interpretation

_PANEL = (4.2, 3.3)  # inches: 403 pixels wide, the width of a phone
_MOST_CELLS = 20  # classes up to which the matrix is an HTML table; above, it is a plot
_MOST_CLASSES = 50  # in the plot of the matrix, and in the table of classes
_MOST_VALUES = 4  # regression targets whose residuals are plotted
_TOP = 12


def make_page(found: Interpretation) -> Page:
    """Return the report of an interpretation; a section without content is omitted."""
    details = found.details
    page = Page(details.title, _subtitle(found))
    own: Sequence[Section] = ()
    if details.data is not None:
        own = details.data.report_sections(found)
    # A section of the data that follows the scores compares them with baselines itself.
    page.add("Scores", *_scores(found, with_plot=not any(each.first for each in own)))
    for section in (each for each in own if each.first):
        page.add(section.title, *section.blocks)
    if details.history is not None and details.history.rows and can_plot():
        draws = history_panels(details.history)
        page.add("Training", Figures(_figures(draws, "Curve by epoch"), min_width=300))
    if details.inspection is not None and details.inspection.record.steps:
        from flambeau.report.layer_section import layer_blocks

        page.add("Layers", *layer_blocks(details.inspection))
    finite = found.predictions.finite
    kind = found.predictions.kind
    if kind in ("classification", "multi_label"):
        page.add("Classes", *_classes(found))
    if kind == "regression" and finite and can_plot():
        page.add("Residuals", *_residuals(found))
    if found.predictions.losses is not None:
        page.add("Highest losses", *_top_losses(found))
    if finite and _has_calibration(found):
        page.add("Calibration", *_calibration(found))
    later = [each for each in own if not each.first]
    for section in (*later, *found.task.report_sections(found)):
        page.add(section.title, *section.blocks)
    if details.data is not None:
        page.add("Data", Preformatted(details.data.report()))
    if details.plan is not None:
        page.add("Plan", *_plan(found))
    page.add("About", *_about(found, finite))
    return page


def _subtitle(found: Interpretation) -> str:
    samples = count_of(len(found), f"{found.part} {found.task.sample_name}")
    return f"{samples}, {found.created:%d %B %Y, %H:%M}"


# ---------------------------------------------------------------- scores


def _scores(found: Interpretation, with_plot: bool) -> list[Block]:
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
    if with_plot and can_plot() and scores_between_0_and_1(found.intervals):
        figure = plot_scores(found.intervals, baselines)
        blocks.append(Figures([(figure, "Scores with their intervals")], min_width=300))
    signatures = [f"{name}: {text}" for name, text in found.signatures.items()]
    notes: list[str] = ["\n".join(signatures)] if signatures else []
    if found.intervals:
        notes.append(
            "The 95% interval shows how much the score may differ on other samples from the same "
            "distribution. It does not include the variation between training runs."
        )
    if found.part == "valid":
        notes.append(
            "Hyperparameters are chosen on the validation samples, so these scores are slightly "
            "too good. Evaluate on test once, at the end."
        )
    if not can_plot():
        notes.append(
            "Plots are missing because matplotlib is not installed (pip install 'flambeau[plot]')."
        )
    return [*blocks, Text("\n\n".join(notes), note=True)]


def _range(interval: Interval | None) -> str | None:
    if interval is None:
        return None
    return f"{number_text(interval.low)} to {number_text(interval.high)}"


# ---------------------------------------------------------------- errors


def _classes(found: Interpretation) -> list[Block]:
    scores = found.class_scores()
    confusion = found.confusion()
    blocks: list[Block] = []
    if isinstance(confusion, Confusion):
        if len(confusion.classes) <= _MOST_CELLS:
            blocks.append(Matrix(confusion.classes, confusion.matrix))
        elif len(confusion.classes) <= _MOST_CLASSES and can_plot():
            figure = plot_confusion(confusion.matrix, confusion.classes)
            blocks.append(Figures([(figure, "Confusion matrix")], min_width=680))
        pairs = confusion.most_confused(10)
        if pairs:
            rows = [
                [pair.target, pair.predicted, pair.count, f"{pair.share:.1%}"] for pair in pairs
            ]
            blocks.append(Text("Most frequent errors:"))
            blocks.append(Table(["target", "predicted as", "samples", "share of the class"], rows))
    absent = [each.name for each in scores if not each.support]
    if absent:
        blocks.append(
            Text(
                f"No {found.part} sample has the class{'' if len(absent) == 1 else 'es'} "
                f"{name_some(absent, most=10)}, so their recall is unknown."
            )
        )
    return [*blocks, *_class_table(scores)]


def _class_table(scores: Sequence[ClassScores]) -> list[Block]:
    """Return the scores of all classes in order, or of the worst classes if there are many."""
    shown = list(scores)
    blocks: list[Block] = []
    if len(shown) > _MOST_CLASSES:
        known = [each for each in shown if each.f1 is not None and each.support]
        shown = sorted(known, key=lambda each: each.f1 or 0.0)[:_MOST_CLASSES]
        blocks.append(Text(f"The {len(shown)} of {len(scores)} classes with the lowest F1:"))
    rows = [
        [
            each.name,
            each.support,
            each.predicted,
            *_value_and_range(each.precision),
            *_value_and_range(each.recall),
            each.f1,
        ]
        for each in shown
    ]
    headers = ["class", "samples", "predicted", "precision", "95%", "recall", "95%", "F1"]
    return [*blocks, Table(headers, rows)]


def _value_and_range(interval: Interval | None) -> list[object]:
    if interval is None:
        return [None, None]
    return [interval.value, f"{interval.low:.2f}–{interval.high:.2f}"]


def _residuals(found: Interpretation) -> list[Block]:
    names = found.names[:_MOST_VALUES]
    predicted, target = (found.predictions.figure(name) for name in ("predicted", "target"))
    draws = residual_panels(predicted[:, : len(names)], target[:, : len(names)], names)
    blocks: list[Block] = [
        Text(
            "On the dashed lines, the prediction equals the target. A curved or funnel-shaped "
            "pattern in the errors suggests transforming the target (for example its logarithm) or "
            "adding informative inputs."
        ),
        Figures(_figures(draws, "Predictions, targets and errors"), min_width=300),
    ]
    if len(found.names) > len(names):
        blocks.append(Text(f"Shown for the first {len(names)} of {len(found.names)} targets."))
    return blocks


def _top_losses(found: Interpretation) -> list[Block]:
    data = found.details.data
    top = found.top_losses(_TOP)
    cards: list[Preview] = []
    for each in top:
        picture = None if data is None else data.preview(each.id)
        lines = "\n".join(_loss_lines(each))
        if picture is None:
            cards.append(Preview(f"sample {each.number}\n{lines}"))
        else:
            cards.append(Preview(f"{picture.caption}\n{lines}", picture.image))
    lead = (
        "The samples with the highest loss. Look for wrong labels, unusual samples, and features "
        "that the model cannot recognise."
    )
    return [Text(lead), Cards(cards)]


def _loss_lines(each: TopLoss) -> list[str]:
    lines = [f"loss {each.loss:.3g}" if math.isfinite(each.loss) else "loss not finite"]
    if each.target:
        given = each.probability
        known = given is not None and math.isfinite(given)
        probability = f" (probability {given:.1%})" if known else ""
        lines = [f"target: {each.target}{probability}", f"predicted: {each.predicted}", *lines]
    return lines


# ---------------------------------------------------------------- calibration


def _has_calibration(found: Interpretation) -> bool:
    """Return whether there are probabilities for samples that are not ignored."""
    sums = found.predictions.summary.sums.get("calibration")
    return sums is not None and bool(sums.bins[:, 0].sum() > 0)


def _calibration(found: Interpretation) -> list[Block]:
    result = found.calibration()
    verdict = "overconfident" if result.confidence > result.accuracy else "underconfident"
    what = "labels apply" if found.predictions.kind == "multi_label" else "predictions are correct"
    text = (
        f"The mean predicted probability is {result.confidence:.1%}, and {result.accuracy:.1%} of "
        f"the {what}: the model is {verdict} by {abs(result.confidence - result.accuracy):.1%}. "
        f"Expected calibration error {result.ece:.3f}, Brier score {result.brier:.3f} (0 is best "
        "for both)."
    )
    blocks: list[Block] = [Text(text)]
    if can_plot():
        figure = plot_calibration(result)
        blocks.append(
            Figures([(figure, "Observed frequency by predicted probability")], min_width=300)
        )
    rows = [
        [
            each.confidence,
            each.accuracy.value,
            f"{each.accuracy.low:.2f}–{each.accuracy.high:.2f}",
            each.count,
        ]
        for each in result.bins
    ]
    return [
        *blocks,
        Table(["predicted probability", "observed frequency", "95%", "predictions"], rows),
    ]


# ---------------------------------------------------------------- data, plan, about


def _plan(found: Interpretation) -> list[Block]:
    plan = found.details.plan
    choices = [] if plan is None else [plan[key] for key in plan]
    uncertain = any(choice.confidence < LOW_CONFIDENCE for choice in choices)
    rows = [
        [
            choice.key,
            value_text(choice.value),
            choice.source + (" ?" if choice.confidence < LOW_CONFIDENCE else ""),
            choice.reason,
            choice.override,
            _on_command_line(choice),
        ]
        for choice in choices
    ]
    headers = ["choice", "value", "source", "reason", "how to change it", "on the command line"]
    table = Table(headers, rows, (1, 3, 4, 5))
    note = "? marks choices with low confidence; check these first."
    return [table, Text(note, note=True)] if uncertain else [table]


def _on_command_line(choice: Choice) -> str:
    """Return the command-line option that sets a choice to its first alternative, if any."""
    value = choice.alternatives[0] if choice.alternatives else choice.value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"--set {shlex.quote(f'{choice.key}={text}')}"


def _about(found: Interpretation, finite: bool) -> list[Block]:
    notes: dict[str, str] = dict(found.notes)
    notes["task"] = type(found.task).__name__
    notes["versions"] = f"flambeau {version('flambeau')}, torch {torch.__version__}"
    blocks: list[Block] = [Table(["", ""], list(notes.items()), prose=(1,))]
    if found.predictions.losses is None:
        text = (
            f"The samples with the highest loss are not shown: {type(found.task).__name__} has no "
            "loss per sample, because its outputs do not have one row per sample. Define "
            "summarise(outputs, batch) in the task to give their losses."
        )
        blocks.insert(0, Text(text))
    if not finite:
        blocks.insert(
            0,
            Text(
                "Some outputs of the model are not finite, so calibration and residuals are not "
                "shown. Train with a lower learning rate, or look for extreme inputs."
            ),
        )
    return blocks


def _figures(draws: Sequence[Callable[[Axes], None]], label: str) -> list[tuple[Figure, str]]:
    """Return one figure for each panel, so that they can wrap on a narrow screen."""
    return [(draw_panels([draw], *_PANEL, None), label) for draw in draws]
