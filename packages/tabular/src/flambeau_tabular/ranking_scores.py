"""``ranking_scores``: recall@k and NDCG@k of recommendations beside the most popular items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from flambeau.checked_arguments import checked_count
from flambeau.errors import ArgumentError, InputError
from flambeau_tabular.collab_data import CollabData
from flambeau_tabular.models.category_embedding import FIRST_VALUE
from flambeau_tabular.recommend import Recommender, best_items

if TYPE_CHECKING:
    from flambeau.learner import Learner

_EARLIER = {
    "valid": ("train",),
    "calibration": ("train", "valid"),
    "test": ("train", "valid", "calibration"),
}
"""The parts whose items are known to a user when a part is scored."""

_USERS_AT_ONCE = 1_024


@dataclass(frozen=True)
class Ranking:
    """How many relevant items are among the first k, means over users.

    Attributes:
        recall: Share of the relevant items of a user that are among the first k, 0..1.
        ndcg: Normalised discounted cumulative gain: a hit at rank r counts 1 / log2(r + 1),
            divided by the sum of the best possible order, 0..1.
    """

    recall: float
    ndcg: float


@dataclass(frozen=True)
class RankingScores:
    """The scores of a model and of the most popular items.

    Attributes:
        model: Scores of the model.
        popularity: Scores of the items with the most train rows, the same for each user except for
            those that the user knows.
        k: Number of recommended items.
        part: The part with the relevant items.
        n_users: Users with at least one relevant item in this part.
        n_relevant: Relevant items of all these users.
        n_unknown: Of them, items that are not in train, which no ranking can contain.
        relevant_from: Lowest rating of a relevant item; None for implicit feedback.
    """

    model: Ranking
    popularity: Ranking
    k: int
    part: str
    n_users: int
    n_relevant: int
    n_unknown: int
    relevant_from: float | None

    def __str__(self) -> str:
        what = "chosen items"
        if self.relevant_from is not None:
            what = f"items rated at least {self.relevant_from:g}"
        lines = [
            f"{self.part}: {self.n_relevant:,} {what} of {self.n_users:,} users, "
            f"{self.n_unknown:,} of them not in train",
            f"{'':12}{f'recall@{self.k}':>12}{f'NDCG@{self.k}':>12}",
        ]
        for name, each in (("model", self.model), ("popularity", self.popularity)):
            lines.append(f"{name:12}{each.recall:12.4f}{each.ndcg:12.4f}")
        return "\n".join(lines)


def ranking_scores(
    learner: Learner, part: str = "valid", k: int = 10, *, relevant_from: float | None = None
) -> RankingScores:
    """Return recall@k and NDCG@k of a learner on ``CollabData``, beside the most popular items.

    All items of train are ranked for each user, except those of the user's rows in earlier parts:
    train; for the test part valid and calibration too.

    Args:
        learner: A learner on ``CollabData``.
        part: "valid", "test" or "calibration".
        k: Number of recommended items.
        relevant_from: Lowest rating of a relevant item; None is the mean of the train ratings.
            Without ratings every chosen item is relevant.

    Raises:
        ArgumentError: The learner has other data, or there is no such part.
        InputError: The part has no relevant item, or ``k`` is below 1.
    """
    data = learner.data
    if not isinstance(data, CollabData):
        raise ArgumentError(f"The learner has {type(data).__name__}, not CollabData.")
    if part not in _EARLIER:
        raise ArgumentError(f"part is {part!r}, but must be one of {', '.join(_EARLIER)}.")
    k = checked_count(k, "k", unit="items")
    relevant_from = _threshold(data, relevant_from)
    wanted = _relevant(data, part, relevant_from)
    recommender = Recommender.from_learner(learner, _EARLIER[part])
    found = _of_users(data, recommender, wanted, k)
    scores = {name: Ranking(*means) for name, means in found.means().items()}
    n = sum(map(len, wanted))
    return RankingScores(
        scores["model"],
        scores["popularity"],
        k,
        part,
        len(wanted),
        n,
        found.n_unknown,
        relevant_from,
    )


@dataclass
class _Sums:
    """Scores of the users so far."""

    rankings: dict[str, list[tuple[float, float]]]
    n_unknown: int = 0

    def means(self) -> dict[str, tuple[float, float]]:
        found = {name: np.mean(each, axis=0).tolist() for name, each in self.rankings.items()}
        return {name: (recall, ndcg) for name, (recall, ndcg) in found.items()}


def _of_users(
    data: CollabData, recommender: Recommender, wanted: Sequence[NDArray[np.int64]], k: int
) -> _Sums:
    items = recommender.preprocessor.items
    frame = data.interactions.frame
    users = frame.column(recommender.preprocessor.users.name)
    codes = items.encode(frame.column(items.name)).astype(np.int64)
    counts = np.bincount(codes[data.split.train], minlength=items.cardinality)[FIRST_VALUE:]
    popular = torch.from_numpy(counts.astype(np.float64))
    sums = _Sums({"model": [], "popularity": []})
    for start in range(0, len(wanted), _USERS_AT_ONCE):
        chunk = wanted[start : start + _USERS_AT_ONCE]
        names = users.take([int(rows[0]) for rows in chunk]).to_pylist()
        every = recommender.scores(names, exclude_seen=True)
        for scores, rows in zip(every, chunk, strict=True):
            relevant = codes[rows] - FIRST_VALUE
            sums.n_unknown += int((relevant < 0).sum())
            known = popular.masked_fill(scores.isneginf(), -torch.inf)
            for name, each in (("model", scores), ("popularity", known)):
                hits = np.isin(best_items(each, k), relevant)
                sums.rankings[name].append(_scores_of_user(hits, len(rows), k))
    return sums


def _scores_of_user(hits: NDArray[np.bool_], n_relevant: int, k: int) -> tuple[float, float]:
    """Return recall and NDCG from whether each recommended item is relevant, best first."""
    gains = 1 / np.log2(np.arange(min(k, max(n_relevant, len(hits)))) + 2)
    best = float(gains[:n_relevant].sum())
    return float(hits.sum()) / n_relevant, float(gains[: len(hits)] @ hits) / best


def _threshold(data: CollabData, relevant_from: float | None) -> float | None:
    ratings = data.interactions.ratings
    if ratings is None:
        if relevant_from is not None:
            raise InputError(
                f"relevant_from={relevant_from:g} has no meaning without ratings: every chosen "
                "item is relevant. Omit it."
            )
        return None
    if relevant_from is not None:
        return float(relevant_from)
    return float(ratings[torch.from_numpy(np.array(data.split.train))].double().mean())


def _relevant(data: CollabData, part: str, relevant_from: float | None) -> list[NDArray[np.int64]]:
    """Return the rows with the relevant items of each user that has any, by user."""
    rows = np.array(data.split.part(part))
    ratings = data.interactions.ratings
    if ratings is not None:
        rows = rows[ratings.double().numpy()[rows] >= relevant_from]
    if not len(rows):
        least = "" if relevant_from is None else f" rated at least {relevant_from:g}"
        raise InputError(
            f"The {part} part has no rows{least}, so there is nothing to find. Give {part}=, or a "
            "lower relevant_from."
        )
    users = data.interactions.users[rows]
    order = np.argsort(users, kind="stable")
    borders = np.flatnonzero(np.diff(users[order])) + 1
    return np.split(rows[order], borders)
