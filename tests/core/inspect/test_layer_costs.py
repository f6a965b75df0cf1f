"""FLOPs against hand counts, receptive fields against gradients, and where the time goes."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau.inspect import summary
from flambeau.inspect.layer_costs import layer_costs
from flambeau.inspect.receptive_fields import Field, ReceptiveFields

# ---------------------------------------------------------------- FLOPs by hand


def of_linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def of_recurrent(steps: int, batch: int, inputs: int, hidden: int, gates: int) -> int:
    each = of_linear(batch, inputs, gates * hidden) + of_linear(batch, hidden, gates * hidden)
    return steps * each


def of_attention(batch: int, length: int, width: int) -> int:
    projections = of_linear(batch * length, width, 4 * width)  # query, key, value, output
    return projections + 2 * (2 * batch * length * length * width)  # scores, weighted sum


CASES: dict[str, tuple[nn.Module, Any, int]] = {
    "linear": (nn.Linear(4, 5), torch.zeros(3, 4), of_linear(3, 4, 5)),
    "linear over positions": (nn.Linear(4, 5), torch.zeros(3, 7, 4), of_linear(21, 4, 5)),
    "convolution": (
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.zeros(2, 3, 8, 8),
        2 * (2 * 4 * 4) * 8 * (3 * 3 * 3),
    ),
    "groups": (
        nn.Conv2d(4, 8, 3, groups=4),
        torch.zeros(2, 4, 6, 6),
        2 * (2 * 4 * 4) * 8 * (1 * 3 * 3),
    ),
    "transposed": (
        nn.ConvTranspose1d(4, 6, 3, stride=2),
        torch.zeros(2, 4, 5),
        2 * (2 * 5) * 4 * (6 * 3),
    ),
    "lstm": (nn.LSTM(4, 5), torch.zeros(7, 3, 4), of_recurrent(7, 3, 4, 5, gates=4)),
    "gru": (nn.GRU(4, 5), torch.zeros(7, 3, 4), of_recurrent(7, 3, 4, 5, gates=3)),
    "attention": (
        nn.MultiheadAttention(8, 2, batch_first=True),
        [torch.zeros(2, 5, 8)] * 3,
        of_attention(2, 5, 8),
    ),
    "transformer": (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        torch.zeros(2, 5, 8),
        of_attention(2, 5, 8) + of_linear(10, 8, 16) + of_linear(10, 16, 8),
    ),
    "norm and activation": (
        nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()),
        torch.zeros(3, 4),
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_flops_equal_the_count_by_hand(name: str) -> None:
    model, inputs, flops = CASES[name]
    found = layer_costs(model, inputs)
    assert found.flops == flops
    assert sum(cost.flops or 0 for cost in found.layers.values()) == flops


class Scores(nn.Module):
    """Two projections and a matrix product of its own; called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)
        self.spare = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.query(x) @ self.key(x).transpose(1, 2)


def test_a_module_does_not_count_those_inside_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = Scores()

        def forward(self, x: Tensor) -> Tensor:
            return self.scores(x) + self.scores(x)

    found = layer_costs(Twice(), torch.zeros(2, 3, 4))
    flops = {name: cost.flops for name, cost in found.layers.items()}
    each = 2 * of_linear(6, 4, 4)
    product = 2 * (2 * 2 * 3 * 3 * 4)
    assert flops == {
        "": 0, "scores": product, "scores.query": each, "scores.key": each
    }  # fmt: skip
    assert found.flops == 2 * each + product
    assert found.layers["scores.key"].output_bytes == 2 * (2 * 3 * 4 * 4)


def test_a_pass_whose_flops_cannot_be_counted_still_has_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch.utils.flop_counter as counting

    def broken(*arguments: object, **named: object) -> int:
        raise RuntimeError("no formula")

    monkeypatch.setitem(counting.flop_registry, torch.ops.aten.addmm, broken)
    found = summary(nn.Sequential(nn.Linear(4, 5)), torch.zeros(3, 4))
    assert found.flops is None
    assert found.layers[0].output_bytes == 3 * 5 * 4
    assert "its FLOPs cannot be counted" in str(found)


# ---------------------------------------------------------------- receptive fields


