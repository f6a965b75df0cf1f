"""AWD-LSTM: published sizes, its five dropouts, tied weights, and state carried between chunks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from flambeau.errors import ArgumentError
from flambeau.training.optim.groups import parameter_groups
from flambeau_text.models.awd_lstm import (
    AwdDropout,
    AwdLstm,
    AwdLstmConfig,
    EmbeddingDropout,
    WeightDropLSTM,
    awd_lstm,
)

SMALL = {"embedding_dim": 6, "hidden_size": 10, "num_layers": 3}
NONE = {"output": 0.0, "hidden": 0.0, "input": 0.0, "embedding": 0.0, "weight": 0.0}


def small(**dropout: float) -> AwdLstm:
    """Return a small network with the given dropout only, in training mode."""
    torch.manual_seed(0)
    return awd_lstm(vocab_size=13, config={**SMALL, "dropout": {**NONE, **dropout}}).train()


def ids(batch: int, positions: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 13, (batch, positions), generator=generator)


@pytest.mark.parametrize(("vocab", "count"), [(10_000, 24_221_600), (33_278, 33_556_078)])
def test_it_has_as_many_parameters_as_published(vocab: int, count: int) -> None:
    with torch.device("meta"):
        model = AwdLstm(vocab)
    assert sum(each.numel() for each in model.parameters()) == count
    # Two bias vectors per layer; the tied matrix counts once.
    sizes = [sum(each.numel() for each in layer.parameters()) for layer in model.layers]
    assert sizes == [7_139_200, 10_589_200, 2_483_200]


@pytest.mark.parametrize("tie", [True, False])
def test_without_dropout_it_equals_stacked_lstms(tie: bool) -> None:
    torch.manual_seed(0)
    model = awd_lstm(vocab_size=13, config={**SMALL, "tie": tie}).double().eval()
    tokens = ids(3, 7)
    values = model.embedding.embedding(tokens)
    for layer, (width, after) in zip(model.layers, model.config.widths(), strict=True):
        reference = nn.LSTM(width, after, batch_first=True).double()
        reference.load_state_dict(layer.lstm.state_dict())
        values, _ = reference(values)
    weight = model.embedding.embedding.weight if tie else model.output.weight
    torch.testing.assert_close(model(tokens)[0], values @ weight.T + model.output.bias)


def test_chunks_with_carried_state_equal_one_pass() -> None:
    model = small().double().eval()
    tokens = ids(2, 23)
    whole, last = model(tokens)
    state, found = None, []
    for begin, end in pairwise([0, 1, 6, 7, 20, 23]):
        logits, state = model(tokens[:, begin:end], state)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-12, rtol=0)
    for one, other in zip(state, last, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_evaluation_has_no_dropout() -> None:
    model = awd_lstm(vocab_size=13, config=SMALL).eval()
    tokens = ids(2, 5)
    assert torch.equal(model(tokens)[0], model(tokens)[0])
    model.train()
    assert not torch.equal(model(tokens)[0], model(tokens)[0])


def test_embedding_dropout_drops_all_occurrences_of_a_type() -> None:
    torch.manual_seed(0)
    layer = EmbeddingDropout(nn.Embedding(50, 4), 0.4).train()
    tokens = torch.arange(50).repeat(2, 3)
    factors = (layer(tokens) / layer.embedding(tokens)).detach()
    by_type = factors.view(2, 3, 50, 4)
    assert torch.allclose(by_type, by_type[:1, :1, :, :1].expand_as(by_type))
    kept = by_type[0, 0, :, 0]
    assert torch.allclose(kept[kept != 0], torch.tensor(1 / 0.6))
    assert 10 <= int((kept == 0).sum()) <= 30


def test_dropped_embeddings_equal_a_masked_weight() -> None:
    layer = EmbeddingDropout(nn.Embedding(9, 4), 0.5).double().train()
    tokens = torch.randint(0, 9, (3, 8), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    layer(tokens).square().sum().backward()
    torch.manual_seed(3)
    kept = torch.empty(9).bernoulli_(0.5).div_(0.5).double()
    weight = layer.embedding.weight.detach().clone().requires_grad_()
    nn.functional.embedding(tokens, weight * kept.unsqueeze(1)).square().sum().backward()
    torch.testing.assert_close(layer.embedding.weight.grad, weight.grad)


@pytest.mark.parametrize("kind", ["input", "output"])
def test_masks_are_locked_over_positions(kind: str) -> None:
    model = small(**{kind: 0.5})
    layer = model.input_dropout if kind == "input" else model.output_dropout
    masks: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _, given, found: masks.append(found / given[0]))
    for _ in range(2):
        model.features(ids(3, 8))
    first, second = (torch.nan_to_num(each) for each in masks)
    assert torch.allclose(first, first[:, :1].expand_as(first))  # the same at all positions
    assert not torch.equal(first[0], first[1])  # another one for each row
    assert not torch.equal(first, second)  # and for each call


def test_hidden_dropout_is_between_layers_only() -> None:
    calls: list[torch.Size] = []
    model = small(hidden=0.5)
    model.hidden_dropout.register_forward_hook(lambda _, given, __: calls.append(given[0].shape))
    model.features(ids(2, 4))
    assert calls == [(2, 4, 10), (2, 4, 10)]


def test_dropped_weights_change_later_positions_only() -> None:
    layer = WeightDropLSTM(4, 8, 0.5).train()
    inputs = torch.randn(2, 6, 4)
    (one, _), (other, _) = layer(inputs), layer(inputs)
    assert torch.equal(one[:, 0], other[:, 0])  # the state before is zero
    assert not torch.allclose(one[:, 1], other[:, 1])


def test_dropped_weights_are_the_same_at_all_positions() -> None:
    layer = WeightDropLSTM(3, 5, 0.5).double().train()
    inputs = torch.randn(2, 7, 3).double()
    reference = nn.LSTM(3, 5, batch_first=True).double()
    reference.load_state_dict(layer.lstm.state_dict())
    torch.manual_seed(4)
    found, _ = layer(inputs)
    torch.manual_seed(4)
    dropped = nn.functional.dropout(layer.lstm.weight_hh_l0.detach(), 0.5)
    reference.weight_hh_l0.data = dropped
    torch.testing.assert_close(found, reference(inputs)[0])


def test_dropped_weights_leave_the_parameters_alone() -> None:
    layer = WeightDropLSTM(3, 5, 0.5).train()
    before = {name: each.clone() for name, each in layer.state_dict().items()}
    layer(torch.randn(2, 4, 3))[0].sum().backward()
    assert list(before) == [
        f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert all(torch.equal(each, before[name]) for name, each in layer.state_dict().items())
    assert (layer.lstm.weight_hh_l0.grad == 0).float().mean() > 0.2


def test_raw_features_are_before_the_last_dropout() -> None:
    found = small(output=0.5).features(ids(2, 4))
    assert found.raw is not None
    kept = found.features != 0
    torch.testing.assert_close(found.features[kept], 2 * found.raw[kept])
    assert not kept.all()


def test_tied_weights_are_one_parameter() -> None:
    model = small()
    assert model.output.weight is model.embedding.embedding.weight
    groups = parameter_groups(model)
    assert list(groups) == ["embedding", "lstm_0", "lstm_1", "lstm_2", "output"]
    assert [each is model.output.bias for each in groups["output"]] == [True]
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    head = parameter_groups(awd_lstm(vocab_size=13, config={**SMALL, "tie": False}))["output"]
    assert [tuple(each.shape) for each in head] == [(13, 10), (13,)]


def test_probabilities_scale_together() -> None:
    assert AwdDropout().times(0.5) == AwdDropout(0.2, 0.15, 0.325, 0.05, 0.25)
    assert AwdDropout().times(3).input == 0.95


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dropout": {"weight": 1.0}}, "weight dropout is 1.0"),
        ({"dropout": {"wieght": 0.1}}, "Did you mean 'weight'"),
        ({"num_layers": 0}, "num_layers=0 is invalid"),
        ({"hidden_size": 8.0}, "hidden_size=8.0 is invalid"),
        ({"layers": 2}, "AWD-LSTM has no setting 'layers'"),
    ],
)
def test_invalid_settings_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        awd_lstm(vocab_size=13, config=values)


def test_config_accepts_a_mapping_of_dropouts() -> None:
    config = AwdLstmConfig(dropout={"hidden": 0.2})
    assert config.dropout == AwdDropout(hidden=0.2)
