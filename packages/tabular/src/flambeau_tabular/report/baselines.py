"""``table_baselines``: the scores of simple and of boosted models on the rows of a report."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from flambeau import random as keyed
from flambeau.errors import ArgumentError
from flambeau.report.interpretation import Interpretation
from flambeau.report.text_table import text_table
from flambeau.task.numerics import distinct
from flambeau.wording import first_line
from flambeau_tabular.columns import TableSpec
from flambeau_tabular.report.features import Features
from flambeau_tabular.report.measures import Score, compare, measures_of
from flambeau_tabular.report.optional_models import OPTIONAL_MODELS
from flambeau_tabular.report.problem import Predicted, Problem
from flambeau_tabular.report.scored import Scored, sampled, scored_of
from flambeau_tabular.report.simple_models import (
    MOST_SINGLES,
    Fit,
    TrainRows,
    fit_problem,
    n_singles,
)
from flambeau_tabular.report.sklearn_models import (
    HISTOGRAM_SETTING,
    fit_histogram,
    fit_linear,
    linear_setting,
)
from flambeau_tabular.report.trivial_models import trivial_lines

if TYPE_CHECKING:
    from flambeau_tabular.data import TabularData

MODEL = "this model"
"""Name of the model of the report among the lines."""

_MOST_TRAIN, _MOST_SCORED = 100_000, 200_000
_MOST_CELLS = 20_000_000  # of the train rows: 160 MB in float64
_HELD_OUT = 0.15
_ROWS_OF_ONE_THREAD = 50_000
_FEWEST = 20  # train rows with which anything but a constant is fitted


@dataclass(frozen=True)
class Line:
    """A model on the scored rows.

    Attributes:
        name: Name of the model.
        setting: How it was fitted.
        scores: Scores by measure, each with its interval and its difference to the model.
        seconds: Time of the fit and the prediction; None for the model itself.
    """

    name: str
    setting: str
    scores: dict[str, Score]
    seconds: float | None = None


@dataclass(frozen=True)
class Baselines(Mapping[str, Mapping[str, float]]):
    """Scores of baselines by name and measure; ``print`` shows them beside the model.

    Attributes:
        lines: All lines with their intervals; the first one is the model itself.
        absent: Why a line is absent, by name.
        notes: What has to be known about the rows.
    """

    lines: tuple[Line, ...]
    absent: dict[str, str]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> dict[str, float]:
        return self._scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __str__(self) -> str:
        measures = list(self.lines[0].scores)
        rows = [
            [line.name, *(str(line.scores[name].interval) for name in measures), line.setting]
            for line in self.lines
        ]
        reasons = [f"{name}: {why}" for name, why in self.absent.items()]
        table = text_table(["model", *measures, "setting"], rows)
        return "\n".join([table, *self.notes, *(["absent:", *reasons] if reasons else [])])

    @property
    def _scores(self) -> dict[str, dict[str, float]]:
        return {
            line.name: {name: score.interval.value for name, score in line.scores.items()}
            for line in self.lines
            if line.name != MODEL
        }


def table_baselines(data: TabularData, found: Interpretation) -> Baselines | None:
    """Return the baselines on the scored rows; None for a task whose outputs are not known.

    Every line is fitted on the train rows of the split and scored on the same rows as the model.
    Lines that fail are absent, with the error as the reason.

    Args:
        data: The data, whose train rows are used.
        found: The interpretation of the model on a part.
    """
    try:
        scored = scored_of(found, _MOST_SCORED)
    except ArgumentError:
        return None
    notes = _sample_note(len(scored), len(found), "scored")
    models: dict[str, Predicted] = {MODEL: scored.predicted}
    settings: dict[str, tuple[str, float | None]] = {MODEL: ("", None)}
    train, absent = data.split.train, {}
    why_not = _why_not(train, found)
    if why_not is not None:
        absent["fitted models"] = why_not
        for name, setting, predict in trivial_lines(scored.problem, _as_train(scored)):
            models[f"{name} of these rows"] = predict(Features.of(scored.spec, scored.inputs))
            settings[f"{name} of these rows"] = (setting.replace("train", "scored"), 0.0)
    else:
        rows, chosen = train_rows(data, scored.spec, scored.ids)
        notes += _sample_note(chosen, len(train), "train")
        features = Features.of(scored.spec, scored.inputs)
        with _few_threads(len(rows)):
            absent = _fit_lines(scored.problem, rows, features, models, settings)
    scores = compare(measures_of(scored.problem), models, scored.rows, reference=MODEL)
    lines = [Line(name, settings[name][0], scores[name], settings[name][1]) for name in models]
    return Baselines(tuple(lines), absent, tuple(notes))


def _as_train(scored: Scored) -> TrainRows:
    """Return the scored rows in place of train rows, for the best constant of these rows."""
    weights = None if scored.rows.weights is None else scored.rows.weights.numpy()
    features = Features.of(scored.spec, scored.inputs)
    nothing = np.zeros(len(scored), dtype=bool)
    return TrainRows(features, scored.rows.targets.numpy(), weights, nothing)


def train_rows(
    data: TabularData, spec: TableSpec, scored: NDArray[np.int64]
) -> tuple[TrainRows, int]:
    """Return the train rows for baselines, at most 100,000, and their number."""
    width = len(spec.number_names) + len(spec.flag_names) + len(spec.category_names) + 1
    most = min(_MOST_TRAIN, max(_FEWEST, _MOST_CELLS // width))
    rows = sampled(data.split.train, most, "train rows")
    features = Features.of(spec, spec.encode(data.frame, rows).inputs())
    targets = data.targets.of(rows).numpy()
    structure = data.structure
    weights = None
    if structure.weights is not None:
        weights = structure.weights[torch.from_numpy(rows)].double().numpy()
    times = None if structure.times is None else as_seconds(structure.times)
    recent = None
    if times is not None:
        span = float(np.ptp(times[scored])) if len(scored) else 0.0
        recent = times[rows] >= times[rows].max() - span
    held_out = held_out_rows(
        len(rows),
        None if structure.groups is None else structure.groups[rows],
        None if times is None else times[rows],
    )
    return TrainRows(features, targets, weights, held_out, recent), len(rows)


def held_out_rows(
    n: int, groups: NDArray[Any] | None, times: NDArray[Any] | None
) -> NDArray[np.bool_]:
    """Return which 15% of the train rows choose the rounds: the latest, or whole groups.

    None of fewer than 50 rows.
    """
    chosen = np.zeros(n, dtype=bool)
    if n < 50:
        return chosen
    if times is not None:
        # Rows of one time stay together.
        return np.asarray(times > np.quantile(times, 1 - _HELD_OUT))
    draws = keyed.generator(0, "held-out rows", n)
    if groups is None:
        chosen[torch.randperm(n, generator=draws)[: round(_HELD_OUT * n)].numpy()] = True
        return chosen
    names, numbers = (each.numpy() for each in distinct(torch.from_numpy(groups)))
    counts = np.bincount(numbers)
    order = torch.randperm(len(names), generator=draws).numpy()
    reached = np.cumsum(counts[order])
    taken = order[: int(np.searchsorted(reached, _HELD_OUT * n)) + 1]
    found = np.isin(numbers, taken)
    return found if len(taken) < len(names) else chosen


def as_seconds(times: NDArray[Any]) -> NDArray[np.float64]:
    """Return times as numbers that have their order: seconds of dates and of ISO 8601 text."""
    if times.dtype.kind in "OU":
        times = np.array([str(each).replace("Z", "") for each in times], dtype="datetime64[us]")
    if times.dtype.kind == "M":
        return times.astype("datetime64[us]").astype(np.int64) / 1e6
    return times.astype(np.float64)


def _why_not(train: NDArray[np.int64], found: Interpretation) -> str | None:
    """Return why no baseline can be fitted; None if there are train rows beside the scored ones."""
    if found.part == "train":
        return "the scored rows are the train rows"
    if len(train) < _FEWEST:
        return f"the data have {len(train):,} train rows; give the table with its train part"
    if bool(np.isin(train, found.ids.numpy()).any()):
        return "the table has no train part of its own: the scored rows are all rows"
    return None


@contextmanager
def _few_threads(rows: int) -> Generator[None]:
    """Fit models of small tables with one thread.

    The threads of OpenMP wait for each other in a loop. Where another program uses a core, that
    made gradient boosting of 10,000 rows take minutes in place of a second.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1 if rows < _ROWS_OF_ONE_THREAD else None):
        yield


