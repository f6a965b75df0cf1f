"""Read the named tensors of a model from its ``state_dict``, compare and load them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.artefact.serialization import StorageKey, storage_key
from flambeau.errors import ArtefactError
from flambeau.wording import name_some


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters and persistent buffers by name, as in its ``state_dict``.

    Raises:
        ArtefactError: The ``state_dict`` contains a value that is not a tensor, or lacks a
            parameter.
    """
    state: dict[str, Any] = model.state_dict()
    left_out = [repr(name) for name, _ in model.named_parameters() if name not in state]
    if left_out:
        raise ArtefactError(
            f"state_dict() of {type(model).__name__} leaves out {name_some(left_out, 3)}, so the "
            "file would not restore the model. Remove the hook or the override that leaves "
            "parameters out."
        )
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ArtefactError(
                f"{type(model).__name__}.state_dict() has {name!r} of type "
                f"{type(value).__name__}, but an export can store only tensors. Remove "
                "get_extra_state(), or make the value a buffer."
            )
    return state


def split_tied(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each tensor once, and the aliases of tied tensors: other name → name that is kept."""
    first: dict[StorageKey, str] = {}
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = storage_key(tensor)
        if key is not None and key in first:
            aliases[name] = first[key]
            continue
        kept[name] = tensor
        if key is not None:
            first[key] = name
    return kept, aliases


def with_aliases(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str], file: str
) -> dict[str, Tensor]:
    """Return ``tensors`` with tied tensors under all their names; the inverse of ``split_tied``.

    Raises:
        ArtefactError: An alias refers to a missing tensor, or is itself the name of a tensor.
    """
    full = dict(tensors)
    for name, kept in aliases.items():
        if kept not in tensors or name in tensors:
            raise ArtefactError(
                f"{file} is damaged: the alias {name!r} of {kept!r} does not match its tensors."
            )
        full[name] = tensors[kept]
    return full


def load_weights(model: nn.Module, full: Mapping[str, Tensor], file: str) -> None:
    """Load tensors by name into ``model``; names and shapes must match exactly.

    ``full`` must contain tied tensors under all their names. Floating-point parameters and buffers
    of the model are converted to the dtypes in ``full``, so that predictions do not change.

    Raises:
        ArtefactError: A name is missing or unknown, a shape differs, or tensors that the model
            ties have different values.
    """
    check_ties(check_tensors_fit(model, full, file), full, file)
    _convert_dtypes(model, full)
    model.load_state_dict(full)


def check_ties(own: Mapping[str, Tensor], full: Mapping[str, Tensor], file: str) -> None:
    """Check that tensors which the model ties have equal values.

    Args:
        own: Tensors of the model, all or some of them.
        full: The tensors to be loaded, by the same names.
        file: Name of their file, for the message.

    Raises:
        ArtefactError: Two tied tensors have different values.
    """
    for name, kept in split_tied(own)[1].items():
        if not torch.equal(full[name], full[kept]):
            raise ArtefactError(
                f"{file}: the model ties {name!r} to {kept!r}, but the file stores two different "
                "tensors for them. The weights belong to another model."
            )


def fits(tensor: Tensor, found: Tensor) -> bool:
    """Return whether ``found`` can be loaded into ``tensor``.

    The shapes must be equal, and both tensors must be floats or have the same dtype.
    """
    both_float = found.is_floating_point() and tensor.is_floating_point()
    return found.shape == tensor.shape and (found.dtype == tensor.dtype or both_float)


def check_tensors_fit(model: nn.Module, full: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """Return the model's tensors after checking that ``full`` has the same names and shapes.

    Raises:
        ArtefactError: A name is missing or unknown, or a shape or dtype differs.
    """
    own = state_tensors(model)
    _check_names(own, full, type(model).__name__, file)
    for name, tensor in own.items():
        found = full[name]
        if not fits(tensor, found):
            raise ArtefactError(
                f"{file}: {name!r} is {describe(found)}, but the model has {describe(tensor)}. "
                "The weights belong to another model, or it was built with other arguments."
            )
    return own


def check_same_state(model: nn.Module, rebuilt: nn.Module, builder: str) -> None:
    """Raise an ArtefactError unless ``rebuilt`` has the class, names and shapes of ``model``."""
    own, other = state_tensors(model), state_tensors(rebuilt)
    fault = ""
    if type(model) is not type(rebuilt):
        fault = f"it builds a {type(rebuilt).__name__}, but the model is a {type(model).__name__}"
    elif own.keys() != other.keys():
        name = sorted(own.keys() ^ other.keys())[0]
        fault = f"only the {'model' if name in own else 'rebuilt model'} has {name!r}"
    else:
        for name, tensor in own.items():
            if tensor.shape != other[name].shape:
                fault = (
                    f"{name!r} has the shape {tuple(tensor.shape)}, but "
                    f"{tuple(other[name].shape)} in the rebuilt model"
                )
                break
    if fault:
        raise ArtefactError(
            f"The model differs from what its builder {builder!r} builds: {fault}. The model was "
            "probably changed after the Learner built it. Change the module first and pass it to "
            "the Learner; its weights are then exported without a builder."
        )


def _check_names(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], model: str, file: str
) -> None:
    missing = [name for name in own if name not in found]
    unknown = [name for name in sorted(found) if name not in own]
    if not missing and not unknown:
        return
    parts: list[str] = []
    if missing:
        parts.append(f"the file lacks {name_some(map(repr, missing), 3)} of {model}")
    if unknown:
        parts.append(f"{model} lacks {name_some(map(repr, unknown), 3)} of the file")
    raise ArtefactError(f"{file} does not fit the model: {'; '.join(parts)}.")


def describe(tensor: Tensor) -> str:
    """Return dtype and shape of a tensor as text, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _convert_dtypes(model: nn.Module, found: Mapping[str, Tensor]) -> None:
    parameters = model.named_parameters(remove_duplicate=False)
    for name, tensor in [*parameters, *model.named_buffers(remove_duplicate=False)]:
        if name in found and found[name].dtype != tensor.dtype:
            tensor.data = tensor.data.to(found[name].dtype)
