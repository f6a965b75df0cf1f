"""``Hooks``: what the modules inside a model answered, without changing the model."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flambeau.errors import ArgumentError, InputError, nearest

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""What a model is called with: one tensor, or the arguments in their order (names are ignored)."""


def detached(output: Any) -> Any:
    """The output with every tensor in it (tuples, lists, dicts) cut from the graph."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, tuple | list):
        return tuple(detached(part) for part in cast("Sequence[Any]", output))
    if isinstance(output, dict):
        parts = cast("dict[str, Any]", output)
        return {name: detached(part) for name, part in parts.items()}
    return output


class Hooks:
    """Records the outputs of named modules while it is open.

    Args:
        model: Any module.
        names: Module names as in ``model.named_modules()``, or patterns ("layer4.*"); None for
            every module inside the model.
        keep: What is kept of an output; by default the output without its graph. Keep less
            (``lambda output: output.std()``) where the outputs would not fit in memory.

    Attributes:
        outputs: By name, one entry a call of the module; a module that was not called has none.

    Raises:
        ArgumentError: A name fits no module.

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
        keep: Callable[[Any], Any] = detached,
    ) -> None:
        self._modules = _named(model, names)
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
        def write_down(module: nn.Module, arguments: Any, output: Any) -> None:
            self.outputs.setdefault(name, []).append(self._keep(output))

        return write_down


def record(
    model: nn.Module, inputs: Inputs, names: Sequence[str] | None = None
) -> dict[str, list[Any]]:
    """The outputs of named modules for one forward pass in eval mode, one entry a call.

    The model stays as it was: every module's mode is put back, no gradient is computed, batch norm
    keeps its statistics.

    Args:
        model: Any module.
        inputs: One tensor, or the arguments of ``forward`` in their order.
        names: Module names or patterns; None for every module inside the model.

    Raises:
        ArgumentError: A name fits no module.
    """
    with Hooks(model, names) as hooks:
        run(model, inputs)
    return hooks.outputs


def modules_of(model: nn.Module, *, twice: bool = False) -> dict[str, nn.Module]:
    """The model ("") and every module in it by name; ``twice`` for one in two places."""
    found = model.named_modules(remove_duplicate=not twice)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] torch does not say
    return dict(cast("Iterator[tuple[str, nn.Module]]", found))


def run(model: nn.Module, inputs: Inputs) -> Any:
    """The model's answer in eval mode without gradients, every module's mode put back."""
    if isinstance(inputs, Tensor):
        arguments: tuple[Any, ...] = (inputs,)
    else:
        arguments = tuple(inputs.values() if isinstance(inputs, Mapping) else inputs)
    if not arguments:
        raise InputError("There are no inputs to call the model with; pass at least one tensor.")
    with _evaluating(model), torch.no_grad():
        return model(*arguments)


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    # The flags themselves, as model.train() may be overridden to keep parts of a model in eval.
    modes = {module: module.training for module in modules_of(model).values()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _named(model: nn.Module, names: Sequence[str] | None) -> dict[str, nn.Module]:
    # A module that stands in two places is listed under each name.
    known = {name: part for name, part in modules_of(model, twice=True).items() if name}
    if names is None:
        return known
    if isinstance(names, str):
        raise ArgumentError(f"names is the text {names!r}; give a list: [{names!r}].")
    found: dict[str, nn.Module] = {}
    for name in names:
        fitting = [name] if name in known else fnmatch.filter(known, name)
        if not fitting:
            raise ArgumentError(
                f"{type(model).__name__} has no module {name!r}. {nearest(name, known)}"
            )
        found.update({fit: known[fit] for fit in fitting})
    return found
