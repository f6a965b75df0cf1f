"""Find the pairs that are invalid because their sides did not do the same work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flambeau_bench.measurement import Measurement


def invalid_reasons(
    baseline: Measurement, candidate: Measurement, may_differ: Mapping[str, str]
) -> str:
    """Return the reasons why a pair is invalid; empty if it is valid.

    A side with fewer steps or samples has skipped work; times with different initial weights,
    batches or settings are not comparable.

    Args:
        baseline: One side.
        candidate: The other side.
        may_differ: Name → reason of the values that the comparison allows to differ: "init_hash",
            "order_hash", "steps", "samples", "settings.NAME".
    """
    reasons: list[str] = []
    for what in ("steps", "samples"):
        expected, actual = getattr(baseline, what), getattr(candidate, what)
        if expected != actual and what not in may_differ:
            skipping = "candidate" if actual < expected else "baseline"
            reasons.append(f"the {skipping} skipped {what} ({expected} and {actual})")
    if baseline.init_hash != candidate.init_hash and "init_hash" not in may_differ:
        reasons.append(f"initial weights differ ({baseline.init_hash} and {candidate.init_hash})")
    if baseline.order_hash != candidate.order_hash and "order_hash" not in may_differ:
        reasons.append(f"batches differ ({baseline.order_hash} and {candidate.order_hash})")
    for name in sorted({*baseline.settings, *candidate.settings}):
        expected, actual = (side.settings.get(name) for side in (baseline, candidate))
        if _json(expected) != _json(actual) and f"settings.{name}" not in may_differ:
            reasons.append(f"settings differ in {name}: {expected} and {actual}")
    return "; ".join(reasons)


def _json(value: Any) -> str:
    # Tuples and lists are equal after a round trip through JSON.
    return json.dumps(value, sort_keys=True)
