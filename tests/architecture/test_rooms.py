"""File names of core are unique, and no module imports itself through others at run time."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src"))
CORE = ROOT / "packages/core/src/flambeau"

Graph = Mapping[str, frozenset[str]]
"""Imported modules by module."""


# ---------------------------------------------------------------- imports as a graph


def modules(source: Path) -> dict[str, Path]:
    """Dotted names of the modules under a source folder; a package is its ``__init__.py``."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def for_types_only(node: ast.AST) -> bool:
    """Whether ``node`` is ``if TYPE_CHECKING:`` or ``if typing.TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def import_statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that may run: at the top level and inside functions, not those for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and for_types_only(node):
            for statement in node.orelse:
                yield from import_statements(ast.Module([statement], []))
        else:
            yield from import_statements(node)


def imported_names(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Dotted names that an import statement in a module of ``package`` may refer to."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = package.split(".")
        parents = parents[: len(parents) - node.level + 1]
        base = ".".join([*parents, base] if base else parents)
    return [f"{base}.{alias.name}" for alias in node.names]


def import_graph(files: Mapping[str, tuple[str, bool]]) -> Graph:
    """Return which of the modules each module imports.

    Importing ``a.b.c`` also runs ``a/__init__.py`` and ``a/b/__init__.py``; a package that contains
    the importing module is not counted, since Python has started it before that module.

    Args:
        files: Source text and "is it an ``__init__.py``" by dotted name.
    """
    graph: dict[str, frozenset[str]] = {}
    for module, (text, is_package) in files.items():
        package = module if is_package else module.rpartition(".")[0]
        found: set[str] = set()
        for node in import_statements(ast.parse(text)):
            for name in imported_names(node, package):
                target = name if name in files else name.rpartition(".")[0]
                if target not in files:
                    continue
                found.add(target)
                parents = [target[:index] for index, char in enumerate(target) if char == "."]
                found.update(p for p in parents if p in files and not contains(p, module))
        graph[module] = frozenset(found - {module})
    return graph


def contains(package: str, module: str) -> bool:
    return module == package or module.startswith(f"{package}.")


# ---------------------------------------------------------------- strongly connected components


def components(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components of more than one module (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for root in graph:
        if root in index:
            continue
        # Each entry is a module and the imports of it that are still to be followed.
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            module, remaining = work[-1]
            following = next(remaining, None)
            if following is None:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[module])
                if low[module] == index[module]:
                    start = stack.index(module)
                    component = sorted(stack[start:])
                    del stack[start:]
                    if len(component) > 1:
                        found.append(component)
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                work.append((following, iter(sorted(graph[following]))))
            elif following in stack:
                low[module] = min(low[module], index[following])
    return sorted(found)


def circle(graph: Graph, component: Iterable[str]) -> list[str]:
    """Return a shortest circle of imports within a component; its first module is also its last."""
    inside = set(component)
    shortest: list[str] = []
    for start in sorted(inside):
        paths = [[start]]
        seen: set[str] = set()
        while paths:
            path = paths.pop(0)
            if shortest and len(path) + 1 >= len(shortest):
                break
            if start in graph[path[-1]]:
                shortest = [*path, start]
                break
            for following in sorted(graph[path[-1]] & inside - seen):
                seen.add(following)
                paths.append([*path, following])
    return shortest


def circles(graph: Graph) -> list[str]:
    """Describe each component by a shortest circle and the number of modules in it."""
    return [
        f"{' → '.join(circle(graph, component))} ({len(component)} modules: {', '.join(component)})"
        for component in components(graph)
    ]


def test_no_module_imports_itself_through_others() -> None:
    files = {
        name: (path.read_text(), path.name == "__init__.py")
        for source in SOURCES
        for name, path in modules(source).items()
    }
    graph = import_graph(files)
    assert len(graph) > 200
    found = circles(graph)
    assert not found, "circles of imports at run time:\n" + "\n".join(found)


# ---------------------------------------------------------------- file names


def repeated_names(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Return the paths by file name, for the names that occur more than once."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if not path.stem.startswith("__"):
            by_name[path.name].append(path.as_posix())
    return {name: found for name, found in by_name.items() if len(found) > 1}


def test_a_file_name_occurs_once_in_core() -> None:
    """``tensors/`` is excepted: it uses the file names of the other domains."""
    paths = [path.relative_to(CORE) for path in sorted(CORE.rglob("*.py"))]
    assert len(paths) > 100
    found = repeated_names(path for path in paths if path.parts[0] != "tensors")
    assert not found, f"rename one of each: {found}"


# ---------------------------------------------------------------- each rule can fail


def as_files(texts: Mapping[str, str], packages: Iterable[str]) -> dict[str, tuple[str, bool]]:
    return {name: (text, name in packages) for name, text in texts.items()}


PACKAGES = {"p", "p.a", "p.b"}


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({"p.x": "import p.y", "p.y": "import p.x"}, ["p.x", "p.y"]),
        ({"p.x": "import p.y", "p.y": "def f():\n    from p import x"}, ["p.x", "p.y"]),
        ({"p.x": "from p.y import f", "p.y": "from .x import g"}, ["p.x", "p.y"]),
        ({"p.x": "import p.y", "p.y": "import p.z", "p.z": "import p.x"}, ["p.x", "p.y", "p.z"]),
        # a/__init__.py runs first, whatever is imported from the package.
        ({"p.a": "import p.x", "p.a.m": "", "p.x": "import p.a.m"}, ["p.a", "p.x"]),
        ({"p.a": "from p.a.m import f", "p.a.m": "from p.a import g"}, ["p.a", "p.a.m"]),
        (
            {"p.a": "from .m import f", "p.a.m": "from ..x import g", "p.x": "import p.a"},
            ["p.a", "p.a.m", "p.x"],
        ),
        (
            {
                "p.x": "if TYPE_CHECKING:\n    pass\nelse:\n    import p.y",
                "p.y": "try:\n    import p.x\nexcept ImportError:\n    pass",
            },
            ["p.x", "p.y"],
        ),
    ],
)
def test_a_circle_is_found(texts: dict[str, str], found: list[str]) -> None:
    graph = import_graph(as_files(texts, PACKAGES))
    assert components(graph) == [found]
    way = circle(graph, found)
    assert way[0] == way[-1]
    assert all(after in graph[before] for before, after in pairwise(way))


@pytest.mark.parametrize(
    "texts",
    [
        {"p.x": "import p.y", "p.y": "import torch"},
        {"p.x": "import p.y", "p.y": "if TYPE_CHECKING:\n    import p.x"},
        {"p.x": "import p.y", "p.y": "if typing.TYPE_CHECKING:\n    from p.x import f"},
        {"p.w": "import p.x, p.y", "p.x": "import p.z", "p.y": "import p.z", "p.z": ""},
        # A package may import its modules, and these each other.
        {"p.a": "from p.a.m import f", "p.a.m": "from p.a.n import g", "p.a.n": ""},
    ],
)
def test_imports_in_one_direction_pass(texts: dict[str, str]) -> None:
    assert circles(import_graph(as_files(texts, PACKAGES))) == []


def test_two_circles_are_reported_apart() -> None:
    texts = {
        "p.u": "import p.v",
        "p.v": "import p.u",
        "p.x": "import p.y",
        "p.y": "import p.x, p.u",
    }
    assert circles(import_graph(as_files(texts, PACKAGES))) == [
        "p.u → p.v → p.u (2 modules: p.u, p.v)",
        "p.x → p.y → p.x (2 modules: p.x, p.y)",
    ]


def test_a_repeated_file_name_is_found() -> None:
    paths = [Path("a/x.py"), Path("b/x.py"), Path("a/__init__.py"), Path("b/__init__.py")]
    assert repeated_names(paths) == {"x.py": ["a/x.py", "b/x.py"]}
