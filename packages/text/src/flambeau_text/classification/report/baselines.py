"""``text_baselines``: linear models of words beside a network, where scikit-learn is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.report.baselines import baseline_scores
from flambeau.report.interpretation import Interpretation
from flambeau.task.metrics import Metric, score
from flambeau.task.task import Task
from flambeau_text.classification.assemble import texts_of
from flambeau_text.word_count import script_of

if TYPE_CHECKING:
    from flambeau_text.classification.data import TextData

TFIDF, NB_SVM = "TF-IDF + linear", "NB-SVM"
"""Names of the baselines."""

_MOST_TRAIN = 100_000
_FEWEST_TRAIN = 20
_SCRIPT_SAMPLE = 1_000
_SMALLEST = 1e-7  # of a probability


@dataclass(frozen=True)
class _Rows:
    """Texts, their targets and weights, without features for core's linear model."""

    texts: list[str]
    targets: Mapping[str, Tensor]
    sample_weight: Tensor | None
    inputs: Mapping[str, Tensor]

    @classmethod
    def of(cls, data: TextData, rows: NDArray[np.int64]) -> _Rows:
        at = torch.from_numpy(rows)
        targets = {"target": data.targets.values[at]}
        texts = [joined_text(data, row) for row in rows.tolist()]
        return cls(texts, targets, data.weights_of(rows), {})


def joined_text(data: TextData, row: int) -> str:
    """Return the text of a row, or both texts of a pair as one."""
    found = texts_of(data.samples, row)
    return found if isinstance(found, str) else "\n".join(found)


def text_baselines(data: TextData, found: Interpretation) -> dict[str, dict[str, float]] | None:
    """Return the scores of a constant prediction and of linear models of words, by name.

    "TF-IDF + linear" is logistic regression (ridge regression for numbers) on the TF-IDF of words
    and word pairs with C = 10, "NB-SVM" logistic regression on words and word pairs weighted by the
    log-count ratio of naive Bayes. They are fitted on at most 100,000 train texts.

    Args:
        data: The data, whose train texts are used.
        found: The interpretation of a model on a part.

    Returns:
        None if the report is not on a held-out part of these data, or the task is not known.

    Source:
        Wang and Manning, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification",
        2012.
    """
    task, train = found.task, data.split.train
    rows = found.ids.numpy()
    if task.kind not in ("classification", "multi_label", "regression"):
        return None
    if found.part == "train" or len(train) < _FEWEST_TRAIN or bool(np.isin(train, rows).any()):
        return None
    fitted, scored = _Rows.of(data, _sampled(train)), _Rows.of(data, rows)
    scores = baseline_scores(fitted, scored, task)
    if find_spec("sklearn") is None:
        return scores
    models: dict[str, _Fit] = {TFIDF: _fit_tfidf}
    if task.kind != "regression":
        models[NB_SVM] = _fit_nb_svm
    for name, fit in models.items():
        outputs = fit(task, fitted, scored.texts)
        scores[name] = _scores_of(task, outputs, scored)
    return scores


_Fit = Callable[[Task, _Rows, Sequence[str]], Tensor]


def _sampled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(rows) <= _MOST_TRAIN:
        return rows
    draws = torch.randperm(len(rows), generator=keyed.generator(0, "text baselines"))
    return rows[np.sort(draws[:_MOST_TRAIN].numpy())]


def _scores_of(task: Task, outputs: Tensor, scored: _Rows) -> dict[str, float]:
    metrics: dict[str, Metric] = {**task.loss_metrics(), **task.metrics()}
    batch = Batch({"input": outputs}, scored.targets, sample_weight=scored.sample_weight)
    task.update(metrics, outputs, batch)
    return {name: score(metric) for name, metric in metrics.items()}


def _words(texts: Sequence[str]) -> dict[str, Any]:
    """Return how a vectorizer of scikit-learn finds tokens: words, or characters without spaces."""
    if script_of(list(texts[:_SCRIPT_SAMPLE])) is not None:
        return {"analyzer": "char", "ngram_range": (1, 3)}
    return {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}


def _fit_tfidf(task: Task, train: _Rows, texts: Sequence[str]) -> Tensor:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    vectorizer = TfidfVectorizer(sublinear_tf=True, **_words(train.texts))
    x, at = vectorizer.fit_transform(train.texts), vectorizer.transform(texts)
    weights = None if train.sample_weight is None else train.sample_weight.numpy()
    target = train.targets["target"]
    if task.kind == "regression":
        y = task.standardise(target).reshape(len(target), -1).double().numpy()
        values = Ridge(alpha=1.0).fit(x, y, sample_weight=weights).predict(at)
        return torch.from_numpy(np.asarray(values, np.float64).reshape(len(texts), -1))
    columns = [
        _log_odds(x, y, at, weights, C=10.0) for y in _yes_columns(target, task.n_outputs or 0)
    ]
    return _as_outputs(np.stack(columns, 1), target)


def _fit_nb_svm(task: Task, train: _Rows, texts: Sequence[str]) -> Tensor:
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(binary=True, **_words(train.texts))
    x: Any = vectorizer.fit_transform(train.texts)
    at: Any = vectorizer.transform(texts)
    weights = None if train.sample_weight is None else train.sample_weight.numpy()
    target = train.targets["target"]
    columns: list[NDArray[np.float64]] = []
    for y in _yes_columns(target, task.n_outputs or 0):
        ratio = log_count_ratio(x, y)
        columns.append(_log_odds(x.multiply(ratio).tocsr(), y, at.multiply(ratio).tocsr(), weights))
    return _as_outputs(np.stack(columns, 1), target)


def log_count_ratio(counts: Any, yes: NDArray[np.bool_], alpha: float = 1.0) -> NDArray[np.float64]:
    """Return for each word the log of its share in texts of a class over that in the others.

    Args:
        counts: Sparse matrix ``(texts, words)`` of 0 and 1.
        yes: Which texts are of the class, ``(texts,)``.
        alpha: Smoothing count of each word.
    """
    inside = alpha + np.asarray(counts[yes].sum(0)).ravel()
    outside = alpha + np.asarray(counts[~yes].sum(0)).ravel()
    return np.log(inside / inside.sum()) - np.log(outside / outside.sum())


def _yes_columns(target: Tensor, n: int) -> list[NDArray[np.bool_]]:
    """Return for each class or label which texts have it."""
    if target.ndim == 2:
        return [target[:, column].bool().numpy() for column in range(n)]
    return [(target == number).numpy() for number in range(n)]


def _log_odds(
    x: Any,
    yes: NDArray[np.bool_],
    at: Any,
    weights: Any,
    *,
    C: float = 1.0,  # noqa: N803
) -> NDArray[np.float64]:
    """Return the log-odds of one class against the others, by logistic regression."""
    from sklearn.linear_model import LogisticRegression

    if yes.all() or not yes.any():
        share = (yes.sum() + 1) / (len(yes) + 2)
        return np.full(at.shape[0], np.log(share / (1 - share)))
    model = LogisticRegression(C=C, solver="liblinear", max_iter=200, random_state=0)
    model.fit(x, yes, sample_weight=weights)
    return np.asarray(model.decision_function(at), np.float64)


def _as_outputs(log_odds: NDArray[np.float64], target: Tensor) -> Tensor:
    """Return logits: of labels the log-odds; of classes the logs of shares that add up to 1."""
    found = torch.from_numpy(log_odds)
    if target.ndim == 2:
        return found
    shares = found.sigmoid().clamp(_SMALLEST, 1.0)
    return (shares / shares.sum(1, keepdim=True)).log()
