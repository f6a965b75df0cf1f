"""Reports: scores with intervals, baselines, plots, and an HTML page, for every domain."""

from flambeau.report.baselines import (
    baseline_scores,
    logistic_regression_accuracy,
    majority_accuracy,
    ridge_predictions,
)
from flambeau.report.blocks import Block, Cards, Figures, Matrix, Preformatted, Table, Text
from flambeau.report.calibration import Calibration, CalibrationBin, calibration
from flambeau.report.confusion import ClassScores, ConfusedPair, Confusion, LabelCounts
from flambeau.report.interpretation import Interpretation, ReportDetails, interpret
from flambeau.report.intervals import Interval, bootstrap, paired_difference, wilson
from flambeau.report.page import Page, Section
from flambeau.report.plots_history import plot_history
from flambeau.report.plots_predictions import (
    plot_calibration,
    plot_confusion,
    plot_residuals,
    plot_scores,
)
from flambeau.report.predictions import Predictions
from flambeau.report.scores import score_intervals
from flambeau.report.text_table import text_table
from flambeau.report.top_losses import TopLoss

__all__ = [
    "Block",
    "Calibration",
    "CalibrationBin",
    "Cards",
    "ClassScores",
    "ConfusedPair",
    "Confusion",
    "Figures",
    "Interpretation",
    "Interval",
    "LabelCounts",
    "Matrix",
    "Page",
    "Predictions",
    "Preformatted",
    "ReportDetails",
    "Section",
    "Table",
    "Text",
    "TopLoss",
    "baseline_scores",
    "bootstrap",
    "calibration",
    "interpret",
    "logistic_regression_accuracy",
    "majority_accuracy",
    "paired_difference",
    "plot_calibration",
    "plot_confusion",
    "plot_history",
    "plot_residuals",
    "plot_scores",
    "ridge_predictions",
    "score_intervals",
    "text_table",
    "wilson",
]
