"""``StepValues``: the named values of a step (lr, momentum, the task's own) and who sets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, did_you_mean
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.training.optim.groups import parameter_groups
from flambeau.training.optim.optimizer import no_decay_ids, regroup

_OPTIMIZER_VALUES = ("lr", "weight_decay", "momentum")
# Where these values are in torch's param groups.
_KEPT = ("weight_decay", "momentum", "betas")
# Steps whose scheduled values are computed in one go: between two steps of a model the same few
# lines take three times as long, since the model has pushed them out of the processor's caches.
_AHEAD = 128


class StepValues:
    """Sets every scheduled value before a step. A controller's value wins over a schedule.

    A param group's rate is ``lr × lr_scale × lr_ratio``: ``lr_scale`` is the phase's factor for
    its layer group, ``lr_ratio`` is 1 except for optimizers of the user's own, which keep their
    proportion to the plan's lr, so that a GAN's two rates move together.

    Attributes:
        current: Value by name, as callbacks and tasks see them.
        controlled: What controllers have set, kept until they set it anew.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Mapping[str, Optimizer],
        plan: Mapping[str, Any],
        task_values: Mapping[str, float],
        step_values: Mapping[str, Callable[[int], float]] | None = None,
    ) -> None:
        self._model = model
        self._optimizers = tuple(optimizers.values())
        base = float(plan["lr"])
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                own = "lr_scale" not in group and base > 0
                group["lr_ratio"] = group["lr"] / base if own else 1.0
                group["unscheduled"] = {name: group[name] for name in _KEPT if name in group}
        self._unscheduled: dict[str, float] = {"lr": base, **task_values}
        self.current: dict[str, float] = dict(self._unscheduled)
        self.controlled: dict[str, float] = {}
        self._schedules: tuple[tuple[str, Schedule], ...] = ()
        self._by_step = tuple((step_values or {}).items())
        for name, _ in self._by_step:
            self._require_known(name, "the task's step_values")
        self._ahead: list[dict[str, float]] = []
        self._ahead_from = 0
        self._rates: list[tuple[dict[str, Any], float]] = []
        self._last_step = 1
        self._phase: Phase | None = None

    def start_phase(self, phase: Phase, steps_per_epoch: int) -> None:
        """Takes the phase's schedules and its rates by layer group.

        What the phase does not schedule is again as it was before the first one.
        """
        for name in phase.schedules:
            self._require_known(name, "a schedule")
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group.update(group["unscheduled"])
        self.current.clear()
        self.current.update(self._unscheduled)
        self._phase = phase
        self._regroup(phase)
        self._schedules = tuple(phase.schedules.items())
        self._ahead = []
        self._last_step = max(1, phase.epochs * steps_per_epoch - 1)

    def _regroup(self, phase: Phase) -> None:
        """As few param groups as the phase's rates, and weight decay where there is any, allow."""
        groups = parameter_groups(self._model)
        param_groups = [g for optimizer in self._optimizers for g in optimizer.param_groups]
        decays = (
            "weight_decay" in phase.schedules
            or "weight_decay" in self.controlled
            or any("decay" in group and group["weight_decay"] != 0 for group in param_groups)
        )
        plain = no_decay_ids(self._model) if decays else None
        for optimizer in self._optimizers:
            regroup(optimizer, groups, phase.lr_scales, plain)
        # Looked up anew each time: loading a state puts new dictionaries in their place.
        self._rates = [
            (group, group["lr_scale"] * group["lr_ratio"])
            for optimizer in self._optimizers
            for group in optimizer.param_groups
        ]

    def set(self, step: int, micro_batches: Sequence[Batch], run_step: int = 0) -> None:
        """The values of a step, into ``current`` and the optimizers.

        Args:
            step: Which step of the phase it is.
            micro_batches: Of the step.
            run_step: Which step of the run it is.
        """
        current, place = self.current, step - self._ahead_from
        for name, at in self._by_step:
            current[name] = at(run_step)
        if not 0 <= place < len(self._ahead):
            self._compute_ahead(step)
            place = 0
        current.update(self._ahead[place])
        if self.controlled:
            current.update(self.controlled)
        lr = current["lr"]
        for batch in micro_batches:
            if batch.lr_scale != 1.0:
                lr *= _lr_scale(micro_batches)
                break
        for group, factor in self._rates:
            group["lr"] = lr * factor
        if "weight_decay" in current:
            self._set_weight_decay(current["weight_decay"])
        if "momentum" in current:
            self._set_momentum(current["momentum"])

    def _compute_ahead(self, step: int) -> None:
        # One at least: a step after the last one of a phase keeps its values.
        steps = range(step, max(step + 1, min(step + _AHEAD, self._last_step + 1)))
        progress = [min(1.0, ahead / self._last_step) for ahead in steps]
        self._ahead_from = step
        self._ahead = [{name: at(p) for name, at in self._schedules} for p in progress]

    def override(self, values: Mapping[str, float]) -> None:
        """What a controller returned; it holds from the next step on.

        Raises:
            ArgumentError: A name is not a schedulable value.
        """
        for name, value in values.items():
            self._require_known(name, "a controller")
            new = name not in self.controlled
            self.controlled[name] = float(value)
            if new and name == "weight_decay" and self._phase is not None:
                self._regroup(self._phase)

    def _require_known(self, name: str, who: str) -> None:
        known = {*_OPTIMIZER_VALUES, *self.current}
        if name not in known:
            raise ArgumentError(
                f"{name!r}, set by {who}, is no schedulable value of this run. "
                f"{did_you_mean(name, known)} A task declares its own in Task.values."
            )

    def _set_weight_decay(self, value: float) -> None:
        for group, _ in self._rates:
            if group.get("decay", True):
                group["weight_decay"] = value

    def _set_momentum(self, value: float) -> None:
        for group, _ in self._rates:
            if "betas" in group:
                group["betas"] = (value, group["betas"][1])
            else:
                group["momentum"] = value


def _lr_scale(micro_batches: Sequence[Batch]) -> float:
    """The batches' own factor on the rate, weighted as the batches are."""
    weights = [1.0 if batch.weight is None else batch.weight for batch in micro_batches]
    scaled = sum(b.lr_scale * w for b, w in zip(micro_batches, weights, strict=True))
    return scaled / sum(weights)
