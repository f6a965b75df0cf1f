"""Teacher forcing: in training the decoder reads reference tokens or its own predictions."""

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
