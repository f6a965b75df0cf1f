"""Private names of torch are used only in ``flambeau.torch_internals``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from flambeau.torch_internals import FALLBACKS

SOURCES = Path(__file__).parents[2] / "packages"
ALLOWED = {"os._exit"}  # documented

KNOWN = {name.rpartition(".")[2] for name in FALLBACKS} | {
    "_backward_hooks",
    "_base",
    "_buffers",
    "_call_impl",
    "_cdata",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_iterator",
    "_modules",
    "_parameters",
    "_step_supports_amp_scaling",
    "_version",
}
"""Private attributes of torch's objects; forbidden even if one of our classes has the same name."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def modules() -> list[Path]:
    found = sorted(SOURCES.glob("*/src/**/*.py"))
    return [path for path in found if "torch_internals" not in path.parts]


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names of functions, classes, arguments, variables and attributes of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


@cache
def our_names() -> frozenset[str]:
    trees = (ast.parse(path.read_text()) for path in modules())
    return frozenset(name for tree in trees for name in defined(tree)) - KNOWN


def private_uses(tree: ast.AST, ours: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Yield line and text of each private name of another library that a file uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in names if not name.startswith("flambeau")]
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            wrong = owner not in ("self", "cls") and node.attr not in ours
            names = [f"{owner}.{node.attr}"] if wrong and is_private(node.attr) else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            wrong = node.value in KNOWN or node.value in FALLBACKS
            names = [node.value] if wrong else []
        else:
            continue
        for name in names:
            if name not in ALLOWED and any(map(is_private, name.split("."))):
                yield getattr(node, "lineno", 0), name


def test_no_private_name_is_used_elsewhere() -> None:
    assert len(modules()) > 100
    found = {
        str(path.relative_to(SOURCES)): uses
        for path in modules()
        if (uses := list(private_uses(ast.parse(path.read_text()), our_names())))
    }
    assert not found, f"move these into flambeau.torch_internals: {found}"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import torch.utils._pytree", ["torch.utils._pytree"]),
        ("from torch.utils import _pytree as tree", ["torch.utils._pytree"]),
        ("from torch.optim.optimizer import _params_doc", ["torch.optim.optimizer._params_doc"]),
        ("from torch.utils._stats import count", ["torch.utils._stats.count"]),
        ("torch._foreach_add_(a, 1)", ["torch._foreach_add_"]),
        ("torch._C._get_tracing_state()", ["torch._C._get_tracing_state", "torch._C"]),
        ("iterator._shutdown_workers()", ["iterator._shutdown_workers"]),
        ("model._buffers['x']", ["model._buffers"]),
        ("getattr(model, '_compiled_call_impl', None)", ["_compiled_call_impl"]),
        ("lookup('torch._foreach_norm')", ["torch._foreach_norm"]),
        ("self._buffers = other._ours", []),
        ("from flambeau.data import _ours", []),
        ("torch.nn.Module.__call__", []),
    ],
)
def test_the_rule_recognizes_private_names(code: str, found: list[str]) -> None:
    assert [name for _, name in private_uses(ast.parse(code), frozenset({"_ours"}))] == found
