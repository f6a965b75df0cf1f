"""Two processes give the results of one, and a resumed stream those of one that was not stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")
TIMEOUT_S = 200


def run(
    folder: Path, architecture: str, world_size: int, script: Path = SCRIPT
) -> list[dict[str, Any]]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    running = []
    for rank in range(world_size):
        own = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip
        running.append(
            subprocess.Popen(
                [sys.executable, str(script), str(folder), architecture],
                env=environment | (own if world_size > 1 else {}),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    try:
        printed = "\n".join(each.communicate(timeout=TIMEOUT_S)[0] for each in running)
    finally:
        for each in running:
            each.kill()
    assert not any(each.returncode for each in running), printed
    names = [f"{architecture}.{rank}-of-{world_size}.pt" for rank in range(world_size)]
    return [torch.load(folder / name, weights_only=True) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["rnn", "transformer"])
def test_two_processes_equal_one(architecture: str, tmp_path: Path) -> None:
    [alone] = run(tmp_path, architecture, 1)
    both = run(tmp_path, architecture, 2)
    for each in both:
        # Sums in another order, in float64, over eight steps.
        torch.testing.assert_close(each["losses"], alone["losses"], atol=1e-12, rtol=0)
        assert each["bleu"] == pytest.approx(alone["bleu"], abs=1e-9)
        for name, value in alone["weights"].items():
            torch.testing.assert_close(each["weights"][name], value, atol=1e-12, rtol=0)
    for name, value in both[0]["weights"].items():
        assert torch.equal(value, both[1]["weights"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("how", ["error", "signal"])
def test_a_stream_resumes_to_the_bit_in_two_processes(how: str, tmp_path: Path) -> None:
    script = SCRIPT.with_name("stream_processes.py")
    whole = run(tmp_path, "whole", 2, script)
    begun = run(tmp_path, f"begun-{how}", 2, script)
    assert [each["step"] for each in begun] == [9, 9]
    shutil.copytree(tmp_path / how, tmp_path / "alone")
    resumed = run(tmp_path, f"resumed-{how}", 2, script)
    for one, other in zip(whole, resumed, strict=True):
        assert other["losses"] == one["losses"]
        assert len(one["losses"]) > 3 * 9
        assert other["warnings"] == []
        for name, value in one["weights"].items():
            assert torch.equal(other["weights"][name], value), name
    # Another number of processes has other rows: said, and the run continues.
    [alone] = run(tmp_path, "resumed-alone", 1, script)
    assert len(alone["losses"]) == len(whole[0]["losses"])
    [warning] = alone["warnings"]
    assert "has the carried state of 2 ranks, but the run has 1" in warning
