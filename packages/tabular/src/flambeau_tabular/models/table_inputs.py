"""``TableInputs``: numbers, flags, categories and text of a row as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_tabular.models.category_embedding import CategoryEmbedding
from flambeau_tabular.models.number_embedding import (
    BiasedPeriodicEmbedding,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
)
from flambeau_tabular.models.text_bag import TextBag

Kinds = str | Sequence[tuple[str, int]]
"""Kind of the task (``Task.kind``) of all outputs; or of several tasks in the order of the outputs,
with the number of outputs of each: ``[("classification", 3), ("regression", 1)]``."""

NumberEmbedding = Literal["none", "plr", "plr_lite", "pbld", "ple"]
NUMBER_EMBEDDINGS: tuple[NumberEmbedding, ...] = ("none", "plr", "plr_lite", "pbld", "ple")
"""Names of the number embeddings."""

_WIDTHS = {"plr": 24, "plr_lite": 24, "pbld": 4, "ple": 16}
SIGMAS = {"plr": 0.05, "plr_lite": 0.05, "pbld": 0.1}
"""Standard deviation of the initial frequencies of the periodic embeddings."""


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """The columns of the encoded rows, and how they enter a model; plain JSON values.

    Attributes:
        n_numbers: Number columns.
        n_flags: Columns of 0 and 1.
        cardinalities: Number of codes of each category column, including 0 (missing) and 1
            (unknown).
        category_width: Width of the learned vectors of each category column, 0 for one-hot; None
            follows ``category_widths``.
        unknown_dropout: Probability that a known category becomes unknown in train mode.
        n_text: Text columns.
        text_width: Tokens of each text column.
        n_tokens: Number of token codes, including 0 (padding).
        text_vector: Width of the token vectors.
        number_embedding: "none" (the scaled numbers), "plr", "plr_lite", "pbld" or "ple".
        number_width: Width of the embedding of each number; None is 24 for PLR, 4 for PBLD and 16
            for PLE, the values of their authors.
        plr_sigma: Standard deviation of the initial frequencies of PLR and PBLD; None is 0.05 and
            0.1.
        ple_edges: Bin edges of each number for PLE; see ``number_embedding.ple_edges``.
        ple_version: "A" or "B"; see ``PiecewiseLinearEmbedding``.
    """

    n_numbers: int = 0
    n_flags: int = 0
    cardinalities: Sequence[int] = ()
    category_width: Sequence[int] | None = None
    unknown_dropout: float = 0.01
    n_text: int = 0
    text_width: int = 0
    n_tokens: int = 0
    text_vector: int = 32
    number_embedding: NumberEmbedding = "none"
    number_width: int | None = None
    plr_sigma: float | None = None
    ple_edges: Sequence[Sequence[float]] | None = None
    ple_version: Literal["A", "B"] = "B"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the options with these JSON values.

        Raises:
            ArgumentError: A name is not that of an attribute.
        """
        known = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in known:
                raise ArgumentError(f"Unknown input option {name!r}. {did_you_mean(name, known)}")
        return cls(**values)


class TableInputs(nn.Module):
    """The vector of an encoded row: embedded numbers, flags, categories and text, in this order.

    Args:
        options: The columns and their embeddings.

    Attributes:
        chunks: The width of each feature's part of the vector.
        width: The width of the vector.

    Raises:
        InputError: There are no columns, or an option has an invalid value.
    """

    def __init__(self, options: InputOptions) -> None:
        super().__init__()
        self.n_numbers, self.n_flags = options.n_numbers, options.n_flags
        self.n_categories = len(options.cardinalities)
        self.numbers = _number_embedding(options)
        self.categories = CategoryEmbedding(
            options.cardinalities, options.category_width, unknown_dropout=options.unknown_dropout
        )
        self.text = None
        if options.n_text:
            self.text = TextBag(
                options.n_text, options.text_width, options.n_tokens, options.text_vector
            )
        self.n_tokens = options.n_text * options.text_width
        number_width = 1 if self.numbers is None else self.numbers.width
        self.chunks = [
            *[number_width] * self.n_numbers,
            *[1] * self.n_flags,
            *self.categories.chunks,
            *([] if self.text is None else self.text.chunks),
        ]
        self.width = sum(self.chunks)
        if not self.width:
            raise InputError(
                "The table has no input columns: no numbers, flags, categories or text. Check the "
                "kinds of the columns; ids, constant and empty columns are not used."
            )

    def forward(
        self, numbers: Tensor, flags: Tensor, categories: Tensor, tokens: Tensor | None = None
    ) -> Tensor:
        """Return the vectors ``(batch, width)``.

        Args:
            numbers: Scaled numbers ``(batch, n_numbers)``, floating point, without NaN.
            flags: 0 and 1, ``(batch, n_flags)``.
            categories: Codes ``(batch, n_categories)``, any integer dtype.
            tokens: Token codes ``(batch, n_text * text_width)``, int32 or int64; None without text.

        Raises:
            InputError: A tensor has another number of columns than the model was built for.
        """
        self._check_widths(numbers, flags, categories, tokens)
        parts: list[Tensor] = []
        if self.n_numbers:
            parts.append(numbers if self.numbers is None else self.numbers(numbers).flatten(1))
        if self.n_flags:
            parts.append(flags.to(numbers.dtype))
        if self.n_categories:
            parts.append(self.categories(categories))
        if self.text is not None and tokens is not None:
            parts.append(self.text(tokens))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _check_widths(
        self, numbers: Tensor, flags: Tensor, categories: Tensor, tokens: Tensor | None
    ) -> None:
        found = (
            numbers.shape[1],
            flags.shape[1],
            categories.shape[1],
            0 if tokens is None else tokens.shape[1],
        )
        wanted = (self.n_numbers, self.n_flags, self.n_categories, self.n_tokens)
        if found != wanted:
            names = ("numbers", "flags", "categories", "tokens")
            wrong = [
                f"{has} columns of {name} instead of {needs}"
                for name, has, needs in zip(names, found, wanted, strict=True)
                if has != needs
            ]
            raise InputError(
                f"The rows have {', '.join(wrong)}. Encode them with the preprocessor of the model."
            )


def _number_embedding(
    options: InputOptions,
) -> PeriodicEmbedding | BiasedPeriodicEmbedding | PiecewiseLinearEmbedding | None:
    """Return the embedding of the numbers; None for the numbers themselves."""
    kind, n = options.number_embedding, options.n_numbers
    if kind not in NUMBER_EMBEDDINGS:
        raise InputError(
            f"Unknown number_embedding {kind!r}. {did_you_mean(str(kind), NUMBER_EMBEDDINGS)}"
        )
    if kind == "none" or not n:
        return None
    width = options.number_width or _WIDTHS[kind]
    if kind == "ple":
        edges = options.ple_edges
        if edges is None or len(edges) != n:
            has = "none" if edges is None else f"{len(edges)} lists"
            raise InputError(
                f"number_embedding='ple' needs the bin edges of each of the {n} numbers in "
                f"ple_edges, but got {has}. Compute them from the train rows with "
                "flambeau_tabular.models.ple_edges."
            )
        return PiecewiseLinearEmbedding(edges, width, version=options.ple_version)
    sigma = SIGMAS[kind] if options.plr_sigma is None else options.plr_sigma
    if kind == "pbld":
        return BiasedPeriodicEmbedding(n, width, sigma=sigma)
    return PeriodicEmbedding(n, width, sigma=sigma, lite=kind == "plr_lite")
