"""What the tests on a CUDA device share: the device, and data small enough to compare by eye."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor


@pytest.fixture
def cuda() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """No TF32 in convolutions, as in products: both devices then agree to fp32's last digits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def table() -> tuple[Tensor, Tensor]:
    """1,000 rows of 20 numbers in 4 classes."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(1_000, 20, generator=draws)
    return x, (x[:, :4] + torch.randn(1_000, 4, generator=draws)).argmax(1)
