from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau.data.samples import Problem
from flambeau.errors import InputError
from flambeau_vision import ImageData, ImageOptions, headers
from flambeau_vision.decode import decode
from flambeau_vision.folder import list_folder
from flambeau_vision.headers import ImageHeader, is_fast_to_verify, read_headers


def folder(root: Path, n: int = 6) -> Path:
    random = np.random.default_rng(0)
    for number in range(n):
        for name in ("ant", "bee"):
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return root


def damaged_png(root: Path) -> Path:
    """A PNG with damage in the middle: header and end are intact."""
    path = root / "ant" / "damaged.png"
    with Image.open(root / "ant" / "0.jpg") as image:
        image.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path


def test_small_data_sets_are_decoded_at_construction(tmp_path: Path) -> None:
    data = ImageData.from_folder(folder(tmp_path))
    assert "note: all files were decoded once and are complete" in data.report()
    damaged_png(tmp_path)
    with pytest.raises(InputError, match=r"1 of 13 images cannot be read:\n.*damaged\.png"):
        ImageData.from_folder(tmp_path)
    assert len(ImageData.from_folder(tmp_path, unreadable="skip").samples.problems) == 1


def test_large_data_sets_are_decoded_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged_png(folder(tmp_path))
    items = list_folder(tmp_path).files
    total = sum(path.stat().st_size for path in items)
    monkeypatch.setattr(headers, "VERIFY_UP_TO_BYTES", total)
    assert is_fast_to_verify(items)
    monkeypatch.setattr(headers, "VERIFY_UP_TO_BYTES", total - 1)
    assert not is_fast_to_verify(items)
    assert (
        "not all files were decoded; ImageOptions(verify=True), on the command line --verify"
        in (ImageData.from_folder(tmp_path).report())
    )
    with pytest.raises(InputError, match=r"damaged\.png"):
        ImageData.from_folder(tmp_path, options=ImageOptions(verify=True))
    monkeypatch.setattr(headers, "VERIFY_UP_TO_BYTES", total)
    assert len(ImageData.from_folder(tmp_path, options=ImageOptions(verify=False)).samples) == 13


def test_a_draft_decode_finds_every_truncation(tmp_path: Path) -> None:
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
                complete = True
            except (OSError, SyntaxError):
                complete = False
            (found,) = read_headers([path], verify=True)
            assert isinstance(found, ImageHeader) == complete
        path.write_bytes(content)


def test_very_large_images_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, 2)
    Image.new("L", (50, 50)).save(tmp_path / "ant" / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_499)
    with pytest.warns(Image.DecompressionBombWarning):
        data = read_with_warnings(tmp_path)
    assert "1 have more than 0 million pixels, the limit above which Pillow warns" in data.report()
    assert "large.png" in data.report()


def read_with_warnings(root: Path) -> ImageData:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return ImageData.from_folder(root)


# ---------------------------------------------------------------- headers


def test_headers_are_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (10, 8)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("P", (10, 8)).save(tmp_path / "p.png")
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    items = [tmp_path / "turned.jpg", tmp_path / "p.png", tmp_path / "moving.gif"]
    assert read_headers(items) == [
        ImageHeader(8, 10, "L", "JPEG"),
        ImageHeader(10, 8, "P", "PNG"),
        ImageHeader(4, 4, "P", "GIF", animated=True),
    ]
    assert read_headers([np.zeros((5, 7, 3), np.uint8), Image.new("RGB", (3, 2))]) == [
        ImageHeader(7, 5, "RGB"),
        ImageHeader(3, 2, "RGB"),
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_headers_of_tiffs_have_the_size_of_their_pixels(tmp_path: Path, orientation: int) -> None:
    exif, path = Image.Exif(), tmp_path / "turned.tif"
    exif[0x0112] = orientation
    Image.new("RGB", (10, 8)).save(path, exif=exif)
    width, height = (10, 8) if orientation < 5 else (8, 10)
    assert decode(path).shape[:2] == (height, width)
    with Image.open(path) as opened:
        found = read_headers([path, path.read_bytes(), opened])
    assert [(each.width, each.height) for each in found] == [(width, height)] * 3


def test_only_incomplete_files_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for ending in ("jpg", "png", "webp"):
        Image.fromarray(noise).save(tmp_path / f"complete.{ending}")
        content = (tmp_path / f"complete.{ending}").read_bytes()
        (tmp_path / f"half.{ending}").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("half.jpg", "half.png", "half.webp", "empty.jpg", "text.jpg", "gone.jpg"):
        (found,) = read_headers([tmp_path / name])
        assert isinstance(found, Problem)
        assert name in found.source
        assert name in found.reason

    def refuse(item: object) -> None:
        raise RuntimeError(f"{item} was decoded")

    monkeypatch.setattr("flambeau_vision.headers.check_decodes", refuse)
    found = read_headers([tmp_path / "complete.jpg", tmp_path / "complete.png"])
    assert all(isinstance(header, ImageHeader) for header in found)
    with pytest.raises(RuntimeError, match="was decoded"):
        read_headers([tmp_path / "complete.jpg"], verify=True)


def test_bytes_after_the_end_do_not_make_a_file_unreadable(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"\0" * 20)
    assert read_headers([tmp_path / "a.jpg"]) == [ImageHeader(9, 9, "RGB", "JPEG")]


def test_headers_of_many_files_keep_their_order(tmp_path: Path) -> None:
    for width in range(1, 101):
        Image.new("L", (width, 3)).save(tmp_path / f"{width}.png")
    found = read_headers([tmp_path / f"{width}.png" for width in range(1, 101)])
    assert [entry.width for entry in found if isinstance(entry, ImageHeader)] == list(range(1, 101))
