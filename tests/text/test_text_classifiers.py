"""Classifiers of texts: padding, chunks and the other texts of a batch change no result."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError
from flambeau_text.models.bag import BagConfig, BagEncoder, bag_classifier
from flambeau_text.models.concat_pool import ConcatPoolEncoder, awd_lstm_classifier
from flambeau_text.models.text_classifier import TextClassifier
from flambeau_text.models.transformer import positional_encoding
from flambeau_text.models.transformer_classifier import (
    TransformerTextEncoder,
    transformer_classifier,
)

VOCAB = 23
CHUNK = 4
AWD = {
    "embedding_dim": 6, "hidden_size": 7, "num_layers": 2, "chunk": CHUNK, "window": 400,
    "head_size": 5,
}  # fmt: skip

SMALL = {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "num_layers": 2}


def make(name: str, **config: object) -> TextClassifier:
    torch.manual_seed(0)
    if name == "bag":
        model = bag_classifier(vocab_size=VOCAB, n_outputs=3, config={"buckets": 40, **config})
    elif name == "transformer":
        model = transformer_classifier(vocab_size=VOCAB, n_outputs=3, config={**SMALL, **config})
    else:
        model = awd_lstm_classifier(vocab_size=VOCAB, n_outputs=3, config={**AWD, **config})
    with torch.no_grad():
        for value in model.head.parameters():  # biases start at 0, which would hide errors
            value.add_(0.3 * torch.randn_like(value))
    return model.double().eval()


def texts(lengths: Sequence[int], seed: int = 1) -> list[Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCAB, (n,), generator=draws) for n in lengths]


def padded(rows: Sequence[Tensor], more: int = 0, filling: int = 1) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows)) + more
    found = torch.full((len(rows), width), filling)
    for row, tokens in enumerate(rows):
        found[row, : len(tokens)] = tokens
    return found, torch.tensor([len(row) for row in rows])


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
        for name, value in model.named_parameters()
    }


@pytest.mark.parametrize("name", ["bag", "awd_lstm", "transformer"])
@pytest.mark.parametrize(
    "length", sorted({1, 2, *(k * CHUNK + d for k in (1, 2, 3) for d in (-1, 0, 1))})
)
def test_a_ragged_batch_equals_its_texts_alone(name: str, length: int) -> None:
    model = make(name, **({"window": CHUNK} if name == "awd_lstm" else {}))
    rows = texts([length, 13, 1, 8])
    labels = torch.tensor([0, 2, 1, 1])
    together = model(*padded(rows, more=3, filling=9))
    singles = [model(*padded([row])) for row in rows]
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-12, atol=1e-12)
    whole = gradients(model, nn.functional.cross_entropy(together, labels, reduction="sum"))
    summed: dict[str, Tensor] = {}
    for row, label in zip(rows, labels, strict=True):
        loss = nn.functional.cross_entropy(model(*padded([row])), label[None], reduction="sum")
        for key, value in gradients(model, loss).items():
            summed[key] = summed.get(key, 0) + value
    for key, value in whole.items():
        torch.testing.assert_close(value, summed[key], rtol=1e-10, atol=1e-12, msg=key)


def test_the_bag_is_the_mean_of_tokens_and_pairs() -> None:
    torch.manual_seed(0)
    encoder = BagEncoder(VOCAB, BagConfig(width=4, buckets=11)).double()
    weight = encoder.vectors.weight.detach().numpy()
    for row in texts([1, 2, 7]):
        tokens = row.tolist()
        rows = [*tokens]
        for before, after in pairwise(tokens):
            rows.append(VOCAB + (before * 1_000_003 + after) % 11)
        expected = np.mean([weight[each] for each in rows], axis=0)
        found = encoder(*padded([row], more=2)).detach().numpy()[0]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_bag_without_buckets_ignores_the_order() -> None:
    model = make("bag", buckets=0)
    [row] = texts([9])
    shuffled = row[torch.randperm(9, generator=torch.Generator().manual_seed(3))]
    torch.testing.assert_close(model(*padded([row])), model(*padded([shuffled])))
    with_pairs = make("bag")
    assert not torch.allclose(with_pairs(*padded([row])), with_pairs(*padded([shuffled])))


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 11])
def test_concat_pooling_equals_one_pass_over_a_text(length: int) -> None:
    model = make("awd_lstm")
    encoder = model.encoder
    assert isinstance(encoder, ConcatPoolEncoder)
    [row] = texts([length])
    features = encoder.encoder.features(row[None]).features[0].detach().numpy()
    expected = np.concatenate([features[-1], features.max(0), features.mean(0)])
    found = encoder(*padded([row], more=6)).detach().numpy()[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 7, 8, 9, 12, 13, 20, 21])
def test_gradients_reach_the_chunks_within_the_window(length: int) -> None:
    """Each text has its own window, whatever the lengths of the others."""
    window = 8
    model = make("awd_lstm", window=window)
    encoder = model.encoder
    assert isinstance(encoder, ConcatPoolEncoder)
    rows = texts([length, 17])
    tokens, lengths = padded(rows)
    # Tokens that occur once, so that a gradient of an embedding is that of its position.
    table = nn.Embedding(tokens.numel(), 6).double()
    encoder.encoder.embedding.embedding = table
    numbers = torch.arange(tokens.numel()).view_as(tokens)
    model(numbers, lengths)[0].sum().backward()
    assert table.weight.grad is not None
    reached = (table.weight.grad[numbers[0]] != 0).any(1).tolist()
    # The slow definition: a chunk counts if it begins at most ``window`` tokens before the end.
    expected = [
        at < length and length - at // CHUNK * CHUNK <= window for at in range(tokens.shape[1])
    ]
    assert reached == expected


def test_no_graph_is_built_before_the_window_of_the_whole_batch() -> None:
    model = make("awd_lstm", window=4)
    encoder = model.encoder
    assert isinstance(encoder, ConcatPoolEncoder)
    recorded: list[bool] = []
    original = encoder.encoder.features

    def features(tokens: Tensor, state: object = None) -> object:
        recorded.append(torch.is_grad_enabled())
        return original(tokens, state)  # type: ignore[arg-type]

    encoder.encoder.features = features  # type: ignore[method-assign, assignment]
    model(*padded(texts([18, 20])))
    assert recorded == [False, False, False, False, True]
    recorded.clear()
    model(*padded(texts([3, 20])))
    assert recorded == [True] * 5


def test_the_transformer_is_torchs_and_a_mean() -> None:
    model = make("transformer")
    encoder = model.encoder
    assert isinstance(encoder, TransformerTextEncoder)
    reference = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True),
        2, nn.LayerNorm(8), enable_nested_tensor=False,
    ).double().eval()  # fmt: skip
    with torch.no_grad():
        for ours, theirs in zip(encoder.layers, reference.layers, strict=True):
            own, other = ours.self_attention, theirs.self_attn
            other.in_proj_weight.copy_(torch.cat([own.query.weight, own.key_value.weight]))
            other.in_proj_bias.copy_(torch.cat([own.query.bias, own.key_value.bias]))
            other.out_proj.load_state_dict(own.out.state_dict())
            linear = [each for each in ours.feed_forward if isinstance(each, nn.Linear)]
            theirs.linear1.load_state_dict(linear[0].state_dict())
            theirs.linear2.load_state_dict(linear[1].state_dict())
    [row] = texts([7])
    scaled = encoder.embedding(row[None]) * 8**0.5
    expected = reference(scaled + positional_encoding(0, 7, scaled)).mean(1)
    torch.testing.assert_close(encoder(*padded([row], more=3)), expected, rtol=1e-10, atol=1e-12)


def test_training_mode_drops_and_evaluation_does_not() -> None:
    model = make("awd_lstm")
    batch = padded(texts([9, 5]))
    assert torch.equal(model(*batch), model(*batch))
    model.train()
    assert not torch.equal(model(*batch), model(*batch))


def test_layer_groups_run_from_the_embedding_to_the_head() -> None:
    assert list(make("awd_lstm").layer_groups()) == ["embedding", "lstm_0", "lstm_1", "head"]
    assert list(make("bag").layer_groups()) == ["encoder", "head"]
    groups = make("transformer").layer_groups()
    assert list(groups) == ["embedding", "layer_0", "layer_1", "head"]


@pytest.mark.parametrize(
    ("build", "config", "message"),
    [
        (bag_classifier, {"buckets": -1}, "buckets=-1"),
        (bag_classifier, {"widht": 3}, "Did you mean 'width'"),
        (awd_lstm_classifier, {"window": 5}, "window=5 is less than chunk=70"),
        (awd_lstm_classifier, {"head_dropout": 1.0}, "head_dropout=1.0"),
        (awd_lstm_classifier, {"chunk": 0}, "chunk=0"),
        (transformer_classifier, {"d_model": 10}, "d_model=10 is not divisible"),
        (transformer_classifier, {"norm": "none"}, "norm='none'"),
    ],
)
def test_wrong_settings_are_named(build: object, config: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build(vocab_size=5, n_outputs=2, config=config)  # type: ignore[operator]


@pytest.mark.parametrize("n_texts", [1, 2])
def test_the_scale_of_a_pool_does_not_change_the_result(n_texts: int) -> None:
    """Means over a text vary less than maxima, which would decide alone after one common norm."""
    torch.manual_seed(0)
    model = awd_lstm_classifier(vocab_size=VOCAB, n_outputs=3, config=AWD, n_texts=n_texts)
    head = model.head.double().eval()
    pools = list(torch.randn(8, 3 * n_texts**2, 6, dtype=torch.float64).unbind(1))
    wanted = head(torch.cat(pools, 1))
    for at, factor in enumerate((30.0, 0.3, 100.0)):
        pools[at] = factor * pools[at]
    assert torch.allclose(head(torch.cat(pools, 1)), wanted, rtol=1e-3, atol=1e-3)
