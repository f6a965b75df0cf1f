"""Mistakes in optimizers, modes, scales and models: each check finds its own, and no other."""

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


def images(scale: float = 1.0, shift: float = 0.0) -> Data:
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


def assert_no_findings(learner: Learner, *, full: bool = False) -> None:
    report = learner.doctor(full=full)
    assert report.ok, str(report)


# ---------------------------------------------------------------- optimizers


def with_optimizers(make: Any, model: nn.Module | None = None) -> Learner:
    def factory(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        made = make(model)
        return made if isinstance(made, dict) else {"main": made}

    training = TrainingOptions(optimizer=factory)
    return Learner(table(), model or Net(), training=training, quiet=True)


def test_a_correct_user_defined_optimizer() -> None:
    def right(model: nn.Module) -> Optimizer:
        plain = [p for p in model.parameters() if p.ndim == 1]
        others = [p for p in model.parameters() if p.ndim > 1]
        return SGD([{"params": others, "weight_decay": 0.1}, {"params": plain}], lr=0.1)

    assert_no_findings(with_optimizers(right), full=True)


def test_parameters_in_no_optimizer() -> None:
    finding = only(
        with_optimizers(lambda m: SGD(m.head.parameters(), lr=0.1)), "optimizer-misses-parameters"
    )
    assert finding.evidence["missing"] == 4
    assert "body.weight" in finding.what


def test_parameters_in_two_optimizers() -> None:
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
    assert_no_findings(
        with_optimizers(lambda m: SGD([p for p in m.parameters() if p.requires_grad], 0.1), model)
    )


def test_weight_decay_on_norms() -> None:
    finding = only(with_optimizers(lambda m: AdamW(m.parameters())), "weight-decay-on-norms")
    assert finding.evidence == {"parameters": 2, "weight_decay": 0.01}
    assert_no_findings(with_optimizers(lambda m: AdamW(m.parameters(), weight_decay=0.0)))


@pytest.mark.parametrize(
    ("choices", "lr", "what"),
    [
        ({"optimizer": "adamw"}, 1.0, "far too high"),
        ({"optimizer": "sgd"}, 50.0, "far too high"),
        ({"optimizer": "adamw"}, 1e-9, "will not learn"),
        ({"optimizer": "adamw"}, 1e-2, None),
        ({"optimizer": "adamw"}, 0.25, None),  # small networks train well with it
        ({"optimizer": "sgd"}, 1.0, None),
        ({"optimizer": "sgd"}, 1e-9, None),
        ({"optimizer": "sgd", "momentum": 0.9}, 2.0, "far too high"),  # as 20 without momentum
        ({"optimizer": "sgd", "momentum": 0.5}, 2.0, None),
    ],
)
def test_a_learning_rate_that_is_too_high_or_too_low(
    choices: dict[str, Any], lr: float, what: str | None
) -> None:
    learner = Learner(table(), Net(), choices={**choices, "lr": lr}, quiet=True)
    if what is None:
        assert_no_findings(learner)
    else:
        finding = only(learner, "lr-for-optimizer")
        assert what in finding.what
        assert finding.evidence["lr"] == lr


def test_a_run_of_ten_steps() -> None:
    learner = Learner(table(), Net(), choices={"epochs": 1, "batch_size": 32}, quiet=True)
    assert only(learner, "too-few-steps").evidence["steps"] == 10


# ---------------------------------------------------------------- modes


@pytest.mark.parametrize("layer", ["norm", "drop"])
def test_a_layer_in_eval_mode(layer: str) -> None:
    model = Net()
    getattr(model, layer).eval()
    finding = only(Learner(table(), model, quiet=True), "eval-mode-lost")
    assert f": {layer}." in finding.what
    assert ('"bn": "eval"' in finding.fix) is (layer == "norm")
    assert not getattr(model, layer).training


def test_eval_mode_that_fit_keeps_is_not_reported() -> None:
    model = Net()
    model.norm.eval()
    assert_no_findings(Learner(table(), model, choices={"bn": "eval"}, quiet=True))

    class Keeps(Net):
        def train(self, mode: bool = True) -> Keeps:
            super().train(mode)
            self.norm.eval()
            return self

    assert_no_findings(Learner(table(), Keeps().train(), quiet=True))
    # Many models are loaded in eval mode.
    assert_no_findings(Learner(table(), Net().eval(), quiet=True))


@pytest.mark.parametrize("batch_size", [2, 16])
def test_batch_norm_with_two_samples_in_a_batch(batch_size: int) -> None:
    learner = Learner(table(), Net(), choices={"batch_size": batch_size}, quiet=True)
    if batch_size == 2:
        finding = only(learner, "batch-norm-few-values")
        assert finding.evidence["values per channel"] == 2
        learner = Learner(table(), Net(), choices={"batch_size": 2, "bn": "eval"}, quiet=True)
    assert_no_findings(learner)


def test_two_images_have_many_values_per_channel() -> None:
    model = cnn(nn.BatchNorm2d(1))
    assert_no_findings(Learner(images(), model, choices={"batch_size": 2}, quiet=True))


# ---------------------------------------------------------------- scales


@pytest.mark.parametrize(
    ("scale", "shift", "what"),
    [
        (60.0, 128.0, "ranges from"),
        (0.001, 0.002, "No absolute value"),
        (0.004, -2.1, "hardly varies"),
        (0.3, 0.5, None),
        (1.0, 0.0, None),
        (0.3, -1.5, None),
    ],
)
def test_images_not_normalised_or_normalised_twice(
    scale: float, shift: float, what: str | None
) -> None:
    learner = Learner(images(scale, shift), cnn(), quiet=True)
    if what is None:
        assert_no_findings(learner)
    else:
        assert what in only(learner, "input-scale").what
        # With a norm layer first, the scale of the inputs is correct.
        assert_no_findings(Learner(images(scale, shift), cnn(nn.BatchNorm2d(1)), quiet=True))


class Scales(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 128.0) / 60.0


def test_a_model_that_scales_its_inputs_itself() -> None:
    assert_no_findings(Learner(images(60.0, 128.0), cnn(Scales()), quiet=True))


def test_a_column_much_larger_than_the_others() -> None:
    x = draws(400, 5)
    y = (x.sum(1) > 0).long()
    x[:, 2] = x[:, 2] * 500 + 2000
    data = TensorData.from_tensors(x, y)
    finding = only(Learner(data, Net(), quiet=True), "input-scale")
    assert "Column 2" in finding.what
    assert finding.evidence["columns"] == 1
    # The plan standardises the inputs of its own network.
    assert_no_findings(Learner(data, quiet=True))
    x[:, 2] = 0
    x[::40, 2] = 5000.0  # a rare large value is not a wrong scale
    assert_no_findings(Learner(TensorData.from_tensors(x, y), Net(), quiet=True))


def test_features_of_a_frozen_body_are_not_inputs() -> None:
    model = nn.Sequential(nn.Linear(5, 16), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].weight.mul_(100)
        model[1].weight.mul_(0.001)
    model[0].requires_grad_(False)
    assert_no_findings(Learner(table(), model, quiet=True))


def test_targets_much_larger_than_the_initial_outputs() -> None:
    x = draws(400, 5)
    y = 2e5 + 5e4 * x.sum(1)
    torch.manual_seed(0)
    finding = only(
        Learner(TensorData.from_tensors(x, y), nn.Linear(5, 1), quiet=True), "targets-unscaled"
    )
    assert finding.evidence["mean"] == pytest.approx(2e5, rel=0.5)
    mean, std = float(y.mean()), float(y.std())
    scaled = Regression(mean=mean, std=std)
    assert_no_findings(
        Learner(TensorData.from_tensors(x, y), nn.Linear(5, 1), task=scaled, quiet=True), full=True
    )
    # The plan standardises them.
    assert_no_findings(Learner(TensorData.from_tensors(x, y), quiet=True), full=True)


# ---------------------------------------------------------------- outputs and gradients


def head(*after: nn.Module, n_outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, n_outputs), *after)


