"""Image files of every common format, written here, decode to the pixels they were written from."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from flambeau.errors import InputError
from flambeau_vision.decode import check_decodes, decode
from flambeau_vision.headers import ImageHeader, read_headers


def colours(height: int = 12, width: int = 16) -> np.ndarray:
    down, across = np.mgrid[0:height, 0:width]
    return np.stack([down * 20, across * 15, 255 - across * 10], 2).astype(np.uint8)


def wide(height: int = 12, width: int = 16, channels: int = 3) -> np.ndarray:
    values = np.linspace(0, 65535, height * width * channels).round().astype(np.uint16)
    return values.reshape(height, width, channels)


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits with 1 (grey), 2 (with alpha), 3 (colour) or 4 channels."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, content: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + sum_

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(values: np.ndarray, order: str, *, bits: int = 16, white_is_zero: bool = False) -> bytes:
    """An uncompressed TIFF of 12 or 16 bits a value, little ("<") or big (">") endian."""
    height, width, channels = values.shape
    if bits == 12:
        first, second = values.reshape(-1, 2).astype(np.uint32).T  # two values in three bytes
        packed = (first << 12) | second
        body = np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], 1).astype(np.uint8)
        data = body.tobytes()
    else:
        data = values.astype(f"{order}u2").tobytes()
    count = 10
    after = 8 + 2 + count * 12 + 4
    bits_at, data_at = after, after + 2 * channels
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits_at if channels > 2 else bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2 if channels == 3 else 0 if white_is_zero else 1),
        (273, 4, 1, data_at),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (284, 3, 1, 1),
    ]
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    out += struct.pack(f"{order}H", count)
    for tag, kind, number, value in entries:
        short = kind == 3 and number == 1
        out += struct.pack(f"{order}HHI", tag, kind, number)
        out += struct.pack(
            f"{order}HH" if short else f"{order}I", *((value, 0) if short else [value])
        )
    out += struct.pack(f"{order}I", 0)
    out += struct.pack(f"{order}{channels}H", *[bits] * channels)
    return out + data


# ---------------------------------------------------------------- 16 bits


@pytest.mark.parametrize("kind", ["png", "tiff little", "tiff big"])
def test_sixteen_bits_of_colour_keep_their_range(kind: str) -> None:
    values = wide()
    content = png(values) if kind == "png" else tiff(values, "<" if "little" in kind else ">")
    assert np.array_equal(decode(content), np.rint(values / 257))


def deflated(content: bytes, order: str) -> bytes:
    """Compress the pixels of a TIFF that `tiff` returned."""
    head = bytearray(content)
    fields = {
        struct.unpack_from(f"{order}H", content, 10 + 12 * n)[0]: 18 + 12 * n for n in range(10)
    }
    [start] = struct.unpack_from(f"{order}I", content, fields[273])
    packed = zlib.compress(content[start:])
    struct.pack_into(f"{order}HH", head, fields[259], 8, 0)
    struct.pack_into(f"{order}I", head, fields[279], len(packed))
    return bytes(head[:start]) + packed


@pytest.mark.parametrize("kind", ["png", "png alpha", "tiff <", "tiff >", "deflate <", "deflate >"])
@pytest.mark.parametrize("bits", [9, 10, 12])
def test_both_bytes_of_colours_are_read(kind: str, bits: int) -> None:
    largest = (1 << bits) - 1
    values = np.random.default_rng(0).integers(0, largest + 1, (12, 16, 3)).astype(np.uint16)
    values[0, 0] = largest
    order = kind[-1]
    if kind.startswith("png"):
        opaque = np.full((12, 16, 1), 65_535, np.uint16)
        content = png(np.concatenate([values, opaque], 2) if kind == "png alpha" else values)
    else:
        content = tiff(values, order)
        content = deflated(content, order) if kind.startswith("deflate") else content
    assert check_decodes(content) == bits
    assert np.array_equal(decode(content, bits=bits), np.rint(values / largest * 255))
    [header] = read_headers([content])
    assert isinstance(header, ImageHeader)
    assert (header.mode[:3], header.bits) == ("RGB", bits)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_grey_in_either_byte_order(order: str) -> None:
    values = wide(channels=1)
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(decode(tiff(values, order)), expected)
    assert np.array_equal(decode(png(values)), expected)


def test_sixteen_bits_with_alpha_are_composited_over_white() -> None:
    clear = np.zeros((2, 2, 4), np.uint16)
    clear[0, :, 3] = 65535
    assert decode(png(clear))[:, 0].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert decode(png(clear[:, :, 2:]), channels=1)[:, 0].tolist() == [[0], [255]]


def test_twelve_bits_are_scaled_by_the_declared_range() -> None:
    values = np.linspace(0, 4095, 12 * 16).round().astype(np.uint16).reshape(12, 16, 1)
    given = decode(tiff(values, "<", bits=12))
    assert np.abs(given - values / 4095 * 255).max() <= 1.0
    assert given.max() == 255


def test_white_is_zero_is_inverted() -> None:
    values = wide(channels=1)
    given = decode(tiff(values, "<", white_is_zero=True))
    assert np.array_equal(given, 255 - np.rint(values / 257).astype(np.uint8))


def test_a_pgm_of_sixteen_bits_is_scaled(tmp_path: Path) -> None:
    values = wide(channels=1)[:, :, 0]
    Image.fromarray(values).save(tmp_path / "a.pgm")
    with Image.open(tmp_path / "a.pgm") as image:
        assert image.mode == "I"  # Pillow's 32 bits, though the file's range is known
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(decode(tmp_path / "a.pgm")[:, :, 0], expected)
    assert isinstance(read_headers([tmp_path / "a.pgm"])[0], ImageHeader)


def test_files_of_unknown_range_are_problems(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(tmp_path / "deep.tif")
    Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)).save(tmp_path / "float.tif")
    for name, words in (("deep.tif", "0 to 70000"), ("float.tif", "float pixels")):
        (problem,) = read_headers([tmp_path / name])
        assert words in str(problem)
        with pytest.raises(InputError, match=words):
            check_decodes(tmp_path / name)


# ---------------------------------------------------------------- colour spaces


def test_a_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    # Adobe's programs, and Pillow too, write CMYK inverted and declare it in a marker.
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    assert b"Adobe" in (tmp_path / "print.jpg").read_bytes()
    assert np.abs(decode(tmp_path / "print.jpg").astype(int) - [255, 0, 0]).max() <= 8  # JPEG
    assert np.abs(decode(tmp_path / "print.jpg", target_side=2) - np.array([255, 0, 0])).max() <= 8


def test_a_colour_profile_is_ignored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(colours()).save(tmp_path / "icc.png", icc_profile=profile)
    assert np.array_equal(decode(tmp_path / "icc.png"), colours())


def test_ycbcr_and_lab_tiffs_become_rgb(tmp_path: Path) -> None:
    for mode in ("YCbCr", "LAB"):
        image = Image.new(mode, (4, 4), (255, 128, 128))
        image.save(tmp_path / f"{mode}.tif")
        assert decode(tmp_path / f"{mode}.tif").min() >= 254  # white, rounded


def test_every_mode_gives_the_requested_channels(tmp_path: Path) -> None:
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"):
        image = (
            Image.fromarray(wide(channels=1)[:, :, 0])
            if mode == "I;16"
            else Image.fromarray(colours()).convert("P").convert("PA")
            if mode == "PA"
            else Image.fromarray(colours()).convert(mode)
        )
        for channels in (1, 3):
            given = decode(image, channels=channels)
            assert (given.shape, given.dtype) == ((12, 16, channels), np.uint8)


# ---------------------------------------------------------------- formats and frames


def test_the_format_follows_the_content(tmp_path: Path) -> None:
    for format_, name in (("JPEG", "photo.png"), ("PNG", "photo.jpg"), ("WEBP", "PHOTO.JPEG")):
        Image.fromarray(colours()).save(tmp_path / name, format_)
        assert read_headers([tmp_path / name]) == [ImageHeader(16, 12, "RGB", format_)]
        assert decode(tmp_path / name).shape == (12, 16, 3)


def test_a_progressive_jpeg_equals_its_baseline(tmp_path: Path) -> None:
    for progressive in (False, True):
        Image.fromarray(colours(120, 160)).save(
            tmp_path / f"{progressive}.jpg", progressive=progressive
        )
    for smallest in (None, 10):
        baseline = decode(tmp_path / "False.jpg", target_side=smallest)
        assert np.array_equal(decode(tmp_path / "True.jpg", target_side=smallest), baseline)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_the_first_frame_is_used_and_noted(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = tmp_path / f"two.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **_exact(ending))
    assert decode(path)[0, 0].tolist() == [255, 0, 0]
    (header,) = read_headers([path])
    assert isinstance(header, ImageHeader)
    assert header.animated


def _exact(ending: str) -> dict[str, bool]:
    return {"lossless": True} if ending == "webp" else {}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # raised by Pillow
@pytest.mark.parametrize("damage", [b"Exif\0\0not a TIFF", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_an_image_with_damaged_exif_data_is_read(tmp_path: Path, damage: bytes) -> None:
    Image.fromarray(colours()).save(tmp_path / "exif.jpg", exif=damage)
    assert read_headers([tmp_path / "exif.jpg"]) == [ImageHeader(16, 12, "RGB", "JPEG")]
    assert decode(tmp_path / "exif.jpg").shape == (12, 16, 3)


# ---------------------------------------------------------------- bombs and damage


def test_both_size_limits_of_pillow_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(colours()).save(tmp_path / "a.png")  # 192 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 95)  # more than twice as many: an error
    (problem,) = read_headers([tmp_path / "a.png"])
    assert "is not decoded" in str(problem)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 191)  # a warning, here an error
    with pytest.raises(InputError, match=r"a\.png is not decoded.*MAX_IMAGE_PIXELS"):
        decode(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_pillow_only_warns_of_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(colours()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 191)
    assert np.array_equal(decode(tmp_path / "a.png"), colours())


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damage that it tolerates
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_damage_always_raises_input_error(format_: str) -> None:
    random = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(colours()).save(file, format_)
    content = file.getvalue()
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for index in random.integers(0, len(damaged), 6):
            damaged[index] = random.integers(0, 256)
        try:
            decode(bytes(damaged[: random.integers(1, len(damaged) + 1)]), channels=3)
        except InputError:
            refused += 1
    assert refused > 0
