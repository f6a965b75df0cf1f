"""The five packages have the same version, require it of each other, and match the lock file."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MEMBERS = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def requirements(member: dict[str, Any]) -> list[str]:
    extras = member.get("optional-dependencies", {}).values()
    return member["dependencies"] + [line for extra in extras for line in extra]


def literal_version(path: Path) -> str:
    """Return the value of `__version__ = "…"` without importing the module."""
    [value] = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        if [target.id for target in node.targets if isinstance(target, ast.Name)] == ["__version__"]
    ]
    assert isinstance(value, ast.Constant)
    return value.value


def test_there_are_five_packages() -> None:
    assert MEMBERS == ["bench", "core", "tabular", "text", "vision"]


@pytest.mark.parametrize("member", MEMBERS)
def test_the_version_is_the_same(member: str) -> None:
    folder = ROOT / "packages" / member
    root = project(ROOT)
    own = project(folder)
    assert own["version"] == root["version"]
    assert own["requires-python"] == root["requires-python"]
    [init] = folder.glob("src/*/__init__.py")
    assert literal_version(init) == root["version"]


@pytest.mark.parametrize("member", MEMBERS)
def test_packages_require_the_same_version(member: str) -> None:
    """Core's extras are excepted: `flambeau[plot]` is the same distribution."""
    own = project(ROOT / "packages" / member)
    to_members = [line for line in requirements(own) if re.match(r"flambeau\b", line)]
    unpinned = [line for line in to_members if not line.endswith(f"=={project(ROOT)['version']}")]
    assert all(line.startswith(f"{own['name']}[") for line in unpinned), unpinned


@pytest.mark.parametrize("member", MEMBERS)
def test_readme_gives_a_reason_for_each_dependency(member: str) -> None:
    folder = ROOT / "packages" / member
    text = (folder / project(folder)["readme"]).read_text()
    for line in project(folder)["dependencies"]:
        name = re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]
        assert re.search(rf"^- `{re.escape(name)}`: \w.+", text, re.MULTILINE), name


@pytest.mark.parametrize("member", MEMBERS)
def test_the_lock_file_matches_pyproject(member: str) -> None:
    """`uv sync --frozen` does not check that the lock belongs to these pyproject files."""
    own = project(ROOT / "packages" / member)
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    [entry] = [p for p in lock["package"] if p["source"].get("editable") == f"packages/{member}"]
    assert entry["version"] == own["version"]
    locked = {
        (line["name"], line.get("specifier", "")) for line in entry["metadata"]["requires-dist"]
    }
    names = {name for name, _ in locked}
    for line in requirements(own):
        name, specifier = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(.*)", line).groups()
        assert name in names
        if not name.startswith("flambeau"):  # our packages are locked by folder
            assert (name, specifier) in locked, "run `uv lock`"
