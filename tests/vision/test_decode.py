import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from flambeau.errors import InputError
from flambeau_vision.decode import check_decodes, decode


def ramp(height: int = 6, width: int = 8) -> np.ndarray:
    return np.linspace(0, 255, height * width).round().astype(np.uint8).reshape(height, width)


def colours(height: int = 6, width: int = 8) -> np.ndarray:
    return np.stack(
        [
            ramp(height, width),
            ramp(height, width)[::-1],
            ramp(height, width).T.reshape(height, width),
        ],
        2,
    )


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


# ---------------------------------------------------------------- modes


def test_grey_and_colour_are_decoded_unchanged(tmp_path: Path) -> None:
    grey = saved(Image.fromarray(ramp()), tmp_path / "l.png")
    colour = saved(Image.fromarray(colours()), tmp_path / "rgb.png")
    assert np.array_equal(decode(grey), ramp()[:, :, None])
    assert np.array_equal(decode(colour), colours())
    assert np.array_equal(decode(grey, channels=3), np.repeat(ramp()[:, :, None], 3, 2))
    luma = colours() @ np.array([0.299, 0.587, 0.114])
    # Pillow computes the luma with integers: one level of rounding.
    assert np.abs(decode(colour, channels=1)[:, :, 0] - luma).max() <= 1.0


def test_bilevel_becomes_black_and_white(tmp_path: Path) -> None:
    bits = ramp() > 100
    path = saved(Image.fromarray(bits), tmp_path / "one.png")
    assert np.array_equal(decode(path)[:, :, 0], bits * 255)


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    path = saved(image, tmp_path / "p.png")
    assert decode(path).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_palette_with_transparency_is_composited_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 100, 0])
    image.putdata([0, 1])
    path = saved(image, tmp_path / "p.png", transparency=0)
    assert decode(path).tolist() == [[[255, 255, 255], [0, 100, 0]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_over_white(tmp_path: Path, mode: str) -> None:
    colour = (200, 0, 0) if mode == "RGBA" else (80,)
    image = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (*colour, alpha))
    path = saved(image, tmp_path / "alpha.png")
    alpha = np.array([0, 128, 255])[None, :, None] / 255
    expected = alpha * np.array(colour) + (1 - alpha) * 255
    given = decode(path)
    assert given.shape == (1, 3, len(colour))
    assert np.abs(given - expected).max() <= 1.0  # rounding


@pytest.mark.parametrize(("mode", "key"), [("L", 0), ("RGB", (255, 0, 0))])
def test_one_transparent_colour_is_composited_over_white(
    tmp_path: Path, mode: str, key: object
) -> None:
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), 90 if mode == "L" else (0, 90, 0))
    path = saved(image, tmp_path / "key.png", transparency=key)
    first, second = decode(path)[0].tolist()
    assert set(first) == {255}
    assert second == ([90] if mode == "L" else [0, 90, 0])


def test_cmyk_and_ycbcr_become_rgb(tmp_path: Path) -> None:
    cmyk = saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), tmp_path / "cmyk.tif")
    assert np.abs(decode(cmyk).astype(int) - [255, 0, 0]).max() <= 1
    ycbcr = Image.fromarray(colours()).convert("YCbCr")
    assert np.array_equal(decode(ycbcr), np.asarray(ycbcr.convert("RGB")))


def test_sixteen_bits_are_scaled_and_never_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    for name in ("a.png", "a.tif"):
        path = saved(Image.fromarray(values), tmp_path / name)
        assert np.array_equal(decode(path)[:, :, 0], np.rint(values / 257).astype(np.uint8))
    big_endian = Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes())
    assert np.array_equal(decode(big_endian)[:, :, 0], np.rint(values / 257).astype(np.uint8))
    assert decode(path, channels=3).shape == (16, 16, 3)


