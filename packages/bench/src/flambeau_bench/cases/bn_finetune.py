"""``bn-finetune``: which batch norm policy is best when a trained network is fine-tuned.

An experiment rather than a speed comparison: a side is a policy, a pair is a seed, and the figure
is the error on images that were not used for training. Runs are exactly reproducible, so each run
is made only once and its result is cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.cases.bn_policies import Scale, cells, source, train
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import missing_reason

SEEDS = 5
MIN_SOURCE_ACCURACY = 0.85
"""The lowest allowed accuracy of a source network; below it, statistics are too poor to compare."""

_COUNTS = {
    "width": 12,
    "source": 6_000,
    "source_epochs": 4,
    "target": 256,
    "tests": 2_000,
    "epochs_of_2": 3,
    "epochs_of_4": 4,
    "epochs_of_32": 15,
}


class BatchNormFineTune(Case):
    """Fine-tune from classes 0–4 of Fashion-MNIST to 5–9, with three shifts of the pixel values.

    For each combination of settings the case compares the error of policy A with the errors of C
    (stored statistics) and D (norm layers trained), and checks whether "auto" is worse than another
    policy. ``bn_policies.POLICIES`` describes the policies.
    """

    name: ClassVar = "bn-finetune"
    question: ClassVar = "Which batch norm policy is best in fine-tuning, and does auto choose it?"
    sizes: ClassVar = {
        "quick": Size(
            "quick",
            _COUNTS | {"source_epochs": 3, "target": 128, "epochs_of_32": 5},
            pairs=1,
            floor_pairs=0,
        ),
        "cpu": Size("cpu", _COUNTS, pairs=SEEDS, floor_pairs=0),
    }

    def skip_reason(self, size: Size) -> str:
        return super().skip_reason(size) or missing_reason("fashion_mnist")

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        found: list[Comparison] = []
        for cell in cells(size):
            for policy in ("C", "D"):
                # Elsewhere the best policy has a high error too, so that a ratio says little.
                limited = cell.trained == "all" and cell.shift == "strong" and size.name != "quick"
                limit = 3.0 if limited and policy == "D" and cell.batch_size > 2 else None
                criterion = Criterion(
                    "error_pct", "ratio", f"× the error of {policy}", limit, at_most=False
                )
                found.append(Comparison(f"{cell}: A to {policy}", policy, "A", (criterion,)))
            for policy in ("B", "C", "D", "E", *(["E+"] if cell.trained == "head" else [])):
                criterion = Criterion(
                    "error_pct", "difference", "points of error", within_floor=True
                )
                found.append(Comparison(f"{cell}: auto to {policy}", policy, "auto", (criterion,)))
        return found

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        cell = next(c for c in cells(size) if comparison.variant.startswith(f"{c}:"))
        net, accuracy = source(pair, Scale.of(size))
        done = train(cell, side, pair, Scale.of(size))
        return Measurement(
            {"error_pct": done.error_pct, "gap": done.gap, "warned": float(done.warned)},
            steps=done.steps,
            samples=done.steps * cell.batch_size,
            init_hash=fingerprint.of_weights(net),
            settings=fingerprint.machine_settings() | {"cell": str(cell)},
            quality={"source_accuracy": accuracy},
            notes=_auto_notes(done.chosen, done.evidence) if side == "auto" else "",
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require that every source network has learned its classes."""
        lowest = min(float(a.quality["source_accuracy"]) for a, _ in pairs)
        return Gate(
            lowest >= MIN_SOURCE_ACCURACY,
            f"source accuracy at least {lowest:.3f} over {len(pairs)} seeds",
        )

    def section(self, records: Sequence[Mapping[str, Any]], folder: Path) -> str:
        from flambeau_bench.cases.bn_report import section

        return section(records, folder)


def _auto_notes(chosen: str, evidence: Mapping[str, Any]) -> str:
    return (
        f"auto chose {chosen}: distance {evidence['distance_nats']:g}, "
        f"noise {evidence['noise_nats']:g} nats"
    )
