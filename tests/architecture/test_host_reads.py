"""In training/ tensor values are read on the host only by the functions listed here.

A read inside a step makes the host wait for the accelerator. Reads at the end of an
epoch, for a checkpoint or an error, and by the guard at a bounded rate are allowed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TRAINING = Path(__file__).parents[2] / "packages/core/src/flambeau/training"
READS = {"item", "tolist", "numpy", "cpu"}

# (file, function) → why it may read.
ALLOWED: dict[tuple[str, str], str] = {
    ("losses.py", "StepLosses._flush"): "the epoch is over, or 65,536 steps are complete",
    ("nonfinite/guard.py", "NonFiniteGuard.__init__"): "a view of CPU memory, created once per fit",
    ("nonfinite/guard.py", "_numbers"): "the guard's flag, at a bounded rate and after its event",
    ("nonfinite/locate.py", "_bad_samples"): "an error message is being written",
    ("norm/bn_statistics.py", "_InputRecorder.__call__"): "before the first step, once per fit",
    ("norm/bn_statistics.py", "_stored"): "before the first step, once per fit",
    ("run_state/object_state.py", "digest_of"): "a checkpoint is written, or the epoch is over",
    ("update_check.py", "UpdateCheck.end_epoch"): "the first epoch is over, once per fit",
}

Found = tuple[str, str, int]
"""Function, method that reads, line."""


def reads(tree: ast.AST, inside: str = "") -> Iterator[Found]:
    """Yield each call that reads a tensor on the host, with the function that contains it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Nested functions count as the outer function.
            within_function = inside and not isinstance(tree, ast.ClassDef)
            name = inside if within_function else f"{inside}.{node.name}".lstrip(".")
            yield from reads(node, name)
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func.attr
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            to_cpu = method == "to" and any(_is_cpu(argument) for argument in given)
            if method in READS or to_cpu:
                yield inside, method, node.lineno
        yield from reads(node, inside)


def _is_cpu(node: ast.expr) -> bool:
    """Return whether the expression is ``"cpu"`` or ``torch.device("cpu")``."""
    if isinstance(node, ast.Call):
        return any(_is_cpu(argument) for argument in node.args)
    return isinstance(node, ast.Constant) and node.value == "cpu"


def all_reads() -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(TRAINING.rglob("*.py")):
        for function, method, line in reads(ast.parse(path.read_text())):
            found.setdefault((path.relative_to(TRAINING).as_posix(), function), []).append(
                f"line {line}: .{method}()"
            )
    return found


def test_training_reads_only_where_it_is_allowed() -> None:
    assert {"loop.py", "step.py"} <= {path.name for path in TRAINING.glob("*.py")}
    wrong = {function: calls for function, calls in all_reads().items() if function not in ALLOWED}
    assert not wrong, f"host reads in training/: {wrong}"


def test_each_allowed_function_reads() -> None:
    assert set(ALLOWED) <= set(all_reads())


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(x):\n    return x.item()\n", [("f", "item", 2)]),
        ("class A:\n    def f(self, x):\n        x.loss.cpu()\n", [("A.f", "cpu", 3)]),
        ("def f(x):\n    def g():\n        x.tolist()\n", [("f", "tolist", 3)]),
        ("y = [x.numpy() for x in z]\n", [("", "numpy", 1)]),
        ("y = x.to('cpu')\n", [("", "to", 1)]),
        ("y = x.to(device=torch.device('cpu'))\n", [("", "to", 1)]),
        ("y = x.detach().to(device)\n", []),
        ("y = torch.device('cpu')\n", []),
    ],
)
def test_the_rule_detects_host_reads(code: str, found: list[Found]) -> None:
    assert list(reads(ast.parse(code))) == found
