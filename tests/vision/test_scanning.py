import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau.errors import InputError
from flambeau_vision import ImageData, ImageOptions, scanning
from flambeau_vision.files import list_folder
from flambeau_vision.scanning import is_quickly_verified, scan


def folder(root: Path, n: int = 6) -> Path:
    random = np.random.default_rng(0)
    for number in range(n):
        for name in ("ant", "bee"):
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return root


def hollow(root: Path) -> Path:
    """A PNG with damage in the middle: header and end are those of a whole file."""
    path = root / "ant" / "hollow.png"
    with Image.open(root / "ant" / "0.jpg") as image:
        image.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path


def test_small_sets_are_decoded_when_they_are_found(tmp_path: Path) -> None:
    data = ImageData.from_folder(folder(tmp_path))
    assert "note: all files were decoded once and are whole" in data.report()
    hollow(tmp_path)
    with pytest.raises(InputError, match=r"1 of 13 pictures cannot be read:\n.*hollow\.png"):
        ImageData.from_folder(tmp_path)
    assert len(ImageData.from_folder(tmp_path, unreadable="skip").samples.problems) == 1


def test_large_sets_are_not_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hollow(folder(tmp_path))
    items = list_folder(tmp_path).files
    total = sum(path.stat().st_size for path in items)
    monkeypatch.setattr(scanning, "VERIFY_UP_TO_BYTES", total)
    assert is_quickly_verified(items)
    monkeypatch.setattr(scanning, "VERIFY_UP_TO_BYTES", total - 1)
    assert not is_quickly_verified(items)
    assert "not all were decoded; ImageOptions(verify=True)" in (
        ImageData.from_folder(tmp_path).report()
    )
    with pytest.raises(InputError, match=r"hollow\.png"):
        ImageData.from_folder(tmp_path, options=ImageOptions(verify=True))
    monkeypatch.setattr(scanning, "VERIFY_UP_TO_BYTES", total)
    assert len(ImageData.from_folder(tmp_path, options=ImageOptions(verify=False)).samples) == 13


def test_a_drafted_check_finds_every_cut_that_full_decoding_finds(tmp_path: Path) -> None:
    path = folder(tmp_path, 1) / "ant" / "0.jpg"
    content = path.read_bytes()
    for progressive in (False, True):
        if progressive:
            with Image.open(path) as image:
                image.convert("RGB").save(path, progressive=True)
            content = path.read_bytes()
        for cut in range(1, len(content), 23):
            path.write_bytes(content[:cut])
            try:
                with Image.open(path) as image:
                    image.load()
                whole = True
            except (OSError, SyntaxError):
                whole = False
            (found,) = scan([path], verify=True)
            assert isinstance(found, scanning.Header) == whole
        path.write_bytes(content)


def test_very_large_pictures_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, 2)
    Image.new("L", (50, 50)).save(tmp_path / "ant" / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_499)
    with pytest.warns(Image.DecompressionBombWarning):
        data = scanned_leniently(tmp_path)
    assert "1 have more than 0 million pixels, Pillow's limit" in data.report()
    assert "large.png" in data.report()


def scanned_leniently(root: Path) -> ImageData:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return ImageData.from_folder(root)


# ---------------------------------------------------------------- what lies in folders


def test_the_clutter_of_systems_is_left_out(tmp_path: Path) -> None:
    folder(tmp_path, 1)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.jpg"):
        (tmp_path / "ant" / name).write_bytes(b"x")
    (tmp_path / "__MACOSX" / "ant").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "ant" / "0.jpg").write_bytes(b"x")
    listing = list_folder(tmp_path)
    assert (len(listing.files), listing.classes, listing.notes) == (2, ("ant", "bee"), ())


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    folder(tmp_path / "data", 2)
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "elsewhere" / "x.png")
    ant = tmp_path / "data" / "ant"
    (ant / "more").symlink_to(tmp_path / "elsewhere")
    (ant / "again").symlink_to(tmp_path / "elsewhere")
    (ant / "loop").symlink_to(tmp_path / "data" / "ant")
    (tmp_path / "data" / "wasp").symlink_to(tmp_path / "elsewhere")
    names = [
        os.path.relpath(file, tmp_path / "data") for file in list_folder(tmp_path / "data").files
    ]
    assert names == [
        "ant/0.jpg",
        "ant/1.jpg",
        "ant/again/x.png",
        "bee/0.jpg",
        "bee/1.jpg",
        "wasp/x.png",
    ]


def test_links_that_lead_nowhere_are_problems(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    (tmp_path / "ant" / "self.jpg").symlink_to(tmp_path / "ant" / "self.jpg")
    (tmp_path / "bee" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    data = ImageData.from_folder(tmp_path, unreadable="skip")
    assert [Path(problem.source).name for problem in data.samples.problems] == [
        "self.jpg",
        "gone.jpg",
    ]


def test_a_folder_that_cannot_be_listed_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path)
    original = os.scandir

    def refuse(path: str):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"bee cannot be listed \(Permission denied\)"):
        list_folder(tmp_path)


# ---------------------------------------------------------------- each mistake its own words


def test_an_empty_folder_and_one_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        ImageData.from_folder(tmp_path)
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "list.pdf").touch()
    with pytest.raises(InputError, match=r"no pictures: files \.pdf; pictures end in .*\.jpg"):
        ImageData.from_folder(tmp_path)


def test_one_class_only(tmp_path: Path) -> None:
    folder(tmp_path)
    for path in (tmp_path / "bee").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"has a single class; .* ant"):
        ImageData.from_folder(tmp_path)
    with pytest.raises(InputError, match="All 6 labels are 'x'"):
        ImageData.from_items([(path, "x") for path in (tmp_path / "ant").iterdir()])


def test_a_class_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    folder(tmp_path)
    for path in (tmp_path / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"None of the 6 pictures of class 'bee' .*bee/0\.jpg"):
        ImageData.from_folder(tmp_path, unreadable="skip")
    for path in (tmp_path / "ant").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"None of 12 pictures can be read:\n.*ant/0\.jpg"):
        ImageData.from_folder(tmp_path, unreadable="skip")


def test_paths_that_a_table_names_and_nobody_has(tmp_path: Path) -> None:
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


def test_a_file_named_twice(tmp_path: Path) -> None:
    folder(tmp_path)
    files = [f"{name}/{number}.jpg" for name in ("ant", "bee") for number in range(6)]
    labels = ["a"] * 6 + ["b"] * 6
    frame = {"file": [*files, "ant/../ant/2.jpg"], "label": [*labels, "a"]}
    with pytest.raises(InputError, match=r"ant/2\.jpg stands in 2 rows.*drop the doubles"):
        ImageData.from_df(frame, root=tmp_path)
    with pytest.raises(InputError, match=r"different labels: a, b\..*sep="):
        ImageData.from_df({**frame, "label": [*labels, "b"]}, root=tmp_path)
    parts = ["train", "valid", *["train"] * 5, "valid", *["train"] * 4]
    with pytest.raises(InputError, match="in 2 rows, in train and valid"):
        ImageData.from_df({**frame, "part": [*parts, "valid"]}, root=tmp_path, split="part")
    data = ImageData.from_df({**frame, "part": [*parts, "train"]}, root=tmp_path, split="part")
    assert "1 files stand in several rows of one part (1 doubles)" in data.report()
