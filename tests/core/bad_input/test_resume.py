"""A checkpoint that does not fit the run is refused and leaves the learner unchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Data, Learner, TensorData
from flambeau.artefact.checkpoint_files import latest_checkpoint, load_checkpoint, save_checkpoint
from flambeau.errors import ArtefactError, FlambeauError, ResumeError

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


def make(
    folder: Path | None, data: Data | None = None, model: Any = None, **options: Any
) -> Learner:
    choices = {"batch_size": 8, **options.pop("choices", {})}
    data = data or TensorData.from_tensors(X, Y)
    return Learner(data, model, quiet=True, folder=folder, choices=choices, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "run"
    make(folder).fit(2)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": nn.Linear(6, 3)}, "is 'mlp', but this learner's is 'Linear'"),
        (
            {"data": TensorData.from_tensors(X[:, :5], Y)},
            r"body.0.weight: \[256, 6\] in the checkpoint",
        ),
        (
            {"data": TensorData.from_tensors(X[:40], Y[:40])},
            "batches in an epoch is 6 in the checkpoint and 4",
        ),
        ({"data": TensorData.from_tensors(X + 1, Y)}, "data is first and last train rows"),
        ({"data": TensorData.from_tensors(X, Y, seed=5)}, "data is train rows: 48"),
        ({"data": TensorData.from_tensors(X, Y.flip(0))}, "belongs to another run: data is"),
        (
            {"data": TensorData.from_tensors(X, Y % 2)},
            r"\[3, 128\] in the checkpoint and head.weight: \[2, 128\]",
        ),
        ({"seed": 3}, "seed is 0 in the checkpoint and 3 in this run"),
        ({"choices": {"batch_size": 4}}, "batch_size is 4 in this learner, but 8 in the run"),
    ],
)
def test_another_run_is_refused(run: Path, options: dict[str, Any], message: str) -> None:
    learner = make(run, **options)
    plan = learner.plan
    with pytest.raises(ResumeError, match=message):
        learner.resume()
    assert learner.plan == plan
    assert learner.history.rows == []


def test_the_same_run_is_continued(run: Path) -> None:
    assert len(make(run).resume().rows) == 2


def test_workers_and_device_may_differ(run: Path) -> None:
    learner = make(run, choices={"device": "cpu", "num_workers": 0})
    learner.resume()
    assert learner.plan["num_workers"].source == "user"


def test_a_newer_version_is_named(run: Path) -> None:
    found = latest_checkpoint(run)
    assert found is not None
    state = json.loads((found / "state.json").read_text())
    (found / "state.json").write_text(json.dumps(state | {"schema_version": 2}))
    with pytest.raises(ArtefactError, match=r"schema_version 2, but .* flambeau reads 1. Update"):
        make(run).resume(found)


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match=r"There is no checkpoint in .*none"):
        make(tmp_path / "none").resume()
    assert not (tmp_path / "none").exists()


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("position"), "'position' is missing"),
        (lambda tree: tree.update(plan=[]), "'plan' is list"),
        (lambda tree: tree["position"].update(step=-1), "'position' is .*-1"),
        (lambda tree: tree["position"].update(phase=9), "its position is phase 10 of 1"),
        (lambda tree: tree["phases"][0].pop("trainable"), "phases in .* are invalid: KeyError"),
        (lambda tree: tree.update(phases=[]), "its position is phase"),
        (lambda tree: tree["optimizers"].pop("main"), "does not fit this run: KeyError: 'main'"),
        (lambda tree: tree["model"].pop("head.bias"), "does not fit this run: RuntimeError"),
        (lambda tree: tree.update(losses=3), "does not fit this run"),
        (lambda tree: tree.update(generators={}), "does not fit this run"),
    ],
)
def test_an_incomplete_checkpoint_changes_nothing(
    run: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    found = latest_checkpoint(run)
    assert found is not None
    tree = load_checkpoint(found)
    change(tree)
    save_checkpoint(run, tree, 99)
    learner = make(None)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    drawn = torch.get_rng_state()
    with pytest.raises(FlambeauError, match=message):
        learner.resume(run)
    after = learner.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert learner.history.rows == []
    assert torch.equal(torch.get_rng_state(), drawn)
    assert len(learner.fit(1).rows) == 1  # training is still possible
