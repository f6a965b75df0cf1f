"""Folders whose names only hint at parts, folders around folders, and folders of the system."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from flambeau.errors import InputError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.folder import FolderListing, list_folder


def touch(root: Path, *folders: str, n: int = 2) -> Path:
    """Create ``n`` files named like images in each folder."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for index in range(n):
            (root / folder / f"{index}.png").touch()
    return root


def doubts(listing: FolderListing) -> str:
    """Return the doubtful readings and how to change them."""
    found = [reading for reading in listing.readings if reading.confidence < 0.5]
    return " ".join(f"{reading.what} {reading.override}" for reading in found)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train", "seg_test"),
        ("asl_alphabet_train", "asl_alphabet_test"),
        ("Train80", "Test20"),
        ("train_1", "test_1"),
        ("animalsTrain", "animalsVal"),
    ],
)
def test_words_of_parts_in_the_names_of_all_folders_are_asked_for(
    tmp_path: Path, train: str, test: str
) -> None:
    touch(tmp_path, f"{train}/ant", f"{train}/bee", f"{test}/ant", f"{test}/bee")
    part = "valid" if test.endswith("Val") else "test"
    with pytest.raises(InputError, match=rf"--parts .*{test}={part}.*--classes") as error:
        list_folder(tmp_path)
    assert f"'{train}': 'train'" in str(error.value)
    found = list_folder(tmp_path, parts={train: "train", test: part})
    assert (found.classes, set(found.parts)) == (("ant", "bee"), {"train", part})
    assert list_folder(tmp_path, classes=[train, test]).classes == (train, test)


def test_words_of_parts_are_asked_for_beside_an_unlabelled_folder(tmp_path: Path) -> None:
    touch(tmp_path, *(f"seg_{part}/seg_{part}/{c}" for part in ("train", "test") for c in "ab"))
    touch(tmp_path, "seg_pred/seg_pred")
    with pytest.raises(InputError, match=r"seg_test .*, seg_train .*have the words of parts"):
        list_folder(tmp_path)
    with pytest.raises(InputError, match=r"seg_train/seg_train.*sub-folders a, b.*one level up"):
        list_folder(tmp_path, parts={"seg_train": "train", "seg_test": "test"})


def test_single_classes_with_words_of_parts_in_their_names_stay_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train_station", "test_tube", "bus", "car")
    found = list_folder(tmp_path)
    assert found.classes == ("bus", "car", "test_tube", "train_station")
    assert not found.readings


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("entrenamiento", "validación", "pruebas"),
        ("Trainingsdaten", "Validierung", "Testdaten"),
        ("apprentissage", "validation", "test"),
        ("treino", "validação", "teste"),
        ("训练集", "验证集", "测试集"),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_parts_are_recognised_in_other_languages(
    tmp_path: Path, train: str, valid: str, test: str, form: str
) -> None:
    names = [unicodedata.normalize(form, name) for name in (train, valid, test)]
    touch(tmp_path, *(f"{name}/{label}" for name in names for label in ("ant", "bee")))
    found = list_folder(tmp_path)
    assert found.classes == ("ant", "bee")
    assert sorted(set(found.parts)) == ["test", "train", "valid"]


def test_folders_with_the_same_sub_folders_are_doubtful(tmp_path: Path) -> None:
    touch(tmp_path, "first/ant", "first/bee", "second/ant", "second/bee")
    touch(tmp_path, "first/cow")
    found = list_folder(tmp_path)
    assert found.classes == ("first", "second")
    assert "have the sub-folders" not in doubts(found)
    assert "has the sub-folders ant, bee" in doubts(found)
    assert "--parts first=train,second=test" in doubts(found)
    assert not doubts(list_folder(tmp_path, classes=["first", "second"]))
    assert not doubts(list_folder(touch(tmp_path / "n", "cat/images", "dog/images")))


def test_evaluated_folders_may_have_the_names_of_parts_if_the_model_has(tmp_path: Path) -> None:
    touch(tmp_path / "flat", "train", "test")
    classes = ["bus", "test", "train"]
    found = list_folder(tmp_path / "flat", classes, for_training=False)
    assert (set(found.labels), set(found.parts)) == ({"train", "test"}, {None})
    touch(tmp_path / "parts", "train/bus", "train/train", "test/bus", "test/test")
    found = list_folder(tmp_path / "parts", classes, for_training=False)
    assert set(zip(found.labels, found.parts, strict=True)) == {
        ("bus", "train"), ("train", "train"), ("bus", "test"), ("test", "test"),
    }  # fmt: skip
    # A command that evaluates has no --classes.
    with pytest.raises(InputError, match="--parts ''") as error:
        list_folder(tmp_path / "flat", ["ant", "bee"], for_training=False)
    assert "--classes" not in str(error.value)


def test_the_inner_of_several_folders_around_the_classes_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "archive/PetImages/Cat", "archive/PetImages/Dog")
    with pytest.raises(InputError, match=r"If Cat, Dog are the classes .*archive/PetImages"):
        list_folder(tmp_path)
    with pytest.raises(InputError, match=r"has images of archive.*archive/PetImages"):
        list_folder(tmp_path, ["Cat", "Dog"], for_training=False)


def test_a_class_whose_files_have_no_extension_is_named_beside_a_single_class(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "bee")
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "1").touch()
    with pytest.raises(InputError, match=r"single class.*ant \(1 without extension\)"):
        list_folder(tmp_path)


@pytest.mark.parametrize("name", ["#snapshot", "found.000", "RECYCLER", "@tmp", "__pycache__"])
def test_further_folders_of_the_system_are_no_classes(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "ant", "bee", name)
    assert list_folder(tmp_path).classes == ("ant", "bee")


def test_classes_are_found_in_another_unicode_form(tmp_path: Path) -> None:
    touch(tmp_path, unicodedata.normalize("NFD", "café"), "bar")
    composed = unicodedata.normalize("NFC", "café")
    assert list_folder(tmp_path, [composed, "bar"]).labels == ("bar", "bar", composed, composed)
    assert list_folder(tmp_path, [composed, "bar"], some=True).classes == (composed, "bar")


def test_folders_of_numbers_are_amounts_on_request(tmp_path: Path) -> None:
    from PIL import Image

    for age in range(20, 40):
        (tmp_path / str(age)).mkdir()
        for index in range(2):
            pixels = np.full((8, 8, 3), age, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / str(age) / f"{index}.png")
    [reading] = ImageData.from_folder(tmp_path).readings
    assert "20 distinct whole numbers from 20 to 39" in reading.what
    assert reading.confidence < 0.5
    data = ImageData.from_folder(tmp_path, options=ImageOptions(task="regression"))
    assert data.targets.kind == "regression"
    assert data.targets.values.tolist() == [age for age in range(20, 40) for _ in range(2)]
