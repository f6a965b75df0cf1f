"""The n-gram baseline equals a slow implementation with dictionaries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from flambeau.errors import ArgumentError, InputError
from flambeau_text.language import KneserNey

VOCAB = 200


def stream(n: int, seed: int) -> list[int]:
    """Return ids of which few are frequent and many are rare, as in texts."""
    draws = np.random.default_rng(seed)
    ids = draws.zipf(1.4, 3 * n) - 1
    return ids[ids < VOCAB - 1][:n].tolist()


class SlowKneserNey:
    """The definition with dictionaries, one probability at a time."""

    def __init__(self, train: list[int], order: int) -> None:
        self.counts: list[Counter[tuple[int, ...]]] = []
        grams = [
            [tuple(train[at : at + n]) for at in range(len(train) - n + 1)]
            for n in range(order + 2)
        ]
        for n in range(1, order + 1):
            longest = n == order
            counted = grams[n] if longest else [gram[1:] for gram in set(grams[n + 1])]
            self.counts.append(Counter(counted))

    def probability(self, history: list[int], token: int, order: int) -> float:
        if order == 0:
            return 1.0 / VOCAB
        lower = self.probability(history, token, order - 1)
        context = tuple(history[len(history) - order + 1 :])
        counts = self.counts[order - 1]
        after = [count for gram, count in counts.items() if gram[:-1] == context]
        if len(history) < order - 1 or not after:
            return lower
        of = {k: sum(count == k for count in counts.values()) for k in (1, 2, 3, 4)}
        share = of[1] / (of[1] + 2 * of[2])
        discount = {k: k - (k + 1) * share * of[k + 1] / of[k] for k in (1, 2, 3)} | {0: 0.0}
        own = counts[(*context, token)]
        left = sum(discount[min(count, 3)] for count in after)
        return (own - discount[min(own, 3)] + left * lower) / sum(after)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_equals_the_definition(order: int) -> None:
    train, other = stream(1_500, 0), stream(40, 1)
    other[10] = VOCAB - 1  # an id that train does not have
    slow = SlowKneserNey(train, order)
    expected = [slow.probability(other[:at], token, order) for at, token in enumerate(other)]
    found = KneserNey(order).fit(train, VOCAB).log_probs(other)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-12)


def test_probabilities_of_all_tokens_sum_to_1() -> None:
    model = KneserNey(4).fit(stream(500, 0), VOCAB)
    for context in ([], [0], [0, 1], [5, 6, 6], [1, 2, 0, 1]):
        total = sum(math.exp(model.log_probs([*context, token])[-1]) for token in range(VOCAB))
        assert total == pytest.approx(1.0, abs=1e-12), context


def test_texts_without_some_counts_have_valid_probabilities() -> None:
    model = KneserNey(3).fit([0, 1, 2, 3] * 5, 5)  # no n-gram occurs once
    assert np.isfinite(model.log_probs([0, 1, 2, 3, 3])).all()
    total = sum(math.exp(model.log_probs([0, 1, token])[-1]) for token in range(5))
    assert total == pytest.approx(1.0, abs=1e-12)


def test_discounts_are_never_negative() -> None:
    # One token occurs once, one twice, and ten three times: the estimate for 2 would be -8.
    train = [0, 1, 1, *[token for token in range(2, 12) for _ in range(3)]]
    left = (1 / 3 + 0 + 10 * 3) / 33
    found = KneserNey(1).fit(train, 13).log_probs([1])
    assert math.exp(found[0]) == pytest.approx(2 / 33 + left / 13, abs=1e-12)


def test_an_empty_text_has_no_probabilities() -> None:
    assert KneserNey(2).fit([0, 1, 0, 1], 2).log_probs([]).shape == (0,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: KneserNey(0), "order=0 is invalid"),
        (lambda: KneserNey(5).fit([0, 1, 2], 3), "3 tokens; n-grams of 5 need at least 6"),
        (lambda: KneserNey(1).fit([0, 3], 3), "The id 3 is not in the vocabulary of 3"),
        (lambda: KneserNey(1).fit([0, -1], 3), "The id -1 is not"),
        (lambda: KneserNey(1).fit([[0, 1]], 3), r"shape \(1, 2\)"),
        (lambda: KneserNey(2).log_probs([0]), "no counts yet"),
    ],
)
def test_invalid_inputs_are_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises((ArgumentError, InputError), match=words):
        call()
