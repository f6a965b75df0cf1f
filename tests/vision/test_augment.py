from collections.abc import Iterator
from typing import Any

import pytest
import torch

from flambeau.data.batch import Batch
from flambeau.data.loader import LoaderOptions
from flambeau.errors import InputError
from flambeau_vision.augment import Augment
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.dataset import ImageFileDataset
from flambeau_vision.resize import Geometry

STILL = Augmentation(rotate_degrees=0, zoom=(1, 1), shift=0)
EVERYTHING = Augmentation(
    warp=0.2, brightness=0.2, contrast=0.2, saturation=0.3, erase=0.33, probability=0.75
)


def smooth(n: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    """float32 images in 0..255 without hard edges."""
    coarse = torch.rand(n, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    return 255 * torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(
        0, 1
    )


def batch_of(images: torch.Tensor, indices: list[int], epoch: int = 0) -> Batch:
    return Batch({"image": images}, indices=torch.tensor(indices), epoch=epoch)


def test_flip_alone_is_exact_and_in_half_of_the_samples() -> None:
    images = torch.randint(0, 256, (400, 3, 6, 7), dtype=torch.uint8)
    result = Augment(STILL)(batch_of(images, list(range(400))), seed=1).input
    assert result.dtype == torch.uint8
    same = (result == images).flatten(1).all(dim=1)
    mirrored = (result == images.flip(3)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 160 < mirrored.sum() < 240


@pytest.mark.parametrize("size", [None, 12])
@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(), Augmentation(rotate_degrees=0, zoom=(1, 1), shift=0.2), EVERYTHING],
)
def test_augmentation_does_not_depend_on_the_batch(
    augmentation: Augmentation, size: int | None
) -> None:
    images = smooth(12, 16, 16, 3).round().to(torch.uint8)
    augment = Augment(augmentation, size)
    together = augment(batch_of(images, list(range(12)), epoch=2), seed=5).input
    order = [7, 3, 11, 0]
    apart = augment(batch_of(images[order], order, epoch=2), seed=5).input
    alone = augment(batch_of(images[7:8], [7], epoch=2), seed=5).input
    # Batches of different size are summed in other chunks: the last bit of a float32 may differ.
    assert torch.allclose(together[order], apart, rtol=0, atol=1e-4)
    assert torch.allclose(together[7:8], alone, rtol=0, atol=1e-4)
    for other in (
        augment(batch_of(images, list(range(12)), epoch=3), seed=5),
        augment(batch_of(images, list(range(12)), epoch=2), seed=6),
    ):
        assert not torch.equal(other.input, together)


@pytest.mark.parametrize("augmentation", [STILL, Augmentation(), EVERYTHING])
def test_uint8_and_float_pixels_give_the_same_result(augmentation: Augmentation) -> None:
    images = smooth(20, 16, 16, 3).round()
    narrow, wide = (
        Augment(augmentation)(batch_of(pixels, list(range(20))), seed=1).input
        for pixels in (images.to(torch.uint8), images)
    )
    assert torch.equal(narrow.float(), wide)
    assert wide.min() >= 0
    assert wide.max() <= 255.0 + 1e-3  # grid_sample's weights add up to 1 + 1e-7


def test_augmentations_have_independent_random_numbers() -> None:
    images = smooth(64, 16, 16, 3).round().to(torch.uint8)

    def changed(**values: float) -> torch.Tensor:
        given = {"flip": False, "rotate_degrees": 0, "zoom": (1.0, 1.0), "shift": 0.0, **values}
        return Augment(Augmentation(**given))(batch_of(images, list(range(64))), seed=4).input

    alone = {
        name: changed(**{name: value})
        for name, value in (
            ("flip", True), ("rotate_degrees", 20), ("zoom", (1.1, 1.3)), ("shift", 0.2),
            ("warp", 0.2), ("brightness", 0.3), ("contrast", 0.3), ("saturation", 0.5),
            ("erase", 0.4),
        )
    }  # fmt: skip
    for name, result in alone.items():
        share = ((result.float() - images).abs() > 0.05).flatten(1).any(1).float().mean()
        assert (0.3 if name == "flip" else 0.6) < share < (0.7 if name == "flip" else 0.9), name
    # The boxes and colours of erasing do not depend on the other augmentations.
    erased = (alone["erase"] != images).any(1, keepdim=True)
    both = changed(erase=0.4, brightness=0.3, contrast=0.3, saturation=0.5, warp=0.2)
    assert torch.equal(both * erased, alone["erase"].float() * erased)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"flip": True, "probability": 0.0},
        {"shift": 0.2},
        {"erase": 0.3},
        {"zoom": (1.0, 1.2)},
        {"contrast": 0.2},
        {"shift": 0.2, "erase": 0.3, "rotate_degrees": 9, "warp": 0.1, "probability": 0.0},
    ],
)
def test_is_active_means_that_images_change(values: dict[str, Any]) -> None:
    none = {"flip": False, "rotate_degrees": 0, "zoom": (1.0, 1.0), "shift": 0.0}
    augmentation = Augmentation(**{**none, **values})
    images = smooth(64, 16, 16, 3).round()
    result = Augment(augmentation)(batch_of(images, list(range(64))), seed=3).input
    assert augmentation.is_active == (not torch.allclose(result, images, atol=1e-3))


