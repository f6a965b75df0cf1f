"""Wheels of every package and of the example domain, and fresh environments to install them in.

Nothing of that runs unless a slow test asks for it. Third-party packages come from uv's cache by
hard links, in the versions of the lock file; a cold cache downloads torch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
MEMBERS = ("flambeau", "flambeau-vision", "flambeau-text", "flambeau-tabular", "flambeau-bench")
TOY = ROOT / "examples" / "flambeau-toy"
# What would let the environment under test see the workspace's own, or its data.
LEFT_OUT = ("VIRTUAL_ENV", "PYTHONPATH", "PYTEST_ADDOPTS", "FLAMBEAU_DATA")
SETTINGS = {key: value for key, value in os.environ.items() if key not in LEFT_OUT}


def uv(*words: str | Path) -> str:
    """What uv prints; its error where it fails."""
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        pytest.fail("uv is not on the PATH: run the tests with `uv run pytest`")
    return run([program, *words], ROOT)


def run(words: list[str | Path], folder: Path, expect: int = 0) -> str:
    answer = subprocess.run(
        list(map(str, words)),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=SETTINGS,
    )
    assert answer.returncode == expect, f"{words}\n{answer.stdout[-6000:]}{answer.stderr[-6000:]}"
    return answer.stdout


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment; commands run in an empty folder beside it."""

    folder: Path
    work: Path

    def packages(self) -> dict[str, str]:
        """Installed distributions and their versions."""
        listed = uv("pip", "list", "--python", self.folder, "--format", "json")
        return {entry["name"]: entry["version"] for entry in json.loads(listed)}

    def call(self, program: str, *words: str | Path, expect: int = 0) -> str:
        """What a program of the environment prints."""
        return run([self.folder / "bin" / program, *words], self.work, expect)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel for each package and one for the example domain."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in MEMBERS:
        uv("build", "--quiet", "--package", name, "--wheel", "--out-dir", folder)
    uv("build", "--quiet", "--wheel", "--out-dir", folder, TOY)
    return folder


@pytest.fixture(scope="session")
def install(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """``install("flambeau-vision")``: an environment with that wheel and what it asks for.

    Tests that ask for the same share it, so none of them may change it.
    """
    made: dict[str, Environment] = {}
    locked = wheels / "locked.txt"
    uv("export", "--quiet", "--frozen", "--no-hashes", "--no-emit-workspace", "--all-packages",
       "--output-file", locked)  # fmt: skip

    def make(name: str) -> Environment:
        if name in made:
            return made[name]
        home = tmp_path_factory.mktemp("installed")
        environment = Environment(home / "environment", home / "work")
        environment.work.mkdir()
        uv("venv", "--quiet", "--python", sys.executable, environment.folder)
        uv("pip", "install", "--quiet", "--python", environment.folder, "--constraints", locked,
           "--find-links", wheels, name)  # fmt: skip
        made[name] = environment
        return environment

    return make


@pytest.fixture(scope="session")
def example() -> Callable[[str], ModuleType]:
    """A program of the folder of examples, as a module."""

    def load(name: str) -> ModuleType:
        spec = util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        assert spec is not None, name
        assert spec.loader is not None, name
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
