"""Models: no effect of padding, token by token equals all at once, weight tying."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flambeau.errors import ArgumentError, InputError
from flambeau.training.optim.groups import parameter_groups
from flambeau_text.models import Seq2Seq, rnn, select, transformer
from flambeau_text.models.transformer import TransformerConfig
from flambeau_text.models.transformer_layers import DecoderLayer, EncoderLayer
from flambeau_text.token_loss import token_loss

# Sums in another order, in float64.
TOLERANCE = {"atol": 1e-12, "rtol": 0}
LENGTHS = [7, 2, 4]


def test_padding_does_not_change_memory_or_logits(model: Seq2Seq, small: SimpleNamespace) -> None:
    tokens, mask = small.sources(LENGTHS, longest=10)
    words = small.targets([5, 3, 1])
    memory = model.encode(tokens, mask)
    logits = model(tokens, mask, words[:, :-1])
    for row, length in enumerate(LENGTHS):
        alone = tokens[row : row + 1, :length], mask[row : row + 1, :length]
        single = model.encode(*alone)
        torch.testing.assert_close(memory.values[row, :length], single.values[0], **TOLERANCE)
        count = int((words[row] != 1).sum()) - 1
        found = model(*alone, words[row : row + 1, :count])
        torch.testing.assert_close(logits[row, :count], found[0], **TOLERANCE)


def test_padding_does_not_change_loss_or_gradients(model: Seq2Seq, small: SimpleNamespace) -> None:
    tokens, mask = small.sources(LENGTHS, longest=9)
    words = small.targets([5, 3, 1])

    def gradients(batches: list[tuple]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        fresh = copy.deepcopy(model)
        total = torch.zeros((), dtype=torch.float64)
        for source, seen, target in batches:
            features, _ = fresh.features(fresh.encode(source, seen), target[:, :-1])
            flat = features.flatten(0, 1)
            wanted = target[:, 1:].flatten()
            kept = wanted != 1
            loss = token_loss(fresh.output, flat, wanted, kept, smoothing=0.1, excluded=1)[0]
            total = total + loss
        total.backward()
        return total.detach(), {name: value.grad for name, value in fresh.named_parameters()}

    together = gradients([(tokens, mask, words)])
    singles = []
    for row, length in enumerate(LENGTHS):
        count = int((words[row] != 1).sum())
        alone = slice(row, row + 1)
        singles.append((tokens[alone, :length], mask[alone, :length], words[alone, :count]))
    apart = gradients(singles)
    torch.testing.assert_close(together[0], apart[0], **TOLERANCE)
    for name, value in together[1].items():
        assert value is not None, name
        torch.testing.assert_close(value, apart[1][name], **TOLERANCE)


def test_token_by_token_equals_all_at_once(model: Seq2Seq, small: SimpleNamespace) -> None:
    memory = model.encode(*small.sources(LENGTHS))
    words = small.targets([5, 3, 1])[:, :-1]
    at_once, attention = model.features(memory, words)
    stepwise, weights = Seq2Seq.features(model, memory, words)
    torch.testing.assert_close(at_once, stepwise, **TOLERANCE)
    assert weights is not None
    if attention is not None:
        torch.testing.assert_close(attention, weights, **TOLERANCE)
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights.sum(2)))
    assert (weights[~memory.mask.unsqueeze(1).expand_as(weights)] == 0).all()


def test_embeddings_equal_their_tokens(model: Seq2Seq, small: SimpleNamespace) -> None:
    memory = model.encode(*small.sources(LENGTHS))
    words = small.targets([5, 3, 1])[:, :-1]
    embedded = model.target_embedding(words)
    torch.testing.assert_close(
        model.features(memory, words)[0], model.features(memory, embedded)[0]
    )


def test_a_selected_state_continues_its_sentence(model: Seq2Seq, small: SimpleNamespace) -> None:
    memory = model.encode(*small.sources(LENGTHS))
    state = model.init_state(memory)
    _, state, _ = model.step(torch.tensor([2, 2, 2]), state)
    rows = torch.tensor([2, 0, 2, 1])
    previous = torch.tensor([4, 5, 6])
    logits, _, _ = model.step(previous, state)
    chosen, _, _ = model.step(previous[rows], select(state, rows))
    torch.testing.assert_close(chosen, logits[rows], **TOLERANCE)


def test_a_state_of_an_unknown_type_raises() -> None:
    with pytest.raises(InputError, match="state holds a set"):
        select({"a": {1}}, torch.tensor([0]))


# ---------------------------------------------------------------- the Transformer's layers


def copied(layer: nn.Module, theirs: nn.Module, attentions: dict[str, str]) -> nn.Module:
    """Copy the weights of our layer into torch's."""
    for mine, name in attentions.items():
        heads, other = getattr(layer, mine), getattr(theirs, name)
        parts = (heads.query, heads.key_value)
        other.in_proj_weight.data = torch.cat([part.weight.detach() for part in parts])
        other.in_proj_bias.data = torch.cat([part.bias.detach() for part in parts])
        other.out_proj.load_state_dict(heads.out.state_dict())
    theirs.linear1.load_state_dict(layer.feed_forward[0].state_dict())
    theirs.linear2.load_state_dict(layer.feed_forward[3].state_dict())
    for number, norm in enumerate(layer.norms, start=1):
        getattr(theirs, f"norm{number}").load_state_dict(norm.state_dict())
    return theirs


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_layers_equal_torchs(norm: str, activation: str) -> None:
    torch.manual_seed(0)
    config = TransformerConfig(8, 2, 12, norm=norm, activation=activation, dropout=0.0)
    options = {
        "dropout": 0.0, "batch_first": True, "norm_first": norm == "pre", "activation": activation
    }  # fmt: skip
    values, memory = torch.randn(3, 5, 8).double(), torch.randn(3, 6, 8).double()
    mask = torch.arange(5) < torch.tensor([5, 2, 4]).unsqueeze(1)
    memory_mask = torch.arange(6) < torch.tensor([6, 3, 1]).unsqueeze(1)
    encoder = EncoderLayer(config).double()
    for part in encoder.parameters():
        part.data += 0.1 * torch.randn_like(part)
    theirs = copied(
        encoder,
        nn.TransformerEncoderLayer(8, 2, 12, **options).double(),
        {"self_attention": "self_attn"},
    )
    wanted = theirs(values, src_key_padding_mask=~mask)
    torch.testing.assert_close(encoder(values, mask)[mask], wanted[mask], **TOLERANCE)
    decoder = DecoderLayer(config).double()
    theirs = copied(
        decoder,
        nn.TransformerDecoderLayer(8, 2, 12, **options).double(),
        {"self_attention": "self_attn", "cross_attention": "multihead_attn"},
    )
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    wanted = theirs(values, memory, tgt_mask=causal, memory_key_padding_mask=~memory_mask)
    torch.testing.assert_close(decoder(values, memory, memory_mask), wanted, **TOLERANCE)