def test_presized_images_get_the_view_of_validation() -> None:
    images = smooth(8, 80, 80, 3)
    batch = batch_of(images, list(range(8)))
    still = Augmentation(flip=False, rotate_degrees=0, zoom=(1, 1), shift=0)
    result = Augment(still, size=64)(batch, seed=0).input
    expected = torch.nn.functional.interpolate(images, (64, 64), mode="bilinear")
    assert torch.allclose(result, expected, atol=0.02)  # rounding of the coordinates
    # With a crop of 0.8 validation uses the central 64 pixels.
    centre = Augment(still, size=64, crop=0.8)(batch, seed=0).input
    assert torch.allclose(centre, images[:, :, 8:72, 8:72], atol=0.02)


def test_views_of_presized_images_stay_inside() -> None:
    # Pixel values are coordinates, so a view without reflection is linear: no second difference.
    ys, xs = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    images = torch.stack([xs, ys]).repeat(50, 1, 1, 1)
    turned = Augmentation(rotate_degrees=25, shift=0.1, probability=1.0)
    batch = batch_of(images, list(range(50)))

    def is_bent(views: torch.Tensor) -> torch.Tensor:
        return views.diff(n=2, dim=3).abs().flatten(1).amax(1) > 0.2

    assert is_bent(Augment(turned)(batch, seed=0).input).float().mean() > 0.9
    assert not is_bent(Augment(turned, size=64)(batch, seed=0).input).any()


class _Augmented:
    """Decoded items, augmented after loading with any number of workers."""

    def __init__(self, workers: int, batch_size: int) -> None:
        items = list(smooth(10, 12, 12, 3).round().to(torch.uint8).numpy().transpose(0, 2, 3, 1))
        files = ImageFileDataset(items, torch.zeros(10), torch.arange(10) + 100, Geometry(12, 3))
        self.loader = files.loader(
            LoaderOptions(batch_size, shuffle=True, seed=9, num_workers=workers)
        )

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor]]:
        for batch in self.loader.batches(1):
            yield from zip(
                batch.indices.tolist(), Augment(EVERYTHING)(batch, seed=9).input, strict=True
            )


@pytest.mark.slow
def test_workers_and_batch_size_change_nothing() -> None:
    here = dict(_Augmented(0, 4))
    for workers, batch_size in ((2, 4), (1, 10), (2, 3)):
        there = dict(_Augmented(workers, batch_size))
        assert there.keys() == here.keys()
        for sample, image in there.items():
            assert torch.allclose(image, here[sample], rtol=0, atol=1e-4)


def test_the_input_batch_is_not_changed() -> None:
    images = smooth(4, 8, 8)
    kept = images.clone()
    batch = Batch({"image": images}, {"target": torch.arange(4)}, indices=torch.arange(4))
    result = Augment(Augmentation())(batch, seed=0)
    assert torch.equal(images, kept)
    assert result.target is batch.target
    assert result.input.min() >= 0
    assert result.input.max() <= 255.0 + 1e-3


def test_json_round_trip_and_errors() -> None:
    augmentation = Augmentation(flip=False, zoom=(0.9, 1.2))
    assert Augmentation.from_json(augmentation.as_json()) == augmentation
    assert Augmentation.from_json({"shift": 0.2}).shift == 0.2
    with pytest.raises(InputError, match="has no 'rotation'; it has flip, rotate_degrees"):
        Augmentation.from_json({"rotation": 3})
    # A plan of an older release lacks the newer names, which are off then.
    old = {"flip": True, "rotate_degrees": 10.0, "zoom": [1.0, 1.5], "shift": 0.05}
    assert not Augmentation.from_json(old).changes_colors
    assert Augmentation.from_json(old).warp == Augmentation.from_json(old).erase == 0.0
    for wrong in (
        {"zoom": (1.2, 1.0)},
        {"warp": 0.6},
        {"brightness": 1.0},
        {"contrast": -0.1},
        {"erase": float("nan")},
        {"zoom": (1.0, float("inf"))},
    ):
        with pytest.raises(InputError, match="out of range"):
            Augmentation(**wrong)
    with pytest.raises(InputError, match="no sample indices"):
        Augment(augmentation)(Batch({"image": smooth(1, 8, 8)}), seed=0)
