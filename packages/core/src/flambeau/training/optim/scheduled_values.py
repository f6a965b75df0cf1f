"""``StepValues``: the named values of a step (lr, momentum, values of the task)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from torch.optim import Optimizer

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, FlambeauWarning, did_you_mean
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import TORCH_SCHEDULE, Schedule
from flambeau.torch_internals import is_from_torch
from flambeau.training.optim.fused_step import with_inner
from flambeau.training.optim.groups import parameter_groups
from flambeau.training.optim.optimizer import no_decay_ids, regroup_with_inner

if TYPE_CHECKING:
    from flambeau.training.optim.dropout_factor import DropoutFactor

_OPTIMIZER_VALUES = ("lr", "weight_decay", "momentum")
_DROPOUT_FACTOR = "dropout_factor"
# Entries of param groups that these values change.
_GROUP_VALUES = ("weight_decay", "momentum", "betas")
_INITIAL_VALUES = ("lr", *_GROUP_VALUES)
_SETTINGS = {"weight_decay": ("weight_decay",), "momentum": ("momentum", "betas")}
# Steps whose scheduled values are computed at once. Between two steps of a model the same code
# takes three times as long, because the model has evicted it from the caches of the processor.
_AHEAD = 128


class StepValues:
    """The scheduled values of each step. A value set by a controller overrides a schedule.

    The learning rate of a param group is ``lr × lr_scale × lr_ratio``. ``lr_scale`` is the factor
    of the phase for the layer group. ``lr_ratio`` is 1 for the plan's optimizer; for a user-defined
    optimizer it is its initial lr divided by the plan's lr, so that the two learning rates of a GAN
    keep their ratio.

    Attributes:
        current: Value by name, as read by callbacks and tasks.
        controlled: Values that controllers have set; they remain until a controller changes them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Mapping[str, Optimizer],
        plan: Mapping[str, Any],
        task_values: Mapping[str, float],
        step_values: Mapping[str, Callable[[int], float]] | None = None,
        *,
        no_decay: Callable[[], set[int]] | None = None,
    ) -> None:
        self._model = model
        # A task may declare a value of this name itself.
        self._scales_dropout = _DROPOUT_FACTOR not in task_values
        self._dropout: DropoutFactor | None = None
        self._no_decay = no_decay or (lambda: no_decay_ids(model))
        self._optimizers = tuple(optimizers.values())
        # The groups of a wrapper (Lookahead) may be others than those of the optimizer in it.
        self._with_inner = tuple(each for o in self._optimizers for each in with_inner(o))
        base = float(plan["lr"])
        for group in self._all_groups():
            if group.get("lr") is None:  # the optimizer computes it itself
                group["lr_ratio"] = None
            else:
                group["lr_ratio"] = float(group["lr"]) / base if base > 0 else 1.0
            group["unscheduled"] = {name: group[name] for name in _INITIAL_VALUES if name in group}
        _warn_of_own_rates(optimizers)
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
        self._groups: list[dict[str, Any]] = []
        self._last_step = 1
        self._lr: float | None = None
        self._phase: Phase | None = None

    def start_phase(self, phase: Phase, steps: int) -> None:
        """Set the schedules of a phase and its factors for the lr by layer group.

        Args:
            phase: The phase.
            steps: Optimizer steps of the phase, over all its epochs.

        Values that the phase does not schedule get their initial values again.
        """
        for name, schedule in phase.schedules.items():
            self._require_known(name, "a schedule")
            schedule.check_length(phase.epochs, steps)
        _refuse_torch_schedulers(self._with_inner)
        for group in self._all_groups():
            group.update(group["unscheduled"])
        if self._dropout is not None:
            self._dropout.set(1.0)
        self.current.clear()
        self.current.update(self._unscheduled)
        self._phase = phase
        self._regroup(phase)
        self._lr = None
        self._schedules = tuple(phase.schedules.items())
        self._ahead = []
        self._last_step = max(1, steps - 1)

    def _is_torchs(self, group: dict[str, Any]) -> bool:
        """Return whether the group belongs to an optimizer of torch; others may change their lr."""
        return any(
            is_from_torch(type(optimizer)) and any(group is each for each in optimizer.param_groups)
            for optimizer in self._optimizers
        )

    def track(self, name: str) -> None:
        """Add "weight_decay" or "momentum" to the values, with its initial value in the plan.

        Controllers need it to compute a new value from the last one.
        """
        if name in self._unscheduled or name not in _SETTINGS:
            return
        self._require_known(name, "a controller")
        initial = [_initial(group, name) for group in self._all_groups()]
        self._unscheduled[name] = max(value for value in initial if value is not None)
        self.current[name] = self._unscheduled[name]

    def release(self) -> None:
        """Restore the initial values, in case the next run uses model or optimizers again."""
        if self._dropout is not None:
            self._dropout.set(1.0)
        for group in self._all_groups():
            before: Any = group.pop("unscheduled", {})
            # A damaged checkpoint, which is being refused, may have another value there.
            group.update(cast("dict[str, Any]", before) if isinstance(before, dict) else {})
            group.pop("lr_ratio", None)

    def _all_groups(self) -> list[dict[str, Any]]:
        """Return the param groups of all optimizers and of the optimizers in them, each once."""
        # Looked up each time, because loading a state replaces the dictionaries.
        groups = {id(g): g for optimizer in self._with_inner for g in optimizer.param_groups}
        return list(groups.values())

    def _regroup(self, phase: Phase) -> None:
        """Merge param groups with the same factor for the lr and the same weight decay."""
        groups = parameter_groups(self._model)
        param_groups = self._all_groups()
        decays = (
            "weight_decay" in phase.schedules
            or "weight_decay" in self.controlled
            or any("decay" in group and group["weight_decay"] != 0 for group in param_groups)
        )
        plain = self._no_decay() if decays else None
        for optimizer in self._optimizers:
            regroup_with_inner(optimizer, groups, phase.lr_scales, plain)
        self._groups = self._all_groups()
        self._rates = [
            (group, group["lr_scale"] * group["lr_ratio"])
            for group in self._groups
            if group["lr_ratio"] is not None
        ]

    def set(self, step: int, micro_batches: Sequence[Batch], run_step: int = 0) -> None:
        """Write the values of a step to ``current`` and to the optimizers.

        Args:
            step: Index of the step in the phase.
            micro_batches: The micro-batches of the step.
            run_step: Index of the step in the run.
        """
        current, index = self.current, step - self._ahead_from
        for name, at in self._by_step:
            current[name] = at(run_step)
        if not 0 <= index < len(self._ahead):
            self._compute_ahead(step)
            index = 0
        current.update(self._ahead[index])
        if self.controlled:
            current.update(self.controlled)
        lr = current["lr"]
        for batch in micro_batches:
            if batch.lr_scale != 1.0:
                lr *= _lr_scale(micro_batches)
                break
        before, self._lr = self._lr, lr
        for group, factor in self._rates:
            if before is not None and group["lr"] != before * factor and self._is_torchs(group):
                raise _changed_outside(group["lr"], before * factor)
            group["lr"] = lr * factor
        if "weight_decay" in current:
            self._set_weight_decay(current["weight_decay"])
        if "momentum" in current:
            self._set_momentum(current["momentum"])
        if _DROPOUT_FACTOR in current and self._scales_dropout:
            self._layers_with_dropout().set(current[_DROPOUT_FACTOR])

    def _compute_ahead(self, step: int) -> None:
        # At least one: a step after the last one of a phase keeps its values.
        steps = range(step, max(step + 1, min(step + _AHEAD, self._last_step + 1)))
        progress = [min(1.0, ahead / self._last_step) for ahead in steps]
        self._ahead_from = step
        self._ahead = [{name: at(p) for name, at in self._schedules} for p in progress]

    def override(self, values: Mapping[str, float]) -> None:
        """Set the values that a controller returned, from the next step on.

        Raises:
            ArgumentError: A name is not the name of a value that can be scheduled.
        """
        for name, value in values.items():
            self._require_known(name, "a controller")
            new = name not in self.controlled
            self.controlled[name] = float(value)
            if new and name == "weight_decay" and self._phase is not None:
                self._regroup(self._phase)

    def _require_known(self, name: str, setter: str) -> None:
        known = {*_OPTIMIZER_VALUES, _DROPOUT_FACTOR, *self.current}
        if name not in known:
            raise ArgumentError(
                f"{name!r}, set by {setter}, is not a schedulable value of this run. "
                f"{did_you_mean(name, known)} A task declares further values in Task.values."
            )

        if name in _SETTINGS and not any(
            setting in group for group in self._all_groups() for setting in _SETTINGS[name]
        ):
            kinds = ", ".join(type(optimizer).__name__ for optimizer in self._optimizers)
            raise ArgumentError(
                f"{name!r}, set by {setter}, would have no effect: the optimizer {kinds} has no "
                f"{name}. Remove it, or use an optimizer that has this setting."
            )
        if name == _DROPOUT_FACTOR and self._scales_dropout and not self._layers_with_dropout():
            raise ArgumentError(
                f"{name!r}, set by {setter}, would have no effect: the "
                f"{type(self._model).__name__} has no nn.Dropout layer with a probability above 0. "
                "Remove it, or add dropout to the model."
            )

    def _layers_with_dropout(self) -> DropoutFactor:
        if self._dropout is None:
            from flambeau.training.optim.dropout_factor import DropoutFactor

            self._dropout = DropoutFactor(self._model)
        return self._dropout

    def _set_weight_decay(self, value: float) -> None:
        for group in self._groups:
            if "weight_decay" in group and _decays(group, self._groups):
                group["weight_decay"] = value

    def _set_momentum(self, value: float) -> None:
        for group in self._groups:
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = value


