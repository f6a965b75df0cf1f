"""Sizes and forbidden constructs of the library code."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("packages/*/src/**/*.py"))

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_CONSTRUCTOR_PARAMETERS = 10
MAX_LEARNER_PARAMETERS = 11  # docs/decisions/0004-start-is-an-argument-of-the-learner.md

Function = ast.FunctionDef | ast.AsyncFunctionDef
Finding = tuple[int, str]


def functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def code_lines(function: Function) -> int:
    """Return the number of lines from `def` to the end, without the docstring."""
    first = function.body[0]
    last = function.end_lineno or function.lineno
    lines = last - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def parameters(function: Function) -> list[str]:
    every = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return [parameter.arg for parameter in every]


def long_files(tree: ast.Module, text: str) -> Iterator[Finding]:
    lines = text.count("\n")
    if lines > MAX_FILE_LINES:
        yield lines, f"{lines} lines, at most {MAX_FILE_LINES}: split it"


def long_functions(tree: ast.Module, text: str) -> Iterator[Finding]:
    for function in functions(tree):
        lines = code_lines(function)
        if lines > MAX_FUNCTION_LINES:
            yield function.lineno, f"{function.name}: {lines} lines, at most {MAX_FUNCTION_LINES}"


def wide_constructors(tree: ast.Module, text: str) -> Iterator[Finding]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    of_learner = {id(item) for each in classes if each.name == "Learner" for item in each.body}
    for function in functions(tree):
        count = len(parameters(function)) - 1
        most = MAX_LEARNER_PARAMETERS if id(function) in of_learner else MAX_CONSTRUCTOR_PARAMETERS
        if function.name in ("__init__", "__new__") and count > most:
            yield (
                function.lineno,
                f"{count} parameters, at most {most}: group the rest in a frozen dataclass",
            )


def star_imports(tree: ast.Module, text: str) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield node.lineno, f"from {node.module} import *"


def asserts(tree: ast.Module, text: str) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "bare assert: raise an error with what happened, why and what to do"


def forwarding(tree: ast.Module, text: str) -> Iterator[Finding]:
    for function in functions(tree):
        if function.name in ("__getattr__", "__getattribute__"):
            yield (
                function.lineno,
                f"{function.name} forwards names: tools cannot trace them",
            )


def open_signatures(tree: ast.Module, text: str) -> Iterator[Finding]:
    """Yield functions for users with `**kwargs`: public functions and methods, constructors.

    Except `log`, whose keywords are names that the user makes up, and `set_params`, whose signature
    is scikit-learn's.
    """

    def visit(body: list[ast.stmt]) -> Iterator[Finding]:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from visit(node.body)
            elif isinstance(node, Function):
                called_by_users = node.name in ("__init__", "__new__", "__call__")
                named = node.name not in ("log", "set_params") and not node.name.startswith("_")
                public = called_by_users or named
                if node.args.kwarg is not None and public:
                    yield node.lineno, f"{node.name}(**{node.args.kwarg.arg})"
            elif isinstance(node, ast.If | ast.Try):
                yield from visit(node.body + node.orelse)

    yield from visit(tree.body)


Rule = Callable[[ast.Module, str], Iterator[Finding]]
RULES: list[Rule] = [
    long_files,
    long_functions,
    wide_constructors,
    star_imports,
    asserts,
    forwarding,
    open_signatures,
]


def findings(rule: Rule, paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        text = path.read_text()
        for line, what in rule(ast.parse(text), text):
            found.append(f"{path.relative_to(ROOT)}:{line}: {what}")
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_library_code(rule: Rule) -> None:
    assert FILES
    found = findings(rule, FILES)
    assert not found, "\n".join(found)


def test_no_module_has_a_vague_name() -> None:
    vague = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    found = [str(p.relative_to(ROOT)) for p in FILES if p.name in vague]
    found += [str(p.relative_to(ROOT)) for p in FILES if f"{p.parent.name}.py" in vague]
    assert not found


# ---------------------------------------------------------------- each rule detects a violation

BROKEN: list[tuple[Rule, str, str]] = [
    (long_files, "x = 1\n" * 501, "x = 1\n" * 500),
    (
        long_functions,
        "def f():\n" + "    x = 1\n" * 60,
        'def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 59,
    ),
    (
        wide_constructors,
        "class A:\n    def __init__(self, a, b, c, d, e, f, g, h, i, j, *, k): ...\n",
        "class A:\n    def __init__(self, a, b, c, d, e, f, g, h, i, *, j): ...\n",
    ),
    (star_imports, "from os import *\n", "from os import path\n"),
    (asserts, "def f(x):\n    assert x\n", "def f(x):\n    return x\n"),
    (forwarding, "def __getattr__(name): ...\n", "def __getitem__(name): ...\n"),
    (forwarding, "class A:\n    def __getattr__(self, name): ...\n", "class A: ...\n"),
    (open_signatures, "def f(**kwargs): ...\n", "def _f(**kwargs): ...\n"),
    (
        open_signatures,
        "class A:\n    def __init__(self, **options): ...\n",
        "class _A:\n    def __init__(self, **options): ...\n",
    ),
]


@pytest.mark.parametrize(("rule", "bad", "good"), BROKEN)
def test_the_rule_detects_a_violation(rule: Rule, bad: str, good: str) -> None:
    assert list(rule(ast.parse(bad), bad))
    assert not list(rule(ast.parse(good), good))
