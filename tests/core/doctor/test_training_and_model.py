"""Faults of optimizers, modes, scales and the model itself: each is found with its code alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from flambeau import Data, Learner, TensorData, TrainingOptions
from flambeau.doctor import Finding
from flambeau.task import Regression


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def table(n: int = 400, width: int = 5) -> Data:
    x = draws(n, width)
    return TensorData.from_tensors(x, (x.sum(1) > 0).long())


def pictures(scale: float = 1.0, shift: float = 0.0) -> Data:
    x = draws(400, 1, 8, 8) * scale + shift
    return TensorData.from_tensors(x, torch.arange(400) % 2)


class Net(nn.Module):
    """Linear, batch norm, ReLU, dropout, head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(5, 16)
        self.norm = nn.BatchNorm1d(16)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.relu(self.norm(self.body(x)))))


def cnn(*first: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2)]
    return nn.Sequential(*first, *layers)


def only(learner: Learner, code: str, *, full: bool = False) -> Finding:
    report = learner.doctor(full=full)
    assert set(report.codes) == {code}, str(report)
    return report.findings[0]


def silent(learner: Learner, *, full: bool = False) -> None:
    report = learner.doctor(full=full)
    assert report.ok, str(report)


# ---------------------------------------------------------------- optimizers


def with_optimizers(make: Any, model: nn.Module | None = None) -> Learner:
    def factory(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        made = make(model)
        return made if isinstance(made, dict) else {"main": made}

    training = TrainingOptions(optimizer=factory)
    return Learner(table(), model or Net(), training=training, quiet=True)


def test_an_optimizer_of_ones_own_that_is_right() -> None:
    def right(model: nn.Module) -> Optimizer:
        plain = [p for p in model.parameters() if p.ndim == 1]
        others = [p for p in model.parameters() if p.ndim > 1]
        return SGD([{"params": others, "weight_decay": 0.1}, {"params": plain}], lr=0.1)

    silent(with_optimizers(right), full=True)


def test_parameters_that_no_optimizer_moves() -> None:
    finding = only(
        with_optimizers(lambda m: SGD(m.head.parameters(), lr=0.1)), "optimizer-misses-parameters"
    )
    assert finding.evidence["missing"] == 4
    assert "body.weight" in finding.what


def test_parameters_that_two_optimizers_move() -> None:
    def two(model: Any) -> dict[str, Optimizer]:
        return {"all": SGD(model.parameters(), lr=0.1), "head": SGD(model.head.parameters(), 0.1)}

    finding = only(with_optimizers(two), "parameter-in-two-optimizers")
    assert finding.evidence == {"parameters": 2, "optimizers": ["all", "head"]}


def test_frozen_parameters_in_the_optimizer() -> None:
    model = Net()
    model.body.requires_grad_(False)
    finding = only(
        with_optimizers(lambda m: SGD(m.parameters(), lr=0.1), model), "frozen-in-optimizer"
    )
    assert finding.evidence == {"parameters": 2}
    silent(
        with_optimizers(lambda m: SGD([p for p in m.parameters() if p.requires_grad], 0.1), model)
    )


def test_weight_decay_on_norms() -> None:
    finding = only(with_optimizers(lambda m: AdamW(m.parameters())), "weight-decay-on-norms")
    assert finding.evidence == {"parameters": 2, "weight_decay": 0.01}
    silent(with_optimizers(lambda m: AdamW(m.parameters(), weight_decay=0.0)))


@pytest.mark.parametrize(
    ("choices", "lr", "what"),
    [
        ({"optimizer": "adamw"}, 1.0, "far above"),
        ({"optimizer": "sgd"}, 50.0, "far above"),
        ({"optimizer": "adamw"}, 1e-9, "nothing will be learned"),
        ({"optimizer": "adamw"}, 1e-2, None),
        ({"optimizer": "adamw"}, 0.25, None),  # small nets train well there
        ({"optimizer": "sgd"}, 1.0, None),
        ({"optimizer": "sgd"}, 1e-9, None),
    ],
)
def test_a_learning_rate_that_cannot_work(
    choices: dict[str, Any], lr: float, what: str | None
) -> None:
    learner = Learner(table(), Net(), choices={**choices, "lr": lr}, quiet=True)
    if what is None:
        silent(learner)
    else:
        finding = only(learner, "lr-for-optimizer")
        assert what in finding.what
        assert finding.evidence["lr"] == lr


def test_a_run_of_a_few_steps() -> None:
    learner = Learner(table(), Net(), choices={"epochs": 1, "batch_size": 32}, quiet=True)
    assert only(learner, "too-few-steps").evidence["steps"] == 10


# ---------------------------------------------------------------- modes


@pytest.mark.parametrize("layer", ["norm", "drop"])
def test_a_layer_left_in_eval_mode(layer: str) -> None:
    model = Net()
    getattr(model, layer).eval()
    finding = only(Learner(table(), model, quiet=True), "eval-mode-lost")
    assert f"({layer})" in finding.what
    assert ('"bn": "eval"' in finding.mend) is (layer == "norm")
    assert not getattr(model, layer).training


def test_eval_mode_that_is_kept_is_no_finding() -> None:
    model = Net()
    model.norm.eval()
    silent(Learner(table(), model, choices={"bn": "eval"}, quiet=True))

    class Keeps(Net):
        def train(self, mode: bool = True) -> Keeps:
            super().train(mode)
            self.norm.eval()
            return self

    silent(Learner(table(), Keeps().train(), quiet=True))
    silent(Learner(table(), Net().eval(), quiet=True))  # as many models are loaded


@pytest.mark.parametrize("batch_size", [2, 16])
def test_batch_norm_of_tiny_batches(batch_size: int) -> None:
    learner = Learner(table(), Net(), choices={"batch_size": batch_size}, quiet=True)
    if batch_size == 2:
        finding = only(learner, "tiny-batch-norm")
        assert finding.evidence["numbers a channel"] == 2
        learner = Learner(table(), Net(), choices={"batch_size": 2, "bn": "eval"}, quiet=True)
    silent(learner)


def test_two_pictures_have_many_numbers_a_channel() -> None:
    model = cnn(nn.BatchNorm2d(1))
    silent(Learner(pictures(), model, choices={"batch_size": 2}, quiet=True))


# ---------------------------------------------------------------- scales


@pytest.mark.parametrize(
    ("scale", "shift", "what"),
    [
        (60.0, 128.0, "goes from"),
        (0.001, 0.002, "never farther from 0"),
        (0.004, -2.1, "hardly varies"),
        (0.3, 0.5, None),
        (1.0, 0.0, None),
        (0.3, -1.5, None),
    ],
)
def test_pictures_that_are_not_normalised_or_twice(
    scale: float, shift: float, what: str | None
) -> None:
    learner = Learner(pictures(scale, shift), cnn(), quiet=True)
    if what is None:
        silent(learner)
    else:
        assert what in only(learner, "input-scale").what
        # A norm layer first, or any arithmetic in forward, is seen.
        silent(Learner(pictures(scale, shift), cnn(nn.BatchNorm2d(1)), quiet=True))


class Scales(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 128.0) / 60.0


def test_a_model_that_scales_its_inputs_itself() -> None:
    silent(Learner(pictures(60.0, 128.0), cnn(Scales()), quiet=True))


def test_a_column_that_drowns_the_others() -> None:
    x = draws(400, 5)
    y = (x.sum(1) > 0).long()
    x[:, 2] = x[:, 2] * 500 + 2000
    data = TensorData.from_tensors(x, y)
    finding = only(Learner(data, Net(), quiet=True), "input-scale")
    assert "Column 2" in finding.what
    assert finding.evidence["columns"] == 1
    silent(Learner(data, quiet=True))  # the plan standardises for its own network
    x[:, 2] = 0
    x[::40, 2] = 5000.0  # a rare event is no scale
    silent(Learner(TensorData.from_tensors(x, y), Net(), quiet=True))


def test_a_frozen_body_does_not_make_features_data() -> None:
    model = nn.Sequential(nn.Linear(5, 16), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].weight.mul_(100)
        model[1].weight.mul_(0.001)
    model[0].requires_grad_(False)
    silent(Learner(table(), model, quiet=True))


def test_amounts_that_are_far_from_the_first_answers() -> None:
    x = draws(400, 5)
    y = 2e5 + 5e4 * x.sum(1)
    torch.manual_seed(0)
    finding = only(
        Learner(TensorData.from_tensors(x, y), nn.Linear(5, 1), quiet=True), "targets-unscaled"
    )
    assert finding.evidence["mean"] == pytest.approx(2e5, rel=0.5)
    mean, std = float(y.mean()), float(y.std())
    scaled = Regression(mean=mean, std=std)
    silent(
        Learner(TensorData.from_tensors(x, y), nn.Linear(5, 1), task=scaled, quiet=True), full=True
    )
    silent(
        Learner(TensorData.from_tensors(x, y), quiet=True), full=True
    )  # the plan does it by itself


# ---------------------------------------------------------------- answers and gradients


def head(*after: nn.Module, n_outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, n_outputs), *after)