def measured_field(model: nn.Module, x: Tensor) -> tuple[int, ...]:
    """Number of input positions, per dimension, on which the middle output position depends."""
    x = x.clone().requires_grad_()
    output = model(x)
    middle = tuple(size // 2 for size in output.shape[2:])
    output[(0, slice(None), *middle)].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(0) > 0
    counts: list[int] = []
    for dim in range(reached.ndim):
        others = [other for other in range(reached.ndim) if other != dim]
        places = (reached.any(others) if others else reached).nonzero().flatten()
        counts.append(int(places.max() - places.min()) + 1)
    return tuple(counts)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(4, 4, 1, stride=2)
        self.wide = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        wide = self.wide(x)
        return nn.functional.relu(self.narrow(x)[:, :, : wide.shape[2], : wide.shape[3]] + wide)


def constant(model: nn.Module) -> nn.Module:
    """The model with positive weights, so that no gradient is 0 by chance."""
    for value in model.parameters():
        nn.init.uniform_(value, 0.5, 1.0)
    return model.eval()


FIELDS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "strides and dilation": (
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
            nn.Conv2d(3, 3, (3, 5), dilation=2),
            nn.Conv2d(3, 3, 3, stride=2),
            nn.Conv2d(3, 3, 3),
        ),
        (2, 64, 64),
    ),
    "one dimension": (
        nn.Sequential(nn.Conv1d(2, 3, 5), nn.AvgPool1d(3, 2), nn.Conv1d(3, 3, 3)),
        (2, 60),
    ),
    "three dimensions": (
        nn.Sequential(nn.Conv3d(1, 2, 3, stride=2), nn.Conv3d(2, 2, (1, 3, 3))),
        (1, 16, 16, 16),
    ),
    "branches": (
        nn.Sequential(nn.Conv2d(2, 4, 3), Residual(), nn.Conv2d(4, 4, 3)),
        (2, 48, 48),
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_equal_those_of_the_gradient(name: str) -> None:
    model, shape = FIELDS[name]
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) + 0.5
    constant(model)
    found = layer_costs(model, x).layers
    layers = [str(index) for index in range(len(list(model.children())))]
    for index, layer in enumerate(layers, 1):
        part = nn.Sequential(*list(model.children())[:index])
        field = found[layer].field
        assert field is not None
        assert field.rounded() == measured_field(part, x), layer


def test_a_transposed_convolution_inserts_positions() -> None:
    field = Field((3.0,), (4.0,)).after_transposed((4,), (2,), (1,))
    assert field == Field((7.0,), (2.0,))
    model = nn.Sequential(nn.Conv1d(1, 1, 3, stride=2), nn.ConvTranspose1d(1, 1, 2, stride=2))
    found = layer_costs(model, torch.zeros(1, 1, 20)).layers["1"].field
    assert found == Field((3.0,), (1.0,))


def test_there_is_no_field_after_a_flattening_or_for_texts() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    found = {
        layer.name: layer.receptive_field
        for layer in summary(model, torch.zeros(1, 1, 8, 8)).layers
    }
    assert found == {"0": (3, 3), "1": None, "2": None, "3": None}
    words = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    text = str(summary(words, torch.zeros(2, 3, dtype=torch.long)))
    assert "receptive field" not in text


# ---------------------------------------------------------------- time and table


class Sleeps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.05)
        return x


def test_the_time_of_a_slow_layer_is_its_own() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Sleeps(), nn.Linear(4, 4)))
    found = summary(model, torch.zeros(2, 4))
    shares = {layer.name: layer.time_share for layer in found.layers}
    assert shares["1.0"] > 80
    assert sum(shares.values()) <= 100.001
    assert found.seconds >= 0.05


def test_the_table_has_costs_fields_and_groups() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    model[0].requires_grad_(False)
    found = summary(model, torch.zeros(5, 1, 8, 8))
    lines = str(found).splitlines()
    assert lines[1].split()[-5:] == ["FLOPs", "memory", "time", "receptive", "field"]
    cells = lines[3].split()
    assert cells[:6] == ["0", "Conv2d", "5×2×6×6", "20", "no", "train"]
    assert cells[6:10] == ["6.5", "k", "1.4", "kB"]
    assert cells[-1] == "3×3"
    assert found.groups == {"0": (20, 0), "2": (146, 146)}
    assert "Parameter groups from stem to head: 0 (20, frozen), 2 (146)." in lines
    assert any(line.startswith("The forward pass of inputs 5×1×8×8 takes ") for line in lines)
    assert any(line.endswith(" and 7.9 k FLOPs.") for line in lines)


def test_work_outside_the_listed_layers_is_said() -> None:
    text = str(summary(Scores(), torch.zeros(2, 3, 4)))
    assert "FLOPs, 27 % of them outside the listed layers." in text


def test_a_model_that_calls_other_modules_in_each_pass() -> None:
    calls = itertools.count()  # outside the model, whose attributes are restored

    class Turns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[next(calls) % 3](x)

    found = layer_costs(Turns(), torch.zeros(2, 4))
    assert {"", "layers.0", "layers.1", "layers.2"} == set(found.layers)
    assert found.layers["layers.1"].output_bytes == 2 * 4 * 4
    assert summary(Turns(), torch.zeros(2, 4)).parameters == 60


def test_a_fault_of_the_receptive_fields_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("a fault of the fields")

    monkeypatch.setattr(ReceptiveFields, "note", fail)
    with pytest.raises(ValueError, match="a fault of the fields"):
        layer_costs(nn.Conv1d(1, 1, 3), torch.zeros(2, 1, 8))
