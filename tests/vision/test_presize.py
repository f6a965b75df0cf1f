import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner, Predictor
from flambeau import random as keyed
from flambeau.data.loader import LoaderOptions
from flambeau.errors import PlanError
from flambeau.plan import CORE_RULES, Plan, combine
from flambeau_vision import ImageData
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.domain import DOMAIN
from flambeau_vision.geometric_warp import N_DRAWS, forward_matrices, keep_inside, sampling_grid
from flambeau_vision.load_images import load_all
from flambeau_vision.preprocess import resize_presized
from flambeau_vision.presize import part_geometry, presize_side
from flambeau_vision.resize import Geometry

ZOOMS = {"flip": True, "rotate_degrees": 10.0, "zoom": [1.0, 1.5], "shift": 0.05}
VALUES = {
    "image_size": 32,
    "channels": 3,
    "cache": "memory",
    "normalisation": "train",
    "augmentation": ZOOMS,
    "presize": 40,
}


def photographs(n: int = 12, side: int = 70) -> ImageData:
    random = np.random.default_rng(0)
    images = []
    for _ in range(n):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        images.append(np.asarray(coarse.resize((side + 18, side), Image.Resampling.BICUBIC)))
    return ImageData.from_items([(image, "ab"[i % 2]) for i, image in enumerate(images)])


def batch_of(data: ImageData, part: str, values: dict):
    dataset = data.dataset(part, data.preprocessor(values), values)
    return next(iter(dataset.loader(LoaderOptions(batch_size=100)).batches(0)))


@pytest.mark.parametrize(
    ("size", "crop", "short_side", "side"),
    [(128, 1.0, 375, 160), (128, 1.0, 150, 150), (128, 1.0, 140, None), (128, 1.0, 100, None),
     (224, 0.875, 375, 320), (224, 0.875, 300, 300), (32, 1.0, 33, None)],
)  # fmt: skip
def test_presize_side_is_limited_by_the_images(
    size: int, crop: float, short_side: float, side: int | None
) -> None:
    assert presize_side(size, crop, short_side) == side


@pytest.mark.parametrize("cache", ["memory", "files"])
def test_only_train_is_read_larger(cache: str) -> None:
    data, values = photographs(), {**VALUES, "cache": cache}
    assert batch_of(data, "train", values).input.shape[2:] == (40, 40)
    assert batch_of(data, "valid", values).input.shape[2:] == (32, 32)
    expected = load_all(list(data.raw("train")), Geometry(40, 3))
    assert torch.equal(batch_of(data, "train", values).input, expected)


@pytest.mark.parametrize("cache", ["memory", "files"])
def test_train_batches_are_resized_on_the_device(cache: str) -> None:
    data, values = photographs(), {**VALUES, "cache": cache}
    batch = batch_of(data, "train", values)
    (augment,) = data.transforms(values)
    augmented = augment(batch, seed=0)
    assert augmented.input.shape == (len(batch), 3, 32, 32)
    prepare = data.preprocessor(values)
    for seen in (augmented, batch):  # metrics on train are computed without augmentation
        assert prepare.on_device(seen).input.shape == (len(batch), 3, 32, 32)


@pytest.mark.parametrize("crop", [1.0, 0.8])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_metrics_on_train_use_the_view_of_validation(crop: float, resize: str) -> None:
    items = list(photographs(20).raw("train"))
    geometry = Geometry(32, 3, resize, crop)
    values = {"presize": 50, "augmentation": ZOOMS}
    larger = load_all(items, part_geometry("train", geometry, values))
    given = resize_presized(larger, geometry)
    expected = load_all(items, geometry).float()
    difference = (given - expected).abs()
    # Pillow and torch resize differently, and the centre crop may start at another pixel; with a
    # field of view that is a tenth off, the mean is above 17.
    assert difference.max() < 15
    assert difference.mean() < 2


def test_presize_does_not_affect_valid_and_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = photographs(24)
    choices = {"image_size": 32, "epochs": 1, "batch_size": 8, "augmentation": ZOOMS}
    with_presize = Learner(data, "small_cnn", choices={**choices, "presize": 40})
    with_presize.fit()
    exported = Predictor.load(with_presize.export(tmp_path / "exported"))
    raw = list(data.raw("valid"))
    learnt, loaded = (
        [prediction.probabilities for prediction in model.predict(raw)]
        for model in (with_presize, exported)
    )
    assert learnt == loaded
    prepare = data.preprocessor(VALUES)
    shown = prepare.encode(raw).input
    assert torch.equal(shown, batch_of(data, "valid", VALUES).input)
    # Metrics on train are computed at the final size too.
    assert set(with_presize.evaluate("train")) == set(with_presize.evaluate("valid"))


