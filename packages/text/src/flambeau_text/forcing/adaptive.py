"""``AdaptiveForcing``: as much of the true words as the model still needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flambeau.errors import InputError
from flambeau.training.history import History
from flambeau.training.optim.controller import last_score


@dataclass(frozen=True)
class AdaptiveForcing:
    """A controller that moves the probability of the true word on what it hides.

    After each evaluation with a free search the history says how many of the reference's words
    are among the answer's when every word is predicted after the true ones, and when the model
    writes by itself. The difference, as a share of the first, is what training on true words alone
    has not taught. Where it is above ``gap`` the model reads more of its own words from then on,
    where it is below, fewer; the move is in proportion to the distance.

    Give it to the run: ``TrainingOptions(controllers=(AdaptiveForcing(),))``. What it sets wins
    over the schedule of ``TeacherForcing``, whose feed, granularity and passes stay.

    Attributes:
        gap: The share that is let pass.
        rate: How far a distance of 1 moves the probability.
        most_move: The most that it moves after one evaluation.
        floor: The least probability.
        warmup: Share of the run before which nothing is moved: of a model that has learned
            nothing yet the gap says nothing.
        name: The value that is set.
    """

    gap: float = 0.02
    rate: float = 2.0
    most_move: float = 0.1
    floor: float = 0.25
    warmup: float = 0.1
    name: str = "teacher_forcing"

    def __post_init__(self) -> None:
        for name in ("gap", "floor", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share, 0 to 1, not {getattr(self, name)!r}.")
        if not (self.rate > 0 and self.most_move > 0):
            raise InputError(
                f"rate and most_move are above 0, not {self.rate!r} and {self.most_move!r}."
            )

    def update(self, history: History, progress: float) -> Mapping[str, float]:
        """The new probability, or nothing where the last evaluation searched for nothing.

        Raises:
            InputError: The history has no column ``name``: the run's task declares no such value.
        """
        row = history.rows[-1] if history.rows else {}
        forced, free = row.get("valid_forced_overlap"), row.get("valid_free_overlap")
        if forced is None or free is None or progress < self.warmup:
            return {}
        before = last_score(history, self.name)
        hidden = (float(forced) - float(free)) / max(float(forced), 1e-9)
        move = self.rate * (hidden - self.gap)
        move = max(-self.most_move, min(self.most_move, move))
        return {self.name: max(self.floor, min(1.0, before - move))}
