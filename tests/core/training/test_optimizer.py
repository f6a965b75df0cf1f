"""Layer groups, optimizers by name, decay, and regrouping by rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau.training.optim.factory import default_factory
from flambeau.training.optim.groups import Part, layer_groups, parameter_groups
from flambeau.training.optim.optimizer import (
    OPTIMIZERS,
    make_optimizer,
    no_decay_ids,
    regroup,
)


class Grouped(nn.Module):
    """A model that names its groups by the function it is given."""

    def __init__(self, groups: Any) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(1))
        self._groups = groups

    def layer_groups(self) -> Mapping[str, Sequence[Part]]:
        return self._groups(self)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.norm = nn.LayerNorm(3)
        self.output = nn.Linear(3, 5)
        self.output.weight = self.embedding.weight


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    )


def mlp() -> nn.Sequential:
    # No bias before a norm layer: its gradient is rounding noise, which Adam makes large.
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)
    )


def names_of(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[str]:
    return [n for p in parameters for n, q in model.named_parameters() if q is p]


# ---------------------------------------------------------------- layer groups


def test_children_with_parameters_in_order() -> None:
    model = net()
    assert list(layer_groups(model)) == ["0", "1", "4"]
    assert names_of(model, parameter_groups(model)["1"]) == ["1.weight", "1.bias"]


def test_parameters_of_the_root_come_first() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2)
            self.token = nn.Parameter(torch.zeros(3))

    assert list(parameter_groups(Model())) == ["root", "head"]


def test_a_model_defines_its_groups() -> None:
    model = Grouped(lambda m: {"a": [m.stem, m.scale], "b": [m.body], "c": [m.head]})
    groups = parameter_groups(model)
    assert list(groups) == ["a", "b", "c"]
    assert names_of(model, groups["a"]) == ["stem.weight", "stem.bias", "scale"]


def test_tied_parameters_belong_to_the_first_group() -> None:
    model = Tied()
    groups = parameter_groups(model)
    assert names_of(model, groups["embedding"]) == ["embedding.weight"]
    assert names_of(model, groups["output"]) == ["output.bias"]


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        (lambda m: {"a": [m.stem], "b": [m.body, m.head]}, r"lacks 1 parameters \(scale\)"),
        (lambda m: {"a": [m.stem, m.scale, m.body], "b": [m.body, m.head]}, "'body' in group 'a'"),
        (
            lambda m: {"a": [m.stem, m.scale, m.body], "b": [m.body[0], m.head]},
            r"'body.0' in group 'b' and again",
        ),
        (
            lambda m: {"a": [m.stem, m.scale, m.body], "b": [m.stem.bias, m.head]},
            r"'stem.bias' in group 'b' and again",
        ),
        (
            lambda m: {"a": [m.stem, m.scale, m.body, m.head, nn.Parameter(torch.ones(7))]},
            r"shape \(7,\) in group 'a' that is not among",
        ),
    ],
)
def test_invalid_groups_are_refused(groups: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        parameter_groups(Grouped(groups))


# ---------------------------------------------------------------- decay


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((2, 3))
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(5, 2))
        self.vector = nn.Parameter(torch.zeros(5))
        self.matrix = nn.Parameter(torch.zeros(5, 2))


def test_which_parameters_have_no_weight_decay() -> None:
    model = Odd()
    plain = no_decay_ids(model)
    assert [n for n, p in model.named_parameters() if id(p) not in plain] == [
        "matrix",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]


def test_a_container_with_norm_in_its_name_decays() -> None:
    class PreNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

    model = PreNorm()
    assert id(model.inner.weight) not in no_decay_ids(model)


def test_param_groups_carry_group_scale_and_decay() -> None:
    model = net()
    optimizer = make_optimizer("adamw", model, lr=0.1, weight_decay=0.05)
    assert [
        (g["group"], g["decay"], g["weight_decay"], g["lr_scale"], names_of(model, g["params"]))
        for g in optimizer.param_groups
    ] == [
        ("0", True, 0.05, 1.0, ["0.weight"]),
        ("0", False, 0.0, 1.0, ["0.bias"]),
        ("1", False, 0.0, 1.0, ["1.weight", "1.bias"]),
        ("4", True, 0.05, 1.0, ["4.weight"]),
        ("4", False, 0.0, 1.0, ["4.bias"]),
    ]


# ---------------------------------------------------------------- against torch


TORCHS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"betas": (0.8, 0.95), "eps": 1e-6}),
    "adam": (torch.optim.Adam, {"betas": (0.8, 0.95)}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"eps": 1e-8}),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(4, 1, 4, 4, generator=generator, dtype=dtype)
        model(x).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", TORCHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_equal_those_of_torch(name: str, dtype: torch.dtype) -> None:
    assert set(TORCHS) == set(OPTIMIZERS) - {"muon"}  # see test_muon
    build, options = TORCHS[name]
    mine, theirs = mlp().to(dtype), mlp().to(dtype)
    plain = no_decay_ids(theirs)
    groups = [
        {"params": [p for p in theirs.parameters() if id(p) not in plain], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if id(p) in plain], "weight_decay": 0.0},
    ]
    found = train(mine, make_optimizer(name, mine, lr=0.01, weight_decay=0.1, options=options))
    expected = train(theirs, build(groups, lr=0.01, foreach=False, **options))
    # Fused kernels order the same operations differently: some units in the last place a step.
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name, kind in OPTIMIZERS.items() if kind.has_fused])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_by_default_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    optimizer = make_optimizer(name, net().to(dtype), lr=0.1)
    assert optimizer.defaults["fused"] is True
    assert not optimizer.defaults["foreach"]


def test_fused_can_be_disabled() -> None:
    assert not make_optimizer("adamw", net(), lr=0.1, fused=False).defaults["fused"]


def test_parameters_without_a_fused_kernel_fall_back() -> None:
    for name in ("sgd", "adamw"):
        model = nn.Linear(2, 2, dtype=torch.complex64)
        optimizer = make_optimizer(name, model, lr=0.1)
        assert not optimizer.defaults["fused"]
        before = model.weight.detach().clone()
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        assert not torch.equal(model.weight, before)


def test_default_factory_builds_main_from_the_plan() -> None:
    values = {"optimizer": "sgd", "lr": 0.5, "weight_decay": 0.01, "momentum": 0.8, "betas": None}
    optimizers = default_factory(net(), values)
    assert list(optimizers) == ["main"]
    assert isinstance(optimizers["main"], torch.optim.SGD)
    assert optimizers["main"].defaults["momentum"] == 0.8
    assert optimizers["main"].param_groups[0]["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("name", "options", "lr", "match"),
    [
        ("adamm", {}, 0.1, "Unknown optimizer 'adamm'. Did you mean 'adam'"),
        ("adamw", {"momentum": 0.9}, 0.1, "'adamw' has no option 'momentum'"),
        ("sgd", {"momentun": 0.9}, 0.1, "Did you mean 'momentum'"),
        ("sgd", {}, -1.0, "Invalid settings of the optimizer 'sgd': Invalid learning rate: -1.0"),
        (
            "sgd",
            {"nesterov": True},
            0.1,
            "Invalid settings of the optimizer 'sgd': Nesterov momentum requires",
        ),
    ],
)
def test_invalid_arguments_are_refused(
    name: str, options: dict[str, Any], lr: float, match: str
) -> None:
    with pytest.raises((ArgumentError, InputError), match=match):
        make_optimizer(name, net(), lr=lr, options=options)


def test_a_model_without_parameters() -> None:
    with pytest.raises(InputError, match="Flatten has no parameters"):
        make_optimizer("sgd", nn.Flatten(), lr=0.1)


# ---------------------------------------------------------------- regrouping


def test_one_lr_needs_two_param_groups() -> None:
    model = net()
    optimizer = make_optimizer("adamw", model, lr=0.1, weight_decay=0.05)
    before = {id(p) for g in optimizer.param_groups for p in g["params"]}
    regroup(optimizer, parameter_groups(model), {}, no_decay_ids(model))
    assert [(g["group"], g["decay"], g["lr_scale"]) for g in optimizer.param_groups] == [
        ("0+4", True, 1.0),
        ("0+1+4", False, 1.0),
    ]
    after = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert set(after) == before
    assert len(after) == len(before)


def test_groups_are_split_and_merged_by_lr() -> None:
    model = net()
    optimizer = make_optimizer("adamw", model, lr=0.1)
    groups, plain = parameter_groups(model), no_decay_ids(model)
    regroup(optimizer, groups, {}, plain)
    regroup(optimizer, groups, {"0": 0.01, "1": 0.01}, plain)
    assert [(g["group"], g["decay"], g["lr_scale"]) for g in optimizer.param_groups] == [
        ("0", True, 0.01),
        ("0+1", False, 0.01),
        ("4", True, 1.0),
        ("4", False, 1.0),
    ]
    regroup(optimizer, groups, {}, plain)
    assert len(optimizer.param_groups) == 2


def test_one_param_group_without_weight_decay() -> None:
    model, other = net(), net()
    merged, never_merged = (make_optimizer("adamw", m, lr=0.1) for m in (model, other))
    regroup(merged, parameter_groups(model), {})
    assert [(g["group"], g["decay"]) for g in merged.param_groups] == [("0+1+4", True)]
    regroup(merged, parameter_groups(model), {"4": 2.0}, no_decay_ids(model))
    regroup(never_merged, parameter_groups(other), {"4": 2.0}, no_decay_ids(other))
    # Whatever was there before: a resumed run must find the parameters in the same places.
    assert [
        (g["group"], g["decay"], g["lr_scale"], [p.shape for p in g["params"]])
        for g in merged.param_groups
    ] == [
        (g["group"], g["decay"], g["lr_scale"], [p.shape for p in g["params"]])
        for g in never_merged.param_groups
    ]


def test_regrouping_keeps_the_optimizer_state() -> None:
    first, second = net(), net()
    plain = make_optimizer("adamw", first, lr=0.01)
    regrouped = make_optimizer("adamw", second, lr=0.01)
    train(first, plain)
    train(second, regrouped)
    regroup(regrouped, parameter_groups(second), {})
    for a, b in zip(train(first, plain), train(second, regrouped), strict=True):
        assert torch.equal(a, b)
    saved = regrouped.state_dict()
    regrouped.load_state_dict(saved)
    assert len(saved["state"]) == len(list(second.parameters()))


def test_user_defined_groups_are_not_merged() -> None:
    model = net()
    optimizer = torch.optim.SGD(
        [
            {"params": model[0].parameters(), "lr": 0.5},
            {"params": model[1].parameters(), "lr": 0.5, "momentum": 0.9},
            {"params": model[4].parameters(), "lr": 0.1},
        ]
    )
    regroup(optimizer, parameter_groups(model), {})
    assert [(g["lr"], g["momentum"]) for g in optimizer.param_groups] == [
        (0.5, 0),
        (0.5, 0.9),
        (0.1, 0),
    ]


def test_lr_scales_of_unknown_groups_are_refused() -> None:
    model = net()
    with pytest.raises(ArgumentError, match=r"no parameter group 'heads'.*has: 0, 1, 4"):
        regroup(make_optimizer("sgd", model, lr=0.1), parameter_groups(model), {"heads": 0.1})


def test_an_optimizer_function_with_the_arguments_of_torch_is_explained() -> None:
    data = TensorData.from_tensors(torch.randn(40, 3), torch.randint(2, (40,)), valid=0.2)
    training = TrainingOptions(optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr))
    with pytest.raises(ArgumentError, match=r"failed: .*called with the model and the values"):
        Learner(data, training=training, quiet=True).fit(1)
