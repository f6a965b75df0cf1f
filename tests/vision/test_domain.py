import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau.domain import Recognition, get_domain
from flambeau.plan import CORE_RULES, Plan, combine
from flambeau_vision import ImageData
from flambeau_vision.augment import Augmentation
from flambeau_vision.domain import DOMAIN, recognise
from flambeau_vision.recipes import MIN_EPOCHS, RECIPES

FACTS = {
    "n_train": 800,
    "n_valid": 200,
    "n_test": 0,
    "n_images": 1000,
    "split": "random",
    "in_memory": False,
    "short_side_min": 100,
    "short_side_median": 375.0,
    "short_side_max": 2000,
    "same_size": False,
    "grey": False,
    "modes": {"RGB": 800},
    "formats": {"JPEG": 800},
    "label_kind": "classification",
    "target_dtype": "int64",
    "target_shape": [],
    "target_distinct": 2,
    "target_min": 0,
    "target_max": 1,
    "target_binary": True,
    "class_names": ["ants", "bees"],
    "class_counts": [400, 400],
}
SMALL = {"short_side_median": 28.0, "grey": True, "in_memory": True, "memory_bytes": 47_040_000}


@pytest.fixture(autouse=True)
def any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a plan be derived for a GPU on a machine without one."""
    monkeypatch.setattr("flambeau.plan.value_types.DeviceType.fault", lambda self, value: None)


def plan_of(facts: dict | None = None, **user: object) -> Plan:
    rules = combine(CORE_RULES, DOMAIN.rules)
    return Plan.derive(rules, {**FACTS, **(facts or {})}, {"device": "cpu", **user})


def test_the_package_is_found() -> None:
    assert get_domain("vision") is DOMAIN


def test_every_value_has_a_reason_and_an_override() -> None:
    plan = plan_of()
    for key in (
        "image_size", "channels", "cache", "augmentation", "normalisation", "architecture",
        "weights", "lr", "epochs", "memory_format", "num_workers", "weight_decay", "task",
    ):  # fmt: skip
        assert plan[key].reason
        assert plan[key].override
        json.dumps(plan[key].value)


@pytest.mark.parametrize(
    ("side", "user", "size"),
    [
        (28, {}, 28),
        (64, {}, 64),
        (65, {}, 64),
        (100, {}, 96),
        (375, {}, 128),
        (375, {"device": "cuda:0"}, 224),
        (150, {"device": "cuda:0"}, 160),
        (375, {"architecture": "resnet18", "weights": "DEFAULT"}, 224),
        (28, {"architecture": "vit_b_16"}, 32),
    ],
)
def test_image_size(side: float, user: dict, size: int) -> None:
    choice = plan_of({"short_side_median": float(side)}, **user)["image_size"]
    assert choice.value == size
    assert "weights" in choice.reason or f"{side:g}" in choice.reason


def test_channels_follow_the_images() -> None:
    assert plan_of()["channels"].value == 3
    assert plan_of({"grey": True, "modes": {"L": 800}})["channels"].value == 1
    assert plan_of({"array_channels": 7})["channels"].value == 7


@pytest.mark.parametrize(
    ("facts", "user", "architecture"),
    [
        ({}, {}, "small_cnn"),
        ({"n_train": 50_000}, {"device": "cuda:0"}, "resnet18"),
        ({}, {"device": "cuda:0"}, "small_cnn"),
        ({**SMALL, "n_train": 50_000}, {"device": "cuda:0"}, "small_cnn"),
        ({}, {"weights": "DEFAULT"}, "resnet18"),
    ],
)
def test_architecture(facts: dict, user: dict, architecture: str) -> None:
    plan = plan_of(facts, **user)
    assert plan["architecture"].value == architecture
    assert plan["lr"].value == pytest.approx(
        RECIPES[architecture].lr_pretrained if "weights" in user else RECIPES[architecture].lr
    )


def test_the_cache_is_limited_to_a_share_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 1000 * 3 * 128 * 128
    monkeypatch.setattr("flambeau_vision.rules.available_memory_bytes", lambda: needed * 4 + 4)
    plan = plan_of(presize=None)
    assert plan["cache"].value == "memory"
    assert plan["num_workers"].value == 0
    assert "49.2 MB" in plan["cache"].reason
    monkeypatch.setattr("flambeau_vision.rules.available_memory_bytes", lambda: needed * 4)
    monkeypatch.setattr("flambeau_vision.rules.available_cache_bytes", lambda folder: needed + 1)
    plan = plan_of(presize=None)
    assert plan["cache"].value == "disk"
    assert plan["num_workers"].value == 0
    monkeypatch.setattr("flambeau_vision.rules.available_cache_bytes", lambda folder: needed)
    plan = plan_of(presize=None)
    assert plan["cache"].value == "files"
    assert plan["num_workers"].value > 0
    assert plan_of(SMALL)["cache"].value == "memory"


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (["ants", "bees"], True),
        (["0", "1", "10"], False),
        (["A", "b"], False),
        (["turn_left", "turn_right", "straight"], False),
        (["leftover", "bright"], True),
        (["hand (L)", "hand (R)"], False),
    ],
)
def test_flip_follows_the_class_names(names: list[str], flip: bool) -> None:
    choice = plan_of({"class_names": names})["augmentation"]
    assert choice.value["flip"] is flip
    assert Augmentation.from_json(choice.value).resamples
    small = plan_of({**SMALL, "class_names": names})["augmentation"]
    assert small.value["flip"] is flip
    assert not Augmentation.from_json(small.value).resamples


@pytest.mark.parametrize(("epochs", "is_long"), [(79, False), (80, True)])
def test_a_long_run_is_augmented_more_strongly(epochs: int, is_long: bool) -> None:
    photographs, small = plan_of(epochs=epochs), plan_of(SMALL, epochs=epochs)
    strong = Augmentation.from_json(photographs["augmentation"].value)
    assert (strong.shift, strong.zoom[1], strong.changes_colors) == (
        (0.15, 2.2, True) if is_long else (0.05, 1.5, False)
    )
    assert (photographs["mixing"].value is not None) is is_long
    assert Augmentation.from_json(small["augmentation"].value).shift == (0.125 if is_long else 0.0)
    assert small["mixing"].value is None
    assert plan_of(SMALL, epochs=epochs, augmentation=None)["augmentation"].value is None


def test_the_epochs_of_a_run_in_steps_decide_its_augmentation() -> None:
    plan = plan_of(steps=20_000)  # of the 800 images of FACTS
    n_steps = -(-800 // plan.values["batch_size"])
    assert plan.values["epochs"] == -(-20_000 // n_steps)
    assert plan["augmentation"].value["shift"] == 0.15


def test_regression_is_not_augmented() -> None:
    facts = {"label_kind": "regression", "target_dtype": "float32"}
    assert plan_of(facts)["augmentation"].value is None
    assert plan_of(facts)["task"].value == "regression"


def test_normalisation_follows_the_weights(tmp_path: Path) -> None:
    assert plan_of()["normalisation"].value == "train"
    published = plan_of(architecture="resnet18", weights="IMAGENET1K_V1")
    assert published["normalisation"].value == "weights"
    unknown = plan_of(architecture="resnet18", weights=str(tmp_path / "mine.pth"))
    assert unknown["normalisation"].value == "train"


def test_epochs_are_bounded() -> None:
    assert plan_of({"n_train": 100})["epochs"].value == 40
    assert plan_of({"n_train": 1_000_000})["epochs"].value == MIN_EPOCHS
    more = plan_of({"n_train": 20_000}, device="cuda:0")["epochs"].value
    assert more > plan_of({"n_train": 20_000})["epochs"].value


def test_the_demo_can_be_built_from_its_plan() -> None:
    data = DOMAIN.demo(64, 0)
    plan = Plan.derive(combine(CORE_RULES, DOMAIN.rules), data.facts(), data.choices)
    assert isinstance(data, ImageData)
    model = DOMAIN.models[plan.values["architecture"]](
        **data.model_arguments(data.preprocessor(plan.values), plan.values)
    )
    preprocessor = data.preprocessor(plan.values)
    batch = preprocessor.on_device(preprocessor.encode(data.raw("test")))
    task = DOMAIN.tasks[plan.values["task"]](
        **data.task_arguments(data.preprocessor(plan.values), plan.values)
    )
    model.eval()
    predictions = task.decode(model(batch.input).detach())
    data.show_predictions(predictions, part="test", n=4)
    assert {prediction.label for prediction in predictions} <= set(data.facts()["class_names"])


def test_recognise(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(np.zeros((4, 4), np.uint8))
            image.save(tmp_path / "photos" / name / f"{number}.png")
    found = recognise(tmp_path / "photos", {})
    assert found == Recognition("sure", "Its sub-folders have images (6 of 6).")
    for number in range(7):
        (tmp_path / "photos" / "bee" / f"{number}.txt").write_text("a")
    found = recognise(tmp_path / "photos", {})
    assert found == Recognition("possible", "Its sub-folders have images (6 of 13).")
    found = recognise(tmp_path / "photos" / "ant", {})
    assert found == Recognition("possible", "It has images, but no class folders.")
    assert recognise(tmp_path / "photos" / "ant" / "0.png", {}) is not None
    (tmp_path / "empty").mkdir()
    assert recognise(tmp_path / "empty", {}) is None


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (b"file,label\nx.png,1\n", {}, ("sure", "Its column 'file' has image files (x.png).")),
        (b"text,label\nhello,1\n", {}, ("no", "None of its columns (text, label) has image paths")),
        (b"\xff\xfe\x00", {}, ("no", "UTF-16")),
        (b"f,a,b\nx.png,1,2\n", {}, ("possible", "Name the column of the labels with --target.")),
        (b"f,a,b\nx.png,1,2\n", {"target": "a"}, ("sure", "Its column 'f' has image files")),
        (b"f,g,a\nx.png,y.png,2\n", {}, ("no", "Several of its columns")),
        (b"f,g,a\nx.png,y.png,2\n", {"file": "f"}, ("sure", "--file says that its column 'f'")),
    ],
)
def test_recognise_tables(
    tmp_path: Path, content: bytes, options: dict[str, str], expected: tuple[str, str]
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    found = recognise(tmp_path / "a.csv", options)
    assert found is not None
    assert found.certainty == expected[0]
    assert expected[1] in found.reason
