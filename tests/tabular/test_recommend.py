"""Recommendations and their scores against slow loops, from a learner and from an export."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import ndcg_score

from flambeau import Learner
from flambeau.errors import ArgumentError, ArtefactError, InputError
from flambeau_tabular import CollabData, CollabOptions, Recommender, TabularData, ranking_scores
from flambeau_tabular.ranking_scores import Ranking


def factors(seed: int = 0, users: int = 150, items: int = 80, width: int = 4) -> np.ndarray:
    """Preferences ``(users, items)`` of a stated structure: latent factors and item biases."""
    draws = np.random.default_rng(seed)
    of_users, of_items = draws.normal(size=(users, width)), draws.normal(size=(items, width))
    return of_users @ of_items.T / math.sqrt(width) + 0.5 * draws.normal(size=items)


def choices(n_each: int = 15) -> dict[str, Any]:
    """Choose items with probabilities that grow with the preference (Gumbel's trick)."""
    liked = factors()
    noise = np.random.default_rng(1).gumbel(size=liked.shape)
    items = np.argsort(-(2 * liked + noise), axis=1)[:, :n_each]
    return {"user": np.repeat(np.arange(len(liked)), n_each), "item": items.reshape(-1)}


def ratings() -> dict[str, Any]:
    liked, draws = factors(), np.random.default_rng(2)
    user, item = np.nonzero(draws.random(liked.shape) < 0.3)
    stars = 3 + liked[user, item] + draws.normal(0, 0.3, len(user))
    return {"user": user, "item": item, "stars": stars.clip(1, 5)}


def small(*, rated: bool = False, **more: Any) -> Learner:
    """A learner with random weights that are not small, on few users."""
    rows = ratings() if rated else choices()
    keep = (rows["user"] < 20) & (rows["item"] < 30)
    rows = {name: cells[keep] for name, cells in rows.items()}
    names = {"user": "user", "item": "item", **({"rating": "stars"} if rated else {})}
    learner = Learner(CollabData.from_df(rows, **names, **more), quiet=True, seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.normal_(0, 0.5)
    return learner


def slow_scores(learner: Learner, user: Any) -> dict[int, float]:
    """Predict each item of train for a user, one after the other."""
    items = learner.predictor().preprocessor.item_values()
    found = learner.predict([{"user": user, "item": item} for item in items])
    values = [
        each.values["stars"] if hasattr(each, "values") else each.probabilities["chosen"]
        for each in found
    ]
    return dict(zip(items, values, strict=True))


def seen(learner: Learner, user: Any, *parts: str) -> set[int]:
    data = learner.data
    frame = data.interactions.frame.take(np.concatenate([data.split.part(p) for p in parts]))
    rows = zip(frame.column("user").to_pylist(), frame.column("item").to_pylist(), strict=True)
    return {item for other, item in rows if other == user}


# ---------------------------------------------------------------- recommendations


@pytest.mark.parametrize("rated", [False, True])
def test_recommendations_equal_a_slow_loop(rated: bool) -> None:
    learner = small(rated=rated)
    recommender = Recommender.from_learner(learner)
    for user, found in zip([3, 7], recommender.recommend([3, 7], k=5), strict=True):
        scores, known = slow_scores(learner, user), seen(learner, user, "train", "valid")
        assert set(recommender.seen_by(user)) == known & set(scores)
        free = {item: score for item, score in scores.items() if item not in known}
        wanted = sorted(free, key=lambda item: -free[item])[:5]
        assert [each.item for each in found] == wanted
        assert [each.score for each in found] == pytest.approx([free[i] for i in wanted], rel=1e-6)
        every = recommender.recommend(user, k=5, exclude_seen=False)
        assert [e.item for e in every] == sorted(scores, key=lambda item: -scores[item])[:5]
    everything = recommender.recommend(3, k=1_000)
    assert len(everything) == len(recommender.preprocessor.item_values()) - len(
        recommender.seen_by(3)
    )


def test_users_are_compared_by_value_and_come_in_many_forms() -> None:
    recommender = Recommender.from_learner(small())
    wanted = recommender.recommend([3, 7], k=4)
    for users in (["3", "7"], np.array([3, 7]), pd.Series([3, 7]), (3.0, 7.0)):
        assert recommender.recommend(users, k=4) == wanted
    assert recommender.recommend(np.int64(7), k=4) == wanted[1]
    assert recommender.recommend([], k=4) == []


def test_a_new_user_gets_the_items_by_their_biases() -> None:
    learner = small()
    recommender = Recommender.from_learner(learner)
    model = learner.model
    vectors, biases = (t.weight.detach() for t in model.items.tables)
    with torch.no_grad():
        model.users.tables[0].weight[1] = 0.0
    found = recommender.recommend("somebody new", k=6)
    wanted = biases[2:, 0].argsort(descending=True)[:6].tolist()
    items = recommender.preprocessor.item_values()
    assert [each.item for each in found] == [items[at] for at in wanted]
    # In general by the vector of unknown users too.
    with torch.no_grad():
        model.users.tables[0].weight[1] = vectors[5] * 3
    scores = (vectors[2:] @ (vectors[5] * 3)) + biases[2:, 0]
    assert recommender.recommend("new", k=1)[0].item == items[int(scores.argmax())]


def test_an_export_recommends_without_what_it_is_told(tmp_path: Path) -> None:
    learner = small(valid=0.25)
    folder = learner.export(tmp_path / "plain")
    assert not (folder / "preprocessor.safetensors").exists()  # no user's choices
    plain = Recommender.load(folder)
    with pytest.raises(InputError, match=r"store_seen=True.*seen=frame.*exclude_seen=False"):
        plain.recommend(3)
    whole = Recommender.from_learner(learner)
    assert plain.recommend(3, exclude_seen=False) == whole.recommend(3, exclude_seen=False)
    rows = learner.data.interactions.frame.table.to_pandas()
    told = Recommender.load(folder, seen=rows)
    assert told.recommend([3, 7]) == whole.recommend([3, 7])
    # A user of the table that the model does not know.
    new = Recommender.load(folder, seen={"user": ["new"] * 2, "item": [2, 999]})
    assert 2 not in {each.item for each in new.recommend("new", k=100)}
    assert 2 in {each.item for each in new.recommend("other", k=100)}


def test_an_export_contains_what_users_know_if_asked(tmp_path: Path) -> None:
    learner = small(options=CollabOptions(store_seen=True))
    loaded = Recommender.load(learner.export(tmp_path / "export"))
    of_train = Recommender.from_learner(learner, ["train"])
    assert loaded.recommend([3, 7]) == of_train.recommend([3, 7])
    assert set(loaded.seen_by(3)) == seen(learner, 3, "train")


def test_invalid_requests_are_refused(tmp_path: Path) -> None:
    learner = small()
    recommender = Recommender.from_learner(learner)
    for k in (0, -1, 1.5, True):
        with pytest.raises((ArgumentError, InputError), match="whole number of items"):
            recommender.recommend(3, k=k)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"user.*is missing"):
        recommender.recommend([3, None])
    with pytest.raises(InputError, match="no column 'item'"):
        Recommender(learner.predictor(), {"user": [1]})
    frame = {"x": np.arange(40) * 0.3, "y": ["a", "b"] * 20}
    other = Learner(TabularData.from_df(frame, "y"), quiet=True)
    with pytest.raises(ArgumentError, match="TabularData"):
        Recommender.from_learner(other)
    with pytest.raises(ArgumentError, match="TabularData"):
        ranking_scores(other)
    with pytest.raises(ArtefactError, match="no export of a model for CollabData"):
        Recommender.load(other.export(tmp_path / "other"))


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("rated", [False, True])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_scores_equal_a_slow_loop_and_scikit_learn(rated: bool, part: str) -> None:
    learner = small(rated=rated, valid=0.3, test=0.2)
    data, k = learner.data, 7
    found = ranking_scores(learner, part, k)
    earlier = ("train",) if part == "valid" else ("train", "valid", "calibration")
    frame = data.interactions.frame
    users, items = (frame.column(name).to_pylist() for name in ("user", "item"))
    train = set(data.split.train.tolist())
    stars = data.interactions.ratings
    least = -np.inf if stars is None else float(stars.double()[sorted(train)].mean())
    relevant: dict[int, set[int]] = {}
    for row in data.split.part(part).tolist():
        if stars is None or float(stars[row]) >= least:
            relevant.setdefault(users[row], set()).add(items[row])
    counts = {item: sum(items[row] == item for row in train) for item in items}
    order = learner.predictor().preprocessor.item_values()
    sums = {"model": np.zeros(2), "popularity": np.zeros(2)}
    for user, wanted in relevant.items():
        known = seen(learner, user, *earlier)
        free = [item for item in order if item not in known]
        scores = slow_scores(learner, user)
        for name, values in (("model", scores), ("popularity", counts)):
            ranked = sorted(free, key=lambda item: -values[item])
            hits = [item in wanted for item in ranked[:k]]
            gain = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(hits))
            best = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(wanted))))
            sums[name] += [sum(hits) / len(wanted), gain / best]
            if wanted <= set(free):
                # scikit-learn needs scores without ties: minus the rank.
                truth = [[item in wanted for item in ranked]]
                assert ndcg_score(truth, [-np.arange(len(ranked))], k=k) == pytest.approx(
                    gain / best
                )
    for name, each in sums.items():
        recall, ndcg = each / len(relevant)
        got: Ranking = getattr(found, name)
        assert (got.recall, got.ndcg) == pytest.approx((recall, ndcg), abs=1e-9)
    assert (found.n_users, found.n_relevant) == (
        len(relevant),
        sum(map(len, relevant.values())),
    )
    assert found.n_unknown == sum(len(w - set(order)) for w in relevant.values())
    assert f"recall@{k}" in str(found)


