"""Values used by plan and training: phases, schedules, recipes, batch norm policies."""

from flambeau.phases.bn_policy import BATCH_NORM_POLICIES, BatchNormPolicy
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import SHAPES, Schedule

__all__ = [
    "BATCH_NORM_POLICIES",
    "SHAPES",
    "BatchNormPolicy",
    "Phase",
    "Schedule",
]
