"""Muon by name: which parameters it trains, and that the steps are those of torch's optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, FlambeauError, InputError
from flambeau.training.optim.groups import Part
from flambeau.training.optim.muon import hidden_matrices, make_muon
from flambeau.training.optim.optimizer import make_optimizer


class Words(nn.Module):
    """Embedding, hidden layers, and a head, which may be tied to the embedding."""

    def __init__(self, *, tie: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.recurrent = nn.LSTM(4, 4, batch_first=True)
        self.hidden = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 4, bias=False))
        self.head = nn.Linear(4, 7)
        if tie:
            self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.recurrent(self.embedding(x))[0][:, -1]))


HIDDEN = {
    "recurrent.weight_ih_l0",
    "recurrent.weight_hh_l0",
    "hidden.0.weight",
    "hidden.2.weight",
}


def names(model: nn.Module, ids: set[int]) -> set[str]:
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)
    )


def table() -> TensorData:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(320, 20, generator=draws)
    return TensorData.from_tensors(x, x[:, :4].argmax(1), valid=0.2)


@pytest.mark.parametrize("tie", [False, True])
def test_muon_trains_the_matrices_between_embedding_and_head(tie: bool) -> None:
    model = Words(tie=tie)
    assert names(model, hidden_matrices(model)) == HIDDEN


def test_a_head_defined_as_last_layer_group_is_not_muons() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
            self.body = nn.Linear(3, 3)

        def layer_groups(self) -> Mapping[str, Sequence[Part]]:
            return {"body": [self.body], "head": [self.head]}

    model = Grouped()
    assert names(model, hidden_matrices(model)) == {"body.weight"}


def test_each_parameter_has_one_optimizer_and_biases_no_decay() -> None:
    model = Words()
    optimizers = make_muon(model, lr=0.1, weight_decay=0.2)
    assert {name: type(each) for name, each in optimizers.items()} == {"main": AdamW, "muon": Muon}
    every = [
        id(parameter)
        for each in optimizers.values()
        for group in each.param_groups
        for parameter in group["params"]
    ]
    assert sorted(every) == sorted(id(parameter) for parameter in model.parameters())
    decayed = {
        id(parameter)
        for each in optimizers.values()
        for group in each.param_groups
        for parameter in group["params"]
        if group["weight_decay"] == 0.2
    }
    assert names(model, decayed) == HIDDEN | {"embedding.weight", "head.weight"}


def test_training_is_that_of_torchs_two_optimizers() -> None:
    learner = Learner(
        table(),
        net(),
        choices={
            "optimizer": "muon",
            "batch_size": 32,
            "weight_decay": 0.1,
            "momentum": 0.8,
            "betas": [0.8, 0.9],
        },
        quiet=True,
    )
    loader = learner.built.loader("train")
    history = learner.fit(2, lr=0.01, schedule="constant")

    model = net()
    rest: list[dict[str, object]] = [
        {"params": [model[4].weight], "weight_decay": 0.1},
        {"params": [model[each].bias for each in (0, 2, 4)], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = [
        AdamW(rest, lr=0.01, betas=(0.8, 0.9), fused=True),
        Muon(
            [model[0].weight, model[2].weight],
            lr=0.01,
            weight_decay=0.1,
            momentum=0.8,
            adjust_lr_fn="match_rms_adamw",
        ),
    ]
    expected: list[float] = []
    for epoch in range(2):
        for batch in loader.batches(epoch):
            loss = nn.functional.cross_entropy(model(batch.input), batch.target)
            loss.backward()
            for each in optimizers:
                each.step()
                each.zero_grad()
            expected.append(loss.item())
    assert list(history.step_losses) == expected
    for name, weight in learner.model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


def test_the_class_alone_gives_both_optimizers() -> None:
    learner = Learner(table(), net(), training=TrainingOptions(optimizer=Muon), quiet=True)
    assert learner.plan.values["optimizer"] == "muon"
    first = learner.fit(1).step_losses
    by_name = Learner(table(), net(), choices={"optimizer": "muon"}, quiet=True)
    assert by_name.fit(1).step_losses == first


def test_nesterov_may_be_off() -> None:
    off = make_muon(net(), lr=0.1, options={"nesterov": False, "momentum": None})["muon"]
    assert off.defaults["nesterov"] is False
    assert off.defaults["momentum"] == 0.95
    learner = Learner(table(), net(), choices={"optimizer": "muon", "nesterov": True}, quiet=True)
    assert learner.plan.values["nesterov"] is True


def test_a_model_without_hidden_matrices_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(InputError, match="Sequential has no hidden matrices"):
        make_muon(model, lr=0.1)


def test_make_optimizer_names_make_muon() -> None:
    with pytest.raises(ArgumentError, match="make_muon"):
        make_optimizer("muon", net(), lr=0.1)


def test_settings_of_another_optimizer_are_refused() -> None:
    with pytest.raises(FlambeauError, match="'muon' has no alpha"):
        Learner(table(), net(), choices={"optimizer": "muon", "alpha": 0.9}, quiet=True)
