import pytest
import torch
from torch import nn

from flambeau.errors import ArgumentError, InputError
from flambeau.inspect import Hooks, record_outputs


class Tied(nn.Module):
    """Calls one layer twice and one layer never."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 1)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
        nn.Dropout(0.5),
        nn.Sequential(nn.ReLU(), nn.Linear(4, 2)),
    )


def test_outputs_are_those_of_the_modules() -> None:
    model, x = net().eval(), torch.randn(5, 3)
    with Hooks(model, ["0", "3.1"]) as hooks:
        output = model(x)
    assert list(hooks.outputs) == ["0", "3.1"]
    assert torch.equal(hooks.outputs["0"][0], model[0](x))
    assert torch.equal(hooks.outputs["3.1"][0], output)
    assert output.requires_grad
    assert not hooks.outputs["3.1"][0].requires_grad


def test_hooks_are_removed_even_after_an_error() -> None:
    model = net()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), Hooks(model):
        model(torch.zeros(2, 7))
    assert not any(module._forward_hooks for module in model.modules())
    with Hooks(model, ["0"]) as hooks:
        model(torch.zeros(2, 3))
    model(torch.zeros(2, 3))
    assert len(hooks.outputs["0"]) == 1


def test_there_is_one_output_per_call() -> None:
    model, x = Tied(), torch.randn(2, 4)
    found = record_outputs(model, x)
    first = model.layer(x)
    assert torch.equal(found["layer"][0], first)
    assert torch.equal(found["layer"][1], model.layer(first.relu()))
    assert "unused" not in found


def test_keep_decides_what_is_stored() -> None:
    model = net().eval()
    with Hooks(model, ["0"], keep=lambda output: tuple(output.shape)) as hooks:
        model(torch.zeros(2, 3))
        model(torch.zeros(6, 3))
    assert hooks.outputs == {"0": [(2, 4), (6, 4)]}


def test_nested_outputs_are_detached() -> None:
    found = record_outputs(nn.Sequential(nn.LSTM(3, 2)), torch.randn(4, 3))
    output, (hidden, cell) = found["0"][0]
    assert output.shape == (4, 2)
    assert not any(part.requires_grad for part in (output, hidden, cell))


def test_record_outputs_does_not_change_the_model() -> None:
    model = net()
    model[1].eval()
    model[2].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    found = record_outputs(
        model, {"x": torch.randn(8, 3, generator=torch.Generator().manual_seed(1))}
    )
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found["1"][0], found["2"][0]), "dropout does nothing in eval mode"


def test_patterns_and_unknown_names() -> None:
    assert set(record_outputs(net(), torch.zeros(2, 3), ["3.*", "0"])) == {"3.0", "3.1", "0"}
    with pytest.raises(ArgumentError, match=r"Tied has no module 'layr'\. Did you mean 'layer'"):
        Hooks(Tied(), ["layr"])
    with pytest.raises(ArgumentError, match=r"pass a list: \['layer'\]"):
        Hooks(Tied(), "layer")
    with pytest.raises(InputError, match="no inputs"):
        record_outputs(net(), [])
