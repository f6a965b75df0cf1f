"""``RecipeVerbs``: the learner's verbs that are a recipe by name, each a line or two."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from flambeau.phases import recipes
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.training.history import History
from flambeau.training.optim.groups import parameter_groups

if TYPE_CHECKING:
    from flambeau.tuning.auto_run import Clock


class RecipeVerbs(ABC):
    """What ``Learner`` has of ``flambeau.phases.recipes``; every verb ends in ``fit_phases``."""

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The model, on its device."""

    @property
    @abstractmethod
    def _learning(self) -> tuple[str, ...] | None:
        """The groups that learn; None for all."""

    @abstractmethod
    def _train(self, recipe: Callable[[Mapping[str, Any]], list[Phase]], **asked: Any) -> History:
        """Trains with what the recipe makes of the plan's values."""

    @abstractmethod
    def fit(
        self,
        epochs: int | None = None,
        *,
        lr: float | None = None,
        schedule: str | None = None,
        schedules: Mapping[str, Schedule] | None = None,
    ) -> History:
        """Trains with one phase; what is None comes from the plan."""

    @abstractmethod
    def _budgeted(self, minutes: float | None, clock: Clock) -> History:
        """What ``fit_auto`` says."""

    def fit_auto(
        self, minutes: float | None = None, *, clock: Clock = time.perf_counter
    ) -> History:
        """Trains as long as it helps, within a time budget; chooses recipe, epochs, schedule.

        Steps and an evaluation are timed first. The rate warms up, is held while the valid score
        improves beyond its noise and time allows, and falls to zero; the stretch that is best on
        valid is kept. The plan records the run, so that ``Learner(data, plan=saved).fit_auto()``
        repeats it bit for bit. Ctrl-C leaves the best weights; ``resume`` goes on.

        Args:
            minutes: The budget for all of it, preparing the data included. None repeats what the
                plan records, or takes 3.
            clock: Gives seconds from any starting point; what the budget is measured with.
        """
        return self._budgeted(minutes, clock)

    def fit_one_cycle(
        self, epochs: int | None = None, *, lr: float | None = None, momentum: bool = False
    ) -> History:
        """``fit`` with the one-cycle schedule; ``momentum`` falls while the rate rises."""
        cycle = {"momentum": recipes.momentum_cycle()} if momentum else None
        return self.fit(epochs, lr=lr, schedule="one_cycle", schedules=cycle)

    def fit_flat_cos(self, epochs: int | None = None, *, lr: float | None = None) -> History:
        """``fit`` at one rate for three quarters of the run, then falling as a cosine does."""
        return self.fit(epochs, lr=lr, schedule="flat_cos")

    def fit_sgdr(
        self, cycles: int = 3, *, epochs: int = 1, lr: float | None = None, cycle_mult: int = 2
    ) -> History:
        """Warm restarts: the first cycle is ``epochs`` long; see ``plan.recipes.sgdr``."""
        options: Any = {"cycles": cycles, "cycle_mult": cycle_mult, "trainable": self._learning}
        return self._train(lambda v: recipes.sgdr({**v, "epochs": epochs}, **options), lr=lr)

    def fine_tune(
        self,
        epochs: int | None = None,
        *,
        lr: float | None = None,
        freeze_epochs: int = 1,
        layer_decay: float | None = None,
    ) -> History:
        """Trains the head alone, then everything, earlier groups more slowly.

        The second phase runs at half the rate, falling geometrically to a hundredth of it from
        head to stem, or by ``layer_decay`` a group; see ``plan.recipes.fine_tune``.
        """
        groups = list(parameter_groups(self.model))
        options: Any = {"freeze_epochs": freeze_epochs, "layer_decay": layer_decay}
        return self._train(
            lambda values: recipes.fine_tune(values, groups, **options), epochs=epochs, lr=lr
        )

    def gradual_unfreeze(
        self, epochs: int | None = None, *, lr: float | None = None, epochs_per_group: int = 1
    ) -> History:
        """The head, then one group more at a time; see ``plan.recipes.gradual_unfreezing``."""
        groups = list(parameter_groups(self.model))
        return self._train(
            lambda values: recipes.gradual_unfreezing(
                values, groups, epochs_per_group=epochs_per_group
            ),
            epochs=epochs,
            lr=lr,
        )
