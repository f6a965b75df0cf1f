"""Whether the scores of two groups of runs differ by more than noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from flambeau.errors import ArtefactError
from flambeau.report.rank_test import mann_whitney_p
from flambeau.report.score_differences import (
    LOWER_IS_BETTER,
    ScoreDifference,
    different_samples,
    score_differences,
)
from flambeau.report.stored_predictions import (
    StoredPredictions,
    load_predictions,
    predictions_path,
)
from flambeau.runs.comparison import PairResult, ScoreResult
from flambeau.runs.data_identity import match_data
from flambeau.runs.run_groups import RunGroup
from flambeau.runs.saved_run import SavedRun
from flambeau.wording import count_of, name_some

MIN_SEEDS = 4
"""Runs of each plan for a test over seeds; several comparisons need more, see ``seeds_needed``."""

ALPHA = 0.05

Scores = dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
"""The scores of the runs of both groups, by name."""

_NOT_OF_PLAN = (
    "The interval is for other samples of the same kind. How much the scores change with another "
    "seed is not in it: train {n} runs of each plan with other seeds to see that."
)


def compare_groups(groups: Sequence[RunGroup], part: str) -> tuple[PairResult, ...]:
    """Return the first group against each other one.

    Args:
        groups: At least two groups.
        part: "valid" or "test".
    """
    n = len(groups) - 1
    return tuple(_Pair(groups[0], other, part, n).result() for other in groups[1:])


def can_show_a_difference(n: int, m: int, n_pairs: int) -> bool:
    """Return whether a rank test of ``n`` and ``m`` runs can be below the level.

    Args:
        n: Runs of one plan.
        m: Runs of the other plan.
        n_pairs: Number of comparisons that share the level.
    """
    least_p = 2.0 / math.comb(n + m, n)
    return min(n, m) >= MIN_SEEDS and least_p < ALPHA / n_pairs


def seeds_needed(n_pairs: int) -> int:
    """Return with how many runs of each plan a rank test can show a difference."""
    return next(n for n in itertools.count(MIN_SEEDS) if can_show_a_difference(n, n, n_pairs))


class _Pair:
    """Two groups of runs.

    Args:
        first: The group that the other one is compared with.
        second: The other group.
        part: "valid" or "test".
        n_pairs: Number of comparisons; the level is that of all of them together (Bonferroni).
    """

    def __init__(self, first: RunGroup, second: RunGroup, part: str, n_pairs: int) -> None:
        self.first, self.second, self.part, self.n_pairs = first, second, part, n_pairs
        self.notes: list[str] = []
        self.faults: list[str] = []

    def result(self) -> PairResult:
        """Return scores, the test that was used, and the verdict."""
        one, other = self.first.first, self.second.first
        match = match_data(one, other, self.part)
        stored = [self._stored(run) for run in (*self.first.runs, *self.second.runs)]
        known = [each for each in stored if each is not None]
        is_complete = len(known) == len(stored)
        if match.obstacle is not None and match.is_certain:
            return self._incomparable(match.obstacle)
        other_samples = (
            different_samples([each.predictions for each in known]) if is_complete else None
        )
        if other_samples is not None:
            return self._incomparable(f"their {self.part} predictions differ: {other_samples}")
        if match.obstacle is not None and not is_complete:
            return self._incomparable(match.obstacle)
        self.notes += match.notes
        if match.obstacle is not None:
            self.notes.append(
                f"The {self.part} samples and their targets are the same in both, as the stored "
                "predictions show."
            )
        unlike = self._unlike_scores()
        scores = self._scores(known if is_complete else [])
        if self._has_enough_seeds and scores:
            return self._over_seeds(scores, unlike)
        if is_complete:
            return self._over_samples(known, unlike)
        return self._without_test(unlike)

    @property
    def _has_enough_seeds(self) -> bool:
        return can_show_a_difference(len(self.first), len(self.second), self.n_pairs)

    def _stored(self, run: SavedRun) -> StoredPredictions | None:
        path = predictions_path(run.folder, self.part)
        if not path.exists():
            return None
        try:
            return load_predictions(path)
        except ArtefactError as error:
            self.faults.append(str(error))
            return None

    def _incomparable(self, why: str) -> PairResult:
        labels = self.first.label, self.second.label
        text = f"The scores are not compared: {why}."
        return PairResult(*labels, None, text, verdict="incomparable", notes=tuple(self.faults))

    def _unlike_scores(self) -> set[str]:
        """Return the scores that mean something else in the two groups, and note them."""
        one, other = self.first.first, self.second.first
        unlike = {
            name.removeprefix("valid_")
            for name, mode in one.modes.items()
            if name.startswith("valid_") and other.modes.get(name, mode) != mode
        }
        for name in sorted(unlike):
            modes = [run.modes[f"valid_{name}"] for run in (one, other)]
            self.notes.append(
                f"{name} is not compared: in {self.first.label} {_word(modes[0])} values are "
                f"better, in {self.second.label} {_word(modes[1])} ones."
            )
        task, other_task = (run.record.get("task") for run in (one, other))
        losses = [run.values.get("loss") for run in (one, other)]
        others = [each for each in (losses, [task, other_task]) if _is_other(*each)]
        if "loss" not in unlike and others:
            unlike.add("loss")
            self.notes.append(
                f"The loss is not compared: the runs have other losses ({name_some(others[0])})."
            )
        unknown = [str(run.folder) for run in (one, other) if not run.record.get("task")]
        if "loss" not in unlike and unknown:
            self.notes.append(
                f"The task is not recorded in {name_some(unknown)}: if the losses are not the same "
                "function, do not compare their values."
            )
        return unlike

    # The two tests

    def _over_samples(self, stored: Sequence[StoredPredictions], unlike: set[str]) -> PairResult:
        n = len(self.first)
        groups = [each.groups for each in stored]
        level = 1 - ALPHA / self.n_pairs
        found = score_differences(
            [each.predictions for each in stored[:n]],
            [each.predictions for each in stored[n:]],
            groups[0],
            level,
        )
        scores = [
            _of_samples(each)
            for each in found
            if each.name not in unlike and _is_standard(each, stored)
        ]
        is_tested = any(each.low is not None for each in scores)
        known = {each.name for each in scores} | unlike
        scores += [
            self._unknown(name, first, second)
            for name, (first, second) in self._stored_scores(stored).items()
            if name not in known
        ]
        count = len(stored[0].predictions)
        if not is_tested:
            why = (
                "It is not known whether the difference is more than noise: for the scores that "
                f"both have, there is no paired test over the {count:,} {self.part} samples. For a "
                f"test over seeds, {self._enough()}."
            )
            return self._result(None, why, scores)
        unit = "samples" if groups[0] is None else "groups of samples"
        runs = f"{count_of(len(self.first), 'run')} and {count_of(len(self.second), 'run')}"
        why = (
            f"Paired test over the {count:,} {self.part} samples (bootstrap of {unit}, interval "
            f"{level:.1%}), because {runs} are too few for a test over seeds, for which "
            f"{self._enough()}."
        )
        self.notes.append(_NOT_OF_PLAN.format(n=seeds_needed(self.n_pairs)))
        return self._result("samples", why, scores)

    def _over_seeds(self, found: Scores, unlike: set[str]) -> PairResult:
        scores: list[ScoreResult] = []
        for name, (first, second) in found.items():
            if name in unlike:
                continue
            p = mann_whitney_p(first, second)
            higher = self._higher_is_better(name)
            gain = sum(second) / len(second) - sum(first) / len(first)
            is_tie = len({*first, *second}) == 1
            verdict = "tie" if is_tie else _verdict(gain, p < ALPHA / self.n_pairs, higher)
            scores.append(ScoreResult(name, first, second, None, None, p, higher, verdict))
        why = (
            f"Rank test over the runs (Mann–Whitney, p < {ALPHA / self.n_pairs:.3g}), because "
            f"there are {len(self.first)} and {len(self.second)} runs with different seeds: their "
            "scores include what changes with the seed."
        )
        return self._result("seeds", why, scores)

    def _without_test(self, unlike: set[str]) -> PairResult:
        scores = [
            self._unknown(name, first, second)
            for name, (first, second) in self._scores([]).items()
            if name not in unlike
        ]
        runs = (*self.first.runs, *self.second.runs)
        lacking = [r for r in runs if not predictions_path(r.folder, self.part).is_file()]
        where = name_some(str(run.folder) for run in lacking)
        too_few = f", and too few runs for a test over seeds, for which {self._enough()}"
        why = (
            f"It is not known whether the difference is more than noise: there are no {self.part} "
            f"predictions of each sample in {where or 'the folders'}"
            f"{'' if self._has_enough_seeds else too_few}. To store them: "
            f"learner.interpret({self.part!r}).save(folder), or flambeau evaluate RUN/model DATA "
            f"--part {self.part} --save."
        )
        return self._result(None, why, scores)

    def _enough(self) -> str:
        return f"{seeds_needed(self.n_pairs)} of each plan are enough"

    def _result(self, method: str | None, why: str, scores: Sequence[ScoreResult]) -> PairResult:
        if self.n_pairs > 1 and method is not None:
            self.notes.append(
                f"The level holds for all {self.n_pairs} comparisons together (Bonferroni)."
            )
        if self.part == "valid" and method is not None:
            self.notes.append(
                "The validation scores are slightly too good if they chose the weights "
                "(keep_best). Use --part test once, for the final choice."
            )
        if self.part == "test":
            self.notes.append(
                "Plans that are chosen by their test scores look better than they are."
            )
        decisive = self._decisive(scores)
        verdict = "unknown" if decisive is None else decisive.verdict
        name = None if decisive is None else decisive.name
        labels = self.first.label, self.second.label
        notes = (*self.notes, *self.faults)
        return PairResult(*labels, method, why, tuple(scores), verdict, name, notes)

    def _decisive(self, scores: Sequence[ScoreResult]) -> ScoreResult | None:
        """Return the score that ``keep_best`` watches, else the first metric, else the loss.

        A score with a test comes before one without: a paired interval is known for the standard
        scores only.
        """
        scores = [each for each in scores if each.verdict != "unknown"] or scores
        monitor = (self.first.first.monitor or "").removeprefix("valid_")
        named = {each.name: each for each in scores}
        metrics = [
            each for each in scores if each.name != "loss" and each.higher_is_better is not None
        ]
        if monitor in named and monitor != "loss":
            return named[monitor]
        return (metrics or list(scores) or [None])[0]

    # Scores of the runs

    def _scores(self, stored: Sequence[StoredPredictions]) -> Scores:
        """Return the scores of each run: of the stored predictions, or of the history."""
        if stored:
            return self._stored_scores(stored)
        if self.part != "valid":
            return {}
        return _common(
            [run.scores for run in self.first.runs], [run.scores for run in self.second.runs]
        )

    def _stored_scores(self, stored: Sequence[StoredPredictions]) -> Scores:
        every = [each.predictions.scores for each in stored]
        return _common(every[: len(self.first)], every[len(self.first) :])

    def _unknown(
        self, name: str, first: tuple[float, ...], second: tuple[float, ...]
    ) -> ScoreResult:
        """Return a score without a test: equal means may hide differences in each sample."""
        higher = self._higher_is_better(name)
        return ScoreResult(name, first, second, None, None, None, higher, "unknown")

    def _higher_is_better(self, name: str) -> bool | None:
        mode = self.first.first.modes.get(f"valid_{name}")
        if mode is not None:
            return mode == "max"
        return False if name in LOWER_IS_BETTER else None


def _of_samples(found: ScoreDifference) -> ScoreResult:
    interval = found.interval
    if interval is None:
        low = high = None
        verdict = "unknown"
    else:
        low, high = interval.low, interval.high
        excludes_zero = low > 0 or high < 0
        is_tie = low == high == 0
        verdict = (
            "tie" if is_tie else _verdict(interval.value, excludes_zero, found.higher_is_better)
        )
    return ScoreResult(
        found.name, found.first, found.second, low, high, None, found.higher_is_better, verdict
    )


def _verdict(gain: float, is_shown: bool, higher_is_better: bool | None) -> str:
    if not is_shown:
        return "no difference shown"
    if higher_is_better is None:
        return "larger" if gain > 0 else "smaller"
    return "better" if (gain > 0) == higher_is_better else "worse"


def _is_standard(found: ScoreDifference, stored: Sequence[StoredPredictions]) -> bool:
    """Return whether a score of the same name in the run has the same definition."""
    values = (*found.first, *found.second)
    given = [each.predictions.scores.get(found.name) for each in stored]
    return all(
        own is None or math.isclose(own, value, rel_tol=1e-4, abs_tol=1e-9)
        for own, value in zip(given, values, strict=True)
    )


def _common(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]) -> Scores:
    """Return the finite scores that every run has, by name."""
    every = [*first, *second]
    names = [name for name in every[0] if all(name in each for each in every)] if every else []
    found: Scores = {}
    for name in names:
        values = [float(each[name]) for each in every]
        if all(map(math.isfinite, values)):
            found[name] = tuple(values[: len(first)]), tuple(values[len(first) :])
    return found


def _is_other(one: object, other: object) -> bool:
    """Return whether two values are known and differ."""
    return one is not None and other is not None and one != other


def _word(mode: str) -> str:
    return "smaller" if mode == "min" else "larger"
