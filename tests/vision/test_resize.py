from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from flambeau.errors import InputError
from flambeau_vision.decode import decode
from flambeau_vision.load_images import load_all, load_image
from flambeau_vision.resize import Geometry, resize_pixels


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return an image as smooth as a photograph: coarse noise, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)[:, :, :channels]


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (48, 48), (24, 120)])
@pytest.mark.parametrize("mode", ["crop", "squash", "pad"])
def test_the_size_is_exact_in_every_mode(shape: tuple[int, int], mode: str) -> None:
    for channels in (1, 3):
        out = resize_pixels(photo(*shape, channels), Geometry(32, channels, mode))
        assert out.shape == (32, 32, channels)
        assert out.dtype == np.uint8


@pytest.mark.parametrize("shape", [(375, 500), (333, 251), (97, 100)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_matches_torchvision(shape: tuple[int, int], interpolation: str) -> None:
    image = Image.fromarray(photo(*shape))
    resized = reference.resize(image, [73], v2.InterpolationMode(interpolation))
    expected = np.asarray(reference.center_crop(resized, [64]))
    geometry = Geometry(64, 3, "crop", crop=64 / 73, interpolation=interpolation)
    given = resize_pixels(np.asarray(image), geometry)
    # From six times the size on, Pillow first shrinks by an integer factor: two levels at most.
    tolerance = 2 if min(shape) >= 6 * 73 else 0
    assert np.abs(given.astype(int) - expected).max() <= tolerance


def test_squash_is_antialiased_like_torch() -> None:
    image = photo(160, 90)
    expected = reference.resize(torch.from_numpy(image).permute(2, 0, 1), [32, 32], antialias=True)
    given = resize_pixels(image, Geometry(32, 3, "squash"))
    # torch computes with floats or other fixed-point weights than Pillow: one level.
    assert np.abs(given.transpose(2, 0, 1).astype(int) - expected.numpy()).max() <= 1


def test_pad_keeps_the_aspect_ratio_and_centres() -> None:
    white = np.full((20, 40, 1), 255, np.uint8)
    out = resize_pixels(white, Geometry(16, 1, "pad"))[:, :, 0]
    assert (out[4:12] == 255).all()
    assert not out[:4].any()
    assert not out[12:].any()


def test_crop_cuts_out_the_centre() -> None:
    stripes = np.zeros((10, 30, 1), np.uint8)
    stripes[:, 10:20] = 200
    assert (resize_pixels(stripes, Geometry(10, 1, "crop")) == 200).all()


def test_draft_decoding_of_large_jpegs_is_nearly_exact(tmp_path: Path) -> None:
    image = Image.fromarray(photo(1200, 1600))
    image.save(tmp_path / "large.jpg", quality=92)
    quick = load_image(tmp_path / "large.jpg", Geometry(48))
    assert decode(tmp_path / "large.jpg", target_side=48).shape[:2] == (150, 200)
    with Image.open(tmp_path / "large.jpg") as file:
        exact = np.asarray(reference.center_crop(reference.resize(file, [48]), [48]))
    # 3 of 255 levels in this smooth image, within the bound at DRAFT_FACTOR.
    assert np.abs(quick.astype(int) - exact).max() <= 3


@pytest.mark.parametrize(
    ("target_side", "shape"), [(50, (150, 200)), (51, (300, 400)), (101, (600, 800)), (201, None)]
)
def test_a_draft_has_at_least_three_times_the_wanted_side(
    target_side: int, shape: tuple[int, int] | None, tmp_path: Path
) -> None:
    Image.fromarray(photo(1200, 1600)).save(tmp_path / "large.jpg")
    found = decode(tmp_path / "large.jpg", target_side=target_side).shape[:2]
    assert found == (shape or (1200, 1600))


def test_jpegs_of_odd_size_are_decoded_in_full(tmp_path: Path) -> None:
    # Half a size rounded up would shift the centre crop by up to a pixel.
    Image.fromarray(photo(375, 500)).save(tmp_path / "odd.jpg", quality=92)
    assert decode(tmp_path / "odd.jpg", target_side=32).shape[:2] == (375, 500)
    exact = resize_pixels(decode(tmp_path / "odd.jpg", channels=3), Geometry(32))
    assert np.array_equal(load_image(tmp_path / "odd.jpg", Geometry(32)), exact)


def test_other_channel_counts_are_resized_by_channel() -> None:
    many = np.concatenate([photo(40, 50), photo(40, 50, seed=1)], axis=2)
    out = resize_pixels(many, Geometry(16, 6))
    assert out.shape == (16, 16, 6)
    assert np.array_equal(out[:, :, 4:5], resize_pixels(many[:, :, 4:5], Geometry(16, 1)))


def test_threads_keep_the_order_and_errors_name_the_item(tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((9, 9), number, np.uint8)).save(paths[-1])
    out = load_all(paths, Geometry(8, 1))
    assert out.dtype == torch.uint8
    assert out[:, 0, 3, 3].tolist() == list(range(12))
    paths[7].write_bytes(b"gone")
    with pytest.raises(InputError, match=r"Item 7 of 12: .*7\.png cannot be read"):
        load_all(paths, Geometry(8, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "at least 1"),
        ({"size": 8, "resize": "stretch"}, "resize='stretch'.*'crop', 'squash' or 'pad'"),
        ({"size": 8, "interpolation": "linear"}, "interpolation='linear'.*'nearest'"),
        ({"size": 8, "crop": 1.5}, "share in"),
    ],
)
def test_invalid_geometries_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Geometry(**arguments)
