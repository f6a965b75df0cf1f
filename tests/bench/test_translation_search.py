"""``translation-search`` at its smallest size: equal work, and a gate that can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flambeau_bench.cases.translation_search import COPIES, GREEDY, TranslationSearch
from flambeau_bench.invalid_pairs import invalid_reasons

CASE = TranslationSearch()
SIZE = CASE.sizes["quick"]


@pytest.mark.parametrize("comparison", CASE.comparisons(SIZE), ids=lambda each: each.variant)
def test_both_sides_do_the_same_work(comparison: object) -> None:
    sides = (comparison.baseline, comparison.candidate)  # type: ignore[attr-defined]
    baseline, candidate = (CASE.measure(comparison, side, SIZE, 0) for side in sides)  # type: ignore[arg-type]
    assert not invalid_reasons(baseline, candidate, {})
    assert candidate.figures["sentences_per_s"] > 0
    assert candidate.samples == 12
    gate = CASE.gate(comparison, [(baseline, candidate)])  # type: ignore[arg-type]
    assert gate.passed, gate.reason
    worse = {GREEDY: {"log_probability": -1e9}, COPIES: {"sentences": "other"}}
    changed = replace(candidate, quality={**candidate.quality, **worse[sides[0]]})
    assert not CASE.gate(comparison, [(baseline, changed)]).passed  # type: ignore[arg-type]
