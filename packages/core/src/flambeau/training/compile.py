"""Compile a model in place: the module object, its tensors and their names do not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from torch import nn

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.phases.setting_names import COMPILE_MODES
from flambeau.torch_internals import remove_compilation


def compile_model(model: nn.Module, how: str) -> list[nn.Module]:
    """Set the model to be compiled at its next call, and return the modules to compile.

    "regions" compiles each block that occurs several times. torch compiles the common code of equal
    blocks once, in a ninth to a fifth of the time that compiling the whole model takes; with
    batches of 4 or more samples the compiled model is as fast as one compiled as a whole
    (Accelerate's benchmark). A model without such blocks is compiled as a whole.

    Args:
        model: Any module.
        how: A name in ``COMPILE_MODES``.

    Raises:
        ArgumentError: ``how`` is unknown.
    """
    if how not in COMPILE_MODES:
        raise ArgumentError(f"Unknown value {how!r} of compile. {did_you_mean(how, COMPILE_MODES)}")
    if how == "off":
        return []
    regions = (repeated_blocks(model) if how == "regions" else []) or [model]
    for region in regions:
        cast("Any", region).compile()
    return regions


def undo(regions: Iterable[nn.Module]) -> None:
    """Remove the compilation of the modules that ``compile_model`` returned."""
    for region in regions:
        remove_compilation(region)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the outermost modules that have children and a sibling of the same class.

    A single layer, such as a Linear, is too small to be worth compiling, so a block needs children.
    """
    found: list[nn.Module] = []
    for parent in model.modules():
        children = [child for child in parent.children() if any(True for _ in child.children())]
        kinds = Counter(type(child) for child in children)
        blocks = [child for child in children if kinds[type(child)] > 1]
        inside = {id(part) for block in found for part in block.modules()}
        found += [block for block in blocks if id(block) not in inside]
    return [block for block in found if not isinstance(block, nn.ModuleList | nn.Sequential)]
