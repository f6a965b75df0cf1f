"""``torch.compile`` in place: the module stays the same object with the same tensors and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from torch import nn

from flambeau.errors import ArgumentError, nearest
from flambeau.phases.setting_names import COMPILE_MODES


def compile_model(model: nn.Module, how: str) -> list[nn.Module]:
    """Compiles the module's forward, when it is first called; gives the modules that are compiled.

    "regions" compiles each block that occurs several times: torch compiles their code once, which
    takes a fifth to a ninth of the time for the same speed from batches of 4 on (Accelerate's
    benchmark). A model without such blocks is compiled as one.

    Raises:
        ArgumentError: ``how`` is unknown.
    """
    if how not in COMPILE_MODES:
        raise ArgumentError(f"There is no way {how!r} to compile. {nearest(how, COMPILE_MODES)}")
    if how == "off":
        return []
    regions = (repeated_blocks(model) if how == "regions" else []) or [model]
    for region in regions:
        cast("Any", region).compile()
    return regions


def undo(regions: Iterable[nn.Module]) -> None:
    """Lets modules that ``compile_model`` compiled run as they are written."""
    for region in regions:
        # What ``nn.Module.compile`` sets, and what ``__call__`` looks at.
        cast("Any", region)._compiled_call_impl = None


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost modules whose kind occurs twice among their siblings and has parts of its own.

    Layers alone (a Linear) are not worth compiling, so a block needs children.
    """
    found: list[nn.Module] = []
    for parent in model.modules():
        children = [child for child in parent.children() if any(True for _ in child.children())]
        kinds = Counter(type(child) for child in children)
        blocks = [child for child in children if kinds[type(child)] > 1]
        inside = {id(part) for block in found for part in block.modules()}
        found += [block for block in blocks if id(block) not in inside]
    return [block for block in found if not isinstance(block, nn.ModuleList | nn.Sequential)]
