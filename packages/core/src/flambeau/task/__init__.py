"""Tasks: pass batches to the model, compute loss and metrics, and decode outputs."""

from flambeau.task.classification import Classification, Prediction
from flambeau.task.classification_metrics import (
    Accuracy,
    BalancedAccuracy,
    ConfusionMatrix,
    ExactMatch,
    MacroF1,
    MultiLabelMacroF1,
    MultiLabelMicroF1,
    TopKAccuracy,
)
from flambeau.task.custom_loss import CustomLoss
from flambeau.task.function_metrics import FunctionMetric, SklearnMetric
from flambeau.task.metrics import MeanLoss, Metric, SumMetric, score
from flambeau.task.multi_label import MultiLabel, MultiLabelPrediction
from flambeau.task.probability_metrics import (
    AUROC,
    AveragePrecision,
    BrierScore,
    LogLoss,
    MultiLabelAUROC,
    MultiLabelAveragePrecision,
    MultiLabelBrierScore,
    MultiLabelLogLoss,
)
from flambeau.task.regression import Estimate, Regression
from flambeau.task.regression_metrics import R2, MeanAbsoluteError, RootMeanSquaredError
from flambeau.task.task import Stage, StepContext, Task

__all__ = [
    "AUROC",
    "R2",
    "Accuracy",
    "AveragePrecision",
    "BalancedAccuracy",
    "BrierScore",
    "Classification",
    "ConfusionMatrix",
    "CustomLoss",
    "Estimate",
    "ExactMatch",
    "FunctionMetric",
    "LogLoss",
    "MacroF1",
    "MeanAbsoluteError",
    "MeanLoss",
    "Metric",
    "MultiLabel",
    "MultiLabelAUROC",
    "MultiLabelAveragePrecision",
    "MultiLabelBrierScore",
    "MultiLabelLogLoss",
    "MultiLabelMacroF1",
    "MultiLabelMicroF1",
    "MultiLabelPrediction",
    "Prediction",
    "Regression",
    "RootMeanSquaredError",
    "SklearnMetric",
    "Stage",
    "StepContext",
    "SumMetric",
    "Task",
    "TopKAccuracy",
    "score",
]
