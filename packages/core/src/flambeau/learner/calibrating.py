"""``calibrate``: fit the calibration of a task, and score its predictions without and with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flambeau.artefact.export_format import as_json_value
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.distributed.processes import run_on_main
from flambeau.errors import InputError
from flambeau.learner.build import BuiltPlan
from flambeau.report.calibration import Calibration, calibration
from flambeau.report.text_table import text_table
from flambeau.task.combined import with_intervals
from flambeau.task.metrics import score
from flambeau.task.predicted_intervals import GROUP
from flambeau.task.probability_calibration import Rows, joined
from flambeau.task.task import StepContext, Task
from flambeau.wording import describe_values

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class PartScores:
    """The scores on one part of the data, without and with the calibration.

    Attributes:
        before: Scores without the calibration by name: the metrics of the task, and "ece",
            "log_loss" and "brier" if it predicts probabilities.
        after: The same scores with the calibration.
        curve_before: The reliability curve without the calibration, for
            ``flambeau.report.plot_calibration``; None if the task predicts no probabilities.
        curve_after: The reliability curve with the calibration.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    curve_before: Calibration | None = None
    curve_after: Calibration | None = None


@dataclass(frozen=True)
class CalibrationResult:
    """The result of ``learner.calibrate``; ``print`` shows the scores before and after it.

    Attributes:
        values: The fitted values by name, as in ``task.calibration``.
        n_samples: Number of calibration samples.
        parts: Scores of the part "calibration", on which the values were fitted, and of "valid", on
            which they were not.
    """

    values: Mapping[str, Any]
    n_samples: int
    parts: Mapping[str, PartScores]

    def __str__(self) -> str:
        rows = [
            [part, name, f"{value:.4f}", f"{found.after[name]:.4f}"]
            for part, found in self.parts.items()
            for name, value in found.before.items()
        ]
        fitted = describe_values(self.values)
        lines = [f"{fitted}; fitted on {self.n_samples:,} calibration samples"]
        return "\n".join([*lines, text_table(["part", "score", "before", "after"], rows)])


def calibrate(
    data: Data, built: BuiltPlan, context: StepContext, *, intervals: bool = False
) -> CalibrationResult:
    """Fit the task's calibration on the calibration part and set ``task.calibration``.

    Args:
        data: The data, with samples in the calibration part.
        built: The objects that the plan specifies.
        context: Context of the forward passes.
        intervals: Whether intervals can be predicted afterwards.

    Raises:
        InputError: The task defines no calibration, or its ``arguments()`` lack the fitted values.
    """
    task = built.task
    before = task.calibration
    try:
        result = run_on_main(lambda: _calibrate(data, built, context, intervals))
        task.calibration = result.values
        if task.arguments().get("calibration") != result.values:
            raise InputError(
                f"{type(task).__name__}.arguments() has no 'calibration' equal to the fitted "
                f"{result.values}, so an export would lose them. Return "
                "'calibration': dict(self.calibration) there, and accept it in the constructor."
            )
    except BaseException:
        task.calibration = before
        raise
    return result


def _calibrate(
    data: Data, built: BuiltPlan, context: StepContext, intervals: bool
) -> CalibrationResult:
    task = built.task
    built.model.eval()
    task.calibration = {}
    with torch.no_grad():
        found = task.calibrate(_pairs(built, "calibration", context))
        values: dict[str, Any] = as_json_value(found, f"{type(task).__name__}.calibrate()")
        if intervals:
            pairs = _with_groups(_pairs(built, "calibration", context), data)
            values = with_intervals(task, values, pairs)
        if not values:
            raise InputError(
                f"{type(task).__name__} has no calibration to fit. Use Classification, "
                "MultiLabel or Regression with log=…, or define calibrate(pairs) in your task."
            )
        parts = {
            part: _score_part(built, part, context, values)
            for part in ("calibration", "valid")
            if len(data.split.part(part))
        }
    return CalibrationResult(values, len(data.split.calibration), parts)


def _pairs(built: BuiltPlan, part: str, context: StepContext) -> Iterator[tuple[Any, Batch]]:
    predicting = replace(context, stage="predict")
    for batch in built.batches(part):
        yield built.task.predict(built.model, batch, predicting), batch


def _with_groups(pairs: Iterator[tuple[Any, Batch]], data: Data) -> Iterator[tuple[Any, Batch]]:
    """Add the groups of the data to the batches of the calibration part, if they have any."""
    groups = data.groups("calibration")
    start = 0
    for outputs, batch in pairs:
        end = start + len(batch)
        if groups is not None:
            extras = {**batch.extras, GROUP: list(groups[start:end])}
            batch = replace(batch, extras=extras)  # noqa: PLW2901
        yield outputs, batch
        start = end


def _score_part(
    built: BuiltPlan, part: str, context: StepContext, values: Mapping[str, Any]
) -> PartScores:
    """Return the scores on a part without and with calibration ``values``, from one pass."""
    without, with_values = _Scores(built.task, {}), _Scores(built.task, values)
    for outputs, batch in _pairs(built, part, context):
        without.add(outputs, batch)
        with_values.add(outputs, batch)
    before, after = without.compute(), with_values.compute()
    return PartScores(before[0], after[0], before[1], after[1])


class _Scores:
    """Collects outputs and computes their scores with the given calibration."""

    def __init__(self, task: Task, values: Mapping[str, Any]) -> None:
        self.task = task
        self.values = values
        task.calibration = values
        self.metrics = dict(task.metrics())
        self.rows: list[Rows] = []

    def add(self, outputs: Any, batch: Batch) -> None:
        """Add the outputs for a batch."""
        self.task.calibration = self.values
        self.task.update(self.metrics, outputs, batch)
        rows = self.task.probability_rows(outputs, batch)
        if rows is not None:
            self.rows.append(rows)

    def compute(self) -> tuple[dict[str, float], Calibration | None]:
        """Return the scores by name, and the reliability curve."""
        found: dict[str, float] = {}
        curve = None
        p, targets, weights = joined(self.rows)
        if len(p):
            curve = calibration(p, targets, weights=weights)
            log_loss = _log_loss(p, targets, weights)
            found = {"ece": curve.ece, "log_loss": log_loss, "brier": curve.brier}
        own = {name: score(metric) for name, metric in self.metrics.items()}
        return {**own, **found}, curve


def _log_loss(p: Tensor, targets: Tensor, weights: Tensor | None) -> float:
    """Return the mean log-loss; probabilities are clipped as in scikit-learn."""
    p = p.double()
    if targets.ndim == 1:
        chosen = p.gather(1, targets.long().unsqueeze(1))
    else:
        chosen = torch.where(targets > 0.5, p, 1 - p)
    losses = -chosen.clamp(_EPS, 1).log().mean(dim=1)
    return float(losses.mean() if weights is None else (losses * weights).sum() / weights.sum())
