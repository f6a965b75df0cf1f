"""Which way of computing a step is taken: decided from figures, here with a made clock."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Learner, TensorData
from flambeau.data.batch import Batch
from flambeau.tuning import step_settings
from flambeau.tuning.probe import MIN_SPEED_UP, ROUNDS, ProbeResult, choose
from flambeau.tuning.probe_cache import cache_file, key_of, lookup, store
from flambeau.tuning.trial import PrecisionAgreement, StepSetting

BASE = StepSetting(num_threads=2)
GOOD, BAD = PrecisionAgreement(0.001, 0.9999), PrecisionAgreement(0.4, 0.3)
ALL = {
    "precision": ["bf16"],
    "memory_format": ["channels_last"],
    "num_threads": [1],
    "compile": ["whole"],
}
COSTS = {"bf16": 0.5, "channels_last": 0.8, 1: 1.5, "whole": 0.9}


class Machine:
    """Steps of a made machine: a second each, times a factor for each setting that is not BASE."""

    def __init__(self, costs: dict[Any, float], step_s: float = 1.0) -> None:
        self.costs, self.step_s = costs, step_s
        self.asked: list[StepSetting] = []

    def time_steps(self, setting: StepSetting, steps: int) -> list[float]:
        self.asked.append(setting)
        factor = 1.0
        for key in ALL:
            value = getattr(setting, key)
            if value != getattr(BASE, key):
                factor *= self.costs[value]
        return [self.step_s * factor] * steps


def run(
    machine: Machine,
    agree: Callable[[StepSetting], PrecisionAgreement] = lambda setting: GOOD,
    **other: Any,
) -> ProbeResult:
    arguments: dict[str, Any] = {"run_steps": 100_000, "device": "cpu", **other}
    return choose(BASE, ALL, time_steps=machine.time_steps, agree=agree, **arguments)


def test_faster_settings_are_combined() -> None:
    machine = Machine(COSTS)
    found = run(machine)
    assert found.state == "measured"
    assert found.setting == StepSetting("bf16", "channels_last", 2, "whole")
    assert [each.speed_up for each in found.tried] == [2.0, 1.25, 0.667, 1.111]
    assert found.step_s == 1.0
    # Both sides of each pair alternate, in every round; the first estimate is the one before.
    first = machine.asked[1 : 1 + 2 * ROUNDS]
    other = StepSetting("bf16", num_threads=2)
    assert first == [BASE, other, other, BASE, BASE, other]
    assert machine.asked[-1] == StepSetting("bf16", "channels_last", 2, "whole")


def test_a_small_speed_up_is_not_chosen() -> None:
    almost = 1 / (MIN_SPEED_UP - 0.01)
    found = run(Machine({**COSTS, "bf16": almost, "channels_last": 1.0, "whole": 1.0}))
    assert found.setting == BASE
    assert "none was faster" in found.reason
    assert "not faster" in found.tried[0].why


def test_one_slow_step_does_not_decide() -> None:
    class Hiccup(Machine):
        def time_steps(self, setting: StepSetting, steps: int) -> list[float]:
            return [50.0, *super().time_steps(setting, steps)[1:]]

    assert run(Hiccup(COSTS)).setting.precision == "bf16"


def test_a_precision_that_does_not_agree_is_not_even_timed() -> None:
    machine = Machine(COSTS)
    found = run(machine, lambda setting: BAD)
    assert found.setting.precision == "fp32"
    assert not any(setting.precision == "bf16" for setting in machine.asked)
    assert "cosine similarity 0.3000" in found.tried[0].why


@pytest.mark.parametrize(
    ("steps", "step_s", "taken"),
    [
        (20, 1.0, False),  # 20 s: too short
        (100, 1.0, False),  # 100 s, and trying takes 108
        (2_000, 1.0, False),  # it would be 5% of the run
        (4_000, 1.0, True),
        (2_000, 0.001, False),  # 2 s
        (200_000, 0.001, True),
    ],
)
def test_only_long_runs_are_probed(steps: int, step_s: float, taken: bool) -> None:
    machine = Machine(COSTS, step_s)
    found = run(machine, run_steps=steps)
    assert (found.state == "measured") is taken
    if not taken:
        assert found.setting == BASE
        assert len(machine.asked) == 1, "the first steps alone"
        assert "more than it is expected to save" in found.reason
        assert run(machine, run_steps=steps, always=True).state == "measured"


def test_only_long_runs_are_compiled() -> None:
    # On the CPU 2 % of a run must be worth twice two minutes.
    short, long = run(Machine(COSTS), run_steps=10_000), run(Machine(COSTS), run_steps=15_000)
    assert short.setting.compile == "off"
    assert "Not tried" in short.tried[-1].why
    assert long.setting.compile == "whole"
    assert run(Machine(COSTS), run_steps=4_000, device="cuda").setting.compile == "whole"


def test_no_step_is_timed_without_alternatives() -> None:
    machine = Machine(COSTS)
    found = choose(
        BASE, {}, run_steps=10**6, device="cpu", time_steps=machine.time_steps, agree=lambda _: GOOD
    )
    assert (found.state, found.setting, machine.asked) == ("skipped", BASE, [])


def test_cached_results_are_used_only_in_long_runs(tmp_path: Path) -> None:
    first = run(Machine(COSTS))
    store("step", first, tmp_path)
    machine = Machine(COSTS)
    again = run(machine, cached=lambda: lookup("step", tmp_path))
    assert (again.state, again.setting, again.tried) == ("cached", first.setting, first.tried)
    assert len(machine.asked) == 1
    assert "measured earlier on this machine" in again.reason
    # A short run is what it would be without a cache.
    assert run(machine, run_steps=10, cached=lambda: lookup("step", tmp_path)).setting == BASE


# ---------------------------------------------------------------- the cache


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"version": 1}',
        '{"version": 1, "outcomes": []}',
        '{"version": 9, "outcomes": {"step": {}}}',
        '{"version": 1, "outcomes": {"step": 3}}',
        '{"version": 1, "outcomes": {"step": {}}}',
        '{"version": 1, "outcomes": {"step": {"state": "measured", "setting": 3, "tried": []}}}',
        '{"version": 1, "outcomes": {"step": {"state": "measured", "setting": {"a": 1}}}}',
        "\x00\xff",
    ],
)
def test_an_unreadable_cache_is_ignored(content: str, tmp_path: Path) -> None:
    cache_file(tmp_path).write_text(content, encoding="latin-1")
    assert lookup("step", tmp_path) is None
    store("step", run(Machine(COSTS)), tmp_path)
    found = lookup("step", tmp_path)
    assert found is not None
    assert found.setting.precision == "bf16"


def test_an_unwritable_cache_folder_is_ignored(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    store("step", run(Machine(COSTS)), blocked)
    assert lookup("step", blocked) is None
    assert blocked.read_text() == ""


def test_writing_leaves_one_whole_file(tmp_path: Path) -> None:
    for number in range(3):
        store(f"step {number}", run(Machine(COSTS)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["probes.json"]
    assert list(json.loads(cache_file(tmp_path).read_text())["outcomes"]) == [
        "step 0", "step 1", "step 2",
    ]  # fmt: skip
    assert stat.S_ISREG(cache_file(tmp_path).stat().st_mode)


def test_the_cache_is_in_the_users_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLAMBEAU_CACHE", str(tmp_path / "mine"))
    assert cache_file() == tmp_path / "mine" / "probes.json"


def test_a_key_is_of_the_machine_the_model_and_the_shapes() -> None:
    def key(
        model: nn.Module | None = None, shape: tuple[int, ...] = (8, 4), **settings: Any
    ) -> str:
        batch = Batch({"x": torch.zeros(shape)}, {"y": torch.zeros(8)})
        model = nn.Sequential(nn.Linear(4, 3)) if model is None else model
        return key_of(model, batch, torch.device("cpu"), settings)

    assert key() == key(), "weights do not count"
    frozen = nn.Sequential(nn.Linear(4, 3)).requires_grad_(False)
    keys = [key(), key(shape=(9, 4)), key(nn.Sequential(nn.Linear(4, 2))), key(frozen)]
    keys += [key(nn.Sequential(nn.Linear(4, 3), nn.ReLU())), key(optimizer="sgd")]
    keys += [key(nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 3)))]
    keys += [key(nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 3)))]
    assert len(set(keys)) == len(keys)


# ---------------------------------------------------------------- in the plan


def test_the_outcome_is_in_the_plan_and_in_force(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLAMBEAU_CACHE", str(tmp_path))
    machine = Machine(COSTS, step_s=30.0)
    monkeypatch.setattr(
        "flambeau.tuning.trial.Trial.step_times",
        lambda self, setting, size, steps: machine.time_steps(setting, steps),
    )
    monkeypatch.setattr("flambeau.tuning.trial.Trial.agreement", lambda self, setting, size: GOOD)
    monkeypatch.setattr(step_settings, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(step_settings, "usable_cores", lambda: 2)

    def learner() -> Learner:
        draws = torch.Generator().manual_seed(0)
        x = torch.randn(60, 2, 8, 8, generator=draws)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        choices = {"num_threads": 2, "probe": "always"}
        return Learner(
            TensorData.from_tensors(x, torch.arange(60) % 2), net, choices=choices, quiet=True
        )

    made = learner()
    model = made.model
    made.fit(2)
    plan = made.plan
    assert (plan.values["precision"], plan.values["memory_format"]) == ("bf16", "channels_last")
    assert plan.values["num_threads"] == 2, "the user's"
    assert plan.values["compile"] == "off"
    assert plan.values["probe"] == "measured"
    assert "2.00×" in plan["precision"].reason
    assert plan["precision"].evidence["tried"] == [{"value": "bf16", "speed_up": 2.0}]
    assert plan["precision"].alternatives == ("fp32",)
    assert made.model is model
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index]
    asked = len(machine.asked)
    made.fit(1)
    assert len(machine.asked) == asked, "a second fit measures nothing"
    again = learner()
    again.fit(2)
    assert again.plan.values["probe"] == "cached"
    assert again.plan.values["precision"] == "bf16"
    assert len(machine.asked) == asked + 1, "the first steps alone"
