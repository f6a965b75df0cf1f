"""The programs: where they are, what each must reach, and how each is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flambeau_bench.peers.environment import python_of
from flambeau_bench.peers.peer import BASELINES, Peer

ROOT = Path(__file__).parents[5]

PEERS: Mapping[str, str] = {
    "flambeau": "flambeau",
    "fastai": "fastai",
    "keras": "Keras",
    "pytorch-lightning": "Lightning",
    "plain": "plain PyTorch",
}
"""The name of a library's folder in ``baselines``, and its name in tables."""


@dataclass(frozen=True)
class ProgramTask:
    """What the five programs of a task have to do.

    Attributes:
        title: The task in a few words.
        metric: The score on the test part that a program prints last; higher is better.
        required: The score that every program has to reach.
    """

    title: str
    metric: str
    required: float


TASKS: Mapping[str, ProgramTask] = {
    "image_classification": ProgramTask("Image classification", "accuracy", 0.80),
    "fine_tuning": ProgramTask("Fine-tuning", "accuracy", 0.55),
    "translation": ProgramTask("Translation with attention", "BLEU", 5.0),
    "text_classification": ProgramTask("Text classification", "accuracy", 0.82),
    "tabular": ProgramTask("Table with mixed columns", "accuracy", 0.84),
}


class AbsentError(Exception):
    """A program cannot be run here: its library or the checkout is missing."""


def program(peer: str, task: str) -> Path:
    """Return the file of a program."""
    return BASELINES / peer / "programs" / f"{task}.py"


def interpreter(peer: str) -> Path:
    """Return the Python in which the programs of a library run.

    Raises:
        AbsentError: The environment of the library, or its group "programs", is not installed.
    """
    if peer == "flambeau":
        return Path(sys.executable)
    project = Peer(peer, BASELINES / peer)
    python = Path(python_of(project))
    if not (project.is_project and python.exists()):
        missing = peer
    elif not (missing := _missing_packages(python, project.folder)):
        return python
    raise AbsentError(
        f"Not installed: {missing}. In a checkout: "
        f"cd packages/bench/baselines/{peer} && uv sync --frozen --inexact --group programs"
    )


def _missing_packages(python: Path, folder: Path) -> str:
    """Return the packages of the group "programs" that an interpreter lacks; empty if none."""
    declared = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    group: list[str] = declared.get("dependency-groups", {}).get("programs", [])
    names = [match.group() for line in group if (match := re.match(r"[\w.-]+", line))]
    code = (
        "import sys\n"
        "from importlib.metadata import distributions\n"
        "found = {d.metadata['Name'].lower().replace('_', '-') for d in distributions()}\n"
        "print(*[name for name in sys.argv[1:] if name.lower().replace('_', '-') not in found])"
    )
    try:
        done = subprocess.run(
            [python, "-c", code, *names], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise AbsentError(
            f"The environment {python.parent.parent} does not work: {' '.join(why)}. Remove it and "
            "install it again."
        ) from error
    return done.stdout.strip()


def run_program(peer: str, task: str, data: Path) -> float:
    """Run a program on one thread in a folder of links to the data; return its score on test.

    Args:
        peer: A name of ``PEERS``.
        task: A name of ``TASKS``.
        data: The folder that `prepare` wrote. What the program writes beside the links is deleted.

    Raises:
        AbsentError: The library is not installed, or the programs are missing (no checkout).
        RuntimeError: The program failed or its last line is not a number; with its last lines.
    """
    path = program(peer, task)
    if not path.exists():
        raise AbsentError(f"There is no {path}. The programs are in a checkout only.")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "KERAS_BACKEND": "torch",
        "TORCH_HOME": str(data.absolute() / "torch"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with tempfile.TemporaryDirectory() as folder:
        for entry in data.absolute().iterdir():
            (Path(folder) / entry.name).symlink_to(entry)
        done = subprocess.run(
            [interpreter(peer), path],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    last = lines[-1].strip() if lines else ""
    if done.returncode or not re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", last):
        tail = "\n".join([*done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-15:]])
        raise RuntimeError(f"{path} exited with {done.returncode} and no score:\n{tail}")
    return float(last)


def versions(peer: str) -> dict[str, str]:
    """Return the versions of a library and of torch in its environment."""
    names = [] if peer in {"flambeau", "plain"} else [peer]
    names += ["keras-hub"] if peer == "keras" else []
    code = (
        "from importlib.metadata import version\n"
        f"print(*(f'{{name}} {{version(name)}}' for name in {[*names, 'torch']}), sep=chr(10))"
    )
    done = subprocess.run(
        [interpreter(peer), "-c", code], capture_output=True, text=True, check=True
    )
    pairs = (line.split() for line in done.stdout.splitlines())
    return dict(pairs)
