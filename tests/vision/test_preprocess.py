import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_weight

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau_vision.preprocess import ImagePreprocessor, channel_statistics


@pytest.mark.parametrize(
    "name",
    [
        "ResNet18_Weights.IMAGENET1K_V1",
        "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
        "EfficientNet_B0_Weights.IMAGENET1K_V1",
        "Swin_T_Weights.IMAGENET1K_V1",
        "RegNet_Y_400MF_Weights.IMAGENET1K_V2",
    ],
)
@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (256, 256)])
def test_preprocessing_matches_the_published_weights(name: str, shape: tuple[int, int]) -> None:
    transforms = get_weight(name).transforms()
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = transforms(Image.fromarray(pixels))
    size, resize = transforms.crop_size[0], transforms.resize_size[0]
    prepare = ImagePreprocessor(
        size=size,
        channels=3,
        mean=transforms.mean,
        std=transforms.std,
        crop=size / resize,
        interpolation=transforms.interpolation.value,
    )
    given = prepare.on_device(prepare.encode([pixels])).input[0]
    # The uint8 pixels are the same; the folded multiply-add rounds differently in float32.
    assert (given - expected).abs().max() < 1e-5


@pytest.mark.parametrize("memory_format", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalisation_matches_the_formula(memory_format: str, dtype: torch.dtype) -> None:
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    images = torch.randint(0, 256, (5, 3, 8, 8)).to(dtype)
    kept = images.clone()
    prepare = ImagePreprocessor(size=8, channels=3, mean=mean, std=std, memory_format=memory_format)
    batch = Batch({"image": images}, {"target": torch.arange(5)}, indices=torch.arange(5), epoch=3)
    result = prepare.on_device(batch)
    wide = [torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std)]
    expected = (images.double() / 255 - wide[0]) / wide[1]
    assert result.input.dtype == torch.float32
    assert (result.input - expected).abs().max() < 1e-6  # float32
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    assert result.input.is_contiguous(memory_format=layout)
    assert torch.equal(images, kept)
    assert result.target is batch.target
    assert result.epoch == 3


def test_arguments_are_json_and_rebuild_it() -> None:
    first = ImagePreprocessor(
        size=16, channels=1, mean=[0.3], std=[0.1], resize="pad", interpolation="bicubic"
    )
    again = ImagePreprocessor(**json.loads(json.dumps(first.arguments())), **first.tensors())
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31), dtype=np.uint8)
    one, other = (p.on_device(p.encode([pixels])).input for p in (first, again))
    assert torch.equal(one, other)


def test_statistics_are_exact() -> None:
    images = torch.randint(0, 256, (37, 2, 11, 13), dtype=torch.uint8)
    mean, std = channel_statistics(images)
    values = images.double() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-14)
    assert std == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    mean, std = channel_statistics(torch.full((3, 1, 4, 4), 51, dtype=torch.uint8))
    assert mean == [0.2]
    assert std == [1 / 255]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.5] * 3}, "1 channels, but mean has 3 numbers and std has 1"),
        ({"std": [0.0]}, "std has to be above 0"),
        ({"memory_format": "nhwc"}, "memory_format='nhwc'"),
    ],
)
def test_invalid_arguments_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImagePreprocessor(**{"size": 8, "channels": 1, "mean": [0.5], "std": [0.2], **changes})


def test_statistics_need_uint8() -> None:
    with pytest.raises(InputError, match=r"got torch\.float32 of shape \(1, 1, 2, 2\)"):
        channel_statistics(torch.zeros(1, 1, 2, 2))
