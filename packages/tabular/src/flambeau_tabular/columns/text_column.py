"""``TextColumn``: encode a column of free text as hashed words."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flambeau_tabular.columns.cells import as_text, pc
from flambeau_tabular.columns.column_check import ColumnCheck

# Longer words are cut into pieces: compounds, and languages without spaces.
_LONGEST_WORD, _PIECE = 12, 6
# The width holds this share of the train texts whole.
_WHOLE = 0.95


@dataclass(frozen=True)
class TextColumn:
    """A column of free text as a bag of hashed words; texts that are too long are cut.

    Words are runs of letters and digits in lower case; words of more than 12 characters are cut
    into pieces of 6. A word has the number CRC-32(word) modulo (buckets - 1), plus 1.

    Attributes:
        name: Name of the column.
        buckets: Number of different tokens, with 0 for padding.
        width: Number of tokens that hold 95 % of the train texts whole.
        missing: Share of missing cells in train.
    """

    name: str
    buckets: int
    width: int
    missing: float

    kind: ClassVar[str] = "text"

    @classmethod
    def fit(
        cls,
        name: str,
        cells: pa.ChunkedArray,
        rows: NDArray[np.int64] | None,
        buckets: int,
        most: int,
    ) -> TextColumn:
        """Return the column fitted on these rows; its width is at most ``most``."""
        texts = as_text(cells, name)
        missing = np.asarray(texts.is_null().to_numpy())
        counts = np.bincount(_words(texts, buckets)[0], minlength=len(texts))
        if rows is not None:
            counts, missing = counts[rows], missing[rows]
        known = np.sort(counts[~missing])
        width = int(known[int(_WHOLE * (len(known) - 1))]) if len(known) else 1
        return cls(name, buckets, min(max(width, 1), most), float(missing.mean()))

    def encode(self, cells: pa.ChunkedArray, width: int) -> NDArray[np.int32]:
        """Return the tokens ``(n, width)``; a missing text has padding only."""
        rows, tokens = _words(as_text(cells, self.name), self.buckets)
        encoded = np.zeros((len(cells), width), np.int32)
        starts = np.searchsorted(rows, np.arange(len(cells)))
        position = np.arange(len(rows)) - starts[rows]
        kept = position < width
        encoded[rows[kept], position[kept]] = tokens[kept]
        return encoded

    def check(self, cells: pa.ChunkedArray) -> ColumnCheck:
        """Return the share of missing cells."""
        texts = as_text(cells, self.name)
        return ColumnCheck.of(self.kind, np.asarray(texts.is_null().to_numpy()))

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TextColumn:
        """Return the column of `to_json`."""
        return cls(**values)


def _words(texts: pa.ChunkedArray, buckets: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the row and the token of each piece of a word, in order."""
    lists = pc.split_pattern_regex(pc.utf8_lower(texts), r"[^\pL\pM\pN]+")
    rows = pc.list_parent_indices(lists).to_numpy()
    words = pc.list_flatten(lists).dictionary_encode().unify_dictionaries()
    if words.num_chunks == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int32)
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in words.chunks])
    pieces = [_pieces(word) for word in words.chunk(0).dictionary.to_pylist()]
    sizes = np.array([len(each) for each in pieces], np.int64)
    tokens = np.array(
        [zlib.crc32(piece.encode()) % (buckets - 1) + 1 for each in pieces for piece in each],
        np.int32,
    )
    # Each word is replaced by its pieces: position `starts[code] + 0, 1, …` of `tokens`.
    starts = np.cumsum(sizes) - sizes
    repeats = sizes[codes]
    first = np.repeat(np.cumsum(repeats) - repeats, repeats)
    within = np.arange(int(repeats.sum())) - first
    return np.repeat(rows, repeats), tokens[np.repeat(starts[codes], repeats) + within]


def _pieces(word: str) -> list[str]:
    if len(word) <= _LONGEST_WORD:
        return [word] if word else []
    return [word[start : start + _PIECE] for start in range(0, len(word), _PIECE)]
