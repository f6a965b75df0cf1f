"""Groups of images: declared once, obeyed by every drawn part, named where parts share them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from flambeau import Learner
from flambeau.data.split import PARTS
from flambeau.errors import ArgumentError, InputError
from flambeau_vision import ImageData, ImageOptions

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
PATIENTS = [f"p{row // 4}" for row in range(40)]
LABELS = ["ill" if row % 2 else "well" for row in range(40)]


def shared(data: ImageData, groups: list[str]) -> list[str]:
    """Return the groups with images in more than one part, by an independent count."""
    parts: dict[str, set[str]] = {}
    for part in PARTS:
        for row in data.split.part(part):
            parts.setdefault(groups[int(row)], set()).add(part)
    return [name for name, found in parts.items() if len(found) > 1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``well/p0_0.png``, ``ill/p0_1.png``, …, and a table of them."""
    for row, (image, label, patient) in enumerate(zip(PIXELS, LABELS, PATIENTS, strict=True)):
        file = tmp_path / "images" / label / f"{patient}_{row % 4}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return tmp_path / "images"


def table(folder: Path) -> pd.DataFrame:
    files = [f"{label}/{name}_{row % 4}.png" for row, (label, name) in enumerate(_pairs())]
    return pd.DataFrame({"file": files, "label": LABELS, "patient": PATIENTS})


def _pairs() -> list[tuple[str, str]]:
    return list(zip(LABELS, PATIENTS, strict=True))


_SIZES: dict[str, Any] = {"valid": 0.2, "test": 0.2, "calibration": 0.1}


def test_a_column_of_groups_is_obeyed(folder: Path, tmp_path: Path) -> None:
    frame = table(folder)
    for seed in range(3):
        options = ImageOptions(group="patient")
        data = ImageData.from_df(frame, root=folder, options=options, seed=seed, **_SIZES)
        assert shared(data, PATIENTS) == []
        assert len(data.split.valid) == 8
        assert "by group" in data.split.describe()
        assert "groups: 10" in data.report()
    assert shared(ImageData.from_df(frame.drop(columns="patient"), root=folder), PATIENTS)
    frame.to_csv(tmp_path / "table.csv", index=False)
    data = ImageData.from_csv(tmp_path / "table.csv", root=folder, options=options)
    assert shared(data, PATIENTS) == []


