"""``bn-finetune``: what norm layers should do when a trained net meets new data.

Not a race but an experiment: a "side" is a policy, a pair a seed, the figure the error on pictures
that were not trained on. Runs are exactly repeatable, so each is made once and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Gate, Question, Size
from flambeau_bench.cases.bn_policies import Scale, cells, source, train
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import why_missing

SEEDS = 5
LEAST_SOURCE_ACCURACY = 0.85
"""A source that has not learned has no statistics worth keeping, and decides nothing."""

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
    """Fashion-MNIST's classes 0–4 to 5–9 under three shifts, policies A–E and ``auto``.

    Asked in each cell: how much more error A has than C (the mismatch alone) and than D (norm
    layers trained), and whether "auto" loses to any policy.
    """

    name: ClassVar = "bn-finetune"
    asks: ClassVar = "What does each batch norm policy cost in fine-tuning, and does auto choose?"
    sizes: ClassVar = {
        "quick": Size(
            "quick",
            _COUNTS | {"source_epochs": 3, "target": 128, "epochs_of_32": 5},
            pairs=1,
            floor_pairs=0,
        ),
        "cpu": Size("cpu", _COUNTS, pairs=SEEDS, floor_pairs=0),
    }

    def why_not(self, size: Size) -> str:
        return super().why_not(size) or why_missing("fashion_mnist")

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        found: list[Comparison] = []
        for cell in cells(size):
            for policy in ("C", "D"):
                # Only where norms and head can fit the new classes has the best policy an error
                # that another can be a multiple of.
                barred = cell.trained == "all" and cell.shift == "strong" and size.name != "quick"
                limit = 3.0 if barred and policy == "D" and cell.batch_size > 2 else None
                question = Question(
                    "error_pct", "ratio", f"× the error of {policy}", limit, at_most=False
                )
                found.append(Comparison(f"{cell}: A to {policy}", policy, "A", (question,)))
            for policy in ("B", "C", "D", "E", *(["E+"] if cell.trained == "head" else [])):
                question = Question("error_pct", "difference", "points of error", within_floor=True)
                found.append(Comparison(f"{cell}: auto to {policy}", policy, "auto", (question,)))
        return found

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        cell = next(c for c in cells(size) if comparison.variant.startswith(f"{c}:"))
        net, accuracy = source(pair, Scale.of(size))
        done = train(cell, side, pair, Scale.of(size))
        return Measurement(
            {"error_pct": done.error_pct, "gap": done.gap, "alarmed": float(done.alarmed)},
            steps=done.steps,
            items=done.steps * cell.batch_size,
            init_hash=fingerprint.of_weights(net),
            settings=fingerprint.machine_settings() | {"cell": str(cell)},
            quality={"source_accuracy": accuracy},
            notes=_decided(done.chosen, done.evidence) if side == "auto" else "",
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Every source net has learned its classes."""
        least = min(float(a.quality["source_accuracy"]) for a, _ in pairs)
        return Gate(
            least >= LEAST_SOURCE_ACCURACY,
            f"source accuracy {least:.3f} at least, over {len(pairs)} seeds",
        )

    def section(self, records: Sequence[Mapping[str, Any]], folder: Path) -> str:
        from flambeau_bench.cases.bn_page import section

        return section(records, folder)


def _decided(chosen: str, evidence: Mapping[str, Any]) -> str:
    return (
        f"auto chose {chosen}: distance {evidence['distance_nats']:g}, "
        f"noise {evidence['noise_nats']:g} nats"
    )
