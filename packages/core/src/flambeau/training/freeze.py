"""Freeze layer groups, and set the training modes of norm layers."""

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
    """Set ``requires_grad`` of layer groups, and clear the gradients of frozen parameters.

    Args:
        model: The model.
        trainable: Names of the trainable groups; None for all groups.
        fixed: ``id`` of parameters that are frozen in any group.
        also: ``id`` of parameters that are trainable in frozen groups too, unless in ``fixed``.

    Raises:
        ArgumentError: The model has no group of one of the names.
    """
    frozen = frozen_parameters(model, trainable, also).union(fixed)
    for parameter in model.parameters():
        learns = id(parameter) not in frozen
        parameter.requires_grad_(learns)
        if not learns:
            # An optimizer would apply an old gradient in each step.
            parameter.grad = None


def frozen_parameters(
    model: nn.Module, trainable: Collection[str] | None, also: Collection[int] = ()
) -> set[int]:
    """Return the ``id`` of the parameters in frozen groups, without those in ``also``.

    Raises:
        ArgumentError: The model has no group of one of the names.
    """
    if trainable is None:
        return set()
    groups = parameter_groups(model)
    check_group_names(trainable, groups)
    others = [parameters for name, parameters in groups.items() if name not in trainable]
    return {id(parameter) for parameters in others for parameter in parameters}.difference(also)


def has_running_statistics(module: nn.Module) -> bool:
    """Return whether ``module`` is a norm layer that uses running statistics in eval mode.

    True for batch norm of any dimension, SyncBatchNorm, and instance norm with
    ``track_running_stats``, each affine or not, and for layers of other libraries with a buffer
    ``running_mean``.
    """
    return isinstance(getattr(module, "running_mean", None), Tensor)


def trainable_norm_parameters(model: nn.Module, bn: str) -> set[int]:
    """Return the ``id`` of the scales and shifts that are trainable in frozen groups too.

    For the policies "train" and "adapt" these are all parameters of norm layers with running
    statistics. They are a thousandth of a model, and on new data they improve the result more than
    the head does (``docs/findings/batch-norm.md``).
    """
    if bn not in ("train", "adapt"):
        return set()
    return {
        id(parameter)
        for module in model.modules()
        if has_running_statistics(module)
        for parameter in module.parameters(recurse=False)
    }


def set_train_modes(model: nn.Module, trainable: Collection[str] | None, bn: str = "auto") -> None:
    """Set the model to train mode, and norm layers with running statistics to the mode of ``bn``.

    A norm layer in train mode normalises with its batch *and* updates its statistics. In eval mode
    it does neither, so that training and evaluation compute the same. The loop calls this at the
    start of each epoch, because other code may have called ``model.train()``.

    Args:
        model: The model.
        trainable: Names of the trainable groups; None for all groups.
        bn: "train": train mode in all groups, also frozen ones. "eval" and "adapt": eval mode, so
            the statistics do not change; with "adapt" the loop has computed them from the new data
            before. "auto" (not decided yet): eval mode if the group of the layer is frozen, else
            train mode.

    Raises:
        ArgumentError: ``bn`` or a group name is unknown.
    """
    if bn not in BATCH_NORM_POLICIES:
        raise ArgumentError(
            f"Unknown batch norm policy {bn!r}. {did_you_mean(bn, BATCH_NORM_POLICIES)}"
        )
    model.train()
    if bn == "train" or (bn == "auto" and trainable is None):
        return
    for module, group in norm_layers(model).items():
        if bn in ("eval", "adapt") or (trainable is not None and group not in trainable):
            module.eval()


def norm_layers(model: nn.Module) -> dict[nn.Module, str]:
    """Return the layer group of every norm layer with running statistics.

    If no module of a group contains the layer (its parameters are listed one by one, or it has
    none), it belongs to the group of the parameters before it, whose output it normalises. If there
    are no parameters before it, it belongs to the first group.
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
        if has_running_statistics(module):
            found[module] = group_of_module.get(module, current)
    return found
