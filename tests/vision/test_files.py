from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau.data.samples import Problem
from flambeau.errors import InputError
from flambeau_vision.files import list_folder
from flambeau_vision.scanning import Header, scan


def make(root: Path, *names: str, size: tuple[int, int] = (10, 8)) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number, 0, 0)).save(root / name)


def test_class_folders_sorted_and_deep(tmp_path: Path) -> None:
    make(tmp_path, "bee/2.jpg", "ant/deep/er/1.png", "bee/1.JPG", "ant/0.jpg")
    listing = list_folder(tmp_path)
    assert listing.classes == ("ant", "bee")
    names = [str(file.relative_to(tmp_path)) for file in listing.files]
    assert names == ["ant/0.jpg", "ant/deep/er/1.png", "bee/1.JPG", "bee/2.jpg"]
    assert listing.labels == ("ant", "ant", "bee", "bee")
    assert set(listing.parts) == {None}


def test_hidden_and_other_files_are_left_out_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg", "a/.hidden.jpg", ".cache/1.jpg", "__MACOSX/a/1.jpg")
    make(tmp_path, "a/.thumbs/1.jpg")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    listing = list_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert len(listing.files) == 2
    assert listing.notes == ("left out, since the names are not those of pictures: 1 .txt",)


@pytest.mark.parametrize("valid_name", ["valid", "val", "Validation"])
def test_part_folders_are_never_classes(tmp_path: Path, valid_name: str) -> None:
    for part in ("train", valid_name, "test"):
        make(tmp_path, f"{part}/a/1.png", f"{part}/b/1.png")
    make(tmp_path, "stray/1.png")
    listing = list_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert sorted(set(listing.parts)) == ["test", "train", "valid"]
    assert any("stray" in note for note in listing.notes)
    assert any(f"{valid_name} (2 pictures)" in note for note in listing.notes)


def test_a_test_folder_beside_the_classes_is_a_part(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/1.png", "test/a/1.png", "test/unlabelled.png")
    listing = list_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert sorted(map(str, listing.parts)) == ["None", "None", "test"]


def test_named_classes_decide_the_order_and_may_be_called_test(tmp_path: Path) -> None:
    make(tmp_path, "test/1.png", "b/1.png", "c/1.png")
    listing = list_folder(tmp_path, ["test", "b"])
    assert listing.classes == ("test", "b")
    assert set(listing.labels) == {"test", "b"}
    with pytest.raises(InputError, match=r"no pictures of zebra; its class folders are b, c"):
        list_folder(tmp_path, ["b", "zebra"])


def test_folders_without_labelled_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        list_folder(tmp_path / "gone")
    make(tmp_path, "1.png", "2.png")
    with pytest.raises(InputError, match=r"2 pictures lie in it directly.*from_csv"):
        list_folder(tmp_path)
    make(tmp_path, "only/1.png")
    with pytest.raises(InputError, match="has a single class"):
        list_folder(tmp_path)


def test_headers_are_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (10, 8)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("P", (10, 8)).save(tmp_path / "p.png")
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    items = [tmp_path / "turned.jpg", tmp_path / "p.png", tmp_path / "moving.gif"]
    assert scan(items) == [
        Header(8, 10, "L", "JPEG"),
        Header(10, 8, "P", "PNG"),
        Header(4, 4, "P", "GIF", animated=True),
    ]
    assert scan([np.zeros((5, 7, 3), np.uint8), Image.new("RGB", (3, 2))]) == [
        Header(7, 5, "RGB"),
        Header(3, 2, "RGB"),
    ]


def test_half_files_are_found_without_decoding_the_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for ending in ("jpg", "png", "webp"):
        Image.fromarray(noise).save(tmp_path / f"whole.{ending}")
        content = (tmp_path / f"whole.{ending}").read_bytes()
        (tmp_path / f"half.{ending}").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("half.jpg", "half.png", "half.webp", "empty.jpg", "text.jpg", "gone.jpg"):
        (found,) = scan([tmp_path / name])
        assert isinstance(found, Problem)
        assert name in found.source
        assert name in found.reason

    def refuse(item: object) -> None:
        raise RuntimeError(f"{item} was decoded")

    monkeypatch.setattr("flambeau_vision.scanning.check_loads", refuse)
    found = scan([tmp_path / "whole.jpg", tmp_path / "whole.png"])
    assert all(isinstance(header, Header) for header in found)
    with pytest.raises(RuntimeError, match="was decoded"):
        scan([tmp_path / "whole.jpg"], verify=True)


def test_bytes_after_the_end_do_not_make_a_file_unreadable(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"\0" * 20)
    assert scan([tmp_path / "a.jpg"]) == [Header(9, 9, "RGB", "JPEG")]


def test_many_files_are_scanned_in_their_order(tmp_path: Path) -> None:
    for width in range(1, 101):
        Image.new("L", (width, 3)).save(tmp_path / f"{width}.png")
    found = scan([tmp_path / f"{width}.png" for width in range(1, 101)])
    assert [entry.width for entry in found if isinstance(entry, Header)] == list(range(1, 101))
