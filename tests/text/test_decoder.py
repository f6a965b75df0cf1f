"""The compact decoder: attention in a window, carried keys, zero-initialised blocks."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from flambeau.errors import ArgumentError
from flambeau.nested import detach
from flambeau.training.optim.groups import parameter_groups
from flambeau_text.decoding import Greedy
from flambeau_text.language.generate import generate
from flambeau_text.models.decoder import DecoderAttention, DecoderConfig, DecoderLM, decoder


def network(**config: object) -> DecoderLM:
    """Return a network in float64 whose weights are all random, in eval mode."""
    torch.manual_seed(0)
    model = decoder(vocab_size=17, config={"depth": 2, "width": 128, **config}).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def ids(batch: int, positions: int) -> Tensor:
    return torch.randint(0, 17, (batch, positions), generator=torch.Generator().manual_seed(1))


def slow_attention(layer: DecoderAttention, values: Tensor) -> Tensor:
    """Return the attention of one sequence, position by position, as the definition states it."""
    n, width = values.shape
    parts = (values @ layer.project.weight.T).view(n, 3, width // 64, 64)
    norm = lambda x: x / x.square().mean().sqrt()  # noqa: E731
    rows = []
    for at in range(n):
        heads = []
        for head in range(width // 64):
            scores, contents = [], []
            for other in range(max(0, at - layer.window + 1), at + 1):
                query, key = norm(parts[at, 0, head]), norm(parts[other, 1, head])
                # Rotated by the distance: a product of complex numbers with their conjugates.
                q, k = torch.complex(query[:32], query[32:]), torch.complex(key[:32], key[32:])
                rates = 10_000.0 ** (-torch.arange(0, 64, 2).double() / 64)
                turn = torch.polar(torch.ones(32).double(), (at - other) * rates)
                scores.append((q * turn * k.conj()).real.sum() / 8)
                contents.append(parts[other, 2, head])
            weights = torch.stack(scores).softmax(0)
            heads.append(weights @ torch.stack(contents))
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ layer.output.weight.T


@pytest.mark.parametrize("window", [1, 3, 50])
def test_attention_equals_the_definition(window: int) -> None:
    layer = network(window=window).blocks[0].attention
    values = torch.randn(2, 7, 128, generator=torch.Generator().manual_seed(2)).double()
    found, _ = layer(values, None)
    expected = torch.stack([slow_attention(layer, each) for each in values])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)  # angles are float32


@pytest.mark.parametrize("window", [1, 2, 5, 64])
def test_chunks_with_carried_keys_equal_one_pass(window: int) -> None:
    model = network(window=window)
    tokens = ids(3, 23)
    whole, last = model(tokens)
    for cuts in ([0, 1, 6, 7, 20, 23], [0, 11, 23], list(range(24))):
        state, found = None, []
        for begin, end in pairwise(cuts):
            logits, state = model(tokens[:, begin:end], state)
            found.append(logits)
            assert state[0][0].shape[2] <= window - 1
        # The rotation of a chunk starts at another position, with angles in float32.
        torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=0)
    assert state[0][0].shape == last[0][0].shape


def test_no_position_sees_a_later_token() -> None:
    model = network()
    tokens = ids(1, 9)
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 17
    one, other = model(tokens)[0], model(changed)[0]
    torch.testing.assert_close(one[:, :5], other[:, :5], atol=1e-12, rtol=0)
    assert not torch.allclose(one[:, 5:], other[:, 5:])


def test_generation_may_exceed_the_window() -> None:
    model = network(window=4)
    prompt = torch.tensor([[3, 5, 6]])
    found = generate(model, prompt, torch.ones(1, 3, dtype=torch.bool), 12, Greedy())
    tokens = prompt
    with torch.no_grad():
        for at in range(12):
            logits = model(tokens)[0][:, -1].clone()
            logits[:, [1, 2]] = -torch.inf
            token = logits.argmax(1, keepdim=True)
            assert int(found.tokens[0, at]) == int(token)
            tokens = torch.cat([tokens, token], 1)


@pytest.mark.parametrize("tie", [False, True])
def test_a_new_network_predicts_all_tokens_alike(tie: bool) -> None:
    torch.manual_seed(0)
    model = decoder(vocab_size=500, config={"depth": 2, "tie": tie, "dropout": 0.0}).eval()
    logits = model(torch.arange(40).view(2, 20))[0]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(100, 140))
    assert float(loss.detach()) == pytest.approx(math.log(500), abs=0.7 if tie else 0.01)
    # The blocks are the identity at first: the features are the normalised embeddings.
    features = model.features(torch.tensor([[7]])).features[0, 0]
    row = model.embedding.weight[7]
    torch.testing.assert_close(features, row / row.square().mean().sqrt(), atol=1e-5, rtol=1e-5)


def test_tied_weights_are_one_parameter() -> None:
    tied, free = (decoder(vocab_size=17, config={"depth": 1, "tie": tie}) for tie in (True, False))
    assert tied.output.weight is tied.embedding.weight
    assert list(parameter_groups(tied)) == ["embedding", "block_0"]
    assert list(parameter_groups(free)) == ["embedding", "block_0", "output"]


def test_a_soft_cap_limits_the_logits() -> None:
    torch.manual_seed(0)
    model, free = (network(soft_cap=cap) for cap in (1.5, None))
    free.load_state_dict(
        {
            name.replace("output.linear.", "output."): each
            for name, each in model.state_dict().items()
        }
    )
    tokens = ids(2, 5)
    capped, plain = model(tokens)[0], free(tokens)[0]
    assert capped.abs().max() < 1.5
    torch.testing.assert_close(capped, 1.5 * torch.tanh(plain / 1.5))


def test_the_width_follows_from_the_depth() -> None:
    assert DecoderConfig(depth=3).width == 192
    assert decoder(vocab_size=9, config={"depth": 3}).blocks[0].attention.heads == 3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"depth": 0}, "depth=0 is invalid"),
        ({"width": 100}, "multiple of 64"),
        ({"window": 0}, "window=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"soft_cap": 0.0}, "soft_cap=0.0"),
        ({"deph": 2}, "Did you mean 'depth'"),
    ],
)
def test_invalid_settings_are_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        decoder(vocab_size=9, config=config)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_chunks_of_any_length_are_compiled_three_times(training: bool) -> None:
    from torch._dynamo.testing import CompileCounter

    model = decoder(vocab_size=20, config={"depth": 1, "window": 32, "dropout": 0.0})
    counter = CompileCounter()
    # One graph for each: a break inside the loop over blocks would compile every part of a block.
    compiled = torch.compile(model.features, backend=counter, fullgraph=True)
    state = expected = None
    for n in (20, 23, 18, 9, 21, 26, 5, 22):
        tokens = torch.randint(20, (3, n))
        with torch.set_grad_enabled(training):
            found, same = compiled(tokens, state), model.features(tokens, expected)
        torch.testing.assert_close(found.features, same.features)
        state, expected = detach(found.state), detach(same.state)
    assert all(value.is_contiguous() for layer in state for value in layer)
    # Without a state, with a shorter one, and for all lengths.
    assert counter.frame_count == 3
