"""``folds``: ``learner.fit_folds`` compared with separate fits of the same models."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch

from flambeau import Learner, Split
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size, equal_losses
from flambeau_bench.cases.adult_sized import adult_sized
from flambeau_bench.measurement import Measurement
from flambeau_tabular import TabularData

SEPARATE, FOLDS = "separate fits", "fit_folds"

WORKERS = 2
"""Processes of the variants with workers, each with its share of the cores."""

_CHOICES = {"probe": "off"}
_ALLOWED = 0.002
"""Largest difference of held-out accuracies with workers: of 100 in 48,842 rows."""


class Folds(Case):
    """Train 5 folds × 2 seeds on a table of the size of Adult, and predict the held-out rows.

    The baseline reads the table for each of the ten models, as a loop over folds and seeds does.
    Both sides train the same models: their weights must be bitwise equal. Therefore no setting of
    a step is measured, which fit_folds would do once and separate fits ten times. Workers have
    fewer threads, so that sums are rounded differently: held-out accuracies may differ by 0.002.
    """

    name: ClassVar = "folds"
    question: ClassVar = "How long do 5 folds × 2 seeds take, compared with ten separate fits?"
    sizes: ClassVar = {
        "quick": Size("quick", {"rows": 2_000, "folds": 3, "seeds": 2}, pairs=1, floor_pairs=1),
        "cpu": Size("cpu", {"rows": 48_842, "folds": 5, "seeds": 2}, pairs=5, floor_pairs=3),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        variants = ["1 epoch"] if size.name == "quick" else ["1 epoch", "4 epochs"]
        variants += [f"{each}, {WORKERS} workers" for each in variants[1:]]
        return [
            Comparison(
                variant,
                SEPARATE,
                FOLDS,
                (Criterion("seconds", "ratio", "× ten separate fits", limit=0.9),),
            )
            for variant in variants
        ]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        epochs = int(comparison.variant.partition(" ")[0])
        table = adult_sized(size["rows"])
        workers = WORKERS if comparison.variant.endswith("workers") else 0
        started = time.perf_counter()
        if side == SEPARATE:
            weights, outputs = _separate(table, size, epochs)
        else:
            weights, outputs = _fit_folds(table, size, epochs, workers)
        return Measurement(
            {"seconds": time.perf_counter() - started},
            steps=epochs * size["folds"] * size["seeds"],
            samples=size["rows"],
            settings=fingerprint.machine_settings(),
            quality={
                "losses": f"{weights} {fingerprint.of_tensors([outputs])}",
                "accuracy": _accuracy(table, outputs),
                "is_rounded": bool(workers),
            },
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require bitwise equal weights and held-out predictions; with workers the accuracy."""
        if not pairs[0][0].quality.get("is_rounded"):
            return equal_losses(pairs)
        found = [abs(float(a.quality["accuracy"]) - float(b.quality["accuracy"])) for a, b in pairs]
        return Gate(
            max(found) <= _ALLOWED,
            f"held-out accuracies differ by up to {max(found):.4f}; {_ALLOWED:g} is allowed",
        )


def _data(table: Mapping[str, Any], split: Split | None = None) -> TabularData:
    if split is None:
        return TabularData.from_df(table, "target", valid=0.2)
    return TabularData.from_df(table, "target", split=split)


def _fit_folds(
    table: Mapping[str, Any], size: Size, epochs: int, workers: int
) -> tuple[str, torch.Tensor]:
    learner = Learner(_data(table), choices=_CHOICES, quiet=True)
    found = learner.fit_folds(size["folds"], size["seeds"], epochs=epochs, num_workers=workers)
    weights = [fingerprint.of_weights(each.model) for each in found.members]
    return " ".join(weights), found.held_out.outputs


def _separate(table: Mapping[str, Any], size: Size, epochs: int) -> tuple[str, torch.Tensor]:
    whole = Learner(_data(table), choices=_CHOICES, quiet=True)
    splits = [fold.split for fold in whole.data.folds(size["folds"])]
    outputs = torch.full((size["rows"], 2), torch.nan, dtype=torch.float64)
    weights: list[str] = []
    for split in splits:
        found: list[torch.Tensor] = []
        for seed in range(size["seeds"]):
            learner = Learner(_data(table, split), plan=whole.plan, seed=seed, quiet=True)
            torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
            learner.fit(epochs)
            learner.evaluate("valid")
            weights.append(fingerprint.of_weights(learner.model))
            found.append(_probabilities(learner))
        outputs[torch.tensor(split.valid)] = torch.stack(found).mean(dim=0)
    return " ".join(weights), outputs


def _accuracy(table: Mapping[str, Any], outputs: torch.Tensor) -> float:
    """Return the share of rows whose class has the largest mean output."""
    names = sorted(set(table["target"]))
    truth = torch.tensor([names.index(each) for each in table["target"]])
    return float((outputs.argmax(dim=1) == truth).double().mean())


def _probabilities(learner: Learner) -> torch.Tensor:
    model = learner.model.eval()
    with torch.no_grad():
        parts = [cast("torch.Tensor", model(**b.inputs)) for b in learner.built.batches("valid")]
    return torch.cat([part.double().softmax(dim=1) for part in parts])