def test_float_pixels_need_a_known_range(tmp_path: Path) -> None:
    unit = ramp().astype(np.float32) / 255
    assert np.array_equal(decode(Image.fromarray(unit))[:, :, 0], ramp())
    assert np.array_equal(decode(Image.fromarray(ramp().astype(np.float32)))[:, :, 0], ramp())
    with pytest.raises(InputError, match=r"has values from 0 to 4000 .*Scale them"):
        decode(Image.fromarray(unit * 4000))
    # A file does not declare the range, and scaling each by its own would brighten dark images.
    path = saved(Image.fromarray(unit), tmp_path / "depth.tif")
    with pytest.raises(InputError, match=r"depth\.tif has float pixels .*Convert the data set"):
        decode(path)
    with pytest.raises(InputError, match="values from nan"):
        decode(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


def test_32_bit_integers_above_255_are_refused() -> None:
    image = Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
    assert image.mode == "I"
    with pytest.raises(
        InputError, match=r"values from 0 to 70000 .*one factor for the whole data set"
    ):
        decode(image)
    assert decode(Image.fromarray(np.array([[0, 200]], dtype=np.int32))).ravel().tolist() == [
        0,
        200,
    ]


def test_lab_and_hsv_become_rgb() -> None:
    white = decode(Image.new("LAB", (2, 2), (255, 128, 128)))[0, 0]
    assert white.min() >= 254  # littlecms rounds
    assert decode(Image.new("HSV", (2, 2), (0, 255, 255)))[0, 0].tolist() == [255, 0, 0]


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = tmp_path / "two.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert decode(path)[0, 0].tolist() == [255, 0, 0]


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_every_orientation_matches_pillow(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(colours(16, 24)), tmp_path / f"turned.{ending}", exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    given = decode(path)
    assert given.shape[:2] == ((16, 24) if orientation < 5 else (24, 16))
    assert np.array_equal(given, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_an_opened_image_is_turned_once(orientation: int, form: str) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(colours(16, 24)).save(file, form, exif=exif)
    expected = decode(file.getvalue())
    opened = Image.open(file)
    assert np.array_equal(decode(opened), expected)
    assert np.array_equal(decode(opened), expected)  # its pixels are loaded now


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    path = saved(Image.fromarray(colours()), tmp_path / "exif.jpg", exif=b"Exif\0\0not a TIFF")
    assert decode(path).shape == (6, 8, 3)


def test_orientation_keeps_transparency(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("L", (2, 1), 0)
    image.putpixel((1, 0), 90)
    path = saved(image, tmp_path / "key.png", transparency=0, exif=exif)
    assert decode(path)[:, 0, 0].tolist() == [255, 90]


def test_decoding_does_not_change_a_pillow_image() -> None:
    image = Image.fromarray(colours(16, 24))
    image.getexif()[0x0112] = 6
    assert decode(image).shape == (24, 16, 3)
    assert image.size == (24, 16)


# ---------------------------------------------------------------- what cannot be read


def test_an_opened_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = saved(Image.fromarray(colours(64, 64)), tmp_path / "cut.png")
    path.write_bytes(path.read_bytes()[:200])
    with Image.open(path) as image, pytest.raises(InputError, match=r"cut\.png cannot be read"):
        decode(image)
    with Image.open(saved(Image.fromarray(colours()), tmp_path / "whole.png")) as closed:
        pass
    with pytest.raises(InputError, match=r"whole\.png cannot be read as an image"):
        decode(closed)


def test_truncated_files_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for ending in ("jpg", "png", "webp", "gif", "bmp"):
        path = saved(Image.fromarray(noise), tmp_path / f"half.{ending}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=rf"half\.{ending} cannot be read as an image"):
            decode(path)
        with pytest.raises(InputError, match=rf"half\.{ending}"):
            check_decodes(path)


def test_empty_missing_and_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match=r"empty\.jpg is empty \(0 bytes\)"):
        decode(tmp_path / "empty.jpg")
    with pytest.raises(InputError, match=r"gone\.jpg does not exist"):
        decode(str(tmp_path / "gone.jpg"))
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(InputError, match=r"text\.jpg cannot be read as an image"):
        decode(tmp_path / "text.jpg")
    with pytest.raises(InputError, match="image of 3 bytes cannot be read"):
        decode(b"abc")
    with pytest.raises(InputError, match="cannot be read from a float"):
        decode(1.5)


def test_decompression_bombs_are_refused() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(InputError, match=r"is not decoded.*MAX_IMAGE_PIXELS"):
        decode(bomb)


# ---------------------------------------------------------------- arrays, tensors, bytes


def test_arrays_tensors_bytes_and_files_agree(tmp_path: Path) -> None:
    pixels = colours()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for item in (
        pixels,
        tensor,
        tensor.float() / 255,
        pixels.astype(np.float64),
        pixels.astype(np.int64),
        pixels.astype(np.uint16) * 257,
        pixels.transpose(2, 0, 1),
        buffer.getvalue(),
        Image.fromarray(pixels),
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
    ):
        assert np.array_equal(decode(item), pixels)
    assert decode(np.array([[True, False]])).ravel().tolist() == [255, 0]


def test_ambiguous_layout_follows_numpy_or_torch() -> None:
    small = np.zeros((3, 5, 4), np.uint8)
    assert decode(small).shape == (3, 5, 4)
    assert decode(torch.from_numpy(small)).shape == (5, 4, 3)


def test_arrays_that_are_not_an_image_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3, 4, 5\) cannot be used"):
        decode(np.zeros((2, 3, 4, 5)))
    with pytest.raises(InputError, match=r"no axis with the number of channels"):
        decode(np.zeros((7, 8, 9)))
    with pytest.raises(InputError, match="values from -1 to 1"):
        decode(np.array([[-1.0, 1.0]]))


def test_other_channel_counts_have_to_match_the_data() -> None:
    assert decode(np.zeros((8, 8, 7), np.uint8), channels=7).shape == (8, 8, 7)
    assert decode(np.zeros((7, 8, 8), np.uint8), channels=7).shape == (8, 8, 7)
    rgba = Image.new("RGBA", (4, 4), (1, 2, 3, 4))
    assert decode(rgba, channels=4)[0, 0].tolist() == [1, 2, 3, 4]
    with pytest.raises(InputError, match=r"has 1 channels \(L\), but 4 were requested"):
        decode(Image.new("L", (4, 4)), channels=4)
    with pytest.raises(InputError, match=r"no axis with the number of channels \(5\)"):
        decode(np.zeros((8, 8, 3), np.uint8), channels=5)


def test_lab_images_are_converted_by_their_colours(tmp_path: Path) -> None:
    from PIL import ImageCms

    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4], pixels[:, 4:] = (200, 30, 60), (10, 120, 220)
    image = Image.fromarray(pixels)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    lab = ImageCms.applyTransform(image, to_lab)
    lab.save(tmp_path / "lab.tif")
    with Image.open(tmp_path / "lab.tif") as saved:
        assert saved.mode == "LAB"
    for item in (lab, tmp_path / "lab.tif"):
        assert decode(item, channels=3).astype(int) == pytest.approx(pixels.astype(int), abs=20)
        grey = np.array(image.convert("L")).astype(int)
        assert decode(item, channels=1)[:, :, 0].astype(int) == pytest.approx(grey, abs=6)


def test_premultiplied_grey_is_composited_over_white() -> None:
    image = Image.new("LA", (2, 1), (80, 255))
    image.putpixel((1, 0), (80, 0))
    assert decode(image.convert("La"), channels=1).ravel().tolist() == [80, 255]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_other_float_types_are_images(dtype: torch.dtype) -> None:
    image = torch.tensor([[0.0, 0.25], [0.5, 1.0]], dtype=dtype)
    assert decode(image)[:, :, 0].tolist() == [[0, 64], [128, 255]]
