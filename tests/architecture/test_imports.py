"""`import X` loads few modules, changes no global state and needs no undeclared package."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "flambeau": "core",
    "flambeau_vision": "vision",
    "flambeau_text": "text",
    "flambeau_tabular": "tabular",
    "flambeau_bench": "bench",
}
# Loaded in the functions that use them, never by importing one of our packages.
HEAVY = {
    "PIL", "IPython", "datasets", "matplotlib", "mlflow", "pandas", "pyarrow", "pytest",
    "sacrebleu", "scipy", "sklearn", "spacy", "tensorboard", "timm", "tokenizers", "torchvision",
    "trackio", "transformers", "typer", "wandb",
}  # fmt: skip
MAX_ADDED = 150  # modules that flambeau loads in addition to torch
MAX_OF_A_DOMAIN = 75  # modules that a kind of data loads in addition to flambeau
KINDS = {"flambeau_text": 2}  # sentence pairs and language models

# Optional imports; their error says what to install: import name → why it is not a dependency.
UNDECLARED: dict[str, dict[str, str]] = {
    "flambeau": {"typing_extensions": "types only; torch requires it"},
    "flambeau_vision": {"typing_extensions": "types only; torch requires it"},
    "flambeau_text": {
        "typing_extensions": "types only; torch requires it",
        "matplotlib": "types of figures; core's extra `plot` installs it, see flambeau.plotting",
        "sacremoses": "get_tokenizer('moses'), if it is installed",
        "sklearn": "baselines of a report on texts, if it is installed",
        "torchtext": "to_torchtext, only in an old environment",
    },
    "flambeau_tabular": {
        "typing_extensions": "types only; torch requires it",
        "matplotlib": "types of figures; core's extra `plot` installs it, see flambeau.plotting",
        **dict.fromkeys(
            ("catboost", "lightgbm", "xgboost"), "lines of a report, if they are installed"
        ),
    },
    "flambeau_bench": {},
}

PROBE = """
import json, os, sys, threading, warnings
import torch

def settings():
    return {
        "random numbers": hash(bytes(torch.get_rng_state().tolist())),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "default dtype": str(torch.get_default_dtype()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fp32 precision": torch.get_float32_matmul_precision(),
        "environment": sorted(os.environ.items()),
        "warning filters": [str(entry) for entry in warnings.filters],
        "threads running": threading.active_count(),
        "CUDA started": torch.cuda.is_initialized(),
        "folder": os.getcwd(),
    }

modules, before = set(sys.modules), settings()
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        __import__(name)
        after = settings()
        print(json.dumps({
            "name": name,
            "added": sorted(set(sys.modules) - modules),
            "changed": [key for key in before if before[key] != after[key]],
        }), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(f"Importing {name} fails.")
"""


@cache
def all_imported() -> dict[str, dict[str, list[str]]]:
    """Import each package and each domain record in a process of its own; return the changes.

    The processes are forked from one that has imported torch, since that takes seconds.
    """
    names = {*PACKAGES, *(entry.values[1] for entry in ENTRY_MODULES)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, *sorted(map(str, names))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    assert result.returncode == 0, result.stderr
    lines = map(json.loads, result.stdout.splitlines())
    return {line["name"]: line for line in lines}


def roots(modules: list[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("package", PACKAGES)
def test_import_is_light_and_changes_nothing(package: str) -> None:
    seen = all_imported()[package]
    others = set(PACKAGES) - {package, "flambeau"}
    assert not roots(seen["added"]) & (HEAVY | others)
    assert seen["changed"] == []
    own = [module for module in seen["added"] if roots([module]) != {"flambeau"}]
    if package == "flambeau":
        assert len(seen["added"]) < MAX_ADDED, seen["added"]
    else:
        assert len(own) < MAX_OF_A_DOMAIN * KINDS.get(package, 1), own


def entry_points(folder: str) -> dict[str, str]:
    """Return the entry points of one package in flambeau's groups: name → module."""
    project = tomllib.loads((ROOT / "packages" / folder / "pyproject.toml").read_text())["project"]
    groups = project.get("entry-points", {})
    return {
        f"{group}:{name}": value.partition(":")[0]
        for group, entries in groups.items()
        if group.startswith("flambeau.")
        for name, value in entries.items()
    }


ENTRY_MODULES = [
    pytest.param(package, module, name, id=name)
    for package, folder in PACKAGES.items()
    for name, module in entry_points(folder).items()
]


@pytest.mark.parametrize(("package", "module", "name"), ENTRY_MODULES)
def test_reading_an_entry_point_is_light(package: str, module: str, name: str) -> None:
    """`flambeau --help` and `Learner(...)` import every domain record, so it must load quickly."""
    seen = all_imported()[module]
    # Only the command line imports commands, and it uses typer anyway.
    loaded = {"typer"} if name.startswith("flambeau.commands:") else set()
    assert not roots(seen["added"]) & (HEAVY - loaded)
    assert not roots(seen["added"]) & (set(PACKAGES) - {package, "flambeau"})


# ---------------------------------------------------------------- names in the source


def sources(package: str) -> list[Path]:
    return sorted((ROOT / "packages" / PACKAGES[package] / "src").rglob("*.py"))


def imported_roots(tree: ast.AST) -> set[str]:
    """Return the top-level names that a module imports anywhere: in functions and for types too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def declared(folder: str, extras: bool = True) -> set[str]:
    """Return the distributions that a package requires, directly or through our other packages."""
    project = tomllib.loads((ROOT / "packages" / folder / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in project.get("optional-dependencies", {}).values() if extras else ():
        wanted += extra
    found = {canonical(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for line in wanted}
    if folder == "core":
        return found
    members = {canonical(package): folder for package, folder in PACKAGES.items()}
    for member in found & set(members):
        found |= declared(members[member], extras=False)
    return found


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_a_declared_dependency(package: str) -> None:
    """In the shared environment such an import works; where the package is alone it fails."""
    distributions = packages_distributions()
    allowed = declared(PACKAGES[package]) | {canonical(package)}
    missing = {}
    for path in sources(package):
        for name in imported_roots(ast.parse(path.read_text())):
            providers = {canonical(d) for d in distributions.get(name, [name])}
            known = name in sys.stdlib_module_names or name in UNDECLARED[package]
            if not known and not providers & allowed:
                missing.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert not missing, f"{package} does not require what it imports: {missing}"


def docstrings(tree: ast.AST) -> set[int]:
    """Return the ids of the constant nodes that are docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, holders) and ast.get_docstring(node) is not None
    }


def test_core_names_no_domain() -> None:
    """Not even in a string: core finds domains through their entry points."""
    domain = re.compile(r"flambeau[_-](vision|text|tabular|bench)")
    found = []
    for path in sources("flambeau"):
        tree = ast.parse(path.read_text())
        left_out = docstrings(tree)
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in left_out and domain.search(node.value):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}")
    assert not found, "core names a domain:\n" + "\n".join(found)
