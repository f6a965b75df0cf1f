"""Training: phases, the loop's pieces, and the places where both can be changed."""

from flambeau.training.averaging import EMA, SWA, RunningAverage
from flambeau.training.clip import clip_gradients, gradient_norm, gradients_of
from flambeau.training.controller import Controller, ReduceOnPlateau
from flambeau.training.culprit import Culprit, find_culprit, nonfinite_error
from flambeau.training.events import EVENTS, Callback, Dispatch
from flambeau.training.freeze import apply_modes, freeze_except, keeps_statistics
from flambeau.training.groups import HasLayerGroups, layer_groups, parameter_groups
from flambeau.training.history import History
from flambeau.training.nonfinite import NonFiniteGuard, StepRecord
from flambeau.training.optimizer import (
    OPTIMIZERS,
    OptimizerFactory,
    default_factory,
    make_optimizer,
    regroup,
)
from flambeau.training.options import TrainingOptions
from flambeau.training.phase import Phase
from flambeau.training.precision import Precision
from flambeau.training.schedule import SHAPES, Schedule
from flambeau.training.state import Position, StepResult, TrainState
from flambeau.training.step import TrainStep, train_step

__all__ = [
    "EMA",
    "EVENTS",
    "OPTIMIZERS",
    "SHAPES",
    "SWA",
    "Callback",
    "Controller",
    "Culprit",
    "Dispatch",
    "HasLayerGroups",
    "History",
    "NonFiniteGuard",
    "OptimizerFactory",
    "Phase",
    "Position",
    "Precision",
    "ReduceOnPlateau",
    "RunningAverage",
    "Schedule",
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
