"""The calibration part of image data, from every source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau.data.split import Split
from flambeau.errors import SplitError
from flambeau_vision import ImageData

RANDOM = np.random.default_rng(0)
IMAGES, LABELS = RANDOM.integers(0, 256, (40, 8, 8), dtype=np.uint8), ["ant", "bee"] * 20
VALUES = {"image_size": 8, "channels": 1, "cache": "memory", "normalisation": "train"}


def folder(root: Path, rows: range = range(40)) -> Path:
    for row in rows:
        (root / LABELS[row]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[row]).save(root / LABELS[row] / f"{row:02}.png")
    return root


def sizes(data: ImageData) -> list[int]:
    facts = data.facts()
    return [facts[f"n_{part}"] for part in ("train", "valid", "test", "calibration")]


def test_every_source_draws_the_share(tmp_path: Path) -> None:
    path = folder(tmp_path)
    files = [f"{label}/{row:02}.png" for row, label in enumerate(LABELS)]
    table = {"file": files, "label": LABELS}
    (tmp_path / "all.csv").write_text(
        "file,label\n" + "".join(f"{f},{c}\n" for f, c in zip(files, LABELS, strict=True))
    )
    parts = {"valid": 0.2, "test": 0.1, "calibration": 0.3}
    pairs = list(zip(IMAGES, LABELS, strict=True))
    for data in (
        ImageData.from_folder(path, **parts),
        ImageData.from_df(table, root=path, **parts),
        ImageData.from_csv(tmp_path / "all.csv", **parts),
        ImageData.from_items(pairs, **parts),
        ImageData.from_arrays(IMAGES, LABELS, **parts),
        ImageData.from_path(path, parts),
    ):
        assert sizes(data) == [16, 8, 4, 12]
        assert data.targets.select(data.split.calibration).counts() == {"ant": 6, "bee": 6}
        assert repr(data).endswith("16 train, 8 valid, 4 test, 12 calibration)")
        assert "calibration" in data.report()
        assert len(data.dataset("calibration", data.preprocessor(VALUES), VALUES)) == 12


def test_folders_columns_and_arrays_name_the_part(tmp_path: Path) -> None:
    rows = {"train": range(20), "calibration": range(20, 30), "val": range(30, 40)}
    for name, some in rows.items():
        folder(tmp_path / name, some)
    by_folder = ImageData.from_folder(tmp_path)
    assert {Path(p).parts[-3] for p in by_folder.raw("calibration")} == {"calibration"}
    part = ["train"] * 20 + ["Calibration"] * 10 + ["valid"] * 10
    names = {"train": "train", "Calibration": "calibration", "valid": "val"}
    files = [
        f"{names[p]}/{c}/{r:02}.png" for r, (p, c) in enumerate(zip(part, LABELS, strict=True))
    ]
    table = {"file": files, "label": LABELS, "part": part}
    by_column = ImageData.from_df(table, root=tmp_path, split="part")
    arrays = ImageData.from_arrays(
        IMAGES[:20],
        LABELS[:20],
        valid=(IMAGES[30:], LABELS[30:]),
        calibration=(IMAGES[20:30], LABELS[20:30]),
    )
    for data in (by_folder, by_column, arrays):
        assert sizes(data) == [20, 10, 0, 10]
    assert by_column.split.calibration.tolist() == list(range(20, 30))


def test_a_calibration_folder_is_kept_if_valid_is_drawn(tmp_path: Path) -> None:
    folder(tmp_path / "train", range(30))
    folder(tmp_path / "calibration", range(30, 40))
    assert sizes(ImageData.from_folder(tmp_path)) == [24, 6, 0, 10]
    with pytest.raises(SplitError, match=r"calibration=0\.2 would have no effect"):
        ImageData.from_folder(tmp_path, calibration=0.2)


def test_a_class_with_calibration_but_without_train_images_is_refused() -> None:
    split = Split.from_indices(range(0, 20, 2), range(20, 40, 2), (), [1, 3])
    with pytest.raises(SplitError, match="1 class has images in calibration but none in train"):
        ImageData.from_arrays(IMAGES, LABELS, split=split)


def test_subset_and_given_split_keep_the_part() -> None:
    split = Split.from_indices(range(20), range(20, 30), (), range(30, 40))
    data = ImageData.from_arrays(IMAGES, LABELS, split=split)
    assert data.split.calibration.tolist() == list(range(30, 40))
    rows = {"train": [0, 1], "valid": [20], "calibration": [31, 30]}
    assert data.subset(rows).split.calibration.tolist() == [31, 30]
