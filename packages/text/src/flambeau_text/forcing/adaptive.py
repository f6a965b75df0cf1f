"""``AdaptiveForcing``: sets the teacher-forcing probability from the scores of evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flambeau.errors import InputError
from flambeau.training.history import History
from flambeau.training.optim.controller import last_score
from flambeau_text.forcing.gap import GAP, GAP_ERROR


@dataclass(frozen=True)
class AdaptiveForcing:
    """A controller that adapts the share of predictions among the decoder's inputs to the model.

    An evaluation that decodes gives two scores, each an overlap of predictions and references:
    teacher-forced, with each token predicted from the reference tokens before it, and free-running,
    with each token predicted from the model's own tokens. The gap is the difference of the two
    scores, divided by the teacher-forced score; see `gap_scores`. After such an evaluation the
    share of predictions (1 minus the teacher-forcing probability) moves by the fraction ``rate``
    towards ``gain * (gap - target_gap)``, so that a larger gap raises the share and a smaller gap
    lowers it. The share stays unchanged if it differs from this value by no more than the noise of
    the measured gap.

    Pass the controller to the run: ``TrainingOptions(controllers=(AdaptiveForcing(),))``. It
    overrides only the schedule of ``TeacherForcing``, not its feed, granularity or passes.

    Attributes:
        target_gap: The relative gap up to which the share aims at 0.
        gain: Share of predictions per gap above ``target_gap``: with 4 and a target of 0.02 a gap
            of 0.12 aims at a share of 0.4.
        rate: Fraction of the way to the aim after one evaluation, above 0 and at most 1.
        noise: Number of standard errors of the gap that count as noise; 0 follows every
            measurement.
        floor: Minimum probability of the reference token.
        warmup: Fraction of the run before the first change; the gap of an untrained model carries
            no information.
        name: Name of the probability among the task's values and in the history.
    """

    target_gap: float = 0.02
    gain: float = 4.0
    rate: float = 0.5
    noise: float = 2.0
    floor: float = 0.25
    warmup: float = 0.1
    name: str = "teacher_forcing"

    def __post_init__(self) -> None:
        for name in ("target_gap", "floor", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)!r}.")
        if not (self.gain > 0 and self.noise >= 0):
            raise InputError(
                f"gain must be above 0 and noise at least 0, not {self.gain!r} and {self.noise!r}."
            )
        if not 0 < self.rate <= 1:
            raise InputError(f"rate must be above 0 and at most 1, not {self.rate!r}.")

    def update(self, history: History, progress: float) -> Mapping[str, float]:
        """Return the new probability, or ``{}`` to keep it: no decoding, or a change within noise.

        Raises:
            InputError: The history has no column ``name``, because the task has no value of this
                name.
        """
        row = history.rows[-1] if history.rows else {}
        gap = row.get(f"valid_{GAP}")
        if gap is None or progress < self.warmup:
            return {}
        share = 1.0 - last_score(history, self.name)
        aim = max(0.0, min(1.0 - self.floor, self.gain * (float(gap) - self.target_gap)))
        error = float(row.get(f"valid_{GAP_ERROR}", 0.0))
        if abs(aim - share) <= self.gain * self.noise * error:
            return {}
        return {self.name: 1.0 - (share + self.rate * (aim - share))}
