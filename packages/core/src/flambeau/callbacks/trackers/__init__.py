"""Trackers: callbacks that log a run to TensorBoard, Weights & Biases, MLflow or trackio."""

from flambeau.callbacks.trackers.mlflow_tracker import MLflowTracker
from flambeau.callbacks.trackers.tensorboard_tracker import TensorBoardTracker
from flambeau.callbacks.trackers.tracker import Tracker
from flambeau.callbacks.trackers.trackio_tracker import TrackioTracker
from flambeau.callbacks.trackers.wandb_tracker import WandbTracker

__all__ = [
    "MLflowTracker",
    "TensorBoardTracker",
    "Tracker",
    "TrackioTracker",
    "WandbTracker",
]
