"""Verdicts on layers are silent on networks that train well; five of them set the thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flambeau import Data, Learner
from flambeau.inspect import Inspection, inspect


def fitted(data: Data, seed: int, **arguments: Any) -> Inspection:
    """Return the inspection of a fit with the choices of the plan."""
    torch.manual_seed(seed)
    choices = {"probe": "off", **arguments.pop("choices", {})}
    learner = Learner(data, arguments.pop("model", None), choices=choices, seed=seed, quiet=True)
    watch = learner.inspect()
    learner.fit(**arguments)
    return watch


def images(seed: int) -> Inspection:
    """Convolutions with batch norm on letters."""
    from flambeau_vision.demo import glyph_data

    return fitted(glyph_data(1_500, seed), seed, epochs=4)


def texts(seed: int) -> Inspection:
    """The default network for texts on sentences of Python's help."""
    from flambeau_text.classification.demo import python_help

    return fitted(python_help(800, seed), seed, steps=80)


def table(seed: int) -> Inspection:
    """The default network for tables."""
    from flambeau_tabular.demo import demo_data

    return fitted(demo_data(1_500, seed), seed, epochs=4)


def decoder(seed: int) -> Inspection:
    """A small decoder language model."""
    from flambeau_text.language.demo import python_topics

    return fitted(python_topics(300, seed), seed, model="decoder", steps=40)


def plain_mlp(seed: int) -> Inspection:
    """An MLP without normalisation in a plain loop."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
        nn.Linear(64, 5),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with inspect(model) as watch:
        for _ in range(200):
            x = torch.randn(64, 20)
            F.cross_entropy(model(x), x[:, :5].argmax(1)).backward()
            optimizer.step()
            optimizer.zero_grad()
    return watch


HEALTHY: Mapping[str, Callable[[int], Inspection]] = {
    "images": images,
    "texts": texts,
    "table": table,
    "decoder": decoder,
    "plain MLP": plain_mlp,
}
"""The networks on which the thresholds were set."""


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_networks_of_the_thresholds_have_no_verdict(name: str, seed: int) -> None:
    watch = HEALTHY[name](seed)
    assert len(watch.record.steps) >= 10
    assert list(map(str, watch.verdicts())) == []
