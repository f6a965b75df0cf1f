"""Checks before the first step: parameters, best epoch, plateaus, optimizers with closures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn
from torch.optim import Optimizer

from flambeau.data.loader import Loader
from flambeau.errors import InputError
from flambeau.phases.phase import Phase
from flambeau.task.task import Task
from flambeau.training.optim.controller import ReduceOnPlateau
from flambeau.training.optim.groups import parameter_groups


def check_trainable(model: nn.Module, phases: Iterable[Phase]) -> None:
    """Check that every phase trains a parameter.

    A model without any parameters passes this check; the error is raised by creating its optimizer.

    Raises:
        InputError: The user froze all parameters that a phase should train.
    """
    phases = tuple(phases)
    trains_all = all(phase.trainable is None for phase in phases)
    if trains_all and any(parameter.requires_grad for parameter in model.parameters()):
        return  # the usual case, without computing the groups
    groups = parameter_groups(model)
    learning = {name for name, group in groups.items() if any(p.requires_grad for p in group)}
    for phase in phases:
        wanted = set(groups if phase.trainable is None else phase.trainable)
        if wanted and wanted <= groups.keys() and wanted.isdisjoint(learning):
            which = "" if phase.trainable is None else f" of the group {', '.join(phase.trainable)}"
            raise InputError(
                f"Every parameter{which} of {type(model).__name__} is frozen "
                f"(requires_grad=False), so the phase {phase.name!r} would train nothing. Call "
                "requires_grad_(True) on the parameters to train."
            )


def check_has_columns(
    monitor: str | None, controllers: Iterable[object], valid: Loader | None
) -> None:
    """Check that the history will have the column of the best epoch and of each plateau.

    Raises:
        InputError: The column is a score of the valid part, but the data have no valid part.
    """
    if valid is not None:
        return
    if monitor is not None and monitor.startswith("valid_"):
        raise InputError(
            f"The best epoch is selected by {monitor!r}, but the data have no valid part. Give one "
            "(valid=0.2), select by 'train_loss', or select no best epoch."
        )
    for each in controllers:
        if isinstance(each, ReduceOnPlateau) and each.monitor.startswith("valid_"):
            raise InputError(
                f"ReduceOnPlateau monitors {each.monitor!r}, but the data have no valid part. Give "
                'one (valid=0.2), or use ReduceOnPlateau("train_loss").'
            )


def check_can_score(task: Task) -> None:
    """Check that a task can score the valid part; for a run whose ``train_step`` has the losses.

    Raises:
        InputError: The task defines none of the methods that compute scores.
    """
    kind = type(task)
    if all(getattr(kind, name) is getattr(Task, name) for name in ("loss", "evaluate", "update")):
        raise InputError(
            f"The data have a valid part, but {kind.__name__} defines neither loss nor evaluate, "
            "so it cannot be scored. Train without one (valid=0), or define in a subclass of Task: "
            "evaluate(self, model, batches, context), which returns scores by name."
        )


def check_closure(optimizers: Mapping[str, Optimizer], precision: str, nonfinite: str) -> None:
    """Check the settings of a run whose optimizer computes the loss itself (LBFGS, SAM).

    Raises:
        InputError: The optimizer cannot work with the precision or with skipped steps.
    """
    kinds = ", ".join(type(optimizer).__name__ for optimizer in optimizers.values())
    if precision == "fp16":
        raise InputError(
            f"{kinds} compares several losses in a step, but fp16 scales them and skips steps that "
            'overflow. Use choices={"precision": "fp32"} or "bf16".'
        )
    if nonfinite == "skip":
        raise InputError(
            f'nonfinite="skip" is not possible with {kinds}: a step that is not finite changes its '
            'state, so later steps would be invalid too. Use "raise" or "off".'
        )
