"""Folders with the names of parts beside class folders, and the options that decide."""

from pathlib import Path

import pytest
from PIL import Image

from flambeau import Learner
from flambeau.errors import ArgumentError, InputError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.folder import list_folder


def make(root: Path, *names: str, n: int = 5) -> None:
    for name in names:
        for number in range(n):
            file = root / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, len(str(file)) % 256, 0)).save(file)


@pytest.mark.parametrize("name", ["train", "test", "valid", "Validation"])
def test_a_class_may_have_the_name_of_a_part(tmp_path: Path, name: str) -> None:
    make(tmp_path, "car", "bus", name)
    data = ImageData.from_folder(tmp_path)
    assert data.targets.names == tuple(sorted(["car", "bus", name]))
    assert len(data.samples) == 15
    [reading] = data.readings
    assert f"directly in them, as in the other class folders: {name}" in reading.what
    assert "--classes bus,car" in reading.override
    assert "directly in them" in Learner(data, quiet=True).plan["split"].reason


def test_classes_with_names_of_parts_inside_parts(tmp_path: Path) -> None:
    make(tmp_path, *(f"{part}/{name}" for part in ("train", "test") for name in ("train", "car")))
    listing = list_folder(tmp_path)
    assert listing.classes == ("car", "train")
    assert sorted(set(map(str, listing.parts))) == ["test", "train"]


def test_a_train_folder_with_other_sub_folders_is_asked_for(tmp_path: Path) -> None:
    make(tmp_path, "car", "bus", "train/steam", "train/diesel")
    with pytest.raises(InputError, match=r"two ways.*--parts train=train.*--classes bus,car,train"):
        ImageData.from_folder(tmp_path)
    data = ImageData.from_path(tmp_path, {"classes": "bus,car,train"})
    assert data.targets.counts() == {"bus": 5, "car": 5, "train": 10}
    data = ImageData.from_path(tmp_path, {"parts": "train=train"})
    assert data.targets.names == ("diesel", "steam")


def test_parts_can_be_given(tmp_path: Path) -> None:
    make(tmp_path, *(f"{part}/{name}" for part in ("mine", "eval", "rest") for name in "ab"))
    options = ImageOptions(parts={"mine": "train", "eval": "valid", "rest": "test"})
    data = ImageData.from_folder(tmp_path, options=options)
    assert data.split.sizes() == "10 train, 10 valid, 10 test"
    with pytest.raises(InputError, match=r"folder 'evil', but .*Did you mean 'eval'"):
        ImageData.from_folder(tmp_path, options=ImageOptions(parts={"evil": "valid"}))
    with pytest.raises(InputError, match="parts has 'vlid' for the folder 'eval'"):
        ImageData.from_path(tmp_path, {"parts": "eval=vlid"})
    with pytest.raises(ArgumentError, match="'eval' is not FOLDER=PART"):
        ImageData.from_path(tmp_path, {"parts": "eval"})


def test_no_folder_is_a_part_if_parts_is_empty(tmp_path: Path) -> None:
    make(tmp_path, "train", "test")
    assert ImageData.from_path(tmp_path, {"parts": ""}).targets.names == ("test", "train")


def test_folders_beside_train_are_named_by_the_doctor(tmp_path: Path) -> None:
    make(tmp_path, "train/a", "train/b", "valid/a", "valid/b")
    assert "doubtful-reading" not in Learner(ImageData.from_folder(tmp_path)).doctor().codes
    make(tmp_path, "extra/a")
    make(tmp_path, "val/a", "val/b")
    learner = Learner(ImageData.from_folder(tmp_path), quiet=True)
    found = [each for each in learner.doctor().findings if each.code == "doubtful-reading"]
    assert [each.what.partition(":")[0] for each in found] == [
        "2 folders are the valid part",
        "Folders beside train that are not used",
    ]
    assert "extra=valid" in found[1].fix