@pytest.mark.parametrize("several", [True, False])
def test_a_sigmoid_before_the_loss(several: bool) -> None:
    x = draws(400, 5)
    y = (x[:, :2] > 0).float() if several else (x.sum(1) > 0).long()
    data = TensorData.from_tensors(x, y)
    finding = only(Learner(data, head(nn.Sigmoid()), quiet=True), "sigmoid-before-loss")
    assert finding.severity == "error"
    silent(Learner(data, head(), quiet=True))


def test_answers_that_cannot_reach_the_targets() -> None:
    x = draws(400, 5)
    y = 3 * x.sum(1)
    data = TensorData.from_tensors(x, y)
    for last in (nn.Sigmoid(), nn.Tanh(), nn.ReLU()):
        learner = Learner(data, head(last, n_outputs=1), quiet=True)
        only(learner, "answers-out-of-reach")
    positive = TensorData.from_tensors(x, x.sum(1).sigmoid())
    silent(Learner(positive, head(nn.Sigmoid(), n_outputs=1), quiet=True))


def test_units_that_are_dead_from_the_start() -> None:
    model = head()
    with torch.no_grad():
        model[0].bias.fill_(-20.0)  # type: ignore[index]
    finding = Learner(table(), model, choices={"batch_size": 32}, quiet=True).doctor().findings[0]
    assert finding.code == "dead-units"
    assert finding.evidence["share"] == 1.0


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used = nn.Linear(5, 2)
        self.spare = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_a_layer_that_forward_leaves_out() -> None:
    finding = only(Learner(table(), Spare(), quiet=True), "unused-parameters")
    assert finding.evidence == {"parameters": 2, "of": 4}
    model = Spare()
    model.spare.requires_grad_(False)
    silent(Learner(table(), model, quiet=True))


