"""``learner.explain`` for images: a map of the pixels that move an output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, TrainingOptions
from flambeau.errors import ArgumentError
from flambeau_vision import ImageData


class Corner(nn.Module):
    """Reads the upper left quarter of an image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x[:, :, :8, :8]))


def make(model: nn.Module) -> Learner:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=generator)
    data = ImageData.from_arrays(images, torch.arange(40) % 2, valid=0.25, class_names=["a", "b"])
    options = TrainingOptions(doctor=False)
    torch.manual_seed(1)
    return Learner(data, model, choices={"probe": "off"}, training=options, quiet=True)


def test_the_map_adds_up_and_is_zero_where_the_model_does_not_look(tmp_path: Path) -> None:
    learner = make(Corner())
    number = int(learner.data.split.valid[0])
    found = learner.explain(number)
    assert found.attributions is not None
    heat, total = found.attributions.heat, found.attributions.total
    assert heat is not None
    assert heat.shape == (16, 16)
    assert float(heat.sum()) == pytest.approx(total, rel=0.01)
    assert float(heat[:8, :8].abs().min()) > 0
    assert float(heat[9:].abs().max()) == float(heat[:, 9:].abs().max()) == 0
    # The image is the one that the model sees.
    image = found.attributions.image
    assert image is not None
    item = torch.as_tensor(learner.data.raw("valid")[0])
    torch.testing.assert_close(image.movedim(-1, 0).int(), item.int(), atol=1, rtol=0)
    assert all(each.image for each in found.neighbours)
    found.plot(tmp_path / "map.png")
    assert (tmp_path / "map.png").exists()


def test_outputs_of_several_positions_have_no_map() -> None:
    class Map(Corner):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :, None].expand(-1, -1, 3)

    learner = make(Map())
    with pytest.raises(ArgumentError, match="one row of numbers for each sample"):
        learner.domain.attributions(  # type: ignore[misc]
            learner.predictor(), learner.data.raw("valid")[0], None, []
        )
