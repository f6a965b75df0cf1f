"""``ImageOptions(like="export")``: images are read as an export's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner, Plan, Predictor
from flambeau.errors import ArtefactError, InputError, PlanError
from flambeau_vision import ImageData, ImageOptions

CHOICES: dict[str, Any] = {"epochs": 1, "device": "cpu", "probe": "off"}
CLASSES = ("wasp", "ant", "bee")


def folder(root: Path, *classes: str, low: int = 0) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(6):
            level = low + 60 * CLASSES.index(name) + number if name in CLASSES else 5
            Image.new("RGB", (12, 10), (level, level // 2, number)).save(
                root / name / f"{number}.png"
            )
    return root


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    options = ImageOptions(resize="pad", interpolation="bicubic")
    data = ImageData.from_folder(
        folder(root / "all", *CLASSES), size=8, classes=CLASSES, options=options
    )
    return Learner(data, choices=CHOICES, quiet=True).export(root / "export")


def test_two_of_three_classes_keep_order_and_preprocessor(export: Path, tmp_path: Path) -> None:
    options = ImageOptions(like=export)
    data = ImageData.from_folder(folder(tmp_path / "two", "ant", "wasp", low=9), options=options)
    assert data.like == export
    assert data.facts()["class_names"] == list(CLASSES)
    assert (options.size, options.channels, options.resize, options.task) == (
        8, 3, "pad", "classification",
    )  # fmt: skip
    old = Predictor.load(export, device="cpu")
    new = Learner(data, choices=CHOICES, seed=1, quiet=True)
    assert new.built.preprocessor.arguments() == old.preprocessor.arguments()
    assert new.plan.values["start"]["model"] is None
    image = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    further = Learner(data, start=export, choices=CHOICES, quiet=True)
    assert further.plan.values["start"]["head"] == "kept"
    assert torch.allclose(further.predictor().outputs([image]), old.outputs([image]), atol=1e-6)
    assert not torch.allclose(new.predictor().outputs([image]), old.outputs([image]), atol=1e-3)
    assert "without the weights of an export" in further.plan["lr"].reason
    assert "from the weights of the export" in further.plan["trainable"].reason
    for plan in (new.plan, further.plan):
        assert plan["task"].reason.startswith("As in the export")
    again = Learner(data, plan=Plan.from_json(new.plan.to_json()), quiet=True)
    assert again.built.preprocessor.arguments() == old.preprocessor.arguments()


def test_a_class_that_the_export_lacks_is_refused(export: Path, tmp_path: Path) -> None:
    root = folder(tmp_path / "other", "ant", "bee", "hornet")
    with pytest.raises(InputError, match=r"images of hornet, which .* classes are wasp, ant, bee"):
        ImageData.from_folder(root, options=ImageOptions(like=export))
    images = np.zeros((9, 8, 8), dtype=np.uint8)
    with pytest.raises(InputError, match="'hornet', which is not one of the 3 classes"):
        ImageData.from_arrays(
            images, ["ant", "bee", "hornet"] * 3, options=ImageOptions(like=export)
        )


@pytest.mark.parametrize(
    ("option", "value", "saved"),
    [
        ("size", 9, "8"),
        ("channels", 1, "3"),
        ("resize", "crop", "pad"),
        ("interpolation", "bilinear", "bicubic"),
        ("classes", ("ant", "bee"), r"\('wasp', 'ant', 'bee'\)"),
        ("task", "multi_label", "classification"),
    ],
)
def test_other_options_are_refused(export: Path, option: str, value: Any, saved: str) -> None:
    with pytest.raises(InputError, match=rf"{option} is .*, but in the export .* it is '?{saved}"):
        ImageOptions(like=export, **{option: value})
    assert ImageOptions(like=export).updated({"size": 8}).size == 8
    with pytest.raises(InputError, match="size is 16"):
        ImageOptions(like=export).updated({"size": 16})


def test_a_choice_of_another_size_is_refused(export: Path, tmp_path: Path) -> None:
    data = ImageData.from_folder(
        folder(tmp_path / "all", *CLASSES), options=ImageOptions(like=export)
    )
    with pytest.raises(PlanError, match=r"image_size is 16, but the export .* without like="):
        Learner(data, choices={"image_size": 16}, quiet=True)


def test_another_domain_is_refused(export: Path, tmp_path: Path) -> None:
    record = (export / "flambeau.json").read_text()
    (tmp_path / "flambeau.json").write_text(record.replace('"vision"', '"tensors"', 1))
    with pytest.raises(ArtefactError, match="of the domain 'tensors', but the data belong to 'vis"):
        ImageOptions(like=tmp_path)


def test_regression_targets_keep_their_names(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    data = ImageData.from_arrays(images, [0.5 * n for n in range(20)])
    folder_ = Learner(data, choices=CHOICES, quiet=True).export(tmp_path / "export")
    like = ImageData.from_arrays(images, list(range(20)), options=ImageOptions(like=folder_))
    assert like.targets.kind == "regression"
    assert like.targets.names == data.targets.names


def test_presized_images_are_cropped_as_for_the_kept_preprocessor(
    export: Path, tmp_path: Path
) -> None:
    record = json.loads((export / "flambeau.json").read_text())
    record["preprocessor"]["arguments"] |= {"crop": 0.5, "resize": "crop"}
    cropped = tmp_path / "cropped"
    cropped.mkdir()
    for file in export.iterdir():
        (cropped / file.name).write_bytes(file.read_bytes())
    (cropped / "flambeau.json").write_text(json.dumps(record))
    data = ImageData.from_folder(
        folder(tmp_path / "all", *CLASSES), options=ImageOptions(like=cropped)
    )
    augmentation = {"rotate_degrees": 10.0}
    learner = Learner(
        data, choices={**CHOICES, "presize": 16, "augmentation": augmentation}, quiet=True
    )
    [augment] = data.transforms(learner.plan.values)
    assert augment.crop == 0.5  # type: ignore[attr-defined]


def test_tables_are_read_with_the_separator_and_columns_of_the_export(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(12)]
    for number, file in enumerate(files):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(file)
    tags = ["red;big", "red", "big", "red;small"] * 3

    def table(name: str, n: int, header: str = "id,other,tags,seen") -> Path:
        rows = [f"{at},x,{tags[at]},{1 + at % 2}" for at in range(n)]
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
        return tmp_path / name

    options = ImageOptions(sep=";", suffix=".png", weight="seen")
    data = ImageData.from_csv(table("train.csv", 12), "id", "tags", size=8, options=options)
    export = Learner(data, choices=CHOICES, quiet=True).export(tmp_path / "export")
    like = ImageOptions(like=export)
    again = ImageData.from_csv(table("new.csv", 8), options=like)
    assert [again.targets.text(row) for row in range(4)] == [
        data.targets.text(row) for row in range(4)
    ]
    assert again.samples["sample_weight"][1] == 2
    frame = {"path": [f.name for f in files], "labels": [t.replace(";", "|") for t in tags]}
    other = ImageOptions(like=export, sep="|")
    piped = ImageData.from_df(frame, root=tmp_path, options=other)
    assert piped.targets.text(3) == data.targets.text(3)
    assert Learner(again, choices=CHOICES, quiet=True).export(tmp_path / "second")
    third = ImageData.from_csv(tmp_path / "new.csv", options=ImageOptions(like=tmp_path / "second"))
    assert third.options.reading_options == data.options.reading_options


def test_file_names_are_read_with_the_pattern_of_the_export(export: Path, tmp_path: Path) -> None:
    for name in CLASSES:
        for number in range(6):
            (tmp_path / "flat").mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"flat/{name}_{number}.png")
    data = ImageData.from_folder(
        tmp_path / "flat", size=8, options=ImageOptions(pattern="([a-z]+)_")
    )
    saved = Learner(data, choices=CHOICES, quiet=True).export(tmp_path / "export")
    again = ImageData.from_folder(tmp_path / "flat", options=ImageOptions(like=saved))
    assert again.facts()["class_counts"] == data.facts()["class_counts"]
    folders = folder(tmp_path / "folders", *CLASSES)
    nested = ImageData.from_folder(folders, options=ImageOptions(like=saved))
    assert nested.facts()["class_names"] == data.facts()["class_names"]
