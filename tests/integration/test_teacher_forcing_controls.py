"""The second study of teacher forcing at a tiny size: controls, choices on valid, and resuming."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    module = import_module("teacher_forcing_controls")  # it imports the example beside it
    small = module.sticky_states

    def few(n: int, seed: int) -> Any:
        return [(seen[:12], hidden[:12]) for seen, hidden in small(min(n, 16), seed)]

    monkeypatch.setattr(module, "sticky_states", few)
    monkeypatch.setattr(module, "CHANGING_EPOCHS", 3)
    monkeypatch.setattr(module, "SEEDS", {"changing": range(1)})
    monkeypatch.setattr(module, "FLOORS", {"changing": (0.25, 0.5)})
    yield module
    for name in ("teacher_forcing_controls", "teacher_forcing"):
        del sys.modules[name]


@pytest.mark.slow
def test_a_tiny_run_is_resumed_and_complete(study: ModuleType, tmp_path: Path) -> None:
    out, work = tmp_path / "controls.jsonl", tmp_path / "work"
    assert not study.run_all(out, work, minutes=-1.0)
    assert not out.exists()
    original, calls = study.scores, []

    def scores(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*given)

    study.scores = scores  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        study.run_all(out, work, minutes=10.0)
    assert len(study.read_lines(out)) == 3
    assert study.run_all(out, work, minutes=10.0)
    lines = study.read_lines(out)
    assert len(lines) == 2 * 2 + 5
    # Jobs that choose a floor see no test; the others have the floor that is best on valid.
    for way in ("token", "word dropout"):
        tried = [line for line in lines if line["way"] == way and line["seed"] == 100]
        assert not any("test" in line for line in tried)
        best = max(tried, key=lambda line: line["valid"])["floor"]
        [scored] = [line for line in lines if line["way"] == way and line["seed"] == 0]
        assert scored["floor"] == best
    assert {line["way"] for line in lines if "test" in line} == set(study.WAYS)
    assert all(len(line["valid_free_running_gap"]) == line["epochs"] for line in lines)
    assert study.table(lines).count("\n") == 1 + 5


def test_the_noise_follows_its_stage_and_leaves_the_loss_alone(study: ModuleType) -> None:
    tokens = torch.randint(4, 12, (200, 50), generator=torch.Generator().manual_seed(0))
    batch = study.Batch({"source": tokens}, indices=torch.arange(200))
    task = study.ControlledTask.__new__(study.ControlledTask)
    task.stages, task.epochs = (0.57, 0.057, 0.57), 15
    for stage, epoch, rate in [("train", 4, 0.57), ("valid", 5, 0.057), ("train", 14, 0.57),
                               ("evaluate", 0, 0.57)]:  # fmt: skip
        context = study.StepContext(stage, epoch=epoch)
        noisy = task._observed(batch, context).inputs["source"]
        right = float((noisy == tokens).double().mean())
        # A random state of eight is right by chance; 10,000 draws, four standard errors.
        assert abs(right - (1 - rate * 7 / 8)) < 4 * 0.5 / 100
        assert int(noisy.min()) >= 4
        assert int(noisy.max()) < 12
        assert torch.equal(noisy, task._observed(batch, context).inputs["source"])
