"""``Learner.save`` for weights that are not contiguous in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from flambeau.artefact.weights_file import load_model, save_model


def convolution() -> nn.Module:
    return nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def transposed() -> nn.Module:
    """Two layers on one memory, the second transposed."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))
    model[1].weight = nn.Parameter(model[0].weight.data.t())
    return model


@pytest.mark.parametrize("make", [convolution, transposed])
def test_strided_weights_are_saved_and_loaded(make: object, tmp_path: Path) -> None:
    saved, loaded = make(), make()  # type: ignore[operator]
    expected = {name: value.clone() for name, value in saved.state_dict().items()}
    strides = [value.stride() for value in loaded.state_dict().values()]
    load_model(loaded, save_model(saved, tmp_path / "weights"))
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, expected[name])
    assert [value.stride() for value in loaded.state_dict().values()] == strides
