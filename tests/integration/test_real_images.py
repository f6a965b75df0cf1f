"""Real images with automatic plans: Fashion-MNIST arrays, photographs of ants and bees."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from flambeau import Learner, Predictor
from flambeau_vision import ImageData

pytestmark = [pytest.mark.slow, pytest.mark.realdata]


def test_fashion_mnist_reaches_092_on_test(
    realdata: Path, example: Callable[[str], ModuleType]
) -> None:
    """2,110 steps of 128; published networks of this size reach 0.92 to 0.93."""
    learner = Learner(example("fashion_mnist").load(realdata / "fashion_mnist"), quiet=True)
    history = learner.fit()
    assert len(history.step_losses) <= 2_200
    assert learner.plan["lr"].source == learner.plan["architecture"].source == "rule"
    assert learner.evaluate("test")["accuracy"] >= 0.92


@pytest.fixture(scope="module")
def insects(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("insects")
    with tarfile.open(realdata / "hymenoptera" / "hymenoptera.tar") as tar:
        # Python before 3.11.4 has no filters; later ones warn without one.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder)
    return next(path.parent for path in folder.rglob("train") if path.is_dir())


def test_ants_and_bees_from_scratch_beat_the_majority(insects: Path, tmp_path: Path) -> None:
    """Mean accuracy at least 8 points above the majority class; the export predicts the same."""
    scores = []
    for seed in range(3):
        data = ImageData.from_folder(insects)
        learner = Learner(data, seed=seed, quiet=True)
        learner.fit()
        scores.append(learner.evaluate("valid")["accuracy"])
    assert (len(data.split.train), len(data.split.valid)) == (244, 153)
    names = Counter(Path(item).parent.name for item in data.raw("valid"))
    majority = max(names.values()) / names.total()
    assert majority == pytest.approx(0.542, abs=1e-3)
    assert min(scores) > majority
    assert sum(scores) / 3 >= majority + 0.08, scores

    exported = learner.export(tmp_path / "insects")
    files = [str(path) for path in data.raw("valid")[:40]]
    here = learner.predictor().outputs(files)
    there = outputs_in_a_new_process(exported, files, tmp_path / "there.pt")
    assert torch.equal(here, there)
    one_by_one = torch.cat([Predictor.load(exported).outputs([file]) for file in files])
    difference = (one_by_one.softmax(1) - here.softmax(1)).abs().max()
    assert difference <= 1e-6


def outputs_in_a_new_process(exported: Path, files: list[str], to: Path) -> torch.Tensor:
    """Return the export's outputs for the same batches, computed in a new process."""
    program = (
        "import json, sys, torch; from flambeau import Predictor; "
        f"torch.set_num_threads({torch.get_num_threads()}); "
        "files = json.load(sys.stdin); "
        f"predictor = Predictor.load({str(exported)!r}, batch_size=32); "
        f"torch.save(predictor.outputs(files), {str(to)!r})"
    )
    subprocess.run([sys.executable, "-c", program], input=json.dumps(files), text=True, check=True)
    return torch.load(to, weights_only=True)
