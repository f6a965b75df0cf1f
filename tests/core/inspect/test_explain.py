"""``learner.explain``: layers, nearest train samples and attributions of one prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.data.attributions import Attributions
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.inspect import integrated_gradients
from flambeau.inspect.integrated_gradients import GAP, LEAST_STEPS, MOST_STEPS
from flambeau.inspect.nearest_samples import nearest_samples


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_rng_state()
    torch.manual_seed(5)
    yield
    torch.set_rng_state(before)


# Integrated gradients


def test_a_linear_function_gives_weight_times_input() -> None:
    weight, x, start = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, 3)
    found = integrated_gradients(lambda points: (points * weight).sum((1, 2)), x, start)
    torch.testing.assert_close(found.values, weight * (x - start))
    assert found.steps == LEAST_STEPS


@pytest.mark.parametrize("seed", range(3))
def test_the_values_add_up_to_the_change_of_the_function(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(inplace=True), nn.Linear(32, 1), nn.Tanh())
    x = torch.randn(8)
    found = integrated_gradients(lambda points: net(points)[:, 0], x)
    with torch.no_grad():
        change = float(net(x) - net(torch.zeros(8)))
    assert found.total == pytest.approx(change, rel=1e-5)
    assert float(found.values.sum()) == pytest.approx(change, rel=GAP)
    # Gradient × input does not add up.
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(point.clone())[0], point)
    assert float((gradient * x).sum()) != pytest.approx(change, rel=3 * GAP)


def test_more_points_are_taken_for_a_steep_function_and_the_gap_is_reported() -> None:
    x = torch.ones(2)
    steep = integrated_gradients(lambda points: torch.sigmoid(400 * (points[:, 0] - 0.7)), x)
    assert steep.steps > LEAST_STEPS
    assert steep.gap <= GAP
    step = integrated_gradients(lambda points: (points[:, 0] > 0.7) + 0.0 * points[:, 1], x)
    assert (step.steps, step.gap) == (MOST_STEPS, pytest.approx(1.0))


# Nearest samples


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def parts(x: Tensor, size: int) -> list[Batch]:
    rows = torch.arange(len(x)).split(size)
    return [
        Batch({"x": x[row]}, {"y": row % 3}, indices=row + 100)  # numbers of the data
        for row in rows
    ]


def test_the_nearest_samples_are_those_of_all_pairs() -> None:
    net, x, own = Net().eval(), torch.randn(50, 1, 8, 8), torch.randn(1, 1, 8, 8)

    def forward(batch: Batch) -> Tensor:
        return net(batch.input)

    sample = Batch({"x": own})
    found = nearest_samples(net, forward, sample, parts(x, 7), n=6)
    with torch.no_grad():
        features, one = net.body(x).mean((2, 3)), net.body(own).mean((2, 3))
    cosines = torch.nn.functional.cosine_similarity(features, one)
    best = cosines.topk(6)
    assert [each.number for each in found] == (best.indices + 100).tolist()
    assert [each.target for each in found] == (best.indices % 3).float().tolist()
    assert [each.similarity for each in found] == pytest.approx(best.values.tolist(), abs=1e-5)
    # In other batches the same, without the sample itself.
    again = nearest_samples(net, forward, sample, parts(x, 50), n=5, exclude=found[0].number)
    assert [each.number for each in again] == [each.number for each in found[1:]]
    assert not net.head._forward_pre_hooks


def test_a_head_without_one_row_per_sample_is_refused() -> None:
    net = nn.Sequential(nn.Flatten(0), nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"Define layer_groups\(\) of the model"):
        nearest_samples(net, lambda batch: net(batch.input), Batch({"x": torch.randn(1, 4)}), [])


# The learner


def make(model: nn.Module | None = None, **options: Any) -> Learner:
    x = torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
    y = options.pop("y", (x[:, 0] > 0).long())
    data = TensorData.from_tensors(x, y, valid=0.25, **options)
    net = model or nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))
    choices = {"lr": 0.02, "probe": "off", "batch_size": 16}
    return Learner(data, net, choices=choices, training=TrainingOptions(doctor=False), quiet=True)


def test_a_sample_is_explained_by_number_and_as_raw_input() -> None:
    learner = make(class_names=["no", "yes"])
    learner.fit(5)
    items = learner.data.raw("valid")
    place = max(range(len(items)), key=lambda i: abs(float(items[i][0])))
    number, item = int(learner.data.split.valid[place]), items[place]
    found = learner.explain(number)
    assert str(found.prediction) == str(learner.predict([item])[0])
    assert found.sample == f"sample {number} of valid"
    assert found.target == ["no", "yes"][int(item[0] > 0)]
    assert [(each.name, each.shape) for each in found.layers] == [
        ("0", (16,)), ("1", (16,)), ("2", (2,)),
    ]  # fmt: skip
    raw = learner.explain(item)
    assert raw.target == ""
    assert raw.layers == found.layers
    assert [each.number for each in raw.neighbours] == [each.number for each in found.neighbours]
    # Input 0, which is large here, decides. The sum is the output minus that of the mean input.
    assert found.attributions is not None
    assert found.attributions.strongest(1)[0][0] == "input[0]"
    total = found.attributions.total
    assert sum(found.attributions.values) == pytest.approx(total, rel=0.02)


def test_a_train_sample_is_not_its_own_neighbour() -> None:
    learner = make()
    number = int(learner.data.split.train[7])
    own = learner.explain(number)
    assert number not in [each.number for each in own.neighbours]
    raw = learner.explain(learner.data.raw("train")[7], neighbours=1)
    assert raw.neighbours[0].number == number
    assert raw.neighbours[0].similarity == pytest.approx(1.0, abs=1e-5)


def test_neighbours_whose_targets_disagree_are_reported() -> None:
    learner = make(class_names=["no", "yes"])
    number = int(learner.data.split.valid[0])
    found = learner.explain(number, neighbours=90)
    assert len(found.neighbours) == 90
    agree = [each.target == found.predicted for each in found.neighbours]
    assert found.agreement == sum(agree) / 90
    assert 0 < sum(agree) < 90
    assert "their targets disagree (" in str(found)
    agreeing = [each for each in found.neighbours if each.target == found.predicted]
    assert "All " in str(replace(found, neighbours=tuple(agreeing)))


def test_another_output_is_explained_by_name() -> None:
    learner = make(class_names=["no", "yes"])
    learner.fit(2)
    item = learner.data.raw("valid")[0]
    first, second = (learner.explain(item, name).attributions for name in ("no", "yes"))
    assert first is not None
    assert second is not None
    assert (first.output, second.output) == ("no", "yes")
    assert first.values[0] * second.values[0] < 0
    with pytest.raises(ArgumentError, match="The task has no output 'maybe'"):
        learner.explain(item, "maybe")


def test_nothing_is_changed() -> None:
    learner = make(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))
    learner.fit(1)
    model = learner.model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learner.explain(0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None or not p.grad.isnan().any() for p in model.parameters())


def test_values_are_explained_too(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    learner = make(net, y=torch.randn(120))
    found = learner.explain(0)
    assert found.agreement is None
    assert all(float(each.target) for each in found.neighbours)
    found.plot(tmp_path / "values.png")
    assert (tmp_path / "values.png").exists()


def test_a_number_without_a_sample_is_refused() -> None:
    with pytest.raises(ArgumentError, match="There is no sample 999"):
        make().explain(999)


def test_a_domain_says_what_the_parts_are() -> None:
    learner = make()
    seen: list[Any] = []

    def attributions(
        predictor: Any, item: Any, output: str | None, background: Any
    ) -> Attributions:
        seen.append((item, len(background), torch.is_grad_enabled(), predictor.model.training))
        return Attributions("1", "counting", ("left", "right"), (1.0, -2.0))

    learner.domain = replace(learner.domain, attributions=attributions)
    found = learner.explain(0)
    assert found.attributions is not None
    assert found.attributions.strongest(1) == [("right", -2.0)]
    assert seen[0][1:] == (90, True, False)
    assert "counting" in str(found)


def test_a_model_of_integers_says_why_there_are_no_attributions() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(9, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embedding(x).mean(1))

    x = torch.randint(0, 9, (40, 6))
    learner = Learner(
        TensorData.from_tensors(x, (x[:, 0] > 4).long()),
        Tokens(),
        choices={"probe": "off"},
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    found = learner.explain(0)
    assert found.attributions is None
    assert "no input of real numbers" in found.notes[0]
    assert len(found.neighbours) == 5
