"""``Interpretation``: the predictions of a model on one part, its scores and its errors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import ArgumentError, explains_arguments
from flambeau.nested import to_cpu
from flambeau.plan import Plan
from flambeau.plotting import Path
from flambeau.report.calibration import Calibration, calibration_from_sums
from flambeau.report.confusion import ClassScores, ConfusedPair, Confusion, LabelCounts
from flambeau.report.interpretation_page import make_page
from flambeau.report.intervals import Interval
from flambeau.report.page import Page
from flambeau.report.part_baselines import group_numbers, part_baselines
from flambeau.report.plots_predictions import (
    plot_calibration,
    plot_confusion,
    plot_residuals,
    plot_scores,
)
from flambeau.report.predictions import Predictions, collect_predictions
from flambeau.report.scores import score_intervals
from flambeau.report.text_table import text_table
from flambeau.report.top_losses import TopLoss
from flambeau.task.task import StepContext, Task
from flambeau.training.history import History
from flambeau.wording import count_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flambeau.inspect.watch.inspection import Inspection

_SIDES = ("target", "predicted")


@dataclass(frozen=True)
class ReportDetails:
    """Content of a report besides the predictions; the report omits content that is None.

    Attributes:
        title: Title of the report.
        data: The data; the page shows the report of the data and images of samples.
        plan: The plan, with the reason for each choice.
        history: The history of the training.
        dataset: Returns the data set of a part ("train", "valid", …); needed for baselines.
        notes: Further facts by name, such as the model and the device.
        preprocessor: The fitted preprocessor, from which a task reads names of inputs.
        inspection: What ``learner.inspect`` has recorded of the layers.
    """

    title: str = "Report"
    data: Data | None = None
    plan: Plan | None = None
    history: History | None = None
    dataset: Callable[[str], Dataset] | None = None
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    preprocessor: Preprocessor | None = None
    inspection: Inspection | None = None


def interpret(
    model: nn.Module,
    task: Task,
    batches: Callable[[], Iterable[Batch]],
    *,
    part: str = "valid",
    context: StepContext | None = None,
    details: ReportDetails | None = None,
) -> Interpretation:
    """Return the interpretation of a model on one part; ``learner.interpret`` calls this.

    Args:
        model: The model; it is set to eval mode.
        task: Defines loss, metrics and the meaning of the outputs.
        batches: Function that starts a pass over the batches of the part, on the model's device.
        part: Name of the part in the report.
        context: Context of the forward pass.
        details: Further content of the report.

    Raises:
        InputError: There are no samples.
    """
    context = context or StepContext("evaluate", values=dict(task.values))
    predictions = collect_predictions(model.eval(), task, batches, context)
    details = details or ReportDetails()
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    notes = {"model": f"{type(model).__name__}, {n_weights:,} parameters", **details.notes}
    run = partial(_run, model, task, context, details.preprocessor)
    return Interpretation(part, task, predictions, details, notes, run, model)


def _run(
    model: nn.Module,
    task: Task,
    context: StepContext,
    preprocessor: Preprocessor | None,
    batch: Batch,
) -> Any:
    """Return the outputs for a batch on the CPU that the preprocessor encoded, on the CPU."""
    weight = next(model.parameters(), torch.empty(0))
    batch = batch.to(weight.device)
    if preprocessor is not None:
        batch = preprocessor.on_device(batch)
    with torch.no_grad():
        outputs = task.predict(model.eval(), batch, replace(context, stage="predict", carry=None))
    return to_cpu(outputs)


@explains_arguments()
class Interpretation:
    """The predictions for one part, with scores, intervals, plots and a report.

    ``print(interpretation)`` shows the scores; ``interpretation.report("report.html")`` writes
    everything to one HTML page.

    Args:
        part: Name of the part.
        task: Defines the meaning of the outputs.
        predictions: The results for each sample, and sums over all samples.
        details: Further content of the report.
        notes: Facts by name for the last section of the report.
        run: Returns what ``task.predict`` returns for a batch of the preprocessor; None if the
            model is not at hand.
        model: The model, for sections that need its gradients; None if there is not only one.

    Attributes:
        part: The argument ``part``.
        task: The argument ``task``.
        predictions: The argument ``predictions``; its ``ids``, ``targets``, ``predicted`` and
            ``losses`` have one row per sample, as have the tensors in ``summary.samples``.
        details: The argument ``details``.
        notes: The argument ``notes``.
        run: The argument ``run``, with which sections of a report compute further predictions.
        model: The argument ``model``.
        signatures: How scores were computed, by name; see ``Task.signatures``.
        created: When the predictions were computed.
    """

    def __init__(
        self,
        part: str,
        task: Task,
        predictions: Predictions,
        details: ReportDetails,
        notes: Mapping[str, str],
        run: Callable[[Batch], Any] | None = None,
        model: nn.Module | None = None,
    ) -> None:
        self.run = run
        self.model = model
        self.part = part
        self.task = task
        self.predictions = predictions
        self.details = details
        self.notes: Mapping[str, str] = dict(notes)
        # Copied, because a later evaluation may replace those of the task.
        self.signatures: Mapping[str, str] = dict(task.signatures)
        self.created = datetime.now().astimezone()

    def __len__(self) -> int:
        return len(self.predictions)

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
            count_of(len(self), f"{self.part} {self.task.sample_name}"),
            text_table(["score", "value", "95% interval"], rows),
        ]
        if self.predictions.kind == "classification":
            lines += [str(pair) for pair in self.most_confused(5)]
        lines += [f"{name}: {text}" for name, text in self.signatures.items()]
        return "\n".join(lines)

    # Predictions

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, labels or regression targets; empty for other tasks."""
        return self.task.output_names

    @property
    def predicted(self) -> Tensor:
        """Class indices ``(n,)``, labels ``(n, labels)`` (bool), or values ``(n, values)``.

        Raises:
            ArgumentError: The task is not classification, multi-label or regression.
        """
        self._require("classification", "multi_label", "regression")
        predicted = self.predictions.predicted
        # Each of these kinds has it.
        return torch.empty(0) if predicted is None else predicted

    # Scores

    @cached_property
    def groups(self) -> Tensor | None:
        """Numbers of the groups of the samples, ``(n,)``; None if the data have no groups."""
        return None if self.details.data is None else group_numbers(self.details.data, self.ids)

    @property
    def ids(self) -> Tensor:
        """Sample indices as in ``data.split``, int64 ``(n,)``."""
        return self.predictions.ids

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95% intervals by score, for the scores of ``flambeau.report.score_intervals``.

        Samples of one group of the data are resampled together.

        A user-defined metric has no interval, even under the name of a standard metric.
        """
        found = score_intervals(self.predictions, self.groups)
        given = self.predictions.scores
        return {
            name: interval
            for name, interval in found.items()
            # A different value means a different definition: a weighted loss, a custom metric.
            if name not in given or math.isclose(given[name], interval.value, rel_tol=1e-4)
        }

    @property
    def scores(self) -> dict[str, float]:
        """Loss and metrics as learner.evaluate returns them, and the task's standard metrics."""
        others = {name: each.value for name, each in self.intervals.items()}
        return {
            **self.predictions.scores,
            **{k: v for k, v in others.items() if k not in self.predictions.scores},
        }

    @cached_property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Scores of simple models on the same samples, by model name; may be empty.

        The models are those of the data (``Data.baselines``), or a constant prediction and, if the
        samples are in memory, a linear model. They take some seconds.
        """
        own = None if self.details.data is None else self.details.data.baselines(self)
        if own is not None:
            return own
        return part_baselines(
            self.task, self.predictions, self.part, self.details.data, self.details.dataset
        )

    def confusion(self) -> Confusion | LabelCounts:
        """Return the confusion matrix, or counts per label for multi-label tasks.

        Raises:
            ArgumentError: The task is neither classification nor multi-label.
        """
        self._require("classification", "multi_label")
        sums = self.predictions.summary.sums
        if self.predictions.kind == "multi_label":
            return LabelCounts(self.names, *sums["labels"], squares=sums["label_squares"])
        return Confusion.from_pairs(sums["confusion"], self.names)

    def most_confused(self, n: int = 10) -> list[ConfusedPair]:
        """Return the pairs of classes with the most errors, most frequent first.

        Raises:
            ArgumentError: The task is not classification.
        """
        self._require("classification")
        found = self.confusion()
        return found.most_confused(n) if isinstance(found, Confusion) else []

    def class_scores(self) -> list[ClassScores]:
        """Return support, precision, recall and F1 of each class or label.

        Raises:
            ArgumentError: The task is neither classification nor multi-label.
        """
        return self.confusion().class_scores()

    def calibration(self) -> Calibration:
        """Return how well the predicted probabilities match the observed frequencies, in 10 bins.

        Raises:
            ArgumentError: The task is neither classification nor multi-label.
            InputError: A probability is not finite, or all samples are ignored.
        """
        self._require("classification", "multi_label")
        return calibration_from_sums(self.predictions.summary.sums["calibration"])

    def top_losses(self, n: int = 10) -> list[TopLoss]:
        """Return the samples with the highest loss, highest first; NaN counts as highest.

        Raises:
            ArgumentError: The task has no loss per sample.
        """
        losses = self.predictions.losses
        if losses is None:
            raise ArgumentError(
                f"{type(self.task).__name__} has no loss per sample, because its outputs do not "
                "have one row per sample and its summarise(outputs, batch) gives no losses. The "
                "loss of the whole part is in scores."
            )
        order = losses.nan_to_num(nan=math.inf).argsort(descending=True, stable=True)
        top = [self._top_loss(int(row)) for row in order[: max(n, 0)]]
        data = self.details.data
        if data is None:
            return top
        numbers = data.source_rows(np.array([each.id for each in top], np.int64)).tolist()
        return [replace(each, source=at) for each, at in zip(top, numbers, strict=True)]

    def _top_loss(self, row: int) -> TopLoss:
        found = self.predictions
        loss = math.nan if found.losses is None else float(found.losses[row])
        sample, samples = int(found.ids[row]), found.summary.samples
        if "target_text" in samples:
            target, predicted = (str(samples[f"{side}_text"][row]) for side in _SIDES)
            return TopLoss(sample, loss, target, predicted)
        if found.kind not in ("classification", "multi_label", "regression"):
            return TopLoss(sample, loss)
        if found.kind == "classification" and int(found.figure("target")[row]) < 0:
            return TopLoss(sample, loss)
        target, predicted = (self._text(side, row) for side in _SIDES)
        probability = samples.get("target_probability")
        known = None if probability is None else float(probability[row])
        return TopLoss(sample, loss, target, predicted, known)

    def _text(self, side: str, row: int) -> str:
        """Return "target" or "predicted" of a sample as text."""
        if self.predictions.kind == "multi_label":
            return self._labels_text(self.predictions.labels(side, torch.tensor([row]))[0])
        value = self.predictions.figure(side)[row]
        return self._values_text(value) if value.ndim else self.names[int(value)]

    def _values_text(self, values: Tensor) -> str:
        if len(self.names) == 1:
            return f"{float(values):.4g}"
        pairs = zip(self.names, values, strict=True)
        return ", ".join(f"{name} {float(value):.4g}" for name, value in pairs)

    def _labels_text(self, chosen: Tensor) -> str:
        names = [name for name, is_on in zip(self.names, chosen, strict=True) if is_on]
        return ", ".join(names) or "(none)"

    def _require(self, *kinds: str) -> None:
        if self.predictions.kind not in kinds:
            raise ArgumentError(
                f"This requires {' or '.join(kinds).replace('_', '-')}, but the predictions of "
                f"{type(self.task).__name__} are of the kind {self.predictions.kind!r}."
            )

    # Plots and report

    def plot_confusion(self, path: Path | None = None) -> Figure:
        """Plot the confusion matrix.

        Raises:
            ArgumentError: The task is not classification.
            MissingDependencyError: matplotlib is not installed.
        """
        self._require("classification")
        found = self.confusion()
        matrix = found.matrix if isinstance(found, Confusion) else torch.empty(0)
        return plot_confusion(matrix, self.names, path)

    def plot_calibration(self, path: Path | None = None) -> Figure:
        """Plot the reliability curve.

        Raises:
            ArgumentError: The task is neither classification nor multi-label.
            MissingDependencyError: matplotlib is not installed.
        """
        return plot_calibration(self.calibration(), path)

    def plot_residuals(self, path: Path | None = None) -> Figure:
        """Plot predictions against targets, and the errors.

        Raises:
            ArgumentError: The task is not regression.
            MissingDependencyError: matplotlib is not installed.
        """
        self._require("regression")
        predicted, target = (self.predictions.figure(name) for name in ("predicted", "target"))
        return plot_residuals(predicted, target, self.names, path)

    def plot_scores(self, path: Path | None = None) -> Figure:
        """Plot the scores with their intervals beside the baselines' scores.

        Raises:
            InputError: No score is between 0 and 1.
            MissingDependencyError: matplotlib is not installed.
        """
        return plot_scores(self.intervals, self.baselines, path)

    def save(self, folder: str | os.PathLike[str]) -> FilePath:
        """Write the predictions of each sample to the folder of a run, for a later comparison.

        ``compare_runs`` and ``flambeau runs compare`` read them, and tell whether the difference
        between two runs is more than noise.

        Returns:
            The path of the file, ``predictions-PART.safetensors``.

        Raises:
            StorageError: The file cannot be written.
        """
        from flambeau.report.stored_predictions import StoredPredictions

        data = self.details.data
        known = {} if data is None else data.fingerprint()
        found = StoredPredictions(self.part, self.predictions, self.groups, known)
        return found.save(FilePath(folder))

    def page(self) -> Page:
        """Return the report as a ``Page``, to which sections can be added before saving it."""
        return make_page(self)

    def report(self, path: str | os.PathLike[str] = "report.html") -> FilePath:
        """Write the report as one HTML file, which needs no network and is readable on a phone.

        A path that ends in .md gives Markdown, .json JSON, with tables in place of plots.

        Returns:
            The path of the file.

        Raises:
            StorageError: The file cannot be written.
        """
        return self.page().save(path)


def _range(interval: Interval) -> str:
    return f"{interval.low:.4g} to {interval.high:.4g}"
