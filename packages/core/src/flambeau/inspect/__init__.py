"""Inspect a model: its layers (``summary``), the outputs of its modules (``Hooks``), a step.

``Learner.step_through`` returns the ``StepStages`` of a training step, ``Learner.profile`` the
``Profile`` of its time. ``inspect`` watches all layers in a plain PyTorch loop, as
``Learner.inspect`` does in ``fit``.
"""

from flambeau.inspect.hooks import Hooks, record_outputs
from flambeau.inspect.integrated_gradients import IntegratedGradients, integrated_gradients
from flambeau.inspect.loss_spikes import LossSpike, LossSpikes, find_spikes
from flambeau.inspect.model_difference import LayerChange, ModelDifference, model_difference
from flambeau.inspect.profile_result import Profile, ProfileChange, ProfilePart
from flambeau.inspect.sample_explanation import SampleExplanation
from flambeau.inspect.stages import Stage, StepStages
from flambeau.inspect.summary import Layer, Summary, summary
from flambeau.inspect.watch.inspection import Inspection
from flambeau.inspect.watch.plain_loop import inspect

__all__ = [
    "Hooks",
    "Inspection",
    "IntegratedGradients",
    "Layer",
    "LayerChange",
    "LossSpike",
    "LossSpikes",
    "ModelDifference",
    "Profile",
    "ProfileChange",
    "ProfilePart",
    "SampleExplanation",
    "Stage",
    "StepStages",
    "Summary",
    "find_spikes",
    "inspect",
    "integrated_gradients",
    "model_difference",
    "record_outputs",
    "summary",
]