def _decays(group: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a schedule of weight decay applies to a param group.

    The entry "decay" of a group decides. Without this entry it applies, unless the group has no
    weight decay while another group has.
    """
    if "decay" in group:
        return group["decay"]
    initial: float = group["unscheduled"]["weight_decay"]
    return initial != 0 or not any(g["unscheduled"].get("weight_decay") for g in groups)


def _initial(group: Mapping[str, Any], name: str) -> float | None:
    """Return the weight decay or momentum of a param group; None if it has no such setting."""
    found = next((group[key] for key in _SETTINGS[name] if key in group), None)
    return cast("float | None", found[0] if isinstance(found, tuple | list) else found)


def _refuse_torch_schedulers(optimizers: Iterable[Optimizer]) -> None:
    for optimizer in optimizers:
        # torch's schedulers add this entry.
        if any("initial_lr" in group for group in optimizer.param_groups):
            raise ArgumentError(
                f"A scheduler of torch is attached to the {type(optimizer).__name__}, but the loop "
                f"sets its learning rate. {TORCH_SCHEDULE}"
            )


def _changed_outside(found: float, wanted: float) -> ArgumentError:
    return ArgumentError(
        f"The learning rate of the optimizer was {wanted:g} in the last step and is now "
        f"{float(found):g}: a callback, a scheduler of torch or the train_step changed it, but the "
        f"loop sets it before each step. {TORCH_SCHEDULE} For other rules use a Schedule or a "
        "controller."
    )


def _warn_of_own_rates(optimizers: Mapping[str, Optimizer]) -> None:
    """Warn about optimizers without lr, such as Adafactor with its relative steps."""
    for name, optimizer in optimizers.items():
        rates = [[g.get("lr") for g in each.param_groups] for each in with_inner(optimizer)]
        if all(None in each for each in rates):
            warnings.warn(
                f"[own-learning-rate] The optimizer {name!r} ({type(optimizer).__name__}) has no "
                "lr, so lr, its schedules and the factors of layer groups have no effect on it.",
                FlambeauWarning,
                stacklevel=2,
            )


def _lr_scale(micro_batches: Sequence[Batch]) -> float:
    """Return the mean ``lr_scale`` of the batches, weighted by their weights."""
    weights = [1.0 if batch.weight is None else batch.weight for batch in micro_batches]
    scaled = sum(b.lr_scale * w for b, w in zip(micro_batches, weights, strict=True))
    return scaled / sum(weights)
