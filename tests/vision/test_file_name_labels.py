"""Labels in file names: parts, classes, and names without a label."""

from __future__ import annotations

from pathlib import Path

import pytest

from flambeau.errors import InputError
from flambeau_vision.file_name_labels import labels_are_in_names, list_by_name

PATTERN = r"(.+)_[0-9]+"


def touch(root: Path, **counts: int) -> Path:
    """Create as many files per label."""
    root.mkdir(parents=True, exist_ok=True)
    for label, n in counts.items():
        for index in range(n):
            (root / f"{label}_{index}.png").touch()
    return root


def test_folders_named_like_parts_are_parts(tmp_path: Path) -> None:
    touch(tmp_path / "train", ant=3, bee=2)
    touch(tmp_path / "test_set", ant=1, bee=1)
    found = list_by_name(tmp_path, PATTERN)
    rows = {(file.parent.name, part) for file, part in zip(found.files, found.parts, strict=True)}
    assert rows == {("train", "train"), ("test_set", "test")}
    assert "train (5 images) as train" in found.readings[1].what
    assert set(list_by_name(tmp_path, PATTERN, parts={}).parts) == {None}
    given = list_by_name(tmp_path, PATTERN, parts={"train": "train", "test_set": "valid"})
    assert set(given.parts) == {"train", "valid"}
    with pytest.raises(InputError, match="names the folder 'tests'"):
        list_by_name(tmp_path, PATTERN, parts={"tests": "test"})


def test_images_beside_the_parts_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "train", ant=3, bee=2)
    touch(tmp_path / "more", ant=1)
    found = list_by_name(tmp_path, PATTERN)
    assert found.readings[-1].confidence < 0.5
    assert "not used" in found.readings[-1].what
    assert "more" in found.readings[-1].what


def test_labels_are_in_names_directly_in_the_folder_or_in_its_parts(tmp_path: Path) -> None:
    assert labels_are_in_names(touch(tmp_path / "flat", ant=1))
    touch(tmp_path / "parts" / "train", ant=1)
    assert labels_are_in_names(tmp_path / "parts")
    touch(tmp_path / "classes" / "ant", x=1)
    assert not labels_are_in_names(tmp_path / "classes")
    assert not labels_are_in_names(tmp_path / "missing")


def test_images_of_unknown_classes_are_listed_for_evaluation_and_refused_for_training(
    tmp_path: Path,
) -> None:
    touch(tmp_path, ant=2, zebra=3)
    found = list_by_name(tmp_path, PATTERN, ["ant", "bee"], for_training=False)
    assert found.labels == ("ant",) * 2 + ("zebra",) * 3
    with pytest.raises(InputError, match="images of zebra, which the model does not have"):
        list_by_name(tmp_path, PATTERN, ["ant", "bee"], some=True)
    with pytest.raises(InputError, match="has no images of bee"):
        list_by_name(tmp_path, PATTERN, ["ant", "bee"])
    assert list_by_name(tmp_path, PATTERN, ["zebra", "ant"]).classes == ("zebra", "ant")


def test_an_optional_group_that_matches_nothing_has_no_label(tmp_path: Path) -> None:
    touch(tmp_path, ant=2, bee=1)
    with pytest.raises(InputError, match=r"1 of 3 file names do not match .*bee_0\.png"):
        list_by_name(tmp_path, "(ant)?.*")
