"""Each package alone: its tests, or its import, with nothing but its dependencies installed.

In the workspace's shared environment an import of a sibling, or of a sibling's dependency, works by
accident. The environments come from uv's cache by hard links; a cold cache downloads torch.
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
    """Run `command` at the root with `distribution`, what it asks for, and pytest."""
    if UV is None:
        pytest.fail("uv is not on the PATH: run the tests with `uv run pytest`")
    left_out = ("VIRTUAL_ENV", "PYTHONPATH", "PYTEST_ADDOPTS", "FLAMBEAU_DATA")
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
        env={key: value for key, value in os.environ.items() if key not in left_out},
    )


@pytest.mark.slow
@pytest.mark.parametrize("member", DISTRIBUTIONS)
def test_package_alone(member: str) -> None:
    distribution = DISTRIBUTIONS[member]
    if any((ROOT / "tests" / member).rglob("test_*.py")):
        # pytest finds the root's settings and conftest by itself from the folder it runs in.
        answer = alone(distribution, "pytest", "-q", f"tests/{member}")
    else:
        answer = alone(distribution, "python", "-c", f"import {distribution.replace('-', '_')}")
    assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-4000:]


@pytest.mark.slow
def test_alone_means_alone() -> None:
    """Core's environment holds no domain and nothing that only a domain asks for."""
    absent = ["flambeau_vision", "torchvision", "PIL", "pandas", "sklearn", "spacy"]
    program = (
        "import flambeau; from importlib.util import find_spec; "
        f"print([name for name in {absent} if find_spec(name)])"
    )
    answer = alone("flambeau", "python", "-c", program)
    assert answer.stdout.strip() == "[]", answer.stdout + answer.stderr
