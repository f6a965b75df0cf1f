"""Why a pair must not be used: its sides did not do the same work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flambeau_bench.measurement import Measurement


def why_void(baseline: Measurement, candidate: Measurement, may_differ: Mapping[str, str]) -> str:
    """The reasons for which the pair is void, or an empty text.

    A side that did fewer steps, or saw fewer samples, has skipped work; different first weights,
    batches or settings make times that do not compare.

    Args:
        baseline: One side.
        candidate: The other.
        may_differ: What the comparison lets differ, by name: "init_hash", "order_hash", "steps",
            "items", "settings.NAME".
    """
    reasons: list[str] = []
    for what in ("steps", "items"):
        theirs, ours = getattr(baseline, what), getattr(candidate, what)
        if theirs != ours and what not in may_differ:
            lazy = "candidate" if ours < theirs else "baseline"
            reasons.append(f"the {lazy} skipped {what} ({theirs} against {ours})")
    if baseline.init_hash != candidate.init_hash and "init_hash" not in may_differ:
        reasons.append(f"first weights differ ({baseline.init_hash} against {candidate.init_hash})")
    if baseline.order_hash != candidate.order_hash and "order_hash" not in may_differ:
        reasons.append(f"batches differ ({baseline.order_hash} against {candidate.order_hash})")
    for name in sorted({*baseline.settings, *candidate.settings}):
        theirs, ours = (side.settings.get(name) for side in (baseline, candidate))
        if _plain(theirs) != _plain(ours) and f"settings.{name}" not in may_differ:
            reasons.append(f"settings differ in {name}: {theirs} against {ours}")
    return "; ".join(reasons)


def _plain(value: Any) -> str:
    # Tuples and lists are the same once they have been through JSON.
    return json.dumps(value, sort_keys=True)
