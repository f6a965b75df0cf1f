"""Each package works in an environment that contains only the package and its dependencies.

In the shared environment of the workspace, an import of another package of ours or of its
dependencies works by accident. uv creates the environments by hard links from its cache; with an
empty cache it downloads torch.
"""

import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "core": "flambeau",
    "vision": "flambeau-vision",
    "text": "flambeau-text",
    "tabular": "flambeau-tabular",
    "bench": "flambeau-bench",
}
UV = os.environ.get("UV") or shutil.which("uv")


def alone(distribution: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` at the root with `distribution`, its dependencies and pytest installed."""
    if UV is None:
        pytest.fail("uv is not on the PATH. Run the tests with `uv run pytest`.")
    removed = ("VIRTUAL_ENV", "PYTHONPATH", "PYTEST_ADDOPTS", "FLAMBEAU_DATA")
    return subprocess.run(
        [
            *(UV, "run", "--isolated", "--frozen", "--no-default-groups"),
            *("--package", distribution, "--with", f"pytest=={version('pytest')}"),
            *command,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key not in removed},
    )


@pytest.mark.slow
@pytest.mark.parametrize("member", DISTRIBUTIONS)
def test_package_alone(member: str) -> None:
    distribution = DISTRIBUTIONS[member]
    if any((ROOT / "tests" / member).rglob("test_*.py")):
        # pytest finds the settings and the conftest of the root through the working directory.
        result = alone(distribution, "pytest", "-q", f"tests/{member}")
    else:
        result = alone(distribution, "python", "-c", f"import {distribution.replace('-', '_')}")
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-4000:]


@pytest.mark.slow
def test_the_environment_of_core_has_no_domain() -> None:
    """Nor any dependency that only a domain requires."""
    absent = ["flambeau_vision", "torchvision", "PIL", "pandas", "sklearn", "spacy"]
    program = (
        "import flambeau; from importlib.util import find_spec; "
        f"print([name for name in {absent} if find_spec(name)])"
    )
    result = alone("flambeau", "python", "-c", program)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
