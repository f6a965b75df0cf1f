"""``flambeau bench compare``: noise is no change, and a slowdown of 10% is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from flambeau.cli.app import build_app
from flambeau.report.rank_test import EXACT_PAIRS, mann_whitney_p
from flambeau_bench.comparison import P, compare_runs, enough_pairs
from flambeau_bench.records import SCHEMA, append

PAIRS = 61
NOISE = 0.08  # of one pair: as seen in loop-overhead on a busy machine


def run(seed: int, slower: float = 1.0, machine: float = 1.0, pairs: int = PAIRS) -> list[Any]:
    """Return the records of a run whose candidate takes 0.9 times its baseline's time."""
    draws = np.random.default_rng(seed)
    head: dict[str, Any] = {"schema": SCHEMA, "case": "loop", "variant": "default"}
    head |= {"run_id": str(seed), "size": {"name": "cpu"}}
    records: list[dict[str, Any]] = []
    for phase, ratio in (("floor", 1.0), ("pairs", 0.9 * slower)):
        for pair in range(pairs):
            baseline = 200.0 * machine * np.exp(0.2 * draws.standard_normal())
            candidate = baseline * ratio * np.exp(NOISE * draws.standard_normal())
            runs = [("by hand", baseline), ("by hand" if phase == "floor" else "ours", candidate)]
            for side, slope in runs:
                figures = {"slope_us": slope, "steps_per_s": 1e6 / slope, "modules": 3.0}
                found = {"kind": "run", "phase": phase, "side": side, "pair": pair}
                records.append({**head, **found, "figures": figures})
    result = {"kind": "result", "baseline": "by hand", "candidate": "ours"}
    return [*records, {**head, **result}]


def test_two_runs_of_one_commit_show_no_change_20_times_of_20() -> None:
    for seed in range(20):
        changes = compare_runs(run(2 * seed), run(2 * seed + 1, machine=1.5))
        assert [change.figure for change in changes] == ["slope_us", "steps_per_s"]
        assert {change.verdict for change in changes} == {"no change"}, changes


@pytest.mark.parametrize(("slower", "verdict"), [(1.1, "slower"), (0.9, "faster")])
def test_a_change_of_a_tenth_is_reported_20_times_of_20(slower: float, verdict: str) -> None:
    for seed in range(20):
        changes = compare_runs(run(2 * seed), run(2 * seed + 1, slower))
        assert {change.verdict for change in changes} == {verdict}, changes


def test_a_certain_but_small_change_is_none() -> None:
    [change, _] = compare_runs(run(0, pairs=4_000), run(1, 1.02, pairs=4_000))
    assert change.p < 0.001
    assert change.verdict == "no change"


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(6, 6, "too few pairs"), (7, 7, "slower"), (5, 7, "too few pairs"), (4, 30, "slower")],
)
def test_as_few_pairs_as_can_show_a_change_are_compared(
    before: int, after: int, verdict: str
) -> None:
    changes = compare_runs(run(0, pairs=before), run(1, 3.0, pairs=after))
    assert {change.verdict for change in changes} == {verdict}, changes


def test_the_least_number_of_pairs_can_show_a_change() -> None:
    count = enough_pairs()
    for pairs, below in ((count, True), (count - 1, False)):
        positive, negative = ([sign * (1.0 + i) for i in range(pairs)] for sign in (1, -1))
        assert (mann_whitney_p(positive, negative) < P) is below


@pytest.mark.parametrize(
    ("sizes", "rounded", "method"),
    [
        ((40, 55), False, "asymptotic"),
        ((40, 55), True, "asymptotic"),
        ((EXACT_PAIRS, 30), False, "exact"),
        ((EXACT_PAIRS + 1, 30), False, "asymptotic"),
        ((5, 5), False, "exact"),
    ],
)
def test_the_p_value_is_that_of_scipy(sizes: tuple[int, int], rounded: bool, method: str) -> None:
    draws = np.random.default_rng(0)
    first, second = draws.normal(size=sizes[0]), draws.normal(0.5, size=sizes[1])
    if rounded:
        first, second = first.round(1), second.round(1)
    expected = stats.mannwhitneyu(first, second, method=method).pvalue
    assert mann_whitney_p(list(first), list(second)) == pytest.approx(expected, rel=1e-9)


def test_a_loss_exits_with_1(tmp_path: Path) -> None:
    for name, slower in (("a", 1.0), ("b", 1.0), ("c", 1.2)):
        append(tmp_path / name, name, run(ord(name), slower))
    same = CliRunner().invoke(build_app(), ["bench", "compare", f"{tmp_path}/a", f"{tmp_path}/b"])
    assert same.exit_code == 0, same.output
    assert "no change" in same.output
    loss = CliRunner().invoke(build_app(), ["bench", "compare", f"{tmp_path}/a", f"{tmp_path}/c"])
    assert loss.exit_code == 1
    assert "slower" in loss.output
