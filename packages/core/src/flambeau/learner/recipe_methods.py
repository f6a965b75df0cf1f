"""``RecipeMethods``: the training methods of a learner other than ``fit`` and ``fit_auto``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from flambeau.errors import explains_arguments
from flambeau.learner.planning import argument_hint
from flambeau.learner.setup import Request
from flambeau.phases import recipes
from flambeau.phases.phase import Phase, as_phases
from flambeau.phases.schedule import Schedule
from flambeau.training.history import History
from flambeau.training.optim.groups import parameter_groups

if TYPE_CHECKING:
    from flambeau.tuning.upcoming import Recipe

RECIPES: Mapping[str, str] = {
    "fit": "fit",
    "one_cycle": "fit_one_cycle",
    "flat_cos": "fit_flat_cos",
    "fine_tune": "fine_tune",
    "gradual": "gradual_unfreeze",
}
"""Training methods of the Learner by the name of their recipe."""


@explains_arguments(argument_hint)
class RecipeMethods(ABC):
    """The methods of ``Learner`` that compile a recipe of ``flambeau.phases.recipes``."""

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The model, on the plan's device."""

    @property
    @abstractmethod
    def _trainable(self) -> tuple[str, ...] | None:
        """The parameter groups that the plan lets train; None for all groups."""

    @abstractmethod
    def _fit(self, request: Request) -> History:
        """Train as requested."""

    @abstractmethod
    def fit(
        self,
        epochs: int | None = None,
        *,
        steps: int | None = None,
        lr: float | None = None,
        schedule: str | None = None,
        schedules: Mapping[str, Schedule] | None = None,
        evaluate_every: int | None = None,
    ) -> History:
        """Train with one learning-rate schedule."""

    def fit_one_cycle(
        self,
        epochs: int | None = None,
        *,
        steps: int | None = None,
        lr: float | None = None,
        momentum: bool = False,
    ) -> History:
        """Train with the one-cycle schedule; ``momentum`` also cycles momentum, inversely to lr."""
        cycle = {"momentum": recipes.momentum_cycle()} if momentum else None
        return self.fit(epochs, steps=steps, lr=lr, schedule="one_cycle", schedules=cycle)

    def fit_flat_cos(
        self, epochs: int | None = None, *, steps: int | None = None, lr: float | None = None
    ) -> History:
        """Train at a constant rate for three quarters of the run, then with cosine decay."""
        return self.fit(epochs, steps=steps, lr=lr, schedule="flat_cos")

    def fit_sgdr(
        self, cycles: int = 3, *, epochs: int = 1, lr: float | None = None, cycle_mult: int = 2
    ) -> History:
        """Train with warm restarts: cycles of ``epochs``, ``epochs * cycle_mult``, … epochs."""
        options: Any = {"cycles": cycles, "cycle_mult": cycle_mult, "trainable": self._trainable}
        return self._train(lambda v: recipes.sgdr({**v, "epochs": epochs}, **options), lr=lr)

    def fine_tune(
        self,
        epochs: int | None = None,
        *,
        steps: int | None = None,
        lr: float | None = None,
        freeze_epochs: int = 1,
        layer_decay: float | None = None,
    ) -> History:
        """Train the head alone, then all parameter groups with discriminative learning rates.

        The second phase halves the peak learning rate. Each group has a lower rate than the group
        after it, down to a hundredth of the head's rate in the first group; ``layer_decay`` sets
        the factor between adjacent groups instead. See ``flambeau.phases.recipes.fine_tune``.

        Args:
            epochs: Epochs of the second phase; None takes the plan's.
            steps: Optimizer steps of the second phase, in place of epochs.
            lr: Peak learning rate of the head in the first phase; None takes the plan's.
            freeze_epochs: Epochs in which only the head trains; 0 omits that phase.
            layer_decay: Factor between the learning rates of adjacent groups.
        """
        groups = list(parameter_groups(self.model))
        options: Any = {"freeze_epochs": freeze_epochs, "layer_decay": layer_decay}
        return self._train(
            lambda values: recipes.fine_tune(values, groups, **options),
            epochs=epochs,
            steps=steps,
            lr=lr,
        )

    def gradual_unfreeze(
        self,
        epochs: int | None = None,
        *,
        steps: int | None = None,
        lr: float | None = None,
        epochs_per_group: int = 1,
    ) -> History:
        """Train the head, then one more parameter group in each phase, until all groups train.

        ``epochs`` or ``steps`` is the length of the last phase. See ``flambeau.phases.recipes``.
        """
        groups = list(parameter_groups(self.model))
        return self._train(
            lambda values: recipes.gradual_unfreezing(
                values, groups, epochs_per_group=epochs_per_group
            ),
            epochs=epochs,
            steps=steps,
            lr=lr,
        )

    def fit_phases(self, phases: Sequence[Phase]) -> History:
        """Train with a custom list of phases, such as ``flambeau.phases.recipes`` returns."""
        return self._fit(Request(lambda values: as_phases(phases), may_find_lr=False))

    def _train(self, recipe: Recipe, **arguments: Any) -> History:
        """Train with the recipe's phases; a value that is None is taken from the plan."""
        choices = {key: value for key, value in arguments.items() if value is not None}
        return self._fit(Request(recipe, choices))
