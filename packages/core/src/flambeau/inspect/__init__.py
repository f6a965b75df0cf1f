"""Inspect a model: its layers (``summary``), the outputs of its modules (``Hooks``), a step.

``Learner.step_through`` returns the ``StepStages`` of a training step.
"""

from flambeau.inspect.hooks import Hooks, record_outputs
from flambeau.inspect.stages import Stage, StepStages
from flambeau.inspect.summary import Layer, Summary, summary

__all__ = ["Hooks", "Layer", "Stage", "StepStages", "Summary", "record_outputs", "summary"]
