"""The projects of `packages/bench/baselines` have the torch of the workspace, in their locks."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASELINES = ROOT / "packages/bench/baselines"
PROJECTS = sorted(BASELINES.glob("*/pyproject.toml"))


def locked(path: Path, package: str) -> str:
    """Return the version of `package` in a lock file; empty if it is not there."""
    entries = tomllib.loads(path.read_text())["package"]
    return next((entry["version"] for entry in entries if entry["name"] == package), "")


def test_the_page_lists_every_baseline() -> None:
    """Without projects the tests below would pass."""
    page = (BASELINES / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE))
    assert listed == {path.parent.name for path in PROJECTS}


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_a_baseline_has_the_torch_of_the_workspace(project: Path) -> None:
    lock = project.with_name("uv.lock")
    if project.parent.name == "keras-tensorflow":
        assert not locked(lock, "torch")
    else:
        assert locked(lock, "torch") == locked(ROOT / "uv.lock", "torch")


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_no_baseline_installs_the_package_lightning(project: Path) -> None:
    """Two of its releases were malware; `pytorch-lightning` is the same library."""
    assert not locked(project.with_name("uv.lock"), "lightning")


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_the_lock_of_a_baseline_matches_its_pyproject(project: Path) -> None:
    declared = tomllib.loads(project.read_text())
    lock = tomllib.loads(project.with_name("uv.lock").read_text())
    name = declared["project"]["name"]
    [entry] = [package for package in lock["package"] if package["name"] == name]
    assert required(entry["metadata"]["requires-dist"]) == set(declared["project"]["dependencies"])
    groups = declared.get("dependency-groups", {})
    in_lock = entry["metadata"].get("requires-dev", {})
    assert {group: required(lines) for group, lines in in_lock.items()} == {
        group: set(lines) for group, lines in groups.items()
    }


def required(lines: list[dict[str, str]]) -> set[str]:
    """Return the requirements in a lock file as a pyproject.toml writes them."""
    return {line["name"] + line.get("specifier", "") for line in lines}
