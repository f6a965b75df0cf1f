"""``probe_frequency``: compare the frequencies of periodic embeddings in short runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flambeau import Learner
from flambeau.data.data import Data
from flambeau.errors import InputError
from flambeau.global_rng import TemporarySeed
from flambeau_tabular.data import TabularData
from flambeau_tabular.models.table_inputs import SIGMAS

TRIED = (0.05, 0.5, 5.0)
"""Standard deviations that are tried. Published searches found 0.01 to 0.5 on California housing
and 5 to 8 on Adult."""


@dataclass(frozen=True)
class FrequencyProbe:
    """The scores of the standard deviations of the initial frequencies.

    Attributes:
        curve: Standard deviation and best score, in the order in which they were tried.
        column: Column of the history with the score; lower is better.
        embedding: Name of the number embedding.
    """

    curve: tuple[tuple[float, float], ...]
    column: str
    embedding: str

    @property
    def sigma(self) -> float:
        """The standard deviation with the lowest score."""
        return min(self.curve, key=lambda point: point[1])[0]

    @property
    def choices(self) -> dict[str, Any]:
        """Choices of the plan, with the curve: ``Learner(data, choices=probe.choices)``."""
        measured = {
            "sigma": self.sigma,
            "curve": [list(point) for point in self.curve],
            "column": self.column,
        }
        return {"number_embedding": self.embedding, "plr_sigma": measured}


def probe_frequency(
    data: TabularData,
    sigmas: Sequence[float] = TRIED,
    *,
    embedding: str = "plr_lite",
    epochs: int = 4,
    choices: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> FrequencyProbe:
    """Train shortly with each standard deviation, and return the scores.

    Only train rows are used: a fifth of them, split off as folds are (by class, group or time), is
    held out for the score.

    Args:
        data: The data.
        sigmas: Standard deviations of the initial frequencies.
        embedding: "plr", "plr_lite" or "pbld".
        epochs: Epochs of each run.
        choices: Further choices of the plan of each run.
        seed: Seed of the split and of the runs.

    Raises:
        InputError: The embedding has no frequencies, or no standard deviation is given.
        SplitError: There are too few train rows.

    Example:
        >>> from flambeau_tabular.demo import demo_data
        >>> probe = probe_frequency(demo_data(200, 0), (0.05, 5.0), epochs=1)
        >>> [sigma for sigma, score in probe.curve]
        [0.05, 5.0]
    """
    if embedding not in SIGMAS or not sigmas:
        raise InputError(
            f"embedding={embedding!r} with sigmas={list(sigmas)} cannot be probed: give one of "
            f"{', '.join(map(repr, SIGMAS))} and at least one standard deviation."
        )
    held_out: Data = data.subset({"train": data.split.train.tolist()}).folds(5, seed=seed)[-1]
    fixed = {**(choices or {}), "number_embedding": embedding, "epochs": epochs, "probe": "off"}
    curve: list[tuple[float, float]] = []
    column = ""
    for sigma in sigmas:
        run = {**fixed, "plr_sigma": float(sigma)}
        learner = Learner(held_out, choices=run, seed=seed, quiet=True)
        with TemporarySeed().at(seed):  # every run has the same dropout
            learner.fit()
        column = learner.plan["keep_best"].value or "valid_loss"
        best = min(float(row[column]) for row in learner.history.rows)
        curve.append((float(sigma), best))
    return FrequencyProbe(tuple(curve), column, embedding)
