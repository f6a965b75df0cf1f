"""The import-linter contracts hold, and each of them detects a violation."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src"))
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint_imports(folder: Path, paths: list[Path]) -> tuple[int, str]:
    """Return exit status and output of `lint-imports` for the packages under `paths`."""
    result = subprocess.run(
        [LINT_IMPORTS, "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # These paths precede the installed, editable packages in the search order.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "NO_COLOR": "1"},
    )
    return result.returncode, result.stdout + result.stderr


def test_contracts_hold() -> None:
    status, output = lint_imports(ROOT, SOURCES)
    assert status == 0, output


# An import that each contract must reject: contract id → file, imported module.
# A module that does not exist yet is created.
VIOLATIONS = {
    "packages": ("flambeau/errors.py", "flambeau_vision"),
    "domains": ("flambeau_text/__init__.py", "flambeau_tabular"),
    "core": ("flambeau/training/__init__.py", "flambeau.callbacks"),
    "predictor": ("flambeau/artefact/predictor.py", "flambeau.training"),
    "plan": ("flambeau/plan/rule.py", "flambeau.training"),
}


def contracts() -> dict[str, dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"]: contract for contract in settings["contracts"]}


def test_each_contract_has_a_violation() -> None:
    assert set(contracts()) == set(VIOLATIONS)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources of all five packages in one folder."""
    for source in SOURCES:
        shutil.copytree(
            source, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def plant(folder: Path, file: str, module: str) -> None:
    """Append `import module` to `file`; create file and module if they do not exist."""
    target = folder.joinpath(*module.split("."), "__init__.py")
    if not target.exists() and not target.parent.with_suffix(".py").exists():
        target.parent.mkdir(parents=True)
        target.write_text("")
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    with path.open("a") as stream:
        stream.write(f"\nimport {module}\n")


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_planted_violation_breaks_the_contract(contract: str, copy: Path) -> None:
    name = contracts()[contract]["name"]
    plant(copy, *VIOLATIONS[contract])
    status, output = lint_imports(copy, [copy])
    assert status != 0
    assert re.search(rf"^{re.escape(name)}\W+BROKEN", output, re.MULTILINE), output


def test_a_new_module_of_core_needs_a_layer(copy: Path) -> None:
    (copy / "flambeau" / "somewhere.py").write_text("")
    status, output = lint_imports(copy, [copy])
    assert status != 0
    assert "somewhere" in output
