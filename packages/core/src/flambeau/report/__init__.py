"""Looking back: scores with intervals, baselines, plots, and one page that every domain uses."""

from flambeau.report.answers import Answers
from flambeau.report.baselines import baseline_scores, logistic_regression, majority, ridge
from flambeau.report.blocks import Block, Cards, Figures, Matrix, Preformatted, Table, Text
from flambeau.report.calibration import Bin, Calibration, calibration
from flambeau.report.confusion import ClassScores, Confused, Confusion, LabelCounts
from flambeau.report.interpretation import Background, Interpretation, interpret
from flambeau.report.intervals import Interval, bootstrap, paired_difference, wilson
from flambeau.report.page import Page, Section
from flambeau.report.plots import plot_confusion, plot_history
from flambeau.report.plots_answers import plot_calibration, plot_residuals, plot_scores
from flambeau.report.scores import score_intervals
from flambeau.report.tables import text_table
from flambeau.report.top_losses import TopLoss, sample_losses

__all__ = [
    "Answers",
    "Background",
    "Bin",
    "Block",
    "Calibration",
    "Cards",
    "ClassScores",
    "Confused",
    "Confusion",
    "Figures",
    "Interpretation",
    "Interval",
    "LabelCounts",
    "Matrix",
    "Page",
    "Preformatted",
    "Section",
    "Table",
    "Text",
    "TopLoss",
    "baseline_scores",
    "bootstrap",
    "calibration",
    "interpret",
    "logistic_regression",
    "majority",
    "paired_difference",
    "plot_calibration",
    "plot_confusion",
    "plot_history",
    "plot_residuals",
    "plot_scores",
    "ridge",
    "sample_losses",
    "score_intervals",
    "text_table",
    "wilson",
]
