"""The teacher-forcing example: synthetic task, best prediction, settings, table and plot."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats


@pytest.fixture(scope="module")
def study(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("teacher_forcing")


def test_states_follow_their_probabilities(study: ModuleType) -> None:
    rows = study.sticky_states(300, seed=3)
    lengths = {len(hidden) for _, hidden in rows}
    assert lengths == set(range(50, 61))
    correct = np.concatenate([seen == hidden for seen, hidden in rows])
    stayed = np.concatenate([hidden[1:] == hidden[:-1] for _, hidden in rows])
    for found, p in ((correct, study.OBSERVED_CORRECTLY), (stayed, study.STAYS)):
        assert abs(found.mean() - p) < 4 * (p * (1 - p) / len(found)) ** 0.5
    again = study.sticky_states(300, seed=3)
    assert all(np.array_equal(a, b) for one, two in zip(rows, again, strict=True)
               for a, b in zip(one, two, strict=True))  # fmt: skip


def test_the_best_prediction_equals_enumeration(study: ModuleType) -> None:
    n, stays, correct = study.N_STATES, study.STAYS, study.OBSERVED_CORRECTLY
    observed = np.array([2, 5, 5, 2])
    share = np.zeros((len(observed), n))
    for path in product(range(n), repeat=len(observed)):
        p = 1.0
        for position, state in enumerate(path):
            p *= correct if state == observed[position] else (1 - correct) / (n - 1)
            if position:
                p *= stays if state == path[position - 1] else (1 - stays) / (n - 1)
        for position, state in enumerate(path):
            share[position, state] += p
    assert np.array_equal(study.most_probable_states(observed), share.argmax(1))


def test_accuracy_compares_position_by_position(study: ModuleType) -> None:
    # Correct, then one word too few, then one too many and shifted.
    assert study.position_accuracy(["a b", "a", "c a b"], ["a b", "a b", "a b"]) == 3 / 6


def test_probabilities_of_the_ways(study: ModuleType) -> None:
    steps = 1_000
    ways = {way: study.teacher_forcing(way, steps, seed=0, floor=0.25) for way in study.WAYS}
    assert {ways["reference"].probability(step) for step in range(steps)} == {1.0}
    assert ways["adaptive"] == ways["reference"]
    assert ways["token"].probability(350) == pytest.approx(1 - 0.75 * 350 / 700)
    assert ways["token"].probability(999) == 0.25
    draws = torch.tensor([ways["batch"].probability(step) for step in range(steps)])
    assert set(draws.tolist()) == {0.0, 1.0}
    late = draws[700:].mean()
    assert abs(late - 0.25) < 4 * (0.25 * 0.75 / 300) ** 0.5


def test_table_and_plot(study: ModuleType, tmp_path: Path) -> None:
    def line(way: str, seed: int, score: float) -> dict[str, Any]:
        curves = {"valid_free_running_overlap": [0.2, 0.4], "teacher_forcing": [1.0, 0.5]}
        return {"task": "states", "way": way, "seed": seed, "score": score, **curves}

    plain, forced = [60.0, 61.0, 63.0], [70.0, 72.5, 71.5]
    lines = [line("reference", seed, score) for seed, score in enumerate(plain)]
    lines += [line("token", seed, score) for seed, score in enumerate(forced)]
    lines += [line("batch", 0, 65.0)]
    gains = np.subtract(forced, plain)
    low, high = stats.t.interval(0.95, 2, gains.mean(), stats.sem(gains))
    assert study.table(lines).splitlines()[2:] == [
        "| states | reference | 3 | 61.3 |  |  |",
        f"| states | token | 3 | 71.3 | +10.0 | {low:+.1f} to {high:+.1f} |",
        "| states | batch | 1 | 65.0 |  |  |",
    ]
    study.plot(lines, tmp_path / "plot.svg")
    assert "probability of the reference token" in (tmp_path / "plot.svg").read_text()


@pytest.mark.parametrize("way", ["token", "adaptive"])
def test_a_small_run(study: ModuleType, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = study.sticky_states
    monkeypatch.setattr(study, "sticky_states", lambda n, seed: small(min(n, 24), seed))
    found = study.states_study(way, seed=0, epochs=1)
    assert 0 <= found["score"] <= 100
    assert 70 < found["best"] < 90
    assert len(found["teacher_forcing"]) == 1
