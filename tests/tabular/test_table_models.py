"""The MLP, its layers, and the builders: shapes, dtypes, groups and the round trip of weights."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.errors import ArgumentError, InputError
from flambeau.training.optim.groups import lr_factors, parameter_groups
from flambeau_tabular.models import (
    MODELS,
    InputOptions,
    TableInputs,
    TabularMLP,
    mlp,
    ple_edges,
)
from flambeau_tabular.models.ntk import InputScale, NTKLinear, ParametricActivation

EDGES = [[-1.0, 0.0, 1.0], [-2.0, 2.0]]
FULL: dict[str, Any] = {
    "n_numbers": 2,
    "n_flags": 1,
    "cardinalities": [4, 30],
    "n_text": 2,
    "text_width": 3,
    "n_tokens": 50,
    "ple_edges": EDGES,
}


def rows(n: int = 5, **columns: Any) -> list[Tensor | None]:
    """Encoded rows for the arguments of a builder, drawn with a fixed seed."""
    draws = torch.Generator().manual_seed(0)
    cardinalities = columns.get("cardinalities", [])
    codes = [torch.randint(0, size, (n, 1), generator=draws) for size in cardinalities]
    tokens = columns.get("n_text", 0) * columns.get("text_width", 0)
    return [
        torch.randn(n, columns.get("n_numbers", 0), generator=draws),
        torch.randint(0, 2, (n, columns.get("n_flags", 0)), generator=draws).to(torch.uint8),
        torch.cat(codes, 1).to(torch.uint8) if codes else torch.zeros(n, 0, dtype=torch.uint8),
        torch.randint(0, columns["n_tokens"], (n, tokens), generator=draws).int()
        if tokens
        else None,
    ]


# ---------------------------------------------------------------- layers of RealMLP


def test_ntk_linear_by_hand() -> None:
    layer = NTKLinear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]]))
        layer.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = torch.tensor([[2.0, -1.0]])
    root = math.sqrt(2)
    expected = torch.tensor([[0 / root + 0.1, 1 / root + 0.2, 5.5 / root + 0.3]])
    torch.testing.assert_close(layer(x), expected)


def test_ntk_layers_keep_the_size_of_their_inputs() -> None:
    torch.manual_seed(0)
    x = torch.randn(2_000, 400)
    layer = NTKLinear(400, 300)
    assert float(layer.weight.detach().std()) == pytest.approx(1, abs=0.01)
    assert float(layer.bias.detach().std()) == pytest.approx(1, abs=0.1)
    assert float((layer(x) - layer.bias).detach().std()) == pytest.approx(1, abs=0.02)
    assert not NTKLinear(4, 2, zero=True)(torch.randn(3, 4)).detach().any()


@pytest.mark.parametrize("name", ["selu", "mish", "relu"])
def test_a_parametric_activation_interpolates(name: Any) -> None:
    layer, x = ParametricActivation(3, name), torch.randn(6, 3)
    function = getattr(F, name)
    torch.testing.assert_close(layer(x).detach(), function(x))
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([0.0, 0.25, 2.0]))
    torch.testing.assert_close(layer(x).detach(), x + layer.alpha.detach() * (function(x) - x))
    with pytest.raises(InputError, match="Unknown activation 'tanh'"):
        ParametricActivation(3, "tanh")  # type: ignore[arg-type]


def test_the_mlp_equals_its_equation() -> None:
    torch.manual_seed(0)
    model = net(
        n_outputs=2, kind="classification", hidden=[5, 4], n_numbers=3, number_embedding="none",
        cardinalities=[5],
    ).eval()  # fmt: skip
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for parameter in weights.values():
            parameter.normal_()
    numbers, flags, codes, _ = rows(n_numbers=3, cardinalities=[5])
    x = torch.cat([numbers, F.one_hot(codes[:, 0].long(), 5)[:, 1:].float()], 1)
    x = x * weights["scale.weight"]
    for linear, activation in (("0", "1"), ("3", "4")):  # "2" is dropout
        w = weights[f"body.{linear}.weight"]
        x = x @ w.T / math.sqrt(w.shape[1]) + weights[f"body.{linear}.bias"]
        x = x + weights[f"body.{activation}.alpha"] * (F.selu(x) - x)
    expected = x @ weights["head.weight"].T / 2 + weights["head.bias"]
    torch.testing.assert_close(model(numbers, flags, codes), expected, rtol=1e-5, atol=1e-5)


def test_the_activation_follows_the_kind_of_the_task() -> None:
    for kind, function in (("classification", F.selu), ("regression", F.mish)):
        model = net(n_outputs=1, kind=kind, n_numbers=1, hidden=[4])
        assert model.body[1].function is function


def test_initial_outputs_are_zero() -> None:
    """So the first loss is that of a constant prediction."""
    model = net(n_outputs=3, **FULL)
    assert not model(*rows(**FULL)).detach().any()


def test_factors_on_the_learning_rate() -> None:
    """RealMLP: 6 for the input scale, 0.1 for biases, activations and number embeddings."""
    model = net(n_outputs=3, **FULL)
    by_name = {name: lr_factors(model).get(id(p), 1.0) for name, p in model.named_parameters()}
    assert by_name == {
        "inputs.numbers.frequencies": 0.1,
        "inputs.numbers.phase_bias": 0.1,
        "inputs.numbers.linear.weight": 0.1,
        "inputs.numbers.linear.bias": 0.1,
        "inputs.categories.tables.0.weight": 1.0,
        "inputs.text.bag.weight": 0.1,
        "scale.weight": 6.0,
        **{f"body.{i}.weight": 1.0 for i in (0, 3, 6)},
        **{f"body.{i}.bias": 0.1 for i in (0, 3, 6)},
        **{f"body.{i}.alpha": 0.1 for i in (1, 4, 7)},
        "head.weight": 1.0,
        "head.bias": 0.1,
    }


def test_the_input_scale_multiplies() -> None:
    scale = InputScale(3)
    assert torch.equal(scale(torch.ones(2, 3)), torch.ones(2, 3))
    assert scale.weight.ndim == 2  # weight decay applies


# ---------------------------------------------------------------- columns


def test_the_row_is_the_concatenation_of_its_parts() -> None:
    inputs = TableInputs(InputOptions(number_embedding="none", **FULL)).eval()
    numbers, flags, codes, tokens = rows(**FULL)
    expected = torch.cat(
        [numbers, flags.float(), inputs.categories(codes), inputs.text(tokens)], dim=1
    )
    assert torch.equal(inputs(numbers, flags, codes, tokens), expected)
    assert inputs.chunks == [1, 1, 1, 2, 11, 32, 32]
    assert inputs.width == expected.shape[1]


COLUMNS: dict[str, dict[str, Any]] = {
    "numbers": {"n_numbers": 2, "ple_edges": EDGES},
    "one number": {"n_numbers": 1, "ple_edges": EDGES[:1]},
    "flags": {"n_flags": 2},
    "categories": {"cardinalities": [4, 30]},
    "one-hot": {"cardinalities": [4]},
    "text": {"n_text": 1, "text_width": 4, "n_tokens": 9},
    "no numbers": {key: FULL[key] for key in FULL if key not in ("n_numbers", "ple_edges")},
    "all": FULL,
}  # fmt: skip


def build(name: str, **arguments: Any) -> torch.nn.Module:
    small = {"hidden": [8], "n_outputs": 2} | ({"k": 3} if name == "tabm" else {})
    if "kind" in arguments:
        small["kind"] = arguments.pop("kind")
    return MODELS[name](inputs=arguments, **small)


def net(n_outputs: int = 3, **more: Any) -> TabularMLP:
    """An MLP; arguments that the builder does not have are columns."""
    own = ("kind", "hidden", "activation", "dropout")
    arguments = {name: more.pop(name) for name in own if name in more}
    return mlp(inputs=more, n_outputs=n_outputs, **arguments)


def values(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs.members


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("name", ["mlp", "tabm"])
def test_any_columns_and_batch_sizes(name: str, columns: str) -> None:
    model = build(name, **COLUMNS[columns])
    for n in (4, 1, 0):
        outputs = values(model.train()(*rows(n, **COLUMNS[columns])))
        assert outputs.shape == ((n, 3, 2) if name == "tabm" else (n, 2))
        assert model.eval()(*rows(n, **COLUMNS[columns])).shape == (n, 2)
    values(model.train()(*rows(4, **COLUMNS[columns]))).square().sum().backward()
    moving = {name for name, p in model.named_parameters() if p.grad is not None}
    assert moving == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", ["mlp", "tabm"])
def test_rows_do_not_depend_on_each_other(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, **FULL).eval()
    with torch.no_grad():
        model.head.weight.normal_()
        whole = model(*rows(6, **FULL))
        one = model(*[None if part is None else part[2:3] for part in rows(6, **FULL)])
    torch.testing.assert_close(one, whole[2:3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("embedding", ["none", "plr", "plr_lite", "pbld", "ple"])
@pytest.mark.parametrize("name", ["mlp", "tabm"])
def test_weights_survive_json_arguments_and_a_state_dict(name: str, embedding: str) -> None:
    arguments = {**FULL, "number_embedding": embedding, "plr_sigma": 0.3, "category_width": [0, 5]}
    again = json.loads(json.dumps(arguments))
    first, second = build(name, **arguments).eval(), build(name, **again).eval()
    with torch.no_grad():
        first.head.weight.normal_()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*rows(**FULL)), second(*rows(**FULL)))


@pytest.mark.parametrize("embedding", ["none", "plr", "plr_lite", "pbld", "ple"])
@pytest.mark.parametrize("name", ["mlp", "tabm"])
def test_bf16_autocast(name: str, embedding: str) -> None:
    """Autocast to bf16: finite gradients, and outputs within the eight bits of bf16."""
    torch.manual_seed(0)
    model = build(name, number_embedding=embedding, kind="classification", **FULL)
    with torch.no_grad():
        model.head.weight.normal_()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = values(model.train()(*rows(**FULL)))
        outputs.float().log_softmax(-1).sum().backward()
        halved = model.eval()(*rows(**FULL))
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    exact = model(*rows(**FULL))
    size = float(exact.detach().abs().max())
    torch.testing.assert_close(halved.float(), exact, rtol=0, atol=0.05 * size)


@pytest.mark.parametrize("name", ["mlp", "tabm"])
def test_layer_groups_have_every_parameter_in_order(name: str) -> None:
    groups = parameter_groups(build(name, **FULL))
    assert list(groups) == ["inputs", "body", "head"]


def test_edges_of_real_columns_fit_the_builder() -> None:
    numbers = torch.randn(100, 2).numpy()
    columns = {"n_numbers": 2, "ple_edges": ple_edges(numbers, 8)}
    model = build("tabm", **columns)
    assert model.inputs.numbers.encoding.n_bins == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "The table has no input columns"),
        ({"n_numbers": 2, "number_embedding": "ple"}, "bin edges of each of the 2 numbers.*none"),
        ({"n_numbers": 1, "ple_edges": EDGES, "number_embedding": "ple"}, "got 2 lists"),
        ({"n_numbers": 1, "number_embedding": "pbl"}, "Unknown number_embedding 'pbl'.*'pbld'"),
        ({"n_numbers": 1, "hidden": [0]}, "must be positive"),
        ({"n_numbers": 1, "dropout": 1.0}, "dropout is 1.0"),
        ({"n_numbers": 1, "number_width": 1}, "width of a PBLD embedding is 1"),
        ({"n_number": 1}, "Unknown input option 'n_number'. Did you mean 'n_numbers'"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ArgumentError), match=message):
        net(**arguments)


def test_rows_with_other_columns_are_refused() -> None:
    model = build("mlp", **FULL)
    numbers, flags, codes, tokens = rows(**FULL)
    with pytest.raises(InputError, match="1 columns of numbers instead of 2"):
        model(numbers[:, :1], flags, codes, tokens)
    with pytest.raises(InputError, match="0 columns of tokens instead of 6"):
        model(numbers, flags, codes)
