"""What a run refuses before its first step: nothing that could learn, or nothing that would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn
from torch.optim import Optimizer

from flambeau.errors import InputError
from flambeau.phases.phase import Phase
from flambeau.training.optim.groups import parameter_groups


def check_learns(model: nn.Module, phases: Iterable[Phase]) -> None:
    """Checks that every phase trains a parameter; a model without any is the optimizer's to refuse.

    Raises:
        InputError: All that a phase should train was frozen by the user.
    """
    phases = tuple(phases)
    trains_all = all(phase.trainable is None for phase in phases)
    if trains_all and any(parameter.requires_grad for parameter in model.parameters()):
        return  # the usual case, without asking for groups
    groups = parameter_groups(model)
    learning = {name for name, group in groups.items() if any(p.requires_grad for p in group)}
    for phase in phases:
        wanted = set(groups if phase.trainable is None else phase.trainable)
        if wanted and wanted <= groups.keys() and wanted.isdisjoint(learning):
            which = "" if phase.trainable is None else f" of the group {', '.join(phase.trainable)}"
            raise InputError(
                f"Every parameter{which} of {type(model).__name__} is frozen "
                f"(requires_grad=False), so the phase {phase.name!r} would train nothing. Set "
                "requires_grad_(True) on the part that should learn."
            )


def check_optimizers(optimizers: Mapping[str, Optimizer], model: nn.Module) -> None:
    """Checks that the optimizers hold a parameter of the model.

    Raises:
        InputError: They would move something else, and the model would stay as it is.
    """
    own = {id(parameter) for parameter in model.parameters()}
    held = {
        id(parameter)
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    if own and held.isdisjoint(own):
        raise InputError(
            f"None of the optimizers' parameters ({', '.join(optimizers)}) belongs to the "
            f"{type(model).__name__}, which would not be trained. Build them from the model that "
            "the factory is called with: lambda model, values: "
            '{"main": torch.optim.SGD(model.parameters(), lr=0.1)}.'
        )
