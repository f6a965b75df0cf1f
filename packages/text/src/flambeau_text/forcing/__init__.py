"""Teacher forcing: the decoder's inputs in training, from the reference or from predictions."""

from flambeau_text.forcing.adaptive import AdaptiveForcing
from flambeau_text.forcing.schedule import (
    Constant,
    Exponential,
    InverseSigmoid,
    Linear,
    schedule_from_json,
)
from flambeau_text.forcing.teacher_forcing import TeacherForcing

__all__ = [
    "AdaptiveForcing",
    "Constant",
    "Exponential",
    "InverseSigmoid",
    "Linear",
    "TeacherForcing",
    "schedule_from_json",
]
