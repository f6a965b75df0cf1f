"""What a step takes in memory, and how a step that does not fit is cut."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flambeau import Data, Learner, Phase, TensorData
from flambeau.errors import TrainingError
from flambeau.learner import fitting
from flambeau.learner.setup import Request
from flambeau.phases import recipes
from flambeau.plan import CORE_RULES, Plan
from flambeau.tuning import step_settings
from flambeau.tuning.memory import (
    MemoryUse,
    SavedTensors,
    fit_line,
    fits_without_measuring,
    split_step,
)
from flambeau.tuning.step_settings import with_memory
from flambeau.tuning.trial import StepSetting, Trial


def test_saved_tensors_are_counted_once() -> None:
    weight = torch.ones(1000, requires_grad=True)
    x = torch.ones(1000)
    saved = SavedTensors([weight, x], lambda: 100)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack):
        product = weight * x  # saves what is known
        assert saved.forward_bytes() == 0
        squares = product * product  # saves the product twice, 4 kB
        joined = torch.cat([squares, squares])  # saves nothing
        total = joined.exp().sum()  # saves its output, 8 kB
    assert saved.forward_bytes() == 12_000 + 2 * 8_000
    assert saved.step_bytes() == saved.forward_bytes() + 100
    total.backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, 4 * torch.e * torch.ones(1000))


def test_the_slope_is_that_of_the_forward_pass() -> None:
    # The whole step's peak is at the update at both sizes: it says nothing about larger batches.
    use = fit_line({4: (400, 5_000), 8: (800, 5_000)})
    assert use.bytes_per_sample == 100
    assert use.of(4) >= 5_000
    assert use.of(1_000) >= 100_000
    assert use.max_samples(10**6, "cpu") == int((0.6 * 10**6 - use.fixed_bytes) / 100)
    assert MemoryUse(10, 0.0, {}).max_samples(100, "cpu") > 10**9
    assert MemoryUse(100, 1.0, {}).max_samples(100, "cpu") == 0


@pytest.mark.parametrize("batch_size", [1, 2, 7, 32, 50, 64, 96])
@pytest.mark.parametrize("most", [0, 1, 3, 20, 1000])
@pytest.mark.parametrize("least", [1, 2])
def test_a_step_is_divided_into_equal_micro_batches(batch_size: int, most: int, least: int) -> None:
    size, parts = split_step(batch_size, most, least)
    assert size * parts == batch_size
    assert size <= max(most, least, 1) or all(
        batch_size % other for other in range(least, max(most, least) + 1)
    )
    if batch_size <= most:
        assert parts == 1


def test_only_small_inputs_fit_without_measuring() -> None:
    def surely(shape: list[int], dtype: str, size: int = 64) -> bool:
        return fits_without_measuring([{"shape": shape, "dtype": dtype}], size, 8 * 10**9)

    assert surely([20], "float32")
    assert surely([28, 28], "float32", 8)
    assert not surely([3, 224, 224], "float32")
    assert not surely([3, 64, 64], "uint8")
    assert not surely([512], "int64")


# ---------------------------------------------------------------- on real steps


def net(width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 2))


def pictures(n: int = 80, side: int = 24) -> Data:
    draws = torch.Generator().manual_seed(0)
    return TensorData.from_tensors(
        torch.randn(n, 1, side, side, generator=draws), torch.arange(n) % 2
    )


def learner(**choices: Any) -> Learner:
    return Learner(pictures(), net(), choices={"num_threads": 1, **choices}, quiet=True)


def phase_of(made: Learner, epochs: int, lr: float) -> Phase:
    [phase] = recipes.single_phase({**made.plan.values, "epochs": epochs, "lr": lr})
    return phase


def trial(made: Learner) -> Trial:
    phase = phase_of(made, 1, 1e-3)
    parts = made.built.components()
    return Trial(parts, made.training, phase, made.built.sample_batch)


class Allocations(TorchDispatchMode):
    """The reference: counts the bytes of what every operation makes, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.watch(value.untyped_storage())
        return result

    def watch(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address not in self.seen:

            def freed(_: object) -> None:
                del self.seen[address]
                self.live -= size

            self.seen[address] = weakref.ref(storage, freed)
            self.live += size
            self.peak = max(self.peak, self.live)


def test_the_estimate_is_near_what_a_step_allocates() -> None:
    made = trial(learner())
    setting = StepSetting(num_threads=1)
    use = fit_line({size: made.peak_bytes(setting, size) for size in (4, 8)})
    with Allocations() as allocations:
        made.step_times(setting, 64, 1)
    # A copy of the model and of the batch are in it too, of which the estimate knows nothing.
    assert use.of(64) == pytest.approx(allocations.peak, rel=0.15)


def test_two_small_steps_predict_a_large_one() -> None:
    made = trial(learner())
    setting = StepSetting(num_threads=1)
    peaks = {size: made.peak_bytes(setting, size) for size in (4, 8, 64)}
    use = fit_line({size: peaks[size] for size in (4, 8)})
    # Weights and the optimizer's state do not grow with the batch; everything else does.
    assert use.of(64) == pytest.approx(peaks[64][1], rel=0.01)
    # The first layer's output and input of each of five layers, in float32.
    assert use.bytes_per_sample > 3 * 16 * 24 * 24 * 4


FACTS = {
    "n_train": 2_000,
    "n_valid": 10,
    "split": "given",
    "target_dtype": "int64",
    "target_shape": [],
    "target_distinct": 2,
    "in_memory": True,
}


def plan(**user: Any) -> Plan:
    return Plan.derive(CORE_RULES, FACTS, {"architecture": "net", **user})


USE = MemoryUse(1_000, 100.0, {4: 1_400, 8: 1_800})


def values(made: Plan) -> Mapping[str, Any]:
    return {key: made.values[key] for key in ("batch_size", "accumulate")}


def test_a_batch_that_fits_stays_and_the_plan_gives_the_figures() -> None:
    made = with_memory(plan(), USE, 10**6, "cpu")
    assert values(made) == {"batch_size": 64, "accumulate": 1}
    assert "from two steps of 4 and 8 samples" in made["accumulate"].reason
    assert made["accumulate"].evidence["bytes_per_sample"] == 100


def test_the_same_step_is_made_of_smaller_batches_where_the_device_is_small() -> None:
    before = plan()
    made = with_memory(before, USE, 5_000, "cpu")  # room for (3,000 - 1,000) / 100 = 20
    assert values(made) == {"batch_size": 16, "accumulate": 4}
    assert {change.key for change in before.diff(made)} == {"batch_size", "accumulate"}
    assert "so a step uses 4 micro-batches" in made["batch_size"].reason
    assert made["batch_size"].alternatives == (64,)
    none = with_memory(before, USE, 10, "cpu", least=2)
    assert values(none) == {"batch_size": 2, "accumulate": 32}


def test_values_of_the_user_stay_with_advice() -> None:
    made = with_memory(plan(batch_size=64), USE, 5_000, "cpu")
    assert values(made) == {"batch_size": 64, "accumulate": 1}
    assert made["accumulate"].confidence < 0.5
    assert '{"batch_size": 16, "accumulate": 4} gives the same step' in made["accumulate"].reason
    fixed = plan(batch_size=64, accumulate=2)
    assert with_memory(fixed, USE, 5_000, "cpu") == fixed


def test_a_small_device_trains_to_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without batch norm the parts make the step exactly; fp64, so that order hardly counts.
    def fit(free: int) -> Learner:
        monkeypatch.setattr(step_settings, "available_memory_bytes", lambda: free)
        model = nn.Sequential(nn.Flatten(), nn.Linear(576, 32), nn.Tanh(), nn.Linear(32, 2))
        torch.manual_seed(0)
        for value in model.parameters():
            nn.init.normal_(value, std=0.05)
        made = Learner(pictures(320), model.double(), quiet=True)
        made.fit(2, lr=1e-2)
        return made

    large, small = fit(2**40), fit(600_000)
    assert large.plan.values["accumulate"] == 1
    assert small.plan.values["accumulate"] > 1
    steps = [values(made.plan) for made in (large, small)]
    assert len({step["batch_size"] * step["accumulate"] for step in steps}) == 1
    assert small.plan["accumulate"].evidence["free_bytes"] == 600_000
    for mine, theirs in zip(large.model.parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_a_replay_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_settings, "available_memory_bytes", lambda: 3_000_000)
    first = Learner(pictures(400), net(), quiet=True)
    first.fit(1)
    assert first.plan.values["accumulate"] > 1
    assert first.plan.values["probe"] == "skipped"

    def never(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(step_settings, "why_not_measured", never)
    saved = Plan.from_json(first.plan.to_json())
    again = Learner(pictures(400), net(), plan=saved, quiet=True)
    again.fit(1)
    assert again.plan.values == first.plan.values
    for mine, theirs in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    before = first.plan
    first.fit(1)
    assert first.plan == before


@pytest.mark.parametrize("why", ["off", "loader", "train_step"])
def test_the_plan_says_why_nothing_was_measured(why: str) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    from flambeau import TrainingOptions
    from flambeau.training.step import train_step

    data, training, choices = pictures(), TrainingOptions(), {}
    if why == "off":
        choices = {"probe": "off"}
    elif why == "loader":
        pairs = TensorDataset(torch.randn(16, 1, 24, 24), torch.arange(16) % 2)
        loader = DataLoader(pairs, batch_size=8, shuffle=True)
        data = TensorData.from_loaders(loader, DataLoader(pairs, batch_size=8), n_classes=2)
    else:
        training = TrainingOptions(train_step=partial(train_step))
    made = Learner(data, net(), training=training, choices=choices, quiet=True)
    phases = [phase_of(made, 1, 1e-3)]
    request = Request(lambda values: phases, may_find_lr=False)
    after, _ = fitting.measure(made._setup(), made.plan, request)
    words = {
        "off": "Set by the user",
        "loader": "take batches from your loader",
        "train_step": "A custom train_step",
    }
    assert words[why] in after["probe"].reason
    assert after.values["probe"] == ("off" if why == "off" else "skipped")


def test_the_run_reports_a_failing_step() -> None:
    made = Learner(pictures(), nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), quiet=True)
    with pytest.raises(TrainingError, match=r"in layer '1' \(Linear\)"):
        made.fit(1)
    assert made.plan.values["probe"] == "skipped"
