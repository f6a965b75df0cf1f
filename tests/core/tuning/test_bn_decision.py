"""``bn="auto"``: decided by what is measured, recorded, replayed and resumed to the bit."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from flambeau import Callback, Learner, Phase, Plan, Schedule, TensorData, TrainingOptions
from flambeau.training import EMA, SWA
from flambeau.training.norm.bn_statistics import LayerShift
from flambeau.tuning.bn_decision import NOISE_LIMIT, NOISE_LIMIT_FROZEN, Measured, decide


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def trained_net() -> Net:
    """With statistics of inputs around 3, as those of ``make`` are not."""
    torch.manual_seed(0)
    net = Net().train()
    for _ in range(60):
        net(torch.randn(32, 6) + 3)
    return net


def make(net: nn.Module | None = None, *, batch_size: int = 64, **arguments) -> Learner:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=draws) * 2
    y = (x[:, 0] + x[:, 1] > 0).long()
    choices = {"batch_size": batch_size, "normalisation": "none", **arguments.pop("choices", {})}
    arguments = {"choices": choices, "quiet": True, **arguments}
    return Learner(TensorData.from_tensors(x, y, valid=0.2), net or trained_net(), **arguments)


def same(one: Learner, other: Learner) -> bool:
    losses = list(one.history.step_losses) == list(other.history.step_losses)
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return losses and all(torch.equal(a, b) for a, b in pairs)


def test_the_rule() -> None:
    def chosen(distance: float, noise: float, learning: float = 1.0):
        shifts = {"a": LayerShift(distance, noise), "b": LayerShift(distance, noise)}
        return decide(Measured(shifts, batches=20, samples=640, learning=learning))

    for distance in (0.001, 0.5, 5.0):
        assert chosen(distance, NOISE_LIMIT * 2).value == "adapt"
        assert chosen(distance, NOISE_LIMIT / 2).value == "train"
    between = (NOISE_LIMIT + NOISE_LIMIT_FROZEN) / 2
    assert (chosen(0.5, between).value, chosen(0.5, between, 0.1).value) == ("train", "adapt")
    assert chosen(0.5, NOISE_LIMIT * 1.1).confidence < chosen(0.5, NOISE_LIMIT * 2).confidence
    choice = chosen(0.5, NOISE_LIMIT / 2)
    assert "far from the train data (0.5 nats)" in choice.reason
    assert choice.evidence["distance_by_layer"] == {"a": 0.5, "b": 0.5}
    assert choice.evidence["samples"] == 640


def test_norm_layers_without_statistics_train() -> None:
    learner = make(Net())
    assert learner.plan["bn"].value == "auto"
    learner.fit(1)
    choice = learner.plan["bn"]
    assert (choice.value, choice.source) == ("train", "rule")
    assert "no running statistics yet" in choice.reason


def test_measured_where_there_are_statistics() -> None:
    for batch_size, value in ((2, "adapt"), (64, "train")):
        learner = make(batch_size=batch_size)
        learner.fit(1)
        choice = learner.plan["bn"]
        assert choice.value == value
        assert choice.evidence["distance_nats"] > 1
        assert choice.evidence["batches"] == min(20, 320 // batch_size)
        text = str(learner.summary())
        assert f"1 norm layer with running statistics, bn='{value}'" in text
        assert choice.reason in text
        assert choice.reason[:40] in learner.plan.table(400)


def test_what_learns_is_measured_too() -> None:
    """The head and what the phases unfreeze, in the phase that trains most."""
    shares = {}
    for verb in ("fit", "fine_tune"):
        learner = make()
        learner.freeze()
        getattr(learner, verb)(1)
        shares[verb] = learner.plan["bn"].evidence["learning"]
    net = Net()
    head, every = (sum(p.numel() for p in part.parameters()) for part in (net.head, net))
    assert shares == {"fit": pytest.approx(head / every, rel=1e-2), "fine_tune": 1.0}


def test_a_model_without_statistics_decides_nothing() -> None:
    torch.manual_seed(0)
    learner = make(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)))
    learner.fit(1)
    assert learner.plan["bn"].value == "auto"
    assert "statistics" not in str(learner.summary())


def test_a_choice_of_the_user_is_not_measured() -> None:
    learner = make(choices={"bn": "eval"})
    before = learner.model.body[1].running_mean.clone()
    learner.fit(1)
    assert learner.plan["bn"].source == "user"
    assert torch.equal(learner.model.body[1].running_mean, before)


def test_custom_phases() -> None:
    seen: list[str] = []

    class Policies(Callback):
        def on_phase_start(self, state) -> None:
            seen.append(state.phase.bn)

    learner = make(batch_size=2, callbacks=[Policies()])
    lr = {"lr": Schedule("constant", 1e-2)}
    learner.fit_phases([Phase(1, lr, bn="eval"), Phase(1, lr), Phase(1, lr, bn="eval")])
    assert seen == ["eval", "adapt", "eval"]


@pytest.mark.parametrize("bn", ["eval", "train"])
def test_a_recipe_keeps_to_the_plan_in_every_phase(bn: str) -> None:
    seen: list[str] = []

    class Policies(Callback):
        def on_phase_start(self, state) -> None:
            seen.append(state.phase.bn)

    make(choices={"bn": bn}, callbacks=[Policies()]).fine_tune(1)
    assert seen == [bn, bn]


def test_adapt_takes_the_statistics_once() -> None:
    taken: list[Tensor] = []

    class Statistics(Callback):
        def on_step_end(self, state) -> None:
            taken.append(state.model.body[1].running_mean.clone())

    learner = make(choices={"bn": "adapt"}, callbacks=[Statistics()])
    before = learner.model.body[1].running_mean.clone()
    learner.fine_tune(1)
    assert not torch.allclose(taken[0], before, atol=0.1)
    assert all(torch.equal(one, other) for one, other in pairwise(taken))


@pytest.mark.parametrize("batch_size", [2, 64])
def test_a_saved_plan_replays_without_measuring(batch_size: int, tmp_path, monkeypatch) -> None:
    first = make(batch_size=batch_size)
    torch.manual_seed(1)  # drop-out's
    first.fine_tune(2)
    first.plan.save(tmp_path / "plan.json")
    # Calling it would fail.
    monkeypatch.setattr("flambeau.tuning.bn_decision.measure_statistics", None)
    again = make(batch_size=batch_size, plan=Plan.load(tmp_path / "plan.json"))
    torch.manual_seed(1)
    again.fine_tune(2)
    assert same(first, again)
    assert again.plan["bn"] == first.plan["bn"]


class Crash(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, state) -> None:
        if state.position.step == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("average", [None, EMA(0.9), SWA(0.5)])
@pytest.mark.parametrize(("batch_size", "at"), [(2, 3), (2, 160), (2, 200), (64, 7)])
def test_resumed_to_the_bit(batch_size: int, at: int, average, tmp_path) -> None:
    options = TrainingOptions(average=average)
    whole = make(batch_size=batch_size, training=options)
    whole.fine_tune(1)
    cut = make(batch_size=batch_size, training=options, callbacks=[Crash(at)], folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cut.fine_tune(1)
    resumed = make(batch_size=batch_size, training=options, folder=tmp_path)
    resumed.summary()  # the parts are made, and the plan says "auto" still
    resumed.resume()
    assert same(whole, resumed)
    assert resumed.plan["bn"] == whole.plan["bn"]


def test_resumed_from_before_the_adaptation(tmp_path, monkeypatch) -> None:
    def interrupted(run) -> None:
        raise KeyboardInterrupt

    whole = make(batch_size=2)
    whole.fit(1)
    cut = make(batch_size=2, folder=tmp_path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("flambeau.training.norm.bn_statistics.adapt", interrupted)
        cut.fit(1)
    resumed = make(batch_size=2, folder=tmp_path)
    resumed.resume()
    assert same(whole, resumed)


def test_another_batch_size_is_measured_anew() -> None:
    learner = make()
    learner.fit(1)
    assert learner.plan["bn"].value == "train"
    assert learner.plan.override("batch_size", 2)["bn"].value == "auto"
    assert learner.plan.override("lr", 1e-2)["bn"] == learner.plan["bn"]


def test_measuring_changes_nothing_but_the_decision() -> None:
    """Told to train outright, a learner ends on the same weights."""
    measured, told = make(), make(choices={"bn": "train"})
    net = copy.deepcopy(measured.model)
    assert all(map(torch.equal, net.state_dict().values(), told.model.state_dict().values()))
    for learner in (measured, told):
        torch.manual_seed(1)  # drop-out's
        learner.fine_tune(1)
    assert same(measured, told)


@pytest.mark.filterwarnings(r"ignore:\[lagging-statistics\]")  # of short runs on a stream
def test_a_failed_measurement_is_reported() -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            draws = torch.Generator().manual_seed(0)
            for _ in range(64):
                x = torch.randn(6, generator=draws)
                yield x, (x[0] > 0).long()

        def __len__(self) -> int:
            return 64

    loader = torch.utils.data.DataLoader(Stream(), batch_size=16)
    data = TensorData.from_loaders(loader, loader, n_classes=2)
    learner = Learner(data, trained_net(), quiet=True)
    learner.fit(1)
    choice = learner.plan["bn"]
    assert choice.value == "train"
    assert choice.confidence < 0.5
    assert "could not be measured: InputError: The train batches cannot be read" in (choice.reason)
