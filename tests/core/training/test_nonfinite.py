"""The non-finite guard: bad steps change nothing, good ones are untouched."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError
from flambeau.training.nonfinite import guard as nonfinite
from flambeau.training.nonfinite.guard import MAX_OVERFLOWS, NonFiniteGuard
from flambeau.training.optim.clip import gradients_of
from flambeau.training.optim.fused_step import OptimizerStep
from flambeau.training.optim.optimizer import make_optimizer
from flambeau.training.state import Position

CPU = torch.device("cpu")
BAD = 4  # the step whose batch holds a NaN


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))


def inputs_of(step: int, bad: bool) -> Tensor:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(step))
    if bad:
        x[2, 1] = float("nan")
    return x


class Trainer:
    """A loop in ten lines around the guard."""

    def __init__(self, guard_options: dict[str, Any], name: str = "adamw", **options: Any) -> None:
        self.model = net()
        self.optimizer = make_optimizer(name, self.model, lr=0.1, options=options)
        self.optimizer_step = OptimizerStep(self.optimizer)
        self.guard = NonFiniteGuard(self.model, CPU, **guard_options)
        self.position = Position()

    def step(self, bad: bool = False) -> None:
        x = inputs_of(self.position.step, bad)
        batch = Batch({"x": x}, indices=torch.arange(6) + 6 * self.position.step)
        self.guard.record(self.position, [batch])
        loss = self.model(x).square().mean()
        loss.backward()
        self.guard.check(loss, gradients_of(self.model.parameters()))
        self.guard.step(self.optimizer_step)
        self.optimizer.zero_grad()
        self.position.step += 1
        self.position.epoch_step += 1

    def everything(self) -> list[Tensor]:
        state = self.optimizer.state_dict()["state"]
        moments = [v for entry in state.values() for v in entry.values() if isinstance(v, Tensor)]
        return [v.clone() for v in [*self.model.state_dict().values(), *moments]]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.fixture(params=["host", "found_inf", "restored"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The three ways of masking an update; the last two are what accelerators use."""
    if request.param == "host":
        return "host"

    def step(self: NonFiniteGuard, step: OptimizerStep) -> None:
        if request.param == "found_inf":
            step(found_inf=self.flag)
        else:
            nonfinite._step_and_restore(step, self.flag)

    monkeypatch.setattr(NonFiniteGuard, "step", step)
    return request.param


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_good_steps_are_those_of_a_loop_without_guard(path: str, policy: str) -> None:
    trainer = Trainer({"policy": policy})
    model = net()
    optimizer = make_optimizer("adamw", model, lr=0.1)
    for step in range(5):
        trainer.step()
        model(inputs_of(step, bad=False)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(trainer.model.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("read_interval", [1, 3])
def test_raise_keeps_the_weights_of_the_bad_step(path: str, read_interval: int) -> None:
    trainer = Trainer({"policy": "raise", "read_interval": read_interval})
    for _ in range(BAD):
        trainer.step()
        assert trainer.guard.read() is None
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.step(bad=True)
    for _ in range(2):
        trainer.step()  # later good steps are masked too
    assert same([p.detach() for p in trainer.model.parameters()], before)
    record = trainer.guard.read(now=True)
    assert record is not None
    if read_interval > 1:
        assert (record.step, record.epoch, record.epoch_step) == (BAD, 0, BAD)
        assert torch.equal(record.indices[0], torch.arange(6) + 6 * BAD)


def test_on_the_cpu_a_bad_step_is_reported_immediately() -> None:
    trainer = Trainer({"policy": "raise"})
    for _ in range(BAD):
        trainer.step()
        assert trainer.guard.read() is None
    trainer.step(bad=True)
    record = trainer.guard.read()
    assert record is not None
    assert record.step == BAD


def test_the_flag_is_read_at_the_read_interval() -> None:
    trainer = Trainer({"policy": "raise", "read_interval": 4})
    found = []
    for step in range(12):
        trainer.step(bad=step == 5)
        record = trainer.guard.read()
        found.append(None if record is None else record.step)
    assert found == [None] * 7 + [5] + [None] * 3 + [5]


def test_enough_records_are_kept() -> None:
    # The worst case: bad just after a read, and reported one read later than possible.
    trainer = Trainer({"policy": "raise", "read_interval": 4})
    for step in range(9):
        trainer.step(bad=step == 0)
    assert trainer.guard.read(now=True).step == 0


def test_the_generator_of_the_bad_step_is_kept() -> None:
    trainer = Trainer({"policy": "raise"})
    trainer.step()
    torch.manual_seed(99)
    expected = torch.get_rng_state()
    trainer.step(bad=True)
    torch.rand(5)
    assert torch.equal(trainer.guard.read().cpu_generator, expected)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adagrad"])
def test_skip_equals_a_run_without_the_bad_step(path: str, name: str) -> None:
    options = {"momentum": 0.9} if name == "sgd" else {}
    with_bad = Trainer({"policy": "skip"}, name, **options)
    without = Trainer({"policy": "skip"}, name, **options)
    for step in range(8):
        if step == BAD:
            with_bad.step(bad=True)
            with_bad.position.step -= 1
            if path == "restored":
                # Moments see a gradient of zero there: only weights and statistics stay.
                for a, b in zip(
                    with_bad.model.state_dict().values(),
                    without.model.state_dict().values(),
                    strict=True,
                ):
                    assert torch.equal(a, b)
                return
        with_bad.step()
        without.step()
    assert same(with_bad.everything(), without.everything())
    assert with_bad.guard.skipped() == 1
    assert with_bad.guard.read(now=True) is None


def test_optimizers_without_a_fused_form_are_masked() -> None:
    trainer = Trainer({"policy": "skip"}, "rmsprop", momentum=0.9)
    trainer.step()
    before = trainer.everything()
    trainer.step(bad=True)
    assert same(trainer.everything(), before)


def test_statistics_are_restored_when_the_run_ends() -> None:
    trainer = Trainer({"policy": "raise"})
    for _ in range(3):
        trainer.step()
    trainer.step(bad=True)
    norm = trainer.model[1]
    assert torch.isnan(norm.running_mean).any()
    trainer.guard.restore_statistics()
    assert torch.isfinite(norm.running_mean).all()
    assert torch.isfinite(norm.running_var).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kernel", [True, False])
def test_what_is_flagged(
    value: float, where: str, dtype: torch.dtype, kernel: bool, report_absent: Any
) -> None:
    if not kernel:
        report_absent("torch._amp_foreach_non_finite_check_and_unscale_")
    guard = NonFiniteGuard(nn.Linear(1, 1), CPU)
    gradients = [torch.ones(2, 2, dtype=dtype), torch.full((3,), 1e10, dtype=dtype)]
    loss = torch.tensor(1.0)
    assert guard.check(loss, gradients) == 0
    if where == "loss":
        loss = torch.tensor(value)
    else:
        gradients[1][2] = value
    assert guard.check(loss, gradients) == 1


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_finite_loss_beyond_float32_is_not_flagged(policy: Any) -> None:
    guard = NonFiniteGuard(net().double(), CPU, policy=policy)
    gradients = [torch.ones(2, dtype=torch.float64)]
    assert guard.check(torch.tensor(1e300, dtype=torch.float64), gradients).item() == 0.0
    assert guard.check(torch.tensor(torch.inf, dtype=torch.float64), gradients).item() == 1.0


def test_checking_changes_no_bit() -> None:
    guard = NonFiniteGuard(nn.Linear(1, 1), CPU)
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(5, generator=generator), torch.tensor([-0.0, 1e-42, 3e38])]
    loss = torch.tensor(0.3)
    before = [g.clone() for g in gradients]
    version = loss._version
    guard.check(loss, gradients)
    assert same([g.view(torch.int32) for g in gradients], [b.view(torch.int32) for b in before])
    assert loss._version == version  # still good for another backward pass


def test_overflow_in_fp16_is_skipped_and_a_bad_loss_is_not() -> None:
    guard = NonFiniteGuard(nn.Linear(1, 1), CPU, tolerate_overflow=True)
    good, bad = torch.ones(2), torch.tensor([1.0, float("inf")])
    loss = torch.tensor(1.0)
    for gradient, flag in [(bad, 1), (good, 0), (bad, 1), (bad, 1), (good, 0)]:
        guard.record(Position(), [])
        assert guard.check(loss, [gradient.clone()]) == flag
        assert guard.read(now=True) is None
    guard.record(Position(step=7), [])
    assert guard.check(torch.tensor(float("nan")), [good]) == 1
    assert guard.read(now=True).step == 7
    assert guard.check(loss, [good]) == 1  # sticky


def test_permanent_overflow_is_an_error() -> None:
    guard = NonFiniteGuard(nn.Linear(1, 1), CPU, tolerate_overflow=True)
    for step in range(MAX_OVERFLOWS + 1):
        assert guard.read(now=True) is None
        guard.record(Position(step=step), [])
        guard.check(torch.tensor(1.0), [torch.tensor([float("nan")])])
    assert guard.read(now=True) is not None


def test_no_attributes_are_left_on_the_optimizer() -> None:
    model = nn.Linear(2, 1)
    optimizer = make_optimizer("adamw", model, lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    names = set(vars(optimizer))
    OptimizerStep(optimizer)(found_inf=torch.zeros(()))
    assert set(vars(optimizer)) == names


def test_one_flag_for_several_optimizers() -> None:
    model = net()
    twin = copy.deepcopy(model)
    guard = NonFiniteGuard(nn.ModuleList([model, twin]), CPU)
    optimizers = [make_optimizer("sgd", part, lr=0.1) for part in (model, twin)]
    before = [p.clone() for p in twin.parameters()]
    for part, bad in ((model, True), (twin, False)):
        loss = part(inputs_of(0, bad)).mean()
        loss.backward()
        guard.check(loss, gradients_of(part.parameters()))
        guard.step(OptimizerStep(optimizers[0 if part is model else 1]))
    assert same([p.detach() for p in twin.parameters()], before)


def test_unknown_policy() -> None:
    with pytest.raises(ArgumentError, match=r"Unknown policy 'skp'.*Did you mean 'skip'"):
        NonFiniteGuard(nn.Linear(1, 1), CPU, policy="skp")
