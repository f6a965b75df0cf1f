"""Runs that have been made: read, list and compare them."""

from flambeau.runs.compare_runs import compare_runs
from flambeau.runs.comparison import Comparison, PairResult, ScoreResult
from flambeau.runs.find_runs import RunList, find_runs
from flambeau.runs.run_groups import RunGroup
from flambeau.runs.saved_run import SavedRun, read_run

__all__ = [
    "Comparison",
    "PairResult",
    "RunGroup",
    "RunList",
    "SavedRun",
    "ScoreResult",
    "compare_runs",
    "find_runs",
    "read_run",
]