class Cut(Spare):
    def forward(self, x: Tensor) -> Tensor:
        return (self.used(x) + self.spare(x)).detach()


class Zero(Spare):
    def forward(self, x: Tensor) -> Tensor:
        return (self.used(x) + self.spare(x)) * 0


@pytest.mark.parametrize(("model", "what"), [(Cut, "cut from the graph"), (Zero, "exactly 0")])
def test_a_loss_that_teaches_nothing(model: type[nn.Module], what: str) -> None:
    assert what in only(Learner(table(), model(), quiet=True), "no-gradient").what


class Blind(nn.Module):
    """Large, but what it looks at is the same for every sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(5, 128)
        self.head = nn.Linear(128, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x - x + 1)))


def test_a_model_that_cannot_learn_a_few_samples() -> None:
    learner = Learner(table(), Blind(), quiet=True)
    silent(learner)
    finding = only(learner, "cannot-overfit", full=True)
    assert finding.evidence["last loss"] > 0.5
    silent(Learner(table(), nn.Linear(5, 2), quiet=True), full=True)  # too small for it
    silent(Learner(table(), Net(), quiet=True), full=True)


class Roots(Spare):
    def forward(self, x: Tensor) -> Tensor:
        return (self.used(x) + self.spare(x)).sqrt()


def test_a_loss_that_is_not_finite() -> None:
    finding = only(Learner(table(), Roots(), quiet=True), "loss-not-finite")
    assert finding.evidence["answers are finite"] is False
    assert "forward" in finding.mend
