"""The projects of `packages/bench/baselines` have the torch of the workspace, in their locks."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = sorted((ROOT / "packages/bench/baselines").glob("*/pyproject.toml"))


def locked(path: Path, package: str) -> str:
    """Return the version of `package` in a lock file; empty if it is not there."""
    entries = tomllib.loads(path.read_text())["package"]
    return next((entry["version"] for entry in entries if entry["name"] == package), "")


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
    declared = tomllib.loads(project.read_text())["project"]
    lock = tomllib.loads(project.with_name("uv.lock").read_text())
    [entry] = [package for package in lock["package"] if package["name"] == declared["name"]]
    required = {
        line["name"] + line.get("specifier", "") for line in entry["metadata"]["requires-dist"]
    }
    assert required == set(declared["dependencies"])
