"""Errors for files and labels that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau.errors import InputError
from flambeau_vision import ImageData


def folder(root: Path, n: int = 6) -> Path:
    random = np.random.default_rng(0)
    for number in range(n):
        for name in ("ant", "bee"):
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return root


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        ImageData.from_folder(tmp_path)
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "list.pdf").touch()
    with pytest.raises(
        InputError, match=r"without images: found files \.pdf; image extensions: .*\.jpg"
    ):
        ImageData.from_folder(tmp_path)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    for path in (tmp_path / "bee").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"has a single class; .* ant"):
        ImageData.from_folder(tmp_path)
    with pytest.raises(InputError, match="All 6 labels are 'x'"):
        ImageData.from_items([(path, "x") for path in (tmp_path / "ant").iterdir()])


def test_a_class_without_readable_images_is_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    for path in (tmp_path / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"None of the 6 images of class 'bee' .*bee/0\.jpg"):
        ImageData.from_folder(tmp_path, unreadable="skip")
    for path in (tmp_path / "ant").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"None of 12 images can be read:\n.*ant/0\.jpg"):
        ImageData.from_folder(tmp_path, unreadable="skip")


def test_missing_files_of_a_table_are_named(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "t.csv").write_text("file,label\nant/0.jpg,a\nant/gone.jpg,b\nbee/0.jpg,b\n")
    with pytest.raises(InputError, match=r"1 of 3 .*\n.*gone\.jpg does not exist.*root folder"):
        ImageData.from_csv(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"no\.csv does not exist"):
        ImageData.from_csv(tmp_path / "no.csv")


@pytest.mark.parametrize("missing", ["", float("nan"), None])
def test_a_missing_label_names_its_row_and_file(tmp_path: Path, missing: object) -> None:
    folder(tmp_path)
    frame = {"file": ["ant/0.jpg", "bee/0.jpg", "bee/1.jpg"], "label": ["a", missing, "b"]}
    with pytest.raises(InputError, match=r"row 1 \(.*bee/0\.jpg\) is missing"):
        ImageData.from_df(frame, root=tmp_path)


def test_a_file_in_several_rows_is_refused_or_noted(tmp_path: Path) -> None:
    folder(tmp_path)
    files = [f"{name}/{number}.jpg" for name in ("ant", "bee") for number in range(6)]
    labels = ["a"] * 6 + ["b"] * 6
    frame = {"file": [*files, "ant/../ant/2.jpg"], "label": [*labels, "a"]}
    with pytest.raises(InputError, match=r"ant/2\.jpg is in 2 rows.*remove the duplicates"):
        ImageData.from_df(frame, root=tmp_path)
    with pytest.raises(InputError, match=r"different labels: a, b\..*sep="):
        ImageData.from_df({**frame, "label": [*labels, "b"]}, root=tmp_path)
    parts = ["train", "valid", *["train"] * 5, "valid", *["train"] * 4]
    with pytest.raises(InputError, match="in 2 rows, in train and valid"):
        ImageData.from_df({**frame, "part": [*parts, "valid"]}, root=tmp_path, split="part")
    data = ImageData.from_df({**frame, "part": [*parts, "train"]}, root=tmp_path, split="part")
    assert "1 files are in several rows of one part (1 duplicates)" in data.report()
