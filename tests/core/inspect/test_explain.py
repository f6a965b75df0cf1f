"""``learner.explain``: layers, nearest train samples and attributions of one prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.data.attributions import Attributions
from flambeau.data.batch import Batch
from flambeau.distributed import processes
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
    found, left_out = nearest_samples(net, forward, sample, parts(x, 7), n=6)
    assert not left_out
    with torch.no_grad():
        features, one = net.body(x).mean((2, 3)), net.body(own).mean((2, 3))
    cosines = torch.nn.functional.cosine_similarity(features, one)
    best = cosines.topk(6)
    assert [each.number for each in found] == (best.indices + 100).tolist()
    assert [each.target for each in found] == (best.indices % 3).float().tolist()
    assert [each.similarity for each in found] == pytest.approx(best.values.tolist(), abs=1e-5)
    # In other batches the same, without the sample itself.
    again, _ = nearest_samples(net, forward, sample, parts(x, 50), n=5, exclude=found[0].number)
    assert [each.number for each in again] == [each.number for each in found[1:]]
    assert not net.head._forward_pre_hooks


def test_a_head_without_one_row_per_sample_is_refused() -> None:
    net = nn.Sequential(nn.Flatten(0), nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"Define layer_groups\(\) of the model"):
        nearest_samples(net, lambda batch: net(batch.input), Batch({"x": torch.randn(1, 4)}), [])


def test_samples_whose_features_are_not_finite_are_left_out() -> None:
    net, x = Net().eval(), torch.randn(20, 1, 8, 8)
    x[3], x[11] = torch.inf, torch.nan

    def forward(batch: Batch) -> Tensor:
        return net(batch.input)

    found, left_out = nearest_samples(net, forward, Batch({"x": x[:1]}), parts(x, 7), n=20)
    assert left_out == 2
    assert len(found) == 18
    assert {each.number for each in found}.isdisjoint({103, 111})
    assert (found[0].number, found[0].similarity) == (100, pytest.approx(1.0))
    assert all(each.similarity <= 1 for each in found)
    with pytest.raises(InputError, match="features of the sample are not finite"):
        nearest_samples(net, forward, Batch({"x": x[3:4]}), parts(x, 7))


class Sequences(nn.Module):
    """Features of sequences, (batch, channels, positions) or (batch, positions, channels)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = nn.Conv1d(2, 4, 1), head

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x)
        return self.head(found if isinstance(self.head, nn.Conv1d) else found.transpose(1, 2))


@pytest.mark.parametrize("head", [nn.Conv1d(4, 3, 1), nn.Linear(4, 3)])
def test_the_mean_of_a_sequence_is_over_its_positions(head: nn.Module) -> None:
    net, x = Sequences(head).eval(), torch.randn(9, 2, 5)

    def forward(batch: Batch) -> Tensor:
        return net(batch.input)

    found, _ = nearest_samples(net, forward, Batch({"x": x[:1]}), parts(x, 4), n=9)
    with torch.no_grad():
        features = net.body(x).mean(2)
    cosines = torch.nn.functional.cosine_similarity(features, features[:1])
    values, order = cosines.sort(descending=True)
    assert [each.number for each in found] == (order + 100).tolist()
    assert [each.similarity for each in found] == pytest.approx(values.tolist(), abs=1e-5)


def test_sequences_whose_positions_are_not_known_are_refused() -> None:
    def forward(batch: Batch) -> Tensor:
        return net(batch.input)

    x = torch.randn(4, 2, 5)
    net = Sequences(nn.GRU(4, 3, batch_first=True)).eval()
    with pytest.raises(InputError, match="not known which of its axes"):
        nearest_samples(net, forward, Batch({"x": x[:1]}), parts(x, 4))
    net = Sequences(nn.Linear(4, 3)).eval()
    batches = [*parts(x, 4), *parts(torch.randn(4, 2, 7), 4)]  # padded to other lengths
    with pytest.raises(InputError, match="sequences of different lengths"):
        nearest_samples(net, forward, Batch({"x": x[:1]}), batches)


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
    found = learner.explain(number, neighbours=60)
    rows = torch.from_numpy(learner.data.split.train)
    x = torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, own = (learner.model[:2](each) for each in (x[rows], x[number : number + 1]))
    nearest = rows[torch.nn.functional.cosine_similarity(features, own).topk(60).indices]
    assert [each.number for each in found.neighbours] == nearest.tolist()
    agree = [("yes" if x[row, 0] > 0 else "no") == found.predicted for row in nearest.tolist()]
    assert found.agreement == sum(agree) / 60
    assert 0 < sum(agree) < 60
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


