"""The names of core's tasks and metrics in exports, and the names of core's losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flambeau.task.classification import Classification
from flambeau.task.classification_metrics import (
    Accuracy,
    BalancedAccuracy,
    ExactMatch,
    MacroF1,
    MultiLabelMacroF1,
    MultiLabelMicroF1,
    TopKAccuracy,
)
from flambeau.task.combined import CombinedTask
from flambeau.task.decision_costs import MeanCost
from flambeau.task.deviance_metrics import TweedieD2, TweedieDeviance
from flambeau.task.log_link import Gamma, Poisson, Tweedie
from flambeau.task.metrics import Metric
from flambeau.task.multi_label import MultiLabel
from flambeau.task.named_losses import LOSSES
from flambeau.task.probability_metrics import (
    AUROC,
    AveragePrecision,
    BrierScore,
    LogLoss,
    MultiLabelAUROC,
    MultiLabelAveragePrecision,
    MultiLabelBrierScore,
    MultiLabelLogLoss,
    RefinedLogLoss,
)
from flambeau.task.quantile_metrics import Coverage, IntervalWidth, MeanPinballLoss
from flambeau.task.quantiles import QuantileRegression
from flambeau.task.regression import Regression
from flambeau.task.regression_metrics import R2, MeanAbsoluteError, RootMeanSquaredError
from flambeau.task.task import Task

TASKS: Mapping[str, Callable[..., Task]] = {
    task.builder: task
    for task in (
        Classification,
        CombinedTask,
        Gamma,
        MultiLabel,
        Poisson,
        QuantileRegression,
        Regression,
        Tweedie,
    )
}
"""Core's tasks by their name in exports; a domain adds further tasks to these."""

METRICS: Mapping[str, Callable[..., Metric]] = {
    "accuracy": Accuracy,
    "auroc": AUROC,
    "average_precision": AveragePrecision,
    "balanced_accuracy": BalancedAccuracy,
    "brier": BrierScore,
    "cost": MeanCost,
    "coverage": Coverage,
    "d2": TweedieD2,
    "deviance": TweedieDeviance,
    "exact_match": ExactMatch,
    "log_loss": LogLoss,
    "macro_f1": MacroF1,
    "mae": MeanAbsoluteError,
    "multi_label_auroc": MultiLabelAUROC,
    "multi_label_average_precision": MultiLabelAveragePrecision,
    "multi_label_brier": MultiLabelBrierScore,
    "multi_label_log_loss": MultiLabelLogLoss,
    "multi_label_macro_f1": MultiLabelMacroF1,
    "multi_label_micro_f1": MultiLabelMicroF1,
    "pinball": MeanPinballLoss,
    "r2": R2,
    "refined_log_loss": RefinedLogLoss,
    "rmse": RootMeanSquaredError,
    "top_k_accuracy": TopKAccuracy,
    "width": IntervalWidth,
}
"""Core's metrics by their name in exports; a domain adds further metrics to these."""

LOSS_NAMES: Mapping[str, str] = {name: task for task, names in LOSSES.items() for name in names}
"""Name of each loss of core → name of the task that uses it."""
