"""``AdaptiveForcing``: sets the teacher-forcing probability from the scores of evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flambeau.errors import InputError
from flambeau.training.history import History
from flambeau.training.optim.controller import last_score


@dataclass(frozen=True)
class AdaptiveForcing:
    """A controller that adapts the teacher-forcing probability to the model.

    An evaluation that decodes gives two scores, each an overlap of predictions and references:
    teacher-forced, with each token predicted from the reference tokens before it, and free-running,
    with each token predicted from the model's own tokens. The gap is the difference of the two
    scores, divided by the teacher-forced score. If the gap is above ``target_gap``, the probability
    is lowered, so that the model reads more of its own predictions; if the gap is below, the
    probability is raised. The change is proportional to the distance of the gap from
    ``target_gap``.

    Pass the controller to the run: ``TrainingOptions(controllers=(AdaptiveForcing(),))``. It
    overrides only the schedule of ``TeacherForcing``, not its feed, granularity or passes.

    Attributes:
        target_gap: The relative gap at which the probability stays unchanged.
        rate: Change of the probability if the gap differs from ``target_gap`` by 1.
        max_change: Maximum change of the probability after one evaluation.
        floor: Minimum probability.
        warmup: Fraction of the run before the first change; the gap of an untrained model carries
            no information.
        name: Name of the probability among the task's values and in the history.
    """

    target_gap: float = 0.02
    rate: float = 2.0
    max_change: float = 0.1
    floor: float = 0.25
    warmup: float = 0.1
    name: str = "teacher_forcing"

    def __post_init__(self) -> None:
        for name in ("target_gap", "floor", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)!r}.")
        if not (self.rate > 0 and self.max_change > 0):
            raise InputError(
                f"rate and max_change must be above 0, not {self.rate!r} and {self.max_change!r}."
            )

    def update(self, history: History, progress: float) -> Mapping[str, float]:
        """Return the new probability, or ``{}`` if the last evaluation did not decode.

        Raises:
            InputError: The history has no column ``name``, because the task has no value of this
                name.
        """
        row = history.rows[-1] if history.rows else {}
        forced = row.get("valid_teacher_forced_overlap")
        free = row.get("valid_free_running_overlap")
        if forced is None or free is None or progress < self.warmup:
            return {}
        before = last_score(history, self.name)
        gap = (float(forced) - float(free)) / max(float(forced), 1e-9)
        change = self.rate * (gap - self.target_gap)
        change = max(-self.max_change, min(self.max_change, change))
        return {self.name: max(self.floor, min(1.0, before - change))}
