"""Objects from names: what an export holds is built by registered builders and by nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.artefact.record import Spec
from flambeau.artefact.tree import Key, tensor_key
from flambeau.errors import ArtefactError, nearest

Builders = Mapping[str, Callable[..., Any]]


def rebuild(
    kind: str,
    spec: Spec,
    builders: Builders,
    tensors: Mapping[str, Tensor] | None = None,
) -> Any:
    """``builders[spec.builder](**spec.arguments, **tensors)``, with torch's generator put back.

    Args:
        kind: "model", "task" or "preprocessor", for the message.
        spec: Name and arguments.
        builders: What the domain registers for this kind.
        tensors: Further arguments.

    Raises:
        ArtefactError: The name is unknown, or the builder does not take the arguments.
    """
    if spec.builder is None or spec.builder not in builders:
        raise ArtefactError(
            f"The {kind} is made by the builder {spec.builder!r}, which the domain does not "
            f"register. {nearest(str(spec.builder), builders)} A newer version of the domain's "
            "package may have it."
        )
    builder = builders[spec.builder]
    arguments = {**spec.arguments, **(tensors or {})}
    try:
        inspect.signature(builder).bind(**arguments)
    except TypeError as error:
        raise ArtefactError(
            f"The {kind} builder {spec.builder!r} does not take the saved arguments "
            f"({', '.join(arguments) or 'none'}): {error}. The package that registers it has "
            "changed since; install the version that wrote the export."
        ) from error
    try:
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            return builder(**arguments)
    except Exception as error:  # whatever a foreign builder raises, the message must name it
        raise ArtefactError(
            f"The {kind} builder {spec.builder!r} failed on the saved arguments: "
            f"{type(error).__name__}: {error}"
        ) from error


def rebuild_model(
    spec: Spec,
    builders: Builders,
    tensors: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    file: str,
) -> nn.Module:
    """The model that the builder makes, once it is known to have the shapes of the tensors.

    It is sketched without memory first: a record that asks for a model of 10 GB where the file
    holds one of 1 MB is refused before any memory is taken.

    Raises:
        ArtefactError: The builder is unknown or fails, or makes another model.
    """
    try:
        with torch.device("meta"):
            sketch = rebuild("model", spec, builders)
    except ArtefactError:
        pass  # the builder may need memory; what it then says is about the model itself
    else:
        _check_fit(sketch, _with_aliases(tensors, aliases, file), file)
    return rebuild("model", spec, builders)


def tied(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, and an alias table: name of a tied tensor → name that is kept."""
    first: dict[Key, str] = {}
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = tensor_key(tensor)
        if key is not None and key in first:
            aliases[name] = first[key]
            continue
        kept[name] = tensor
        if key is not None:
            first[key] = name
    return kept, aliases


def load_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], aliases: Mapping[str, str], file: str
) -> None:
    """Writes the tensors of an export into ``model``, which must have exactly these.

    A floating-point parameter takes the dtype of the file, so that the answers stay the same.

    Raises:
        ArtefactError: A name is missing or unknown, or a shape or a tie differs.
    """
    full = _with_aliases(tensors, aliases, file)
    wanted = _check_fit(model, full, file)
    for name, kept in tied(wanted)[1].items():
        if not torch.equal(full[name], full[kept]):
            raise ArtefactError(
                f"{file}: the model ties {name!r} to {kept!r}, but the file holds two different "
                "tensors for them. The weights belong to another model."
            )
    _take_dtypes(model, full)
    model.load_state_dict(full)


def _with_aliases(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str], file: str
) -> dict[str, Tensor]:
    full = dict(tensors)
    for name, kept in aliases.items():
        if kept not in tensors or name in tensors:
            raise ArtefactError(
                f"{file}: the alias {name!r} of {kept!r} does not fit the stored tensors."
            )
        full[name] = tensors[kept]
    return full


def _check_fit(model: nn.Module, full: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """The model's tensors, each of which the file has in its shape."""
    wanted = state_tensors(model)
    _check_names(wanted, full, type(model).__name__, file)
    for name, tensor in wanted.items():
        found = full[name]
        both_float = found.is_floating_point() and tensor.is_floating_point()
        if found.shape != tensor.shape or (found.dtype != tensor.dtype and not both_float):
            raise ArtefactError(
                f"{file}: {name!r} is {_describe(found)}, but the model has {_describe(tensor)}. "
                "The weights belong to another model, or it was built with other arguments."
            )
    return wanted


def check_same_state(model: nn.Module, rebuilt: nn.Module, builder: str) -> None:
    """Raises an ArtefactError unless the builder makes just this kind of model."""
    here, there = state_tensors(model), state_tensors(rebuilt)
    fault = ""
    if type(model) is not type(rebuilt):
        fault = f"the builder makes a {type(rebuilt).__name__}, the model is {type(model).__name__}"
    elif here.keys() != there.keys():
        name = sorted(here.keys() ^ there.keys())[0]
        fault = f"{name!r} is only in the {'model' if name in here else 'rebuilt one'}"
    else:
        for name, tensor in here.items():
            if tensor.shape != there[name].shape:
                fault = (
                    f"{name!r} has the shape {tuple(tensor.shape)}, the builder makes "
                    f"{tuple(there[name].shape)}"
                )
                break
    if fault:
        raise ArtefactError(
            f"The model is no longer what its builder {builder!r} makes: {fault}. Was it changed "
            "after the Learner had built it? Change it before, and pass the module itself to the "
            "Learner; then its weights are exported without a builder."
        )


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and persistent buffers by name, as its state_dict holds them.

    Raises:
        ArtefactError: The state_dict holds something that is no tensor.
    """
    state: dict[str, Any] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ArtefactError(
                f"{type(model).__name__}.state_dict() has {name!r} of type "
                f"{type(value).__name__}. An export holds tensors only: drop get_extra_state(), "
                "or make the value a buffer."
            )
    return state


def _check_names(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], model: str, file: str
) -> None:
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in sorted(found) if name not in wanted]
    if not missing and not unknown:
        return
    parts: list[str] = []
    if missing:
        parts.append(f"{model} has {_some(missing)}, which the file lacks")
    if unknown:
        parts.append(f"the file has {_some(unknown)}, which {model} lacks")
    raise ArtefactError(f"{file} does not fit the model: {'; '.join(parts)}.")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _take_dtypes(model: nn.Module, found: Mapping[str, Tensor]) -> None:
    parameters = model.named_parameters(remove_duplicate=False)
    for name, tensor in [*parameters, *model.named_buffers(remove_duplicate=False)]:
        if name in found and found[name].dtype != tensor.dtype:
            tensor.data = tensor.data.to(found[name].dtype)
