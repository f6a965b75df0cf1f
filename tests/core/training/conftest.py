"""What the tests of training's pieces share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _generator_comes_back() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)
