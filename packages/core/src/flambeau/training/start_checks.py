"""Checks before the first step: every phase has trainable parameters, and they are optimized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn
from torch.optim import Optimizer

from flambeau.errors import InputError
from flambeau.phases.phase import Phase
from flambeau.training.optim.groups import parameter_groups


def check_trainable(model: nn.Module, phases: Iterable[Phase]) -> None:
    """Check that every phase trains a parameter.

    A model without any parameters passes; making its optimizer raises the error.

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


def check_has_column(monitor: str | None, *, has_valid: bool) -> None:
    """Check that an evaluation writes the column of the history that selects the best epoch.

    Raises:
        InputError: It is a score of the valid part, and there is none.
    """
    if monitor is not None and monitor.startswith("valid_") and not has_valid:
        raise InputError(
            f"The best epoch is selected by {monitor!r}, but the data have no valid part. Give one "
            "(valid=0.2), or select by 'train_loss' or not at all."
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