# ---------------------------------------------------------------- weight tying, configuration


@pytest.mark.parametrize("build", [rnn, transformer])
def test_weight_tying(build: object) -> None:
    three = build(source_vocab=20, target_vocab=20, tie="3way")  # type: ignore[operator]
    assert three.source_embedding is three.target_embedding
    assert three.output.weight is three.target_embedding.weight
    two = build(source_vocab=21, target_vocab=20, tie="2way")  # type: ignore[operator]
    assert two.output.weight is two.target_embedding.weight
    assert two.source_embedding is not two.target_embedding
    none = build(source_vocab=21, target_vocab=20, tie="none")  # type: ignore[operator]
    assert none.output.weight is not none.target_embedding.weight
    size = two.target_embedding.embedding_dim

    def count(model: nn.Module) -> int:
        return sum(value.numel() for value in model.parameters())

    assert count(two) - count(three) == 21 * size
    assert count(none) - count(two) == 20 * size
    for model in (three, two, none):
        groups = parameter_groups(model)
        assert list(groups) == ["encoder", "decoder", "output"]
        assert sum(map(len, groups.values())) == len(list(model.parameters()))
    with pytest.raises(InputError, match=r"21 tokens and the target vocabulary 20. Use a joint"):
        build(source_vocab=21, target_vocab=20, tie="3way")  # type: ignore[operator]
    with pytest.raises(ArgumentError, match="2way, 3way, none"):
        build(source_vocab=21, target_vocab=20, tie="2")  # type: ignore[operator]


def test_invalid_configurations_raise() -> None:
    vocab = {"source_vocab": 9, "target_vocab": 9}
    with pytest.raises(ArgumentError, match=r"no setting 'hiden_size'.*'hidden_size'"):
        rnn(**vocab, config={"hiden_size": 3})
    with pytest.raises(InputError, match=r"2 × 8 is not 8.*encoder_size=4"):
        rnn(**vocab, config={"hidden_size": 8, "bridge": "copy"})
    with pytest.raises(ArgumentError, match="cell is 'GRU'"):
        rnn(**vocab, config={"cell": "GRU"})
    with pytest.raises(InputError, match=r"d_model=10 is not divisible by 2 × nhead = 8"):
        transformer(**vocab, config={"d_model": 10})
    with pytest.raises(ArgumentError, match="norm is 'before'"):
        transformer(**vocab, config={"norm": "before"})
