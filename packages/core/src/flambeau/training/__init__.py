"""Training: phases, the loop's pieces, and the places where both can be changed."""

from flambeau.training.events import EVENTS, Callback, Dispatch
from flambeau.training.history import History
from flambeau.training.nonfinite.guard import NonFiniteGuard, StepRecord
from flambeau.training.nonfinite.locate import Culprit, find_culprit, nonfinite_error
from flambeau.training.norm.freeze import apply_modes, freeze_except, keeps_statistics
from flambeau.training.optim.averaging import EMA, SWA, RunningAverage
from flambeau.training.optim.clip import clip_gradients, gradient_norm, gradients_of
from flambeau.training.optim.controller import Controller, ReduceOnPlateau
from flambeau.training.optim.groups import HasLayerGroups, layer_groups, parameter_groups
from flambeau.training.optim.optimizer import (
    OPTIMIZERS,
    OptimizerFactory,
    default_factory,
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
    "Culprit",
    "Dispatch",
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
    "apply_modes",
    "clip_gradients",
    "default_factory",
    "find_culprit",
    "freeze_except",
    "gradient_norm",
    "gradients_of",
    "keeps_statistics",
    "layer_groups",
    "make_optimizer",
    "nonfinite_error",
    "parameter_groups",
    "regroup",
    "train_step",
]
