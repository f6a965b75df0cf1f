"""The domain of plain tensors and its MLP."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flambeau.data.data import Data
from flambeau.errors import InputError
from flambeau.plan import CORE_RULES, Plan, combine
from flambeau.tensors.data import TensorData
from flambeau.tensors.domain import DOMAIN, demo
from flambeau.tensors.mlp import MLP
from flambeau.training.optim.groups import parameter_groups


def plan(data: Data, user: dict[str, Any] | None = None, **facts: Any) -> Plan:
    rules = combine(CORE_RULES, DOMAIN.rules)
    return Plan.derive(rules, {**data.facts(), **facts}, {**data.choices, **(user or {})})


def floats(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the MLP


def test_mlp_applies_its_layers_in_order() -> None:
    net = MLP(6, 3, hidden=(5, 4)).eval()
    x = floats(7, 2, 3)
    hidden = x.reshape(7, 6)
    first, _, second, _ = net.body
    for layer in (first, second):
        hidden = (hidden @ layer.weight.T + layer.bias).clamp_min(0)
    expected = hidden @ net.head.weight.T + net.head.bias
    assert torch.allclose(net(x), expected, rtol=0, atol=1e-6)  # float32 sums in another order


def test_mlp_concatenates_inputs_of_any_dtype() -> None:
    net = MLP(5, 2)
    a, b = floats(4, 3).double(), torch.arange(8, dtype=torch.uint8).reshape(4, 2)
    both = torch.cat([a.float(), b.float()], dim=1)
    assert torch.equal(net(a, b), net(both))


def test_mlp_initial_loss_is_that_of_a_constant() -> None:
    torch.manual_seed(0)
    net = MLP(20, 10)
    x, y = floats(500, 20), torch.arange(500) % 10
    assert F.cross_entropy(net(x), y).item() == pytest.approx(math.log(10), abs=0.1)
    # He's initialisation keeps the second moment from layer to layer; tolerance: 500 × 256 draws.
    first, relu, second = net.body[:3]
    before = second(relu(first(x)))
    assert before.square().mean().item() == pytest.approx(2.0, rel=0.25)


def test_mlp_without_hidden_layers_is_linear() -> None:
    net = MLP(3, 2, hidden=())
    assert [type(module) for module in net.modules()] == [MLP, nn.Sequential, nn.Linear]
    assert net(floats(2, 3)).shape == (2, 2)


def test_mlp_dropout_is_active_only_in_training() -> None:
    net = MLP(8, 2, dropout=0.5)
    x = floats(16, 8)
    assert torch.equal(net.eval()(x), net(x))
    assert not torch.equal(net.train()(x), net(x))


def test_mlp_groups_hold_every_parameter_once() -> None:
    net = MLP(3, 2)
    groups = parameter_groups(net)
    assert list(groups) == ["body", "head"]
    found = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(found) == sorted(id(parameter) for parameter in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_inputs": 0, "n_outputs": 2}, r"\[0, 256, 128, 2\], but must be positive"),
        ({"n_inputs": 2, "n_outputs": 2, "hidden": (4, 0)}, "must be positive"),
        ({"n_inputs": 2, "n_outputs": 2, "dropout": 1.0}, "dropout must be"),
    ],
)
def test_mlp_invalid_sizes_raise(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        MLP(**arguments)


def test_mlp_input_of_another_width_raises() -> None:
    with pytest.raises(InputError, match=r"built for 3 values.*got 4.*\(2, 4\)"):
        MLP(3, 2)(floats(2, 4))


# ---------------------------------------------------------------- its rules


def test_a_plan_for_vectors() -> None:
    made = plan(TensorData.from_tensors(floats(100, 12), torch.arange(100) % 4))
    assert made.values["architecture"] == "mlp"
    assert "12 values" in made["architecture"].reason
    assert made.values["normalisation"] == "standard"
    assert "80 train rows" in made["normalisation"].reason
    assert made.values["task"] == "classification"
    assert made.values["lr"] == 1e-3
    assert made["lr"].confidence > 0.5


def test_an_mlp_for_images_has_low_confidence() -> None:
    made = plan(TensorData.from_tensors(floats(100, 1, 8, 8), torch.arange(100) % 4))
    assert made["architecture"].confidence < 0.5
    assert "pass a module" in made["architecture"].reason


def test_a_user_module_gets_unchanged_tensors() -> None:
    data = TensorData.from_tensors(floats(100, 12), torch.arange(100) % 4)
    made = plan(data, {"architecture": "MyNet"}, model_given=True)
    assert made.values["normalisation"] == "none"
    assert made["normalisation"].reason == "Your module receives the tensors unchanged."


def test_integers_are_not_standardised() -> None:
    made = plan(TensorData.from_tensors(torch.arange(300).reshape(100, 3), torch.arange(100) % 4))
    assert made.values["normalisation"] == "none"
    assert made["normalisation"].confidence < 0.5


def test_lazily_read_samples_are_not_standardised() -> None:
    rows = torch.utils.data.TensorDataset(floats(40, 3), torch.arange(40) % 2)
    loader = torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True)
    valid = torch.utils.data.DataLoader(rows, batch_size=8)
    data = TensorData.from_loaders(loader, valid, n_classes=2)
    made = plan(data)
    assert made.values["normalisation"] == "none"
    assert "read during training" in made["normalisation"].reason
    data.preprocessor(made.values)


@pytest.mark.parametrize(
    ("targets", "task", "width"),
    [
        (torch.arange(60) % 3, "classification", 3),
        (torch.arange(60).float() / 7, "regression", 1),
        (floats(60, 2), "regression", 2),
        ((floats(60, 4) > 0), "multi_label", 4),
    ],
)
def test_the_plan_can_be_built(targets: torch.Tensor, task: str, width: int) -> None:
    data = TensorData.from_tensors(floats(60, 5), targets)
    values = plan(data).values
    assert values["task"] == task
    made = DOMAIN.tasks[values["task"]](**data.task_arguments(data.preprocessor(values), values))
    model = DOMAIN.models[values["architecture"]](
        **data.model_arguments(data.preprocessor(values), values)
    )
    assert made.builder == task
    assert made.n_outputs == width
    preprocessor = data.preprocessor(values)
    assert preprocessor.builder in DOMAIN.preprocessors
    batch = preprocessor.on_device(preprocessor.encode(data.raw("valid")))
    assert model(*batch.inputs.values()).shape == (12, width)


# ---------------------------------------------------------------- the demo


def test_demo_depends_only_on_its_seed() -> None:
    first, again, other = demo(100, 3), demo(100, 3), demo(100, 4)
    rows = [torch.stack(list(data.raw("train"))) for data in (first, again, other)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    sizes = [first.facts()[f"n_{part}"] for part in ("train", "valid", "test")]
    assert sizes == [60, 20, 20]
    assert first.facts()["class_names"] == ["first", "second", "third"]


def test_the_demo_needs_a_nonlinear_model() -> None:
    torch.manual_seed(0)
    data = demo(600, 0)
    values = plan(data).values
    parts = {}
    preprocessor = data.preprocessor(values)
    for part in ("train", "test"):
        rows = data.dataset(part, preprocessor, values)
        batch = preprocessor.on_device(preprocessor.encode(data.raw(part)))
        parts[part] = batch.input, next(iter(rows.targets.values()))
    scores = []
    for net in (nn.Linear(2, 3), MLP(2, 3)):
        weights = list(net.parameters())
        speed = [torch.zeros_like(weight) for weight in weights]
        for _ in range(200):  # gradient descent with momentum
            loss = F.cross_entropy(net(parts["train"][0]), parts["train"][1])
            for weight, v, slope in zip(
                weights, speed, torch.autograd.grad(loss, weights), strict=True
            ):
                weight.data -= 0.1 * v.mul_(0.9).add_(slope)
        right = net(parts["test"][0]).argmax(1) == parts["test"][1]
        scores.append(right.float().mean().item())
    assert scores[0] < 0.6
    assert scores[1] > 0.9
