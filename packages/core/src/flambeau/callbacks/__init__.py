"""Callbacks: they observe a run and change nothing but ``state.stop_reason``."""

from flambeau.callbacks.checkpointing import Checkpointing
from flambeau.callbacks.early_stop import EarlyStopping
from flambeau.callbacks.history import HistoryWriter
from flambeau.callbacks.progress import ProgressBar

__all__ = ["Checkpointing", "EarlyStopping", "HistoryWriter", "ProgressBar"]
