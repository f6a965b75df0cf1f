import pytest
import torch
from torch import Tensor, nn

from flambeau.errors import InputError
from flambeau.inspect import record_outputs, summary


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.embed = nn.Linear(3, 5, bias=False)
        self.body = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.ReLU())
        self.head = nn.Linear(5, 3, bias=False)
        self.head.weight = nn.Parameter(self.embed.weight.detach().T.clone())
        self.tied = nn.Linear(3, 5, bias=False)
        self.tied.weight = self.embed.weight
        self.spare = nn.Linear(2, 2)

    def forward(self, x, factor):
        hidden = self.tied(self.head(self.embed(x * self.scale))) * factor
        return self.body(hidden.unsqueeze(1)), self.head(hidden)


def model() -> Model:
    torch.manual_seed(0)
    return Model()


def test_rows_of_a_model() -> None:
    made = model()
    made.body[0].requires_grad_(False)
    made.body[1].eval()
    found = summary(made, {"x": torch.zeros(4, 3), "factor": torch.ones(())})
    rows = {layer.name: layer for layer in found.layers}
    assert list(rows) == [
        "", "embed", "body.0", "body.1", "body.2", "head", "tied", "spare"
    ]  # fmt: skip
    assert {name: layer.output for name, layer in rows.items()} == {
        "": "4×2×3, 4×3",
        "embed": "4×5",
        "body.0": "4×2×3",
        "body.1": "4×2×3",
        "body.2": "4×2×3",
        "head": "4×3",
        "tied": "4×5",
        "spare": "–",
    }
    assert {name: layer.parameters for name, layer in rows.items()} == {
        "": 3, "embed": 15, "body.0": 8, "body.1": 4, "body.2": 0, "head": 15, "tied": 0, "spare": 6
    }  # fmt: skip
    assert (rows["body.0"].trainable, rows["embed"].trainable) == (0, 15)
    assert rows["tied"].shared
    assert not rows["embed"].shared
    assert (rows["head"].calls, rows["spare"].calls) == (2, 0)
    assert (rows["body.1"].training, rows["body.0"].training) == (False, True)
    assert rows["body.1"].class_name == "BatchNorm1d"


def test_totals_count_shared_parameters_once() -> None:
    found = summary(model(), (torch.zeros(4, 3), torch.ones(())))
    assert found.parameters == 3 + 15 + 8 + 4 + 15 + 6
    assert found.parameters == sum(layer.parameters for layer in found.layers)
    assert found.trainable == found.parameters
    assert found.parameter_bytes == 4 * found.parameters
    assert found.buffer_bytes == 2 * 2 * 4 + 8  # mean, variance and the count of batches


def test_it_prints_as_a_table() -> None:
    made = model()
    made.embed.requires_grad_(False)
    lines = str(summary(made, (torch.zeros(4, 3), torch.ones(())))).split("\n")
    assert lines[0] == "Model:"
    headers = "layer type output parameters trainable mode FLOPs memory time"
    assert lines[1].split() == headers.split()
    cells = {line.split()[0]: line.split() for line in lines[3:]}
    assert " ".join(cells["embed"]).startswith("embed Linear 4×5 15 no train 120 80 B ")
    assert " ".join(cells["head"]).startswith("head Linear 4×3 ×2 15 yes train 240 96 B ")
    assert " ".join(cells["tied"]).startswith("tied Linear 4×5 shared train 120 80 B ")
    assert "51 parameters (204 B), 36 trainable; buffers 24 B." in lines
    assert lines[-1] == "Not called in this forward pass: spare."


def test_html_is_escaped() -> None:
    class Odd(nn.Linear):
        pass

    Odd.__name__ = "A<b>"
    found = summary(nn.Sequential(Odd(2, 1)), torch.zeros(1, 2))._repr_html_()
    assert "A&lt;b&gt;" in found
    assert "<b>" in found.replace("<b>Sequential</b>", "<b>")
    assert "A<b>" not in found
    assert found.count("<tr>") == 2


def test_modes_and_statistics_are_unchanged() -> None:
    made = model().train()
    before = made.body[1].running_mean.clone()
    summary(made, (torch.randn(4, 3), torch.ones(())))
    assert made.training
    assert made.body[1].training
    assert torch.equal(made.body[1].running_mean, before)


def test_the_inputs_of_the_caller_are_unchanged_by_layers_that_work_in_place() -> None:
    x = torch.tensor([[-1.0, 2.0]])
    summary(nn.ReLU(inplace=True), x)
    record_outputs(nn.Sequential(nn.ReLU(inplace=True)), {"input": x})
    assert x.tolist() == [[-1.0, 2.0]]


def test_inputs_whose_first_dimension_is_time_are_not_called_samples() -> None:
    text = str(summary(nn.GRU(5, 7), torch.zeros(6, 2, 5)))
    assert "The forward pass of inputs 6×2×5 takes" in text
    text = str(summary(nn.Bilinear(3, 4, 2), (torch.zeros(2, 3), torch.zeros(2, 4))))
    assert "The forward pass of inputs 2×3, 2×4 takes" in text


class PartlyCalled(nn.Module):
    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.used = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
        self.head = nn.LazyBatchNorm1d() if norm else nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize("norm", [False, True])
def test_a_lazy_layer_that_is_not_called_is_named(norm: bool) -> None:
    """Those that are called have their shapes after the pass."""
    assert summary(PartlyCalled(norm=norm).used, torch.zeros(2, 4)).parameters == 21
    with pytest.raises(
        InputError, match=r"head\.weight, head\.bias.* of lazy layers have no shape"
    ):
        summary(PartlyCalled(norm=norm), torch.zeros(2, 4))
