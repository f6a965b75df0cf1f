"""Which groups learn, and in which mode batch norm is meanwhile."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.phases.bn_policy import BATCH_NORM_POLICIES
from flambeau.training.optim.groups import check_group_names, layer_groups, parameter_groups


def freeze_except(
    model: nn.Module,
    trainable: Collection[str] | None,
    fixed: Collection[int] = (),
    also: Collection[int] = (),
) -> None:
    """Sets ``requires_grad`` of whole layer groups; drops the gradients of those that are frozen.

    Args:
        model: The model.
        trainable: Names of the groups that learn; None for all.
        fixed: ``id`` of parameters that never learn, whatever their group.
        also: ``id`` of parameters that learn in frozen groups too, unless they are ``fixed``.

    Raises:
        ArgumentError: A name is no group of the model.
    """
    frozen = set(fixed)
    if trainable is not None:
        groups = parameter_groups(model)
        check_group_names(trainable, groups)
        others = [parameters for name, parameters in groups.items() if name not in trainable]
        ids = {id(parameter) for parameters in others for parameter in parameters}
        frozen |= ids.difference(also)
    for parameter in model.parameters():
        learns = id(parameter) not in frozen
        parameter.requires_grad_(learns)
        if not learns:
            # An old gradient would keep moving the parameter.
            parameter.grad = None


def keeps_statistics(module: nn.Module) -> bool:
    """Whether ``module`` is a norm layer that normalises with running statistics in eval mode.

    Batch norm of any dimension, SyncBatchNorm, instance norm with ``track_running_stats``, affine
    or not, and layers of other libraries that keep torch's name for the buffer.
    """
    return isinstance(getattr(module, "running_mean", None), Tensor)


def learning_norms(model: nn.Module, bn: str) -> set[int]:
    """``id`` of the scales and shifts that ``bn`` lets learn in frozen groups as well.

    With "train" and "adapt" all of norm layers that keep statistics: they are a thousandth of a
    model, and on new data worth more than the whole head (``docs/findings/batch-norm.md``).
    """
    if bn not in ("train", "adapt"):
        return set()
    return {
        id(parameter)
        for module in model.modules()
        if keeps_statistics(module)
        for parameter in module.parameters(recurse=False)
    }


def apply_modes(model: nn.Module, trainable: Collection[str] | None, bn: str = "auto") -> None:
    """Puts the model in train mode, and norm layers that keep statistics in the mode of ``bn``.

    A layer in train mode normalises with its batch *and* updates its statistics; one in eval mode
    does neither, so what is trained is what is evaluated. The loop calls this at the start of
    each epoch, after anything that may have called ``model.train()``.

    Args:
        model: The model.
        trainable: Names of the groups that learn; None for all.
        bn: "train": train mode everywhere, frozen groups included. "eval" and "adapt": the
            statistics stay as they are; with "adapt" the loop has taken them from the new data
            before. "auto", where nobody has decided: eval mode exactly where the layer's group
            is frozen.

    Raises:
        ArgumentError: ``bn`` or a group name is unknown.
    """
    if bn not in BATCH_NORM_POLICIES:
        raise ArgumentError(
            f"There is no batch norm policy {bn!r}. {did_you_mean(bn, BATCH_NORM_POLICIES)}"
        )
    model.train()
    if bn == "train" or (bn == "auto" and trainable is None):
        return
    for module, group in norm_layers(model).items():
        if bn in ("eval", "adapt") or (trainable is not None and group not in trainable):
            module.eval()


def norm_layers(model: nn.Module) -> dict[nn.Module, str]:
    """The layer group of every norm layer that keeps statistics.

    A layer in no group's modules (its parameters are listed alone, or it has none) goes with the
    group of the parameters before it, whose output it normalises; the very first ones with the
    first group.
    """
    group_of_module: dict[nn.Module, str] = {}
    for name, parts in layer_groups(model).items():
        for part in parts:
            if isinstance(part, nn.Module):
                for module in part.modules():
                    group_of_module.setdefault(module, name)
    groups = parameter_groups(model)
    group_of_parameter = {id(p): name for name, entries in groups.items() for p in entries}
    current = next(iter(groups), "")
    found: dict[nn.Module, str] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            current = group_of_parameter[id(parameter)]
        if keeps_statistics(module):
            found[module] = group_of_module.get(module, current)
    return found
