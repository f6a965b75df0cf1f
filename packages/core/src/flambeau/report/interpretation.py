"""``Interpretation``: what a model answers on one part of the data, and where it errs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import Dataset
from flambeau.errors import ArgumentError
from flambeau.figures import Path
from flambeau.plan import Plan
from flambeau.report.answers import Answers, collect
from flambeau.report.calibration import Calibration, calibration
from flambeau.report.comparison import simple_models
from flambeau.report.confusion import ClassScores, Confused, Confusion, LabelCounts
from flambeau.report.intervals import Interval
from flambeau.report.page import Page
from flambeau.report.scores import score_intervals
from flambeau.report.tables import text_table
from flambeau.report.top_losses import TopLoss
from flambeau.task.classification import Classification
from flambeau.task.multi_label import MultiLabel
from flambeau.task.regression import Regression
from flambeau.task.task import StepContext, Task
from flambeau.training.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Background:
    """What a report tells besides the answers; whatever is missing is left out of it.

    Attributes:
        title: Of the report.
        data: Its report is shown, and its samples' pictures.
        plan: Every choice with its reason.
        history: Of the training.
        dataset: The samples of "train", "valid" or "test"; simple models are fitted on them.
        notes: Further facts by name, such as the model and the device.
    """

    title: str = "Report"
    data: Data | None = None
    plan: Plan | None = None
    history: History | None = None
    dataset: Callable[[str], Dataset] | None = None
    notes: Mapping[str, str] = field(default_factory=dict[str, str])


def interpret(
    model: nn.Module,
    task: Task,
    batches: Callable[[], Iterable[Batch]],
    *,
    part: str = "valid",
    context: StepContext | None = None,
    background: Background | None = None,
) -> Interpretation:
    """The interpretation of a model on one part, from the plain parts that a learner holds.

    Args:
        model: Put into eval mode.
        task: Loss, metrics and what the outputs mean.
        batches: Begins a pass over the part's batches, on the model's device.
        part: What is called so on the page.
        context: For the forward pass.
        background: What the report tells besides.

    Raises:
        InputError: There are no samples.
    """
    context = context or StepContext(training=False, values=dict(task.values))
    answers = collect(model.eval(), task, batches, context)
    background = background or Background()
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    notes = {"model": f"{type(model).__name__}, {n_weights:,} parameters", **background.notes}
    return Interpretation(part, task, answers, background, notes)


class Interpretation:
    """The result of one pass over a part: plain tensors, scores with intervals, and the report.

    ``print(interpretation)`` shows the scores; ``interpretation.report("report.html")`` writes
    everything to one page.

    Args:
        part: Which samples these are.
        task: What the outputs mean.
        answers: Outputs, targets and losses by sample.
        background: What the report tells besides.
        notes: Facts by name for the head of the report.

    Attributes:
        part: As given.
        task: As given.
        answers: As given; ``answers.ids``, ``.outputs``, ``.targets``, ``.losses`` are tensors
            with a row a sample.
        background: As given.
        notes: As given.
        made: When the pass was made.
    """

    def __init__(
        self,
        part: str,
        task: Task,
        answers: Answers,
        background: Background,
        notes: Mapping[str, str],
    ) -> None:
        self.part = part
        self.task = task
        self.answers = answers
        self.background = background
        self.notes: Mapping[str, str] = dict(notes)
        self.made = datetime.now().astimezone()

    def __len__(self) -> int:
        return len(self.answers)

    def __str__(self) -> str:
        rows = [
            [
                name,
                value if math.isfinite(value) else None,
                None if (interval := self.intervals.get(name)) is None else _range(interval),
            ]
            for name, value in self.scores.items()
        ]
        lines = [
            f"{len(self):,} {self.part} sample{'' if len(self) == 1 else 's'}",
            text_table(["score", "value", "95% interval"], rows),
        ]
        if self.answers.kind == "classification":
            lines += [str(pair) for pair in self.most_confused(5)]
        return "\n".join(lines)

    # What was answered

    @property
    def names(self) -> tuple[str, ...]:
        """Classes, labels, or what the numbers are; empty for other tasks."""
        if isinstance(self.task, Classification | MultiLabel):
            return self.task.classes
        return self.task.names if isinstance(self.task, Regression) else ()

    @cached_property
    def probabilities(self) -> Tensor:
        """Of each class or label, float64 ``(n, classes)``.

        Raises:
            ArgumentError: The answers are no classes.
        """
        outputs, _ = self._tensors("classification", "multi_label")
        outputs = outputs.double()
        is_one = self.answers.kind == "classification"
        return outputs.softmax(dim=1) if is_one else outputs.sigmoid()

    @cached_property
    def predicted(self) -> Tensor:
        """Class numbers ``(n,)``, chosen labels ``(n, labels)`` (bool), or numbers ``(n, values)``.

        Raises:
            ArgumentError: The task's answers are none of these.
        """
        outputs, _ = self._tensors("classification", "multi_label", "regression")
        if self.answers.kind == "classification":
            return outputs.argmax(dim=1)
        if isinstance(self.task, MultiLabel):
            return self.probabilities >= self.task.threshold
        return outputs

    # How good it is

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95% intervals by score, for those that ``flambeau.report.score_intervals`` knows.

        A metric of your own under a usual name has none.
        """
        threshold = self.task.threshold if isinstance(self.task, MultiLabel) else 0.5
        found = score_intervals(self.answers, threshold)
        given = self.answers.scores
        return {
            name: interval
            for name, interval in found.items()
            # Not where it is of another figure: weighted losses, somebody's own "accuracy".
            if name not in given or math.isclose(given[name], interval.value, rel_tol=1e-4)
        }

    @property
    def scores(self) -> dict[str, float]:
        """Loss and metrics as ``learner.evaluate`` gives them, and the usual ones besides."""
        others = {name: each.value for name, each in self.intervals.items()}
        return {
            **self.answers.scores,
            **{k: v for k, v in others.items() if k not in self.answers.scores},
        }

    @cached_property
    def baselines(self) -> dict[str, dict[str, float]]:
        """What simple models reach on the same samples, by name; empty where none serves.

        The constant answer always; a linear model where the samples are in memory (a few seconds).
        """
        return simple_models(
            self.task, self.answers, self.part, self.background.data, self.background.dataset
        )

    def confusion(self) -> Confusion | LabelCounts:
        """Which class was taken for which; counts by label where a sample may have several.

        Raises:
            ArgumentError: The answers are no classes.
        """
        _, targets = self._tensors("classification", "multi_label")
        if self.answers.kind == "multi_label":
            return LabelCounts.of(self.predicted, targets > 0.5, self.names)
        kept = targets >= 0
        return Confusion.of(self.predicted[kept], targets[kept], self.names)

    def most_confused(self, n: int = 10) -> list[Confused]:
        """The pairs of classes with most wrong answers, the largest first.

        Raises:
            ArgumentError: A sample has not exactly one class.
        """
        self._tensors("classification")
        found = self.confusion()
        return found.most_confused(n) if isinstance(found, Confusion) else []

    def table(self) -> list[ClassScores]:
        """Support, precision, recall and F1 of each class or label.

        Raises:
            ArgumentError: The answers are no classes.
        """
        return self.confusion().table()

    def calibration(self, n_bins: int = 10) -> Calibration:
        """Whether the model is as often right as it says.

        Raises:
            ArgumentError: The answers are no classes.
            InputError: An output is not finite.
        """
        _, targets = self._tensors("classification", "multi_label")
        kept = targets >= 0 if targets.ndim == 1 else slice(None)
        return calibration(self.probabilities[kept], targets[kept], n_bins)

    def top_losses(self, n: int = 10) -> list[TopLoss]:
        """The samples with the highest loss, highest first; one that is not finite leads.

        Raises:
            ArgumentError: The task gives no loss a sample.
        """
        losses = self.answers.losses
        if losses is None:
            raise ArgumentError(
                f"{type(self.task).__name__} has no loss for each sample: its outputs do not have "
                "one row a sample. Losses of the whole part are in scores."
            )
        order = losses.nan_to_num(nan=math.inf).argsort(descending=True, stable=True)
        return [self._top_loss(int(row)) for row in order[: max(n, 0)]]

    def _top_loss(self, row: int) -> TopLoss:
        losses = self.answers.losses
        loss = math.nan if losses is None else float(losses[row])
        number = int(self.answers.ids[row])
        if self.answers.targets is None:
            return TopLoss(number, loss)
        target, answer = self.answers.targets[row], self.predicted[row]
        if self.answers.kind == "regression":
            return TopLoss(number, loss, self._numbers(target), self._numbers(answer))
        if self.answers.kind == "multi_label":
            return TopLoss(number, loss, self._labels(target > 0.5), self._labels(answer))
        if target < 0:
            return TopLoss(number, loss)
        sure = float(self.probabilities[row, int(target)])
        return TopLoss(number, loss, self.names[int(target)], self.names[int(answer)], sure)

    def _numbers(self, values: Tensor) -> str:
        if len(self.names) == 1:
            return f"{float(values):.4g}"
        pairs = zip(self.names, values, strict=True)
        return ", ".join(f"{name} {float(value):.4g}" for name, value in pairs)

    def _labels(self, chosen: Tensor) -> str:
        names = [name for name, is_on in zip(self.names, chosen, strict=True) if is_on]
        return ", ".join(names) or "(none)"

    def _tensors(self, *kinds: str) -> tuple[Tensor, Tensor]:
        outputs, targets = self.answers.outputs, self.answers.targets
        if self.answers.kind not in kinds or outputs is None or targets is None:
            raise ArgumentError(
                f"This is for {' and '.join(kinds).replace('_', '-')}, but the answers of "
                f"{type(self.task).__name__} are of the kind {self.answers.kind!r}."
            )
        return outputs, targets

    # What it looks like

    def plot_confusion(self, path: Path | None = None) -> Figure:
        """The confusion matrix as a matplotlib figure.

        Raises:
            ArgumentError: A sample has not exactly one class.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau.report.plots import plot_confusion

        self._tensors("classification")
        found = self.confusion()
        matrix = found.matrix if isinstance(found, Confusion) else torch.empty(0)
        return plot_confusion(matrix, self.names, path)

    def plot_calibration(self, path: Path | None = None) -> Figure:
        """The reliability curve as a matplotlib figure.

        Raises:
            ArgumentError: The answers are no classes.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau.report.plots_answers import plot_calibration

        return plot_calibration(self.calibration(), path)

    def plot_residuals(self, path: Path | None = None) -> Figure:
        """Predicted against true numbers and the errors, as a matplotlib figure.

        Raises:
            ArgumentError: The answers are no numbers.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau.report.plots_answers import plot_residuals

        outputs, targets = self._tensors("regression")
        return plot_residuals(outputs, targets, self.names, path)

    def plot_scores(self, path: Path | None = None) -> Figure:
        """Scores with intervals beside those of simple models, as a matplotlib figure.

        Raises:
            InputError: No score lies within 0..1.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau.report.plots_answers import plot_scores

        return plot_scores(self.intervals, self.baselines, path)

    def page(self) -> Page:
        """The report as a ``Page``, to which sections can be added before it is saved."""
        from flambeau.report.sections import make_page

        return make_page(self)

    def report(self, path: str | os.PathLike[str] = "report.html") -> FilePath:
        """Writes the report: one HTML file that needs no network, readable on a phone.

        Returns:
            Where it is.

        Raises:
            StorageError: It cannot be written there.
        """
        return self.page().save(path)


def _range(interval: Interval) -> str:
    return f"{interval.low:.4g} to {interval.high:.4g}"