def test_statistics_are_measured_on_presized_images() -> None:
    data = photographs()
    larger = data.preprocessor(VALUES)
    plain = data.preprocessor({**VALUES, "presize": None})
    assert larger.mean == pytest.approx(plain.mean, abs=0.01)
    assert larger.std == pytest.approx(plain.std, abs=0.02)  # more detail, larger std
    assert larger.geometry == plain.geometry


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": None}, "does not resample"),
        ({"augmentation": {"rotate_degrees": 0, "zoom": [1, 1]}}, "does not resample"),
        ({"presize": 20}, r"whole number of pixels, at least image_size=32\. Use about 40"),
        ({"presize": 40.5}, "whole number of pixels"),
    ],
)
def test_an_invalid_presize_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        photographs().preprocessor({**VALUES, **changes})


# ---------------------------------------------------------------- the plan


FACTS = {
    "n_train": 800, "n_valid": 200, "n_test": 0, "n_images": 1000, "split": "random",
    "in_memory": False, "short_side_min": 100, "short_side_median": 375.0, "short_side_max": 2000,
    "same_size": False, "grey": False, "modes": {"RGB": 800}, "formats": {"JPEG": 800},
    "label_kind": "classification", "target_dtype": "int64", "target_shape": [],
    "target_distinct": 2, "target_min": 0, "target_max": 1, "target_binary": True,
    "class_names": ["ants", "bees"], "class_counts": [400, 400],
}  # fmt: skip


def plan_of(facts: dict | None = None, **user: object) -> Plan:
    rules = combine(CORE_RULES, DOMAIN.rules)
    return Plan.derive(rules, {**FACTS, **(facts or {})}, {"device": "cpu", **user})


FINE_TUNED = {"architecture": "resnet18", "weights": "DEFAULT"}


def test_the_plan_presizes_for_pretrained_weights() -> None:
    # The weights were trained on the centre of 256 pixels: a quarter more than 256.
    choice = plan_of(**FINE_TUNED)["presize"]
    assert choice.value == 320
    assert "read at 320 pixels and resized to 224" in choice.reason
    small = plan_of({"short_side_median": 270.0}, **FINE_TUNED)["presize"]
    assert small.value is None
    assert "hardly larger than the 256 pixels" in small.reason
    assert plan_of(**FINE_TUNED, augmentation=None)["presize"].value is None


def test_from_scratch_presize_is_an_alternative() -> None:
    choice = plan_of()["presize"]
    assert (choice.value, choice.alternatives) == (None, (160,))
    assert "0.72" in choice.reason
    assert "does not resample" in plan_of(augmentation=None)["presize"].reason


def test_memory_includes_presized_train_images() -> None:
    evidence = plan_of(presize=160)["cache"].evidence["bytes"]
    assert evidence == 3 * (200 * 128**2 + 800 * 160**2)
    assert plan_of()["cache"].evidence["bytes"] == 3 * 1000 * 128**2


# ---------------------------------------------------------------- corners


def reflected_share(side: int, size: int, n: int = 2000) -> float:
    """Return the share of pixels of augmented images that are outside the original image."""
    augmentation = Augmentation(zoom=(1.0, 1.5))
    draws = keyed.uniform(0, "test", 0, torch.arange(n), N_DRAWS)
    forward = forward_matrices(augmentation, draws, (size, size), size / side)
    if side != size:
        forward = keep_inside(forward, (side, side), (size, size))
    grid = sampling_grid(forward, (side, side), (size, size), torch.device("cpu"))
    return (grid.abs() > 1.0).any(3).float().mean().item()


def test_presized_images_have_no_reflected_corners() -> None:
    # The default augmentation of photographs: 1.6 % of all pixels, in 36 % of the images.
    assert 0.005 < reflected_share(32, 32) < 0.05
    assert reflected_share(40, 32) == 0.0


@pytest.mark.realdata
@pytest.mark.slow
def test_ants_and_bees_have_real_corners(tmp_path: Path) -> None:
    folder = os.environ.get("FLAMBEAU_DATA")
    if folder is None:
        pytest.skip("FLAMBEAU_DATA is not set")
    with tarfile.open(Path(folder) / "hymenoptera" / "hymenoptera.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    root = next(path.parent for path in tmp_path.rglob("train") if path.is_dir())
    data = ImageData.from_folder(root)
    values = Learner(data, choices={"device": "cpu", "presize": 160}).plan.values
    assert (values["image_size"], values["presize"]) == (128, 160)
    assert reflected_share(128, 128, 200) > 0.005
    assert reflected_share(values["presize"], values["image_size"], 200) == 0.0
    batch = batch_of(data, "train", values)
    (augment,) = data.transforms(values)
    assert batch.input.shape[2:] == (160, 160)
    assert augment(batch, seed=0).input.shape[2:] == (128, 128)
