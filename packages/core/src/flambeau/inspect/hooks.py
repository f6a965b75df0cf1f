"""``Hooks``: record the outputs of a model's modules without changing the model."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.nested import detach, map_tensors
from flambeau.task.model_call import call_model
from flambeau.training.run_state.preserve import preserve

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""Arguments of a model: one tensor, several in order, or a mapping by name (``call_model``)."""


class Hooks:
    """A context manager that records the outputs of named modules.

    Args:
        model: Any module.
        names: Module names as in ``model.named_modules()``, or patterns ("layer4.*"); None for
            every module inside the model.
        keep: Function that returns what to store for an output; by default the detached output.
            If the outputs do not fit in memory, store less: ``lambda output: output.std()``.

    Attributes:
        outputs: The stored values by module name, one per call. Modules that were not called are
            absent.

    Raises:
        ArgumentError: A name or pattern matches no module.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with Hooks(model, ["0"]) as hooks:
        ...     _ = model(torch.zeros(5, 3))
        >>> hooks.outputs["0"][0].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str] | None = None,
        *,
        keep: Callable[[Any], Any] = detach,
    ) -> None:
        self._modules = _select_modules(model, names)
        self._keep = keep
        self._handles: list[RemovableHandle] = []
        self.outputs: dict[str, list[Any]] = {}

    def __enter__(self) -> Self:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._recorder(name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _recorder(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            self.outputs.setdefault(name, []).append(self._keep(output))

        return hook


def record_outputs(
    model: nn.Module, inputs: Inputs, names: Sequence[str] | None = None
) -> dict[str, list[Any]]:
    """Run the model once in eval mode and return the outputs of its modules, one per call.

    The model is unchanged afterwards: the mode of every module is restored, no gradients are
    computed, and batch norm statistics are not updated.

    Args:
        model: Any module.
        inputs: One tensor, or the arguments of ``forward`` in order.
        names: Module names or patterns; None for every module inside the model.

    Raises:
        ArgumentError: A name or pattern matches no module.
        InputError: There are no inputs.
    """
    inputs = map_tensors(Tensor.clone, inputs)  # a layer may work in place
    with Hooks(model, names) as hooks:
        run_in_eval_mode(model, inputs)
    return hooks.outputs


def modules_by_name(model: nn.Module, *, include_duplicates: bool = False) -> dict[str, nn.Module]:
    """Return the model ("") and all modules in it by name.

    Args:
        model: Any module.
        include_duplicates: Whether a module that is used under several names is listed under each.
    """
    found = model.named_modules(remove_duplicate=not include_duplicates)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] untyped in torch
    return dict(cast("Iterator[tuple[str, nn.Module]]", found))


def run_in_eval_mode(
    model: nn.Module, inputs: Inputs, forward: Callable[[], Any] | None = None
) -> Any:
    """Return the model's outputs in eval mode without gradients; restore all modes afterwards.

    Raises:
        InputError: There are no inputs.
    """
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if not inputs:
        raise InputError("There are no inputs for the model; pass at least one tensor.")
    with preserve(model), torch.no_grad():
        # The flags themselves: a model may override train() to keep parts in eval mode.
        for module in model.modules():
            module.training = False
        if forward is not None:
            return forward()
        return call_model(model, inputs) if isinstance(inputs, Mapping) else model(*inputs)


def _select_modules(model: nn.Module, names: Sequence[str] | None) -> dict[str, nn.Module]:
    every = modules_by_name(model, include_duplicates=True)
    known = {name: module for name, module in every.items() if name}
    if names is None:
        return known
    if isinstance(names, str):
        raise ArgumentError(f"names is the string {names!r}; pass a list: [{names!r}].")
    found: dict[str, nn.Module] = {}
    for name in names:
        matches = [name] if name in known else fnmatch.filter(known, name)
        if not matches:
            raise ArgumentError(
                f"{type(model).__name__} has no module {name!r}. {did_you_mean(name, known)}"
            )
        found.update({match: known[match] for match in matches})
    return found