def test_a_column_of_numbers_is_obeyed(folder: Path) -> None:
    frame = table(folder).assign(patient=[float(row // 4) for row in range(40)])
    data = ImageData.from_df(frame, root=folder, options=ImageOptions(group="patient"))
    assert shared(data, PATIENTS) == []
    assert set(data.samples["group"]) == set(map(str, range(10)))


@pytest.mark.parametrize("pattern", ["p[0-9]+", "(p[0-9]+)_"], ids=["match", "group"])
def test_a_pattern_finds_the_groups_of_a_folder(folder: Path, pattern: str) -> None:
    data = ImageData.from_folder(folder, options=ImageOptions(group=pattern), **_SIZES)
    patients = [Path(file).stem.split("_")[0] for file in data.samples["image"]]
    assert list(data.samples["group"]) == patients
    assert shared(data, patients) == []


def test_groups_of_arrays_are_obeyed() -> None:
    for group in (PATIENTS, np.array(PATIENTS), torch.arange(40) // 4, pd.Series(PATIENTS)):
        data = ImageData.from_arrays(PIXELS, LABELS, group=group, **_SIZES)
        assert shared(data, PATIENTS) == []


def test_folds_and_intervals_obey_the_groups() -> None:
    data = ImageData.from_arrays(PIXELS, LABELS, group=PATIENTS, test=0.2)
    in_valid: list[int] = []
    for fold in data.folds(4):
        assert shared(fold, PATIENTS) == []
        in_valid += fold.split.valid.tolist()
    assert sorted(in_valid) == sorted([*data.split.train, *data.split.valid])
    assert data.groups("test") == [PATIENTS[row] for row in data.split.test]
    assert ImageData.from_arrays(PIXELS, LABELS).groups("valid") is None


def test_a_group_that_given_parts_share_is_named(folder: Path) -> None:
    frame = table(folder).assign(split=["valid" if row % 4 == 3 else "train" for row in range(40)])
    data = ImageData.from_df(frame, root=folder, options=ImageOptions(group="patient"))
    assert "groups: 10 groups of images are in more than one part, such as 'p0'" in data.report()
    learner = Learner(data, quiet=True, choices={"weights": None, "architecture": "small_cnn"})
    findings = {finding.code: finding for finding in learner.doctor().findings}
    assert findings["groups-across-parts"].evidence["groups"] == 10
    clean = ImageData.from_df(
        table(folder), root=folder, options=ImageOptions(group="patient"), seed=1
    )
    learner = Learner(clean, quiet=True, choices={"weights": None, "architecture": "small_cnn"})
    assert "groups-across-parts" not in {each.code for each in learner.doctor().findings}


class Pairs:
    """A data set of pairs (image, label)."""

    targets = LABELS

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        return PIXELS[index], LABELS[index]


def from_items(**given: Any) -> ImageData:
    return ImageData.from_items(list(zip(PIXELS, LABELS, strict=True)), **given)


def from_datasets(**given: Any) -> ImageData:
    return ImageData.from_datasets(Pairs(), **given)


@pytest.mark.parametrize("read", [from_items, from_datasets])
@pytest.mark.parametrize("convert", [list, np.array, pd.Series, tuple])
def test_groups_of_items_and_sets_are_obeyed(read: Any, convert: Any) -> None:
    for seed in range(3):
        data = read(group=convert(PATIENTS), seed=seed, **_SIZES)
        assert shared(data, PATIENTS) == []
        assert len(data.split.valid) == 8
        assert data.groups("valid") == [PATIENTS[int(row)] for row in data.split.valid]
    assert shared(read(**_SIZES), PATIENTS)  # without groups, patients are in several parts
    with pytest.raises(InputError, match="40 train images, but 39 groups"):
        read(group=convert(PATIENTS[1:]))
    with pytest.raises(ArgumentError, match=r"Pass the group of each .*: group=…"):
        read(options=ImageOptions(group="patient"))


def test_groups_beside_a_given_set_are_refused() -> None:
    with pytest.raises(InputError, match="but valid is given too"):
        from_datasets(group=PATIENTS, valid=Pairs())


def test_unclear_groups_are_refused(folder: Path) -> None:
    frame = table(folder)
    with pytest.raises(InputError, match="no column 'person'"):
        ImageData.from_df(frame, root=folder, options=ImageOptions(group="person"))
    frame.loc[3, "patient"] = None
    with pytest.raises(InputError, match="group of row 3 is missing"):
        ImageData.from_df(frame, root=folder, options=ImageOptions(group="patient"))
    with pytest.raises(InputError, match="matches nothing in the path 'ill/p"):
        ImageData.from_folder(folder, options=ImageOptions(group="patient"))
    with pytest.raises(InputError, match="not a regular expression"):
        ImageData.from_folder(folder, options=ImageOptions(group="p("))
    with pytest.raises(InputError, match="39 groups"):
        ImageData.from_arrays(PIXELS, LABELS, group=PATIENTS[1:])
    with pytest.raises(InputError, match="test is given too"):
        ImageData.from_arrays(PIXELS, LABELS, group=PATIENTS, test=(PIXELS, LABELS))
    for make in (
        lambda: ImageData.from_arrays(PIXELS, LABELS, options=ImageOptions(group="p")),
        lambda: ImageData.from_items([(PIXELS[0], "a")], options=ImageOptions(group="p")),
        lambda: ImageData.from_datasets([(PIXELS[0], 0)], options=ImageOptions(group="p")),
    ):
        with pytest.raises(ArgumentError, match="group='p' is a column"):
            make()


def test_the_command_line_option_reads_both(folder: Path, tmp_path: Path) -> None:
    data = ImageData.from_path(folder, {"group": "p[0-9]+"})
    patients = [Path(file).stem.split("_")[0] for file in data.samples["image"]]
    assert shared(data, patients) == []
    table(folder).to_csv(tmp_path / "table.csv", index=False)
    data = ImageData.from_path(tmp_path / "table.csv", {"group": "patient", "root": str(folder)})
    assert shared(data, PATIENTS) == []