@pytest.mark.parametrize("multi_label", [True, False])
def test_a_sigmoid_before_the_loss(multi_label: bool) -> None:
    x = draws(400, 5)
    y = (x[:, :2] > 0).float() if multi_label else (x.sum(1) > 0).long()
    data = TensorData.from_tensors(x, y)
    finding = only(Learner(data, head(nn.Sigmoid()), quiet=True), "sigmoid-before-loss")
    assert finding.severity == "error"
    assert_no_findings(Learner(data, head(), quiet=True))


def test_targets_outside_the_range_of_the_activation() -> None:
    x = draws(400, 5)
    y = 3 * x.sum(1)
    data = TensorData.from_tensors(x, y)
    for last in (nn.Sigmoid(), nn.Tanh(), nn.ReLU()):
        learner = Learner(data, head(last, n_outputs=1), quiet=True)
        only(learner, "outputs-out-of-range")
    positive = TensorData.from_tensors(x, x.sum(1).sigmoid())
    assert_no_findings(Learner(positive, head(nn.Sigmoid(), n_outputs=1), quiet=True))


def test_units_that_are_zero_for_all_samples() -> None:
    model = head()
    with torch.no_grad():
        model[0].bias.fill_(-20.0)  # type: ignore[index]
    finding = Learner(table(), model, choices={"batch_size": 32}, quiet=True).doctor().findings[0]
    assert finding.code == "dead-units"
    assert finding.evidence["share"] == 1.0


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used = nn.Linear(5, 2)
        self.spare = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_a_layer_that_forward_does_not_use() -> None:
    finding = only(Learner(table(), Unused(), quiet=True), "unused-parameters")
    assert finding.evidence == {"parameters": 2, "of": 4}
    model = Unused()
    model.spare.requires_grad_(False)
    assert_no_findings(Learner(table(), model, quiet=True))


class Detached(Unused):
    def forward(self, x: Tensor) -> Tensor:
        return (self.used(x) + self.spare(x)).detach()


class Zero(Unused):
    def forward(self, x: Tensor) -> Tensor:
        return (self.used(x) + self.spare(x)) * 0


@pytest.mark.parametrize(
    ("model", "what"), [(Detached, "detached from the graph"), (Zero, "exactly 0")]
)
def test_a_loss_without_gradients(model: type[nn.Module], what: str) -> None:
    assert what in only(Learner(table(), model(), quiet=True), "no-gradient").what


class Blind(nn.Module):
    """Has many parameters, but its outputs do not depend on the inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(5, 128)
        self.head = nn.Linear(128, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x - x + 1)))


def test_a_model_that_cannot_overfit_a_few_samples() -> None:
    learner = Learner(table(), Blind(), quiet=True)
    assert_no_findings(learner)
    finding = only(learner, "cannot-overfit", full=True)
    assert finding.evidence["last loss"] > 0.5
    # Too few parameters for the check.
    assert_no_findings(Learner(table(), nn.Linear(5, 2), quiet=True), full=True)
    assert_no_findings(Learner(table(), Net(), quiet=True), full=True)


class Roots(Unused):
    def forward(self, x: Tensor) -> Tensor:
        return (self.used(x) + self.spare(x)).sqrt()


def test_a_loss_that_is_not_finite() -> None:
    finding = only(Learner(table(), Roots(), quiet=True), "loss-not-finite")
    assert finding.evidence["outputs are finite"] is False
    assert "forward" in finding.fix
