"""The content of every wheel, and each package installed from its wheel alone.

``tests/architecture/test_isolation.py`` runs the tests of each package in a separate environment,
but from the source tree; here the source tree is not used.
"""

from __future__ import annotations

import re
import tomllib
import zipfile
from collections.abc import Callable
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "flambeau": "packages/core",
    "flambeau-vision": "packages/vision",
    "flambeau-text": "packages/text",
    "flambeau-tabular": "packages/tabular",
    "flambeau-bench": "packages/bench",
    "flambeau-toy": "examples/flambeau-toy",
}
ALONE = [name for name in FOLDERS if name != "flambeau-toy"]

pytestmark = pytest.mark.slow


def project(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / FOLDERS[name] / "pyproject.toml").read_text())["project"]


def requirements(name: str) -> set[str]:
    """Return the dependencies of a package, including those of our own packages among them."""
    found: set[str] = set()
    for line in project(name)["dependencies"]:
        required = re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]
        found |= {required} | (requirements(required) if required in FOLDERS else set())
    return found


def wheel_of(name: str, wheels: Path) -> zipfile.ZipFile:
    [path] = wheels.glob(f"{name.replace('-', '_')}-0*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wheel_contains_only_the_package(name: str, wheels: Path) -> None:
    module = name.replace("-", "_")
    with wheel_of(name, wheels) as wheel:
        files = [entry for entry in wheel.namelist() if not entry.endswith("/")]
        [text] = [wheel.read(f).decode() for f in files if f.endswith(".dist-info/METADATA")]
        [licence] = [wheel.read(f).decode() for f in files if f.endswith("/licenses/LICENSE")]
    source = ROOT / FOLDERS[name] / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / module).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    version = project(name)["version"]
    inside = {file for file in files if not file.startswith(f"{module}-{version}.dist-info/")}
    assert inside == expected
    assert f"{module}/py.typed" in inside
    assert not [file for file in inside if "test_" in file or "conftest" in file]
    assert licence == (ROOT / "LICENSE").read_text()

    metadata = message_from_string(text)
    assert (metadata["Name"], metadata["Version"]) == (name, version)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Summary"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    readme = (ROOT / FOLDERS[name] / "README.md").read_text()
    assert metadata.get_payload().strip() == readme.strip()


@pytest.mark.parametrize("name", ALONE)
def test_a_package_installs_only_its_dependencies(name: str, install: Callable[..., Any]) -> None:
    environment = install(name)
    installed = environment.packages()
    assert installed[name] == project(name)["version"]
    ours = {package for package in installed if package in FOLDERS}
    assert ours == ({name} | requirements(name)) & set(FOLDERS)
    # Dependencies of our other packages are not installed.
    others = set().union(*(requirements(other) for other in ALONE)) - requirements(name) - {name}
    assert not others & set(installed)
    assert requirements(name) <= set(installed)

    module = name.replace("-", "_")
    location = environment.call("python", "-I", "-c", f"import {module}; print({module}.__file__)")
    assert Path(location.strip()).is_relative_to(environment.folder)


def test_core_alone_has_commands_and_conformance_kit(install: Callable[..., Any]) -> None:
    environment = install("flambeau")
    helped = environment.call("flambeau", "--help")
    assert all(command in helped for command in ("demo", "doctor", "domains", "fit", "plan"))
    assert "tensors" in environment.call("flambeau", "domains")
    report = environment.call("python", "-m", "flambeau.testing", "tensors")
    assert "all checks passed" in report


def test_every_extra_can_be_installed(install: Callable[..., Any], wheels: Path) -> None:
    extras = project("flambeau")["optional-dependencies"]
    assert set(extras) == {"plot", "vision", "text", "tabular", "bench", "tables", "all"}
    installed = install("flambeau[all]").packages()
    assert {name for name in installed if name in FOLDERS} == set(ALONE)
    assert "matplotlib" in installed
