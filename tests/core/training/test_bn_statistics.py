"""What norm layers see of the data, against torch's own sums; and that looking changes nothing."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.data.split import Split
from flambeau.errors import InputError
from flambeau.phases.phase import Phase
from flambeau.training.norm.bn_statistics import (
    adapt,
    combine_statistics,
    have_initial_statistics,
    layer_shift,
    layers_with_statistics,
    measure_statistics,
)
from flambeau.training.ranks.make_run import make_run
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position


class Centred(nn.Module):
    """A norm layer of another library: channels last, a mean and no variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running_mean.lerp_(x.detach().flatten(0, -2).mean(0), 0.1)
            return x - x.flatten(0, -2).mean(0)
        return x - self.running_mean


class Net(nn.Module):
    """The first layers see the inputs themselves, which makes their statistics easy to say."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(3, momentum=None)
        self.plain = nn.BatchNorm2d(3, affine=False)
        self.instance = nn.InstanceNorm2d(3, track_running_stats=True)
        self.centred = Centred(3)
        self.untracked = nn.BatchNorm2d(3, track_running_stats=False)
        self.never = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        last = self.centred(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        every = self.batch(x) + self.plain(x) + self.instance(x) + self.untracked(x) + last
        return self.head(self.drop(every.mean((2, 3))))


def pictures(n: int = 40) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 5.0, 0.1]).reshape(3, 1, 1)
    x = torch.randn(n, 3, 4, 5, generator=draws) * scale + 100 * scale
    return x, (x[:, 0].mean((1, 2)) > 100).long()


def seen_by(run: Run, at_most: int) -> Any:
    state = run.state
    epoch, context = state.position.epoch, state.context
    return measure_statistics(run.components, epoch, context, run.step.autocast, at_most)


def run_of(net: nn.Module, batch_size: int = 8, **options: object) -> Run:
    (x, y), rows = pictures(), np.arange(40)
    # Two valid samples, since there must be some: the train ones once more.
    x, y = torch.cat([x, x[:2]]), torch.cat([y, y[:2]])
    data = TensorData.from_tensors(x, y, split=Split.from_indices(rows, [40, 41]))
    choices = {"batch_size": batch_size, "normalisation": "none"}
    learner = Learner(data, net, choices=choices, quiet=True)
    settings = RunSettings(TrainingOptions(**options), (Phase(1),))
    return make_run(learner.built.components(), settings, learner.history, Position())


def test_combined_statistics_equal_those_of_all_values() -> None:
    net = Net()
    seen = seen_by(run_of(net), 20)
    x = pictures()[0].double()
    assert set(seen) == {"batch", "plain", "instance", "centred"}  # "never" is not reached
    assert all(len(each) == 5 for each in seen.values())
    for name in ("batch", "plain", "centred"):
        whole = combine_statistics(seen[name])
        assert whole.count == 40 * 20
        # Rounding of float64 sums, around a mean of up to 500.
        torch.testing.assert_close(whole.mean, x.mean((0, 2, 3)), rtol=1e-12, atol=0)
        variance = x.var((0, 2, 3), correction=0)
        torch.testing.assert_close(whole.variance, variance, rtol=1e-9, atol=0)
    whole = combine_statistics(seen["instance"])
    assert whole.count == 40
    within = x.var((2, 3), correction=0).mean(0)
    torch.testing.assert_close(whole.variance, within, rtol=1e-9, atol=0)


def test_the_number_of_batches_is_limited() -> None:
    assert {len(each) for each in seen_by(run_of(Net()), 2).values()} == {2}


def test_the_distance_is_the_divergence_of_two_gaussians() -> None:
    net = Net()
    net.batch.running_mean.copy_(torch.tensor([99.0, 496.0, 10.1]))
    net.batch.running_var.copy_(torch.tensor([2.0, 20.0, 0.02]))
    seen = seen_by(run_of(net), 20)["batch"]
    whole, eps = combine_statistics(seen), net.batch.eps
    stored = Normal(net.batch.running_mean.double(), (net.batch.running_var.double() + eps).sqrt())
    new = Normal(whole.mean, (whole.variance + eps).sqrt())
    expected = kl_divergence(stored, new) + kl_divergence(new, stored)
    assert expected.max() < 10  # below where a channel stops to count
    found = layer_shift(net.batch, seen)
    assert found.distance == pytest.approx(float(expected.mean()), rel=1e-9)
    # 160 values a batch: about 2 / 160 by chance.
    assert 0.005 < found.noise < 0.03


def test_adapted_statistics_equal_cumulative_running_ones() -> None:
    """``momentum=None`` is torch's cumulative average: the same mean, and the same layer after."""
    net = Net()
    own = copy.deepcopy(net.batch).train()
    run = run_of(net)
    for batch in run.components.train.batches(0):
        own(batch.input)
    with pytest.warns(UserWarning, match=r"\[not-adapted\] 1 norm layers \(never\)"):
        adapt(run)
    torch.testing.assert_close(net.batch.running_mean, own.running_mean)
    # Torch averages the variances within batches; the whole has that between them on top.
    assert (net.batch.running_var > own.running_var * 0.99).all()
    x = pictures()[0]
    torch.testing.assert_close(net.batch.running_var, x.var((0, 2, 3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(net.instance.running_var, x.var((2, 3), correction=0).mean(0))
    torch.testing.assert_close(net.centred.running_mean, x.mean((0, 2, 3)))
    # float32 statistics of values around 100: what they are used for comes out right.
    torch.testing.assert_close(net.eval().plain(x).std((0, 2, 3)), torch.ones(3), rtol=1e-3, atol=0)
    assert layer_shift(net.batch, seen_by(run, 20)["batch"]).distance < 1e-6


def test_measuring_changes_nothing() -> None:
    net = Net().train()
    net.drop.eval()
    run = run_of(net)
    run.start_phase()
    order = [batch.indices for batch in run.components.train.batches(0)]
    before = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    seen_by(run, 3)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert modes == [module.training for module in net.modules()]
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == random.getstate()
    assert np.array_equal(state[2], np.random.get_state()[1])
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_pre_hooks for module in net.modules())
    again = [batch.indices for batch in run.components.train.batches(0)]
    assert all(torch.equal(a, b) for a, b in zip(order, again, strict=True))


def test_a_batch_with_one_value_per_channel() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(x.mean((2, 3))))

    net = Flat()
    adapt(run_of(net, batch_size=1))
    means = pictures()[0].mean((2, 3))
    torch.testing.assert_close(net.norm.running_mean, means.mean(0))
    torch.testing.assert_close(net.norm.running_var, means.var(0), rtol=1e-3, atol=0)


def test_have_initial_statistics() -> None:
    net = Net()
    assert have_initial_statistics(layers_with_statistics(net))
    net.plain.running_var[1] = 0.5
    assert not have_initial_statistics(layers_with_statistics(net))


def test_a_loader_that_cannot_repeat_its_batches() -> None:
    run = run_of(Net())
    run.components.train.not_resumable_reason = "it is a stream."
    with pytest.raises(InputError, match=r"cannot be read before the epoch: it is a stream\."):
        seen_by(run, 3)


def test_the_guard_restores_adapted_statistics() -> None:
    """Not the statistics of before: a bad first step must not undo the adaptation."""
    net = Net()
    net.never = nn.Identity()
    run = run_of(net)
    adapt(run)
    adapted = net.batch.running_mean.clone()
    net.batch.running_mean.fill_(float("nan"))
    run.update.restore_statistics()
    assert torch.equal(net.batch.running_mean, adapted)
