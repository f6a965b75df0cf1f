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

_CHOICES = {"probe": "off"}


class Folds(Case):
    """Train 5 folds × 2 seeds on a table of the size of Adult, and predict the held-out rows.

    The baseline reads the table for each of the ten models, as a loop over folds and seeds does.
    Both sides train the same models: their weights must be bitwise equal. Therefore no setting of
    a step is measured, which fit_folds would do once and separate fits ten times.
    """

    name: ClassVar = "folds"
    question: ClassVar = "How long do 5 folds × 2 seeds take, compared with ten separate fits?"
    sizes: ClassVar = {
        "quick": Size("quick", {"rows": 2_000, "folds": 3, "seeds": 2}, pairs=1, floor_pairs=1),
        "cpu": Size("cpu", {"rows": 48_842, "folds": 5, "seeds": 2}, pairs=5, floor_pairs=3),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        epochs = (1,) if size.name == "quick" else (1, 4)
        return [
            Comparison(
                f"{n} epoch{'s' if n > 1 else ''}",
                SEPARATE,
                FOLDS,
                (Criterion("seconds", "ratio", "× ten separate fits", limit=0.9),),
            )
            for n in epochs
        ]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        epochs = int(comparison.variant.partition(" ")[0])
        table = adult_sized(size["rows"])
        run = _separate if side == SEPARATE else _fit_folds
        started = time.perf_counter()
        weights, held_out = run(table, size, epochs)
        return Measurement(
            {"seconds": time.perf_counter() - started},
            steps=epochs * size["folds"] * size["seeds"],
            samples=size["rows"],
            settings=fingerprint.machine_settings(),
            quality={"losses": f"{weights} {held_out}"},
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require bitwise equal weights and held-out predictions."""
        return equal_losses(pairs)


def _data(table: Mapping[str, Any], split: Split | None = None) -> TabularData:
    if split is None:
        return TabularData.from_df(table, "target", valid=0.2)
    return TabularData.from_df(table, "target", split=split)


def _fit_folds(table: Mapping[str, Any], size: Size, epochs: int) -> tuple[str, str]:
    learner = Learner(_data(table), choices=_CHOICES, quiet=True)
    found = learner.fit_folds(size["folds"], size["seeds"], epochs=epochs)
    weights = [fingerprint.of_weights(each.model) for each in found.members]
    return " ".join(weights), fingerprint.of_tensors([found.held_out.outputs])


def _separate(table: Mapping[str, Any], size: Size, epochs: int) -> tuple[str, str]:
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
    return " ".join(weights), fingerprint.of_tensors([outputs])


def _probabilities(learner: Learner) -> torch.Tensor:
    model = learner.model.eval()
    with torch.no_grad():
        parts = [cast("torch.Tensor", model(**b.inputs)) for b in learner.built.batches("valid")]
    return torch.cat([part.double().softmax(dim=1) for part in parts])
