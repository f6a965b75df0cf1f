"""Callbacks: they observe a training run and may change only ``state.stop_reason``, to end it."""

from flambeau.callbacks.checkpointing import Checkpointing
from flambeau.callbacks.early_stopping import EarlyStopping
from flambeau.callbacks.history_writer import HistoryWriter
from flambeau.callbacks.progress_bar import ProgressBar

__all__ = ["Checkpointing", "EarlyStopping", "HistoryWriter", "ProgressBar"]
