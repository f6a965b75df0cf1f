"""Calibration of image models, with one label and with several labels per image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flambeau import Learner, Predictor
from flambeau_vision import ImageData, ImageOptions

RANDOM = np.random.default_rng(0)
CLASSES = RANDOM.integers(0, 2, 200)
# Brighter images are more often "light"; a share of the labels is noise.
IMAGES = np.clip(RANDOM.normal(100 + 20 * CLASSES[:, None, None], 60, (200, 8, 8)), 0, 255).astype(
    np.uint8
)
NOISY = np.where(RANDOM.random(200) < 0.2, 1 - CLASSES, CLASSES)


def calibrated(data: ImageData, folder: Path) -> tuple[Learner, Predictor]:
    learner = Learner(data, "small_cnn", choices={"batch_size": 32, "probe": "off"}, quiet=True)
    learner.fit(3, lr=0.01)
    raw = learner.predictor().outputs(data.raw("valid"))
    result = learner.calibrate()
    for part in ("calibration", "valid"):
        assert len(data.split.part(part))
        assert part in result.parts
    assert (
        result.parts["calibration"].after["log_loss"]
        <= result.parts["calibration"].before["log_loss"]
    )
    loaded = Predictor.load(learner.export(folder / "model"))
    assert loaded.task.calibration == result.values
    assert torch.allclose(loaded.outputs(data.raw("valid")), raw, atol=1e-6)  # the same model
    return learner, loaded


def test_images_with_one_label(tmp_path: Path) -> None:
    data = ImageData.from_arrays(
        IMAGES, NOISY, class_names=["dark", "light"], valid=0.2, calibration=0.3
    )
    learner, loaded = calibrated(data, tmp_path)
    [t] = learner.task.calibration.values()
    raw = data.raw("valid")
    expected = (loaded.outputs(raw).double() / t).softmax(1)[:, 1].tolist()
    found = [each.probabilities["light"] for each in loaded.predict(raw)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_images_with_several_labels(tmp_path: Path) -> None:
    labels = [
        [*(["light"] if one else []), *(["noisy"] if one != clean else [])]
        for one, clean in zip(NOISY, CLASSES, strict=True)
    ]
    options = ImageOptions(task="multi_label", classes=("light", "noisy"))
    data = ImageData.from_arrays(IMAGES, labels, valid=0.2, calibration=0.3, options=options)
    learner, loaded = calibrated(data, tmp_path)
    values = learner.task.calibration
    raw = data.raw("valid")
    p = (loaded.outputs(raw).double() / values["temperature"]).sigmoid()
    chosen = (p >= torch.tensor(values["thresholds"], dtype=torch.float64)).tolist()
    names = data.targets.names
    assert [set(each.labels) for each in loaded.predict(raw)] == [
        {name for name, on in zip(names, row, strict=True) if on} for row in chosen
    ]
