"""``flambeau launch``: its torchrun command line, and one real start of two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flambeau.cli.launch_command import torchrun_command
from flambeau.distributed import processes
from flambeau.errors import ArgumentError, TrainingError

SCRIPT = """
import sys
import torch
from flambeau import TensorData, Learner
x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
learner = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), folder="run")
learner.fit(1)
# In one write: print makes several, between which those of the other process may fall.
sys.stdout.write(f"score {learner.evaluate()['accuracy']}\\n")
"""


def test_a_script_keeps_its_own_arguments(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.touch()
    command = torchrun_command([str(script), "--processes", "9"], 2)
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert "--nproc-per-node=2" in command
    assert command[-3:] == [str(script), "--processes", "9"]


def test_fit_is_launched_as_a_command() -> None:
    assert torchrun_command(["fit", "photos"], 2)[-4:] == ["-m", "flambeau.cli", "fit", "photos"]


def test_a_missing_script_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"Cannot launch 'trian.py': no such file"):
        torchrun_command(["trian.py"], 2)


def test_without_torchrun_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert processes.initialize() is None
    assert processes.run_on_main(lambda: 3) == 3


def test_a_missing_master_addr_names_the_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(TrainingError, match=r"MASTER_ADDR.* is not set.*flambeau launch"):
        processes.initialize()


@pytest.mark.slow
def test_the_same_script_runs_with_and_without_launch(tmp_path: Path) -> None:
    flambeau = Path(sys.executable).with_name("flambeau")
    quiet = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    scores = []
    for name, command in (
        ("alone", [sys.executable, "train.py"]),
        ("launched", [str(flambeau), "launch", "--processes", "2", "train.py"]),
    ):
        folder = tmp_path / name  # a run folder is used once
        folder.mkdir()
        (folder / "train.py").write_text(SCRIPT)
        done = subprocess.run(
            command, cwd=folder, env=quiet, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        # One table of progress, whoever prints besides.
        assert done.stderr.count("train_loss") == 1
        scores.append(set(done.stdout.splitlines()))
    assert scores[0] == scores[1]
    assert len(scores[0]) == 1
