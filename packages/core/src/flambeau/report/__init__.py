"""Looking back: baselines, tables and plots; every domain uses this report."""

from flambeau.report.baselines import baseline_scores, logistic_regression, majority, ridge
from flambeau.report.plots import plot_confusion, plot_history
from flambeau.report.tables import text_table

__all__ = [
    "baseline_scores",
    "logistic_regression",
    "majority",
    "plot_confusion",
    "plot_history",
    "ridge",
    "text_table",
]