def _fit_lines(
    problem: Problem,
    rows: TrainRows,
    features: Features,
    models: dict[str, Predicted],
    settings: dict[str, tuple[str, float | None]],
) -> dict[str, str]:
    """Add the predictions and settings of all baselines, and return why others are absent."""
    absent: dict[str, str] = {}
    for name, setting, predict in trivial_lines(problem, rows):
        models[name], settings[name] = predict(features), (setting, 0.0)
    if rows.recent is None:
        absent["last period"] = "the data have no time"
    fits: list[tuple[str, str, Fit]] = [
        ("linear", linear_setting(problem.kind), fit_linear),
        ("HistGradientBoosting", HISTOGRAM_SETTING, fit_histogram),
    ]
    for each in OPTIONAL_MODELS:
        why_not = each.why_absent(problem, len(rows))
        if why_not is None:
            fits.append((each.name, each.setting, each.fit))
        else:
            absent[each.name] = why_not
    for name, setting, fit in fits:
        if n_singles(problem) > MOST_SINGLES:
            absent[name] = f"it would need {n_singles(problem)} models, one for each output"
            continue
        start = time.perf_counter()
        try:
            predict, note = fit_problem(problem, rows, fit)
            predicted = predict(features)
            if not bool(predicted.values.isfinite().all()):
                absent[name] = "its predictions are not finite"
                continue
        except Exception as error:  # noqa: BLE001 - any error of another library
            absent[name] = f"{type(error).__name__}: {first_line(error)}"
            continue
        seconds = time.perf_counter() - start
        models[name] = predicted
        settings[name] = (f"{setting}; {note}" if note else setting, seconds)
    return absent


def _sample_note(n: int, of: int, what: str) -> list[str]:
    return [] if n == of else [f"A random sample of {n:,} of {of:,} {what} rows is used."]
