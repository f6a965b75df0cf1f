"""``FoldScores``: intervals and sets of classes from the out-of-fold scores of a cross-validation.

Each row has a score from the models that were not trained on it, as in `flambeau.task.conformal`.
A new target is compared with every row by the models of that row's fold: CV+ for intervals, and its
form for sets of classes. If the rows and the new sample are exchangeable, the coverage is at least
``1 - 2 * (1 - level)`` whatever the models are, less a term of about ``sqrt(2 / n)``; for models
that change little when a fold is left out it is close to ``level``. The guarantee is for models of
one fold each, not for the mean of all of them, around which the predictions are.

Source:
    Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+", Annals of
    Statistics 49 (2021), section 3; Romano, Sesia and Candès, "Classification with valid and
    adaptive coverage", 2020, section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.task.conformal import ConformalScores, check_level

_HALVINGS = 100
"""Halvings of a range of float64 until it no longer shrinks: at most 53 bits, and its exponent."""


@dataclass(frozen=True)
class FoldScores:
    """The out-of-fold scores of each fold, from which intervals of any level follow.

    Attributes:
        folds: The scores of the rows of each fold.
    """

    folds: tuple[ConformalScores, ...]

    @classmethod
    def of(
        cls,
        scores: Sequence[Tensor],
        weights: Sequence[Tensor],
        groups: Sequence[Tensor | None],
    ) -> FoldScores:
        """Return the scores of rows by fold; see ``ConformalScores.of``."""
        parts = zip(scores, weights, groups, strict=True)
        return cls(tuple(ConformalScores.of(*part) for part in parts))

    @property
    def total(self) -> float:
        """The weight of all rows."""
        return sum(each.total for each in self.folds)

    def ends(self, low: Tensor, high: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Return the ends of the CV+ intervals, ``(batch,)`` each.

        They are infinite if there are too few rows for the level.

        Args:
            low: Lower ends that the models of each fold predict, ``(batch, folds)``; for models of
                one value, the value.
            high: Upper ends, likewise.
            level: Between 0 and 1.
        """
        lower, upper = -self._quantile(-low.double(), level), self._quantile(high.double(), level)
        middle = (lower + upper) / 2  # of an interval that is narrowed by more than its width
        return torch.where(lower > upper, middle, lower), torch.where(lower > upper, middle, upper)

    def class_sets(self, probabilities: Tensor, level: float) -> Tensor:
        """Return which classes are in the set of each sample, bool ``(batch, classes)``.

        The class that is most probable on average always is, so that no set is empty.

        Args:
            probabilities: Those of each fold, ``(batch, folds, classes)``.
            level: Between 0 and 1.
        """
        scores = 1 - probabilities.double()
        smaller = torch.zeros_like(scores[:, 0])
        for at, (known, cumulated) in enumerate(self._columns):
            smaller += cumulated[torch.searchsorted(known, scores[:, at].contiguous())]
        found = smaller < self._wanted(level)
        best = probabilities.mean(dim=1).argmax(dim=1, keepdim=True)
        return found.scatter(1, best, value=True)

    def _wanted(self, level: float) -> float:
        """Return the weight at a level; the new sample counts as one more row."""
        check_level(level)
        return level * (self.total + 1) - 1e-9

    def _quantile(self, centers: Tensor, level: float) -> Tensor:
        """Return the quantile of the rows' scores, each added to the center of its fold."""
        wanted = self._wanted(level)
        if wanted > self.total:
            return torch.full_like(centers[:, 0], math.inf)
        first = torch.stack([known[0] for known, _ in self._columns])
        last = torch.stack([known[-1] for known, _ in self._columns])
        low, high = (centers + first).amin(dim=1), (centers + last).amax(dim=1)
        # The smallest value that rows of the wanted weight do not exceed.
        for _ in range(_HALVINGS):
            middle = low + (high - low) / 2
            enough = self._weight_up_to(middle, centers) >= wanted
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return torch.where(self._weight_up_to(low, centers) >= wanted, low, high)

    def _weight_up_to(self, values: Tensor, centers: Tensor) -> Tensor:
        """Return the weight of the rows whose score plus center is at most ``values``."""
        found = torch.zeros_like(values)
        for at, (known, cumulated) in enumerate(self._columns):
            shifted = (values - centers[:, at]).contiguous()
            found += cumulated[torch.searchsorted(known, shifted, right=True)]
        return found

    @cached_property
    def _columns(self) -> list[tuple[Tensor, Tensor]]:
        """The ascending scores of each fold, and the weight of the rows before each of them."""
        return [
            (
                torch.tensor(each.scores, dtype=torch.float64),
                torch.tensor((0.0, *each.cumulated), dtype=torch.float64),
            )
            for each in self.folds
        ]

    def arguments(self) -> list[Mapping[str, Any]]:
        """Return JSON values, from which ``FoldScores.read`` creates equal scores."""
        return [each.arguments() for each in self.folds]

    @classmethod
    def read(cls, arguments: Sequence[Mapping[str, Any]]) -> FoldScores:
        """Return the scores from the result of ``arguments``.

        Raises:
            InputError: They are damaged.
        """
        try:
            return cls(tuple(ConformalScores.read(each) for each in arguments))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "The interval scores of the ensemble are damaged. Export it again."
            ) from error
