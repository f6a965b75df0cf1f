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


def loop(
    model: nn.Module, batch: Callable[[], tuple[torch.Tensor, torch.Tensor]], steps: int = 60
) -> Inspection:
    """Return the inspection of a plain loop."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with inspect(model) as watch:
        for _ in range(steps):
            x, y = batch()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    return watch


def translation(seed: int, model: str) -> Inspection:
    """A model with attention on sentences with dates."""
    from flambeau_text.translation.demo import dates_data

    return fitted(dates_data(400, seed), seed, model=model, steps=30)


def lstm_language_model(seed: int) -> Inspection:
    """AWD-LSTM on paragraphs of Python's help."""
    from flambeau_text.language.demo import python_topics

    return fitted(python_topics(200, seed), seed, model="awd_lstm", steps=20)


def transformer_on_texts(seed: int) -> Inspection:
    """A Transformer encoder on sentences of Python's help."""
    from flambeau_text.classification.demo import python_help

    return fitted(python_help(400, seed), seed, model="transformer", steps=30)


def encoder_layers(seed: int) -> Inspection:
    """torch's own encoder layers in a plain loop."""
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(32, 10, 8)
        return x, x[:, 0, :4].argmax(1)

    return loop(nn.Sequential(nn.Linear(8, 32), body, nn.Flatten(), nn.Linear(320, 4)), batch)


class Recurrent(nn.Module):
    """Embedding, GRU and a linear layer on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.gru = nn.GRU(16, 32, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.embedding(x))[1][-1])


def gated_recurrent(seed: int) -> Inspection:
    """A GRU in a plain loop."""
    torch.manual_seed(seed)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randint(50, (32, 12))
        return x, x[:, -1] % 5

    return loop(Recurrent(), batch)


OTHERS: Mapping[str, Callable[[int], Inspection]] = {
    "recurrent translation": lambda seed: translation(seed, "rnn"),
    "Transformer translation": lambda seed: translation(seed, "transformer"),
    "LSTM language model": lstm_language_model,
    "Transformer on texts": transformer_on_texts,
    "encoder layers of torch": encoder_layers,
    "gated recurrent": gated_recurrent,
}
"""Networks that were looked at after the thresholds were set."""


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


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_other_healthy_networks_have_no_verdict(name: str, seed: int) -> None:
    watch = OTHERS[name](seed)
    assert len(watch.record.steps) >= 10
    assert list(map(str, watch.verdicts())) == []
