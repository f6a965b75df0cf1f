"""Freezing, and batch norm that is trained as it is evaluated."""

import itertools

import pytest
import torch
from torch import nn

from flambeau.errors import ArgumentError
from flambeau.phases import BATCH_NORM_POLICIES
from flambeau.training.freeze import (
    freeze_except,
    has_running_statistics,
    norm_layers,
    set_train_modes,
    trainable_norm_parameters,
)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()),
        nn.BatchNorm2d(2, affine=False),  # no parameters: in no group of its own
        nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=1),
            nn.InstanceNorm2d(2, track_running_stats=True),
            nn.BatchNorm2d(2, track_running_stats=False),
            nn.Dropout(0.5),
        ),
        nn.Flatten(),
        nn.Sequential(nn.Linear(32, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
    )


def modes(model: nn.Module) -> dict[str, bool]:
    return {n: m.training for n, m in model.named_modules() if has_running_statistics(m)}


def test_requires_grad_by_group() -> None:
    model = net()
    model(torch.ones(2, 1, 4, 4)).sum().backward()
    freeze_except(model, ("4",))
    assert {n[0] for n, p in model.named_parameters() if p.requires_grad} == {"4"}
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    freeze_except(model, None)
    assert all(p.requires_grad for p in model.parameters())


def test_norm_parameters_are_trainable_in_frozen_groups() -> None:
    model = net()
    fixed = {id(model[0][1].weight)}
    for bn in ("train", "adapt"):
        freeze_except(model, ("4",), fixed, trainable_norm_parameters(model, bn))
        learning = {n for n, p in model.named_parameters() if p.requires_grad and n[0] != "4"}
        # Not "2.2": it keeps no statistics. "0.1.weight" was frozen by the user.
        assert learning == {"0.1.bias"}
    for bn in ("eval", "auto"):
        assert trainable_norm_parameters(model, bn) == set()


def test_unknown_groups() -> None:
    with pytest.raises(ArgumentError, match=r"no parameter group 'head'.*has: 0, 2, 4"):
        freeze_except(net(), ("head",))


def test_which_layers_have_running_statistics() -> None:
    assert [n for n, m in net().named_modules() if has_running_statistics(m)] == [
        "0.1",
        "1",
        "2.1",
        "4.1",
    ]
    assert has_running_statistics(nn.SyncBatchNorm(2))
    assert has_running_statistics(nn.BatchNorm3d(2))
    assert has_running_statistics(nn.LazyBatchNorm1d())
    assert not has_running_statistics(nn.InstanceNorm1d(2))
    assert not has_running_statistics(nn.LayerNorm(2))
    assert not has_running_statistics(nn.GroupNorm(1, 2))


def test_a_norm_layer_without_parameters_joins_the_group_before() -> None:
    model = net()
    names = {m: n for n, m in model.named_modules()}
    assert {names[m]: group for m, group in norm_layers(model).items()} == {
        "0.1": "0",
        "1": "0",
        "2.1": "2",
        "4.1": "4",
    }
    first = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 2))
    assert list(norm_layers(first).values()) == ["1"]


def test_auto_puts_frozen_statistics_in_eval_mode() -> None:
    model = net().eval()
    set_train_modes(model, ("2", "4"), "auto")
    assert modes(model) == {"0.1": False, "1": False, "2.1": True, "4.1": True}
    assert model[2][3].training  # dropout regularises in frozen parts too
    set_train_modes(model, None, "auto")
    assert all(modes(model).values())


def test_train_and_eval() -> None:
    model = net()
    set_train_modes(model, ("4",), "train")
    assert all(modes(model).values())
    for fixed in ("eval", "adapt"):
        set_train_modes(model, None, fixed)
        assert not any(modes(model).values())
    assert model[2][2].training  # it has no statistics to fall back on
    assert model[2][3].training


class ByParameter(nn.Module):
    """Groups that list the parameters of a norm layer, not the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.head = nn.Linear(2, 2)

    def layer_groups(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        return {
            "body": [self.first, self.norm.weight, self.norm.bias],
            "head": [self.head],
        }


def test_a_norm_layer_listed_by_its_parameters() -> None:
    model = ByParameter()
    set_train_modes(model, ("head",), "auto")
    assert not model.norm.training
    set_train_modes(model, ("body",), "auto")
    assert model.norm.training


@pytest.mark.parametrize("bn", BATCH_NORM_POLICIES)
@pytest.mark.parametrize(
    "trainable", [None, *itertools.combinations("024", 1), *itertools.combinations("024", 2)]
)
def test_training_and_evaluation_use_the_same_statistics(
    bn: str, trainable: tuple[str, ...] | None
) -> None:
    """The mismatch: a batch's statistics in training, old ones in evaluation, never updated."""
    model = net()
    freeze_except(model, trainable)
    set_train_modes(model, trainable, bn)
    generator = torch.Generator().manual_seed(0)
    before = {n: b.clone() for n, b in model.named_buffers()}
    seen: dict[str, bool] = {}

    def watch(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            # What the layer would answer in evaluation, with the statistics it had.
            stored = nn.functional.batch_norm(
                inputs[0],
                before[f"{name}.running_mean"],
                before[f"{name}.running_var"],
                module.weight,
                module.bias,
                eps=module.eps,
            )
            seen[name] = torch.allclose(output, stored, atol=1e-5)

        return hook

    for name, module in model.named_modules():
        if has_running_statistics(module):
            module.register_forward_hook(watch(name))
    model(torch.randn(4, 1, 4, 4, generator=generator) * 3 + 1)
    for name, uses_stored in seen.items():
        updated = not torch.equal(
            dict(model.named_buffers())[f"{name}.running_mean"], before[f"{name}.running_mean"]
        )
        assert uses_stored != updated


def test_policies() -> None:
    with pytest.raises(
        ArgumentError, match=r"Unknown batch norm policy 'evla'. Did you mean 'eval'"
    ):
        set_train_modes(net(), None, "evla")
    with pytest.raises(ArgumentError, match=r"'x'.*adapt, auto, eval, train"):
        set_train_modes(net(), None, "x")
