"""Small models in float64, small enough to check every result in another way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from flambeau_text.models import Seq2Seq, rnn, transformer

SOURCE_VOCAB, TARGET_VOCAB = 11, 9

RNN = {"embedding_dim": 6, "hidden_size": 8, "dropout": 0.0}
TRANSFORMER = {
    "d_model": 8, "nhead": 2, "dim_feedforward": 12, "encoder_layers": 2, "decoder_layers": 2,
    "dropout": 0.0,
}  # fmt: skip

MODELS: dict[str, Callable[..., Seq2Seq]] = {
    "gru": lambda **more: rnn(config=RNN, **more),
    "one layer": lambda **more: rnn(config={**RNN, "decoder_layers": 1, "bridge": "zero"}, **more),
    "lstm, two layers": lambda **more: rnn(
        config={**RNN, "cell": "lstm", "encoder_layers": 2, "decoder_layers": 3}, **more
    ),
    "input feeding": lambda **more: rnn(config={**RNN, "input_feeding": True}, **more),
    "dot, copy": lambda **more: rnn(
        config={**RNN, "attention": "dot", "bridge": "copy", "encoder_size": 4}, **more
    ),
    "general": lambda **more: rnn(config={**RNN, "attention": "general"}, **more),
    "concat": lambda **more: rnn(config={**RNN, "attention": "concat"}, **more),
    "pre-norm": lambda **more: transformer(config=TRANSFORMER, **more),
    "post-norm": lambda **more: transformer(
        config={**TRANSFORMER, "norm": "post", "activation": "gelu"}, **more
    ),
}


def make(name: str, seed: int = 0, scale: float = 1.0, **more: object) -> Seq2Seq:
    """A model in float64 and eval mode; ``scale`` above 1 makes its predictions more certain."""
    torch.manual_seed(seed)
    given = {"source_vocab": SOURCE_VOCAB, "target_vocab": TARGET_VOCAB, **more}
    model = MODELS[name](**given).double().eval()
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(scale)
            # Biases start at 0, which would hide errors.
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
    return model


@pytest.fixture(autouse=True)
def _restore_the_generator() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return make(request.param)


def sources(lengths: list[int], seed: int = 1, longest: int | None = None) -> tuple:
    """Token ids and mask of random sources, padded to the longest or to ``longest``."""
    draws = torch.Generator().manual_seed(seed)
    width = max(lengths) if longest is None else longest
    tokens = torch.randint(4, SOURCE_VOCAB, (len(lengths), width), generator=draws)
    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
    return tokens.masked_fill(~mask, 1), mask


def targets(lengths: list[int], seed: int = 2) -> torch.Tensor:
    """Random targets from begin to end, padded."""
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randint(4, TARGET_VOCAB, (len(lengths), max(lengths) + 2), generator=draws)
    rows[:, 0] = 2
    for row, length in enumerate(lengths):
        rows[row, length + 1] = 3
        rows[row, length + 2 :] = 1
    return rows


@pytest.fixture(scope="session")
def pretrained() -> ModuleType:
    """The module ``pretrained.py``, with tiny models of transformers."""
    for name in ("transformers", "peft"):
        pytest.importorskip(name, reason='needs the extra "flambeau-text[hf]"')
    spec = spec_from_file_location("pretrained", Path(__file__).with_name("pretrained.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small() -> SimpleNamespace:
    """`make`, `sources` and `targets`: test modules cannot import one another."""
    return SimpleNamespace(make=make, sources=sources, targets=targets, vocab=TARGET_VOCAB)
