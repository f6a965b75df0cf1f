"""Training: the loop, the step, optimizers, callbacks and the options that change them."""

from flambeau.training.events import EVENTS, Callback, Dispatch
from flambeau.training.freeze import freeze_except, has_running_statistics, set_train_modes
from flambeau.training.history import History
from flambeau.training.nonfinite.guard import NonFiniteGuard, StepRecord
from flambeau.training.optim.averaging import EMA, SWA, RunningAverage, TriggeredAverage
from flambeau.training.optim.clip import clip_gradients, gradient_norm, gradients_of
from flambeau.training.optim.controller import Controller, ReduceOnPlateau
from flambeau.training.optim.factory import default_factory
from flambeau.training.optim.groups import (
    HasLayerGroups,
    HasLRFactors,
    layer_groups,
    parameter_groups,
)
from flambeau.training.optim.optimizer import (
    OPTIMIZERS,
    OptimizerFactory,
    make_optimizer,
    regroup,
)
from flambeau.training.optim.precision import Precision
from flambeau.training.options import TrainingOptions
from flambeau.training.state import Position, StepResult, TrainState
from flambeau.training.step import Step, TrainStep, train_step

__all__ = [
    "EMA",
    "EVENTS",
    "OPTIMIZERS",
    "SWA",
    "Callback",
    "Controller",
    "Dispatch",
    "HasLRFactors",
    "HasLayerGroups",
    "History",
    "NonFiniteGuard",
    "OptimizerFactory",
    "Position",
    "Precision",
    "ReduceOnPlateau",
    "RunningAverage",
    "Step",
    "StepRecord",
    "StepResult",
    "TrainState",
    "TrainStep",
    "TrainingOptions",
    "TriggeredAverage",
    "clip_gradients",
    "default_factory",
    "freeze_except",
    "gradient_norm",
    "gradients_of",
    "has_running_statistics",
    "layer_groups",
    "make_optimizer",
    "parameter_groups",
    "regroup",
    "set_train_modes",
    "train_step",
]
