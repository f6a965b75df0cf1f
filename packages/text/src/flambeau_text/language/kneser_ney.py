"""``KneserNey``: the n-gram model with which the perplexity of networks is compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from flambeau.errors import ArgumentError, InputError

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length, in the order of their keys.

    An n-gram's key is ``(index of its first n - 1 tokens among those n-grams) * vocab_size + its
    last token``, so that an n-gram of any length is one integer.

    Attributes:
        keys: Sorted keys, ``(n-grams,)``.
        discounted: Count of each n-gram less its discount, ``(n-grams,)``.
        totals: Sum of the counts after each context, ``(n-grams of the order below,)``.
        left: Share of each context that the discounts leave for the order below, same shape.
    """

    keys: Ids
    discounted: Floats
    totals: Floats
    left: Floats

    def find(self, contexts: Ids, tokens: Ids, vocab_size: int) -> Ids:
        """Return the index of each n-gram; -1 for one that train does not have."""
        wanted = contexts * vocab_size + tokens
        found = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        return np.where((contexts >= 0) & (self.keys[found] == wanted), found, -1)


class KneserNey:
    """An interpolated n-gram model with modified Kneser-Ney smoothing.

    Longest n-grams have their number of occurrences as count, shorter ones the number of different
    tokens before them. Each order has three discounts, for the counts 1, 2 and more, estimated from
    the train text. The text is one stream: contexts continue over the ends of lines.

    Args:
        order: Number of tokens of the longest n-grams.

    Source:
        Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (1999),
        section 3: "interpolated modified Kneser-Ney".

    Example:
        >>> model = KneserNey(order=2).fit([0, 1, 0, 1, 0, 2, 0, 1, 2, 0, 3, 3], vocab_size=4)
        >>> model.log_probs([0, 1]).round(3)
        array([-1.517, -1.297])
    """

    def __init__(self, order: int = 5) -> None:
        if type(order) is not int or order < 1:
            raise ArgumentError(f"order={order!r} is invalid. Give a number of tokens, such as 5.")
        self.order = order
        self._orders: list[_Order] = []
        self._vocab_size = 0

    def fit(self, tokens: Sequence[int] | Ids, vocab_size: int) -> Self:
        """Count the n-grams of a stream of token ids.

        Args:
            tokens: Ids, ``(n,)``.
            vocab_size: Number of tokens of the vocabulary; ids are smaller.

        Raises:
            InputError: The stream is shorter than the longest n-gram, or has an invalid id.
        """
        stream = _stream(tokens, vocab_size)
        if len(stream) <= self.order:
            raise InputError(
                f"The text has {len(stream)} tokens; n-grams of {self.order} need at least "
                f"{self.order + 1}. Give more text or a smaller order."
            )
        self._vocab_size = vocab_size
        found = _count(stream, self.order, vocab_size)
        self._orders = [
            _smoothed(
                keys, counts.astype(np.float64), vocab_size, 1 if not n else len(found[n - 1][0])
            )
            for n, (keys, counts) in enumerate(found)
        ]
        return self

    def log_probs(self, tokens: Sequence[int] | Ids) -> Floats:
        """Return the natural logarithm of each token's probability after those before it, ``(n,)``.

        The first tokens have shorter contexts.

        Raises:
            InputError: ``fit`` has not run, or an id is invalid.
        """
        if not self._orders:
            raise InputError("The n-gram model has no counts yet. Call fit(tokens, vocab_size).")
        stream = _stream(tokens, self._vocab_size)
        probabilities = np.full(len(stream), 1.0 / self._vocab_size)
        contexts = np.zeros(len(stream), np.int64)  # there is one context of no tokens
        for order in self._orders:
            grams = order.find(contexts, stream, self._vocab_size)
            known = (contexts >= 0) & (order.totals[contexts] > 0)
            counts = np.where(grams >= 0, order.discounted[grams], 0.0)
            totals = np.where(known, order.totals[contexts], 1.0)
            interpolated = counts / totals + order.left[contexts] * probabilities
            probabilities = np.where(known, interpolated, probabilities)
            # The context of a token in the next order is the n-gram that ends before it.
            contexts = np.concatenate([[-1], grams])[: len(stream)]
        return np.log(probabilities)

    def perplexity(self, tokens: Sequence[int] | Ids) -> float:
        """Return the perplexity of a stream per token."""
        return math.exp(-float(self.log_probs(tokens).mean()))


def _stream(tokens: Sequence[int] | Ids, vocab_size: int) -> Ids:
    stream = np.asarray(tokens, np.int64)
    if stream.ndim != 1:
        raise InputError(f"Token ids have the shape {stream.shape}; give one stream, (n,).")
    if len(stream) and not 0 <= int(stream.min()) <= int(stream.max()) < vocab_size:
        bad = int(stream.min()) if stream.min() < 0 else int(stream.max())
        raise InputError(f"The id {bad} is not in the vocabulary of {vocab_size} tokens.")
    return stream


def _count(stream: Ids, order: int, vocab_size: int) -> list[tuple[Ids, Ids]]:
    """Return keys and counts of the n-grams of each length, from 1 to ``order``."""
    found: list[tuple[Ids, Ids]] = []
    starting = np.zeros(len(stream) + 1, np.int64)  # index of the n-gram that starts at a position
    for n in range(1, order + 1):
        n_starts = len(stream) - n + 1
        wanted = starting[:n_starts] * vocab_size + stream[n - 1 :]
        below = starting
        keys, first, starting, counts = np.unique(
            wanted, return_index=True, return_inverse=True, return_counts=True
        )
        if n > 1:
            # The tokens before an (n - 1)-gram: one n-gram for each that ends with it.
            suffixes = below[first + 1]
            found[-1] = (found[-1][0], np.bincount(suffixes, minlength=len(found[-1][0])))
        found.append((keys, counts))
    return found


def _smoothed(keys: Ids, counts: Floats, vocab_size: int, n_contexts: int) -> _Order:
    """Return an order with its discounts, from keys and counts of its n-grams."""
    n = [int((counts == count).sum()) for count in range(1, 5)]
    share = n[0] / (n[0] + 2 * n[1]) if n[0] else 0.0
    discounts = [0.0]
    for count in (1, 2, 3):
        ratio = n[count] / n[count - 1] if n[count - 1] else 0.0
        # In small texts the estimate may be negative.
        discounts.append(max(0.0, count - (count + 1) * share * ratio))
    discount = np.array(discounts)[counts.clip(max=3).astype(np.int64)]
    contexts = keys // vocab_size
    totals: Floats = np.bincount(contexts, counts, minlength=n_contexts).astype(np.float64)
    freed: Floats = np.bincount(contexts, discount, minlength=n_contexts).astype(np.float64)
    left = np.divide(freed, totals, out=np.ones_like(freed), where=totals > 0)
    return _Order(keys, counts - discount, totals, left)