def test_numbers_of_numpy_and_torch_are_numbers_of_samples() -> None:
    learner = make()
    number = learner.data.split.valid[0]
    assert type(number) is np.int64
    expected = f"sample {int(number)} of valid"
    assert learner.explain(number, neighbours=0).sample == expected
    assert learner.explain(torch.tensor(int(number)), neighbours=0).sample == expected


class Frozen(nn.Module):
    """A backbone without gradients, as many pretrained models are wrapped."""

    def __init__(self, *, head: bool) -> None:
        super().__init__()
        self.body = nn.Linear(5, 8 if head else 2)
        self.head = nn.Linear(8, 2) if head else None

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.body(x)
        return features if self.head is None else self.head(features)


@pytest.mark.parametrize("head", [True, False])
def test_a_model_without_gradients_of_its_input_is_explained_without_attributions(
    head: bool,
) -> None:
    model = Frozen(head=head)
    if not head:
        model.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    found = make(model).explain(0)
    assert found.attributions is None
    assert any("no gradient reaches the input" in note for note in found.notes)
    assert found.layers


def test_the_gradient_of_an_input_that_is_not_used_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="no gradient reaches the input"):
        integrated_gradients(lambda points: torch.ones(len(points)), torch.ones(3))


@pytest.mark.parametrize("module", [nn.LSTM, nn.GRU])
def test_gradients_of_recurrent_layers_are_computed_without_cudnn(module: Any) -> None:
    # cuDNN computes no gradients of a recurrent layer in eval mode.
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = module(5, 8, batch_first=True)
            self.head = nn.Linear(8, 2)
            self.seen: set[bool] = set()

        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                self.seen.add(torch.backends.cudnn.enabled)
            return self.head(self.body(x[:, None])[0][:, 0])

    learner = make(Recurrent())
    learner.explain(0, neighbours=0)
    assert learner.model.seen == {False}
    assert torch.backends.cudnn.enabled


def test_a_predicted_number_is_shown_as_a_number() -> None:
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    learner = make(net, y=torch.randn(120))
    found = learner.explain(0)
    value = found.prediction.value  # type: ignore[attr-defined]
    assert found.predicted == f"{value:g}"
    assert f"predicted {value:g}, target" in str(found)


def test_samples_of_a_user_defined_loader_have_no_numbers() -> None:
    x = torch.randn(64, 5)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8, shuffle=True)
    data = TensorData.from_loaders(loader, None, class_names=["a", "b"])
    learner = Learner(data, nn.Linear(5, 2), choices={"lr": 0.1, "probe": "off"}, quiet=True)
    found = learner.explain(x[3])
    assert len(found.neighbours) == 5
    assert all(each.image is None and not each.caption for each in found.neighbours)
    assert any("have the numbers of their rows" in note for note in found.notes)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make()
    learner.explain(0, neighbours=0)  # builds the model
    monkeypatch.setattr(processes, "initialize", object)
    with pytest.raises(InputError, match="explain reads the train samples"):
        learner.explain(0)
    with pytest.raises(InputError, match="difference compares the outputs"):
        learner.difference(learner.model, "valid")


@pytest.mark.parametrize(
    ("function", "shape"),
    [(torch.sum, r"\(\)"), (lambda points: points, r"\(2, 3\)"), (lambda p: p[:1, 0], r"\(1,\)")],
)
def test_integrated_gradients_need_one_number_per_row(function: Any, shape: str) -> None:
    with pytest.raises(ArgumentError, match=rf"returns the shape {shape} for 2 rows"):
        integrated_gradients(function, torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_integrated_gradients_need_floating_point_inputs(dtype: torch.dtype) -> None:
    with pytest.raises(ArgumentError, match=f"The input is of type {dtype}"):
        integrated_gradients(lambda points: points.sum(1), torch.ones(3, dtype=dtype))
