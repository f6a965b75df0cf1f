"""The models: only the head is replaced, and weights that do not match are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flambeau import Learner
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau_vision import ImageData
from flambeau_vision.models import (
    BACKBONE_NAMES,
    Backbone,
    SmallCNN,
    backbone,
    small_cnn,
    weights_record,
)
from flambeau_vision.models.layer_paths import LAYER_PATHS
from flambeau_vision.models.weights import adapt_channels, read_weights

SIZE = 32


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assert_groups_partition(model: SmallCNN | Backbone) -> None:
    groups = model.layer_groups()
    grouped = [id(p) for modules in groups.values() for m in modules for p in m.parameters()]
    assert next(iter(groups)) == "stem"
    assert list(groups)[-1] == "head"
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_the_body_equals_the_torchvision_network(name: str) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    sized = {"image_size": SIZE} if name == "vit_b_16" else {}
    original = get_model(name, weights=None, **sized).eval()
    torch.manual_seed(0)
    model = backbone(name=name, in_channels=3, n_outputs=7, image_size=SIZE).eval()

    # The published count is for 224 pixels; ViT has one position embedding per patch.
    published = weights_record(name, "DEFAULT")
    assert published is not None
    missing = (14**2 - (SIZE // 16) ** 2) * 768 if name == "vit_b_16" else 0
    assert n_parameters(original) == published.num_params - missing

    old_head = original.get_submodule(LAYER_PATHS[name].head)
    assert n_parameters(model) == (
        n_parameters(original) - n_parameters(old_head) + n_parameters(model.head)
    )

    seen: list[torch.Tensor] = []
    old_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        original(images)
        features = model.body(images)
        outputs = model(images)
    assert torch.equal(features, seen[0])
    assert outputs.shape == (2, 7)
    assert_groups_partition(model)


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 6, 7])
def test_adapted_channels_match_a_slow_loop(in_channels: int) -> None:
    weight = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    expected = torch.zeros(5, in_channels, 2, 2, dtype=torch.float64)
    for channel in range(in_channels):
        if in_channels == 1:
            for colour in range(3):
                expected[:, 0] += weight[:, colour]
        else:
            expected[:, channel] = weight[:, channel % 3] * 3 / in_channels
    torch.testing.assert_close(
        adapt_channels(weight, in_channels), expected, rtol=1e-14, atol=1e-14
    )


def test_channels_other_than_three_cannot_be_adapted() -> None:
    with pytest.raises(InputError, match="has 5 channels and the data have 4"):
        adapt_channels(torch.zeros(2, 5, 3, 3), 4)


def test_one_channel_equals_three_equal_channels() -> None:
    torch.manual_seed(0)
    colour = backbone(name="resnet18", in_channels=3, n_outputs=2).eval()
    torch.manual_seed(0)
    grey = backbone(name="resnet18", in_channels=1, n_outputs=2).eval()
    images = torch.rand(2, 1, SIZE, SIZE)
    with torch.inference_mode():
        # Another order of summation in the first of eighteen layers: 1e-5 relative.
        torch.testing.assert_close(
            grey.body(images), colour.body(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
        )


def test_every_stem_can_be_adapted() -> None:
    for name in ("convnext_tiny", "mobilenet_v3_small", "shufflenet_v2_x1_0", "regnet_y_400mf"):
        model = backbone(name=name, in_channels=5, n_outputs=2, image_size=SIZE).eval()
        with torch.inference_mode():
            assert model(torch.rand(1, 5, SIZE, SIZE)).shape == (1, 2)


@pytest.mark.parametrize("wrapping", ["plain", "nested", "wrapped", "safetensors"])
def test_a_local_file_is_loaded_into_the_body(tmp_path: Path, wrapping: str) -> None:
    from safetensors.torch import save_file
    from torchvision.models import shufflenet_v2_x1_0

    torch.manual_seed(1)
    state = shufflenet_v2_x1_0(num_classes=9).state_dict()
    path = tmp_path / ("w.safetensors" if wrapping == "safetensors" else "w.pth")
    if wrapping == "safetensors":
        save_file(state, path)
    elif wrapping == "wrapped":
        torch.save({f"module.{key}": value for key, value in state.items()}, path)
    else:
        torch.save({"model": state, "epoch": 3} if wrapping == "nested" else state, path)
    model = backbone(name="shufflenet_v2_x1_0", in_channels=1, n_outputs=4, weights=str(path))
    body = model.body.state_dict()
    assert torch.equal(body["stage3.1.branch2.0.weight"], state["stage3.1.branch2.0.weight"])
    assert torch.equal(body["conv1.0.weight"], state["conv1.0.weight"].sum(1, keepdim=True))
    assert model.record is None


@pytest.mark.parametrize("name", ["shufflenet_v2_x1_0", "vit_b_16"])
def test_a_backbone_file_is_loaded_for_another_task(tmp_path: Path, name: str) -> None:
    from safetensors.torch import save_file

    first = backbone(name=name, in_channels=1, n_outputs=3, image_size=SIZE).eval()
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    second = backbone(
        name=name,
        in_channels=1,
        n_outputs=8,
        image_size=SIZE,
        weights=str(tmp_path / "model.safetensors"),
    ).eval()
    images = torch.rand(2, 1, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(first.body(images), second.body(images))
        assert second(images).shape == (2, 8)


def test_weights_of_another_network_are_refused_by_key(tmp_path: Path) -> None:
    from torchvision.models import shufflenet_v2_x1_0

    state = shufflenet_v2_x1_0().state_dict()
    state["stage9.weight"] = state.pop("conv5.0.weight")
    state["conv5.1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        backbone(
            name="shufflenet_v2_x1_0",
            in_channels=3,
            n_outputs=2,
            weights=str(tmp_path / "w.pth"),
        )
    message = str(caught.value)
    assert "1 missing: conv5.0.weight" in message
    assert "1 unexpected: stage9.weight" in message
    assert "conv5.1.bias (3,) instead of (1024,)" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(1, 1), "pickled models are refused"),
        ([1, 2], "contains a list"),
        ({"fc.weight": torch.zeros(1), "epoch": 3}, "not tensors: epoch"),
    ],
)
def test_files_without_weights_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        backbone(name="resnet18", in_channels=3, n_outputs=2, weights=str(tmp_path / "w.pth"))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(InputError, match="could not be read as weights"):
            backbone(name="resnet18", in_channels=3, n_outputs=2, weights=str(tmp_path / name))


def test_unknown_names_are_refused_by_name() -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'resnet18'"):
        backbone(name="resnet81", in_channels=3, n_outputs=2)
    with pytest.raises(InputError, match="Published: IMAGENET1K_V1"):
        backbone(name="resnet18", in_channels=3, n_outputs=2, weights="IMAGENET22K")


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(InputError, match=r"no route to host.*Save the file as .*from scratch"):
        backbone(name="resnet18", in_channels=3, n_outputs=2, weights="DEFAULT")
    assert not list(tmp_path.rglob("*.part"))


def test_the_record_matches_torchvision() -> None:
    from torchvision.models import EfficientNet_B0_Weights

    record = weights_record("efficientnet_b0", "DEFAULT")
    transforms = EfficientNet_B0_Weights.DEFAULT.transforms()
    assert record is not None
    assert record.mean == tuple(transforms.mean)
    assert record.std == tuple(transforms.std)
    assert (record.size, record.resize) == (224, 256)
    assert record.interpolation == "bicubic"
    assert record.crop == 224 / 256
    assert weights_record("efficientnet_b0", None) is None


def test_a_published_file_is_recognised_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "resnet18-f37072fd.pth"
    path.write_bytes(b"")
    record = weights_record("resnet18", str(path))
    assert record is not None
    assert record.name == "ResNet18_Weights.IMAGENET1K_V1"


def test_vit_needs_a_multiple_of_16() -> None:
    with pytest.raises(InputError, match="multiple of 16; got None"):
        backbone(name="vit_b_16", in_channels=3, n_outputs=2)
    with pytest.raises(InputError, match="multiple of 16; got 100"):
        backbone(name="vit_b_16", in_channels=3, n_outputs=2, image_size=100)


@pytest.mark.parametrize(("in_channels", "size"), [(1, 8), (3, 28), (4, 33), (2, 64), (3, 160)])
def test_small_cnn_accepts_images_of_any_size(in_channels: int, size: int) -> None:
    model = small_cnn(in_channels=in_channels, n_outputs=5, image_size=size)
    outputs = model(torch.rand(2, in_channels, size, size + 3))
    assert outputs.shape == (2, 5)
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert_groups_partition(model)


def test_small_cnn_learns_four_images() -> None:
    torch.manual_seed(0)
    model = small_cnn(in_channels=1, n_outputs=4, image_size=16, width=8)
    images, targets = torch.rand(4, 1, 16, 16), torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    assert model(images).argmax(1).equal(targets)


@pytest.mark.parametrize("content", [b"junk", b"", b"\x80\x02.", b"PK\x03\x04junk", b"{}" * 99])
def test_junk_in_a_weights_file_is_named(tmp_path: Path, content: bytes) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} (could not be read as weights|contains a)"):
            read_weights("resnet18", str(tmp_path / name))


def test_a_whole_model_in_a_weights_file_is_named_without_the_advice_to_load_it(
    tmp_path: Path,
) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(InputError, match="pickled models are refused") as error:
        read_weights("resnet18", str(tmp_path / "whole.pth"))
    assert "two options" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("value", [True, False, 1, "", ["DEFAULT"]])
def test_weights_are_a_name_or_a_path(value: object) -> None:
    data = ImageData.from_arrays(np.zeros((4, 8, 8), np.uint8), ["a", "b"] * 2, valid=0.5)
    with pytest.raises(PlanError, match=r'weights is .*must be "DEFAULT".*path of a file'):
        Learner(data, "resnet18", choices={"weights": value})