def test_scores_that_have_no_meaning_are_refused() -> None:
    learner = small(valid=0)
    with pytest.raises(InputError, match="valid part has no rows"):
        ranking_scores(learner)
    with pytest.raises(ArgumentError, match="part is 'train'"):
        ranking_scores(learner, "train")
    with pytest.raises(InputError, match="no meaning without ratings"):
        ranking_scores(learner, relevant_from=4)
    with pytest.raises(InputError, match="rated at least 9"):
        ranking_scores(small(rated=True), relevant_from=9)


def test_a_trained_model_is_better_than_the_most_popular_items() -> None:
    options = CollabOptions(leave_last="valid")
    rows = choices()
    order = np.random.default_rng(0).permutation(len(rows["user"]))
    rows = {name: cells[order] for name, cells in rows.items()}
    data = CollabData.from_df(rows, user="user", item="item", options=options)
    learner = Learner(data, quiet=True)
    learner.fit()
    found = ranking_scores(learner)
    assert found.n_users == 150
    # Biases alone give about the popularity; the factors must add to it.
    assert found.model.recall > found.popularity.recall + 0.1
    assert found.model.ndcg > 1.3 * found.popularity.ndcg
    # Unknown users are trained: a new one gets items that many users chose.
    counts = np.bincount(rows["item"], minlength=80)
    best = [each.item for each in Recommender.from_learner(learner).recommend("new", k=10)]
    assert counts[best].mean() > 1.5 * counts.mean()


def test_a_trained_model_predicts_ratings_better_than_means_of_users_and_items() -> None:
    rows = ratings()
    data = CollabData.from_df(rows, user="user", item="item", rating="stars")
    learner = Learner(data, quiet=True)
    learner.fit()
    user, item, stars = (rows[name] for name in ("user", "item", "stars"))
    train, valid = data.split.train, data.split.valid
    # Least squares of one effect for each user and item: the best additive model.
    columns = np.zeros((len(user), 150 + 80))
    columns[np.arange(len(user)), user] = 1
    columns[np.arange(len(user)), 150 + item] = 1
    effects = np.linalg.lstsq(columns[train], stars[train], rcond=None)[0]
    additive = np.sqrt(np.mean((columns[valid] @ effects - stars[valid]) ** 2))
    assert learner.evaluate()["rmse"] < 0.75 * additive
