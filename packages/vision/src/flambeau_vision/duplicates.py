"""Pictures that are there twice: the same bytes, or nearly the same to the eye.

A picture in train and in valid makes the score too good, and one with two labels teaches neither.
Equal pictures are found by their bytes. Re-encoded and resized copies are found by a 64-bit
difference hash of their thumbnails, and each find is checked on the thumbnails themselves. Crops,
mirrored and turned copies are not found.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import InputError
from flambeau_vision.decode import decode
from flambeau_vision.opening import describe
from flambeau_vision.resize import Geometry, load_readable

MOST_COMPARED = 20_000
"""Pictures that are compared by their look at most: one core takes 1.2 s for 10,000 in memory, four
times as much for twice as many, and about 2 s for 1,000 photographs in files."""

# Re-encoded (JPEG quality 30), doubled, halved and 100 pixel wide copies of photographs of ants and
# bees differ in up to 5 bits; of the 78,000 pairs of different ones none differs in less than 7.
_MOST_BITS = 6
# Root mean square of the difference of 16 by 16 cells, in levels of 255 and as a share of the
# picture's own spread: up to 3.6 levels and 0.11 for those copies. Silhouettes on black agree in
# most bits; at 4 levels 5 of 20,000 pieces of clothing (Fashion-MNIST) have a double, all of which
# look like one photograph, where a share alone finds hundreds of different trousers.
_MOST_LEVELS = 4.0
_MOST_SHARE = 0.2
# Below this spread of the thumbnail, in levels of 255, a picture is of one colour: its hash is
# noise, and all black pictures would be copies of one another.
_FLAT_BELOW = 2.0
_THUMBNAIL = 32
_ROWS = 1024  # of the table of distances, at a time


@dataclass(frozen=True)
class Duplicate:
    """Two pictures that are one.

    Attributes:
        kind: "same" bytes (pixels where there is no file), or "near".
        rows: Their numbers, ascending.
        names: Their paths, or what they are.
        parts: "train", "valid" or "test" of each; "" where unknown.
        labels: Of each; "" where unknown.
        bits: How many of the 64 bits of their hashes differ.
    """

    kind: Literal["same", "near"]
    rows: tuple[int, int]
    names: tuple[str, str]
    parts: tuple[str, str]
    labels: tuple[str, str]
    bits: int = 0

    @property
    def crosses(self) -> bool:
        """Whether they are in different parts."""
        return self.parts[0] != self.parts[1]

    @property
    def disagrees(self) -> bool:
        """Whether their labels differ."""
        return self.labels[0] != self.labels[1]

    def __str__(self) -> str:
        first, second = (
            f"{name} ({part})" if part else name
            for name, part in zip(self.names, self.parts, strict=True)
        )
        how = "the same as" if self.kind == "same" else "nearly the same as"
        other = f"; labels {self.labels[0]} and {self.labels[1]}" if self.disagrees else ""
        return f"{first} is {how} {second}{other}"


@dataclass(frozen=True)
class Duplicates:
    """What a search found.

    Attributes:
        pairs: Those across parts first; of many copies of one picture, each is paired once.
        total: Pictures that there are; all were compared by their bytes.
        compared: Pictures that were compared by their look as well.
        flat: Pictures of one colour among those looked at; they are in no pair.
    """

    pairs: tuple[Duplicate, ...]
    total: int
    compared: int
    flat: int


def find_duplicates(
    items: Sequence[Any] | Tensor,
    parts: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    *,
    limit: int = MOST_COMPARED,
) -> list[Duplicate]:
    """The pairs of pictures that are one; see `search` for all it says."""
    return list(search(items, parts, labels, limit=limit).pairs)


def search(
    items: Sequence[Any] | Tensor,
    parts: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    *,
    limit: int = MOST_COMPARED,
    title: str | None = None,
) -> Duplicates:
    """Compares all pictures by their bytes and up to ``limit`` of them by their look.

    Args:
        items: What `flambeau_vision.decode.decode` takes, or a uint8 tensor
            ``(n, channels, height, width)``. What cannot be read is passed over.
        parts: "train", "valid" or "test" of each.
        labels: Of each, as text.
        limit: Pictures compared by their look; drawn over all where there are more, 0 for none.
        title: Shown beside a progress bar when many are decoded; None for no bar.

    Example:
        >>> images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
        >>> images[3] = images[1]
        >>> print(*search(images, ["train", "train", "valid", "valid"]).pairs)
        row 1 (train) is the same as row 3 (valid)
    """
    n = len(items)
    for name, given in (("parts", parts), ("labels", labels)):
        if given is not None and len(given) != n:
            raise InputError(f"{len(given)} {name} for {n} pictures. Give one for each.")
    parts, labels = parts or [""] * n, labels or [""] * n
    groups = [rows for rows in _by_content(items) if len(rows) > 1]
    head = {row: rows[0] for rows in groups for row in rows}
    # Of equal pictures one a part is looked at, so that near copies are found across parts too.
    same_in_part = [(head.get(row, row), part) for row, part in enumerate(parts)]
    chosen = _chosen(same_in_part, limit)
    rows, thumbnails = _thumbnails(items, sorted({*chosen, *head.values()}), title)
    spread = thumbnails.std((1, 2)).tolist() if rows else []
    flat = {row for row, levels in zip(rows, spread, strict=True) if levels < _FLAT_BELOW}
    looked_at = [place for place, row in enumerate(rows) if row in chosen]
    coloured = [place for place in looked_at if rows[place] not in flat]
    near = [
        (pair, bits)
        for pair, bits in _near([rows[place] for place in coloured], thumbnails[coloured])
        if head.get(pair[0], pair[0]) != head.get(pair[1], pair[1])
    ]
    same = [pair for rows in groups if rows[0] not in flat for pair in _linked(rows, parts)]
    named = _Named(items, parts, labels)
    pairs = [named.pair("same", pair, 0) for pair in same]
    pairs += [named.pair("near", pair, bits) for pair, bits in _once(near, parts)]
    pairs.sort(key=lambda pair: (not pair.crosses, not pair.disagrees, pair.rows))
    one_colour = sum(head.get(row, row) in flat for row in range(n))
    seen = {same_in_part[rows[place]] for place in looked_at}
    compared = sum(kind in seen for kind in same_in_part)
    return Duplicates(tuple(pairs), n, compared, one_colour)


def _chosen(kinds: Sequence[tuple[int, str]], limit: int) -> set[int]:
    """The first row of each kind, drawn where there are too many."""
    first: dict[tuple[int, str], int] = {}
    for row, kind in enumerate(kinds):
        first.setdefault(kind, row)
    rows = list(first.values())
    if len(rows) <= limit:
        return set(rows)
    drawn = torch.randperm(len(rows), generator=keyed.generator(0, "duplicates", len(kinds)))
    return {rows[place] for place in drawn[:limit].tolist()}


@dataclass(frozen=True)
class _Named:
    """What is known of the pictures, for the records."""

    items: Sequence[Any] | Tensor
    parts: Sequence[str]
    labels: Sequence[str]

    def pair(self, kind: Literal["same", "near"], rows: tuple[int, int], bits: int) -> Duplicate:
        (a, b), parts, labels = rows, self.parts, self.labels
        names = (self._name(a), self._name(b))
        return Duplicate(kind, rows, names, (parts[a], parts[b]), (labels[a], labels[b]), bits)

    def _name(self, row: int) -> str:
        item = self.items[row]
        return describe(item) if isinstance(item, str | os.PathLike) else f"row {row}"


# ---------------------------------------------------------------- the same bytes


def _by_content(items: Sequence[Any] | Tensor) -> Iterable[list[int]]:
    """Rows with equal content together."""
    groups: dict[Any, list[int]] = defaultdict(list)
    if isinstance(items, Tensor):
        for row, pixels in enumerate(items.contiguous().numpy()):
            groups[_digest(pixels)].append(row)
        return groups.values()
    sizes: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in range(len(items)):
        with suppress(OSError):
            sizes[_size(items[row])].append(row)
    for size, rows in sizes.items():
        for row in rows if len(rows) > 1 else ():
            with suppress(OSError, InputError):
                groups[size, _digest(_content(items[row]))].append(row)
    return groups.values()


def _size(item: Any) -> tuple[str, int]:
    """What is equal for equal pictures and costs nothing: only such are read."""
    if isinstance(item, str | os.PathLike):
        return "file", Path(item).stat().st_size
    if isinstance(item, bytes | bytearray | memoryview):
        return "file", len(item)
    return "pixels", 0


def _content(item: Any) -> Any:
    """Its bytes, where there is a file; else its pixels."""
    if isinstance(item, str | os.PathLike):
        return Path(item).read_bytes()
    if isinstance(item, bytes | bytearray | memoryview):
        return item
    pixels = decode(item)
    return bytes(str(pixels.shape), "ascii") + pixels.tobytes()


def _digest(content: Any) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _linked(rows: Sequence[int], parts: Sequence[str]) -> list[tuple[int, int]]:
    """Each row after the first with an earlier one, of another part where there is one."""
    pairs: list[tuple[int, int]] = []
    for place, row in enumerate(rows[1:], start=1):
        others = [other for other in rows[:place] if parts[other] != parts[row]]
        pairs.append(((others or rows)[0], row))
    return pairs


# ---------------------------------------------------------------- the same look


def _thumbnails(
    items: Sequence[Any] | Tensor, rows: list[int], title: str | None
) -> tuple[list[int], Tensor]:
    """Rows that can be read, and a grey thumbnail of each: float32 ``(n, 32, 32)``."""
    side = (_THUMBNAIL, _THUMBNAIL)
    if isinstance(items, Tensor):
        chunks = [
            F.interpolate(
                items[chunk].float().mean(1, keepdim=True), side, mode="bilinear", antialias=True
            )[:, 0]
            for chunk in torch.tensor(rows, dtype=torch.int64).split(_ROWS)
        ]
        return rows, torch.cat(chunks) if rows else torch.zeros(0, *side)
    geometry = Geometry(_THUMBNAIL, 1, "squash")
    loaded = load_readable([items[row] for row in rows], geometry, title=title)
    lost = set(loaded.unreadable)
    kept = [row for place, row in enumerate(rows) if place not in lost]
    return kept, loaded.pixels[:, 0].float()


def hashes(thumbnails: Tensor) -> Tensor:
    """The 64 bits of each picture's difference hash as -1 and 1: float32 ``(n, 64)``.

    A bit says whether a cell of the 8 by 9 cells is lighter than its neighbour on the left.

    Args:
        thumbnails: Grey, ``(n, height, width)``.

    Source:
        N. Krawetz, "Kind of like that" (2013).
    """
    cells = F.interpolate(thumbnails.unsqueeze(1), (8, 9), mode="bilinear", antialias=True)
    return (cells[:, 0].diff(dim=2) > 0).flatten(1).float() * 2 - 1


def _near(rows: list[int], thumbnails: Tensor) -> list[tuple[tuple[int, int], int]]:
    """Pairs whose hashes differ in few bits and whose thumbnails hardly differ."""
    if len(rows) < 2:
        return []
    bits = hashes(thumbnails)
    cells = F.avg_pool2d(thumbnails, 2).flatten(1)
    cells -= cells.mean(1, keepdim=True)
    power = cells.square().sum(1)
    most = torch.minimum(power * _MOST_SHARE**2, torch.tensor(cells.shape[1] * _MOST_LEVELS**2))
    found: list[tuple[tuple[int, int], int]] = []
    for start in range(0, len(rows), _ROWS):
        chunk = slice(start, start + _ROWS)
        # Of ±1 the product counts agreeing minus differing bits.
        agreeing = bits[chunk] @ bits[start:].T
        distance = power[start:] - 2 * (cells[chunk] @ cells[start:].T) + power[chunk, None]
        alike = (distance <= most[start:]) & (distance <= most[chunk, None])
        alike &= agreeing >= 64 - 2 * _MOST_BITS
        for i, j in alike.triu_(diagonal=1).nonzero().tolist():
            different = (64 - int(agreeing[i, j])) // 2
            found.append(((rows[start + i], rows[start + j]), different))
    return found


def _once(
    pairs: list[tuple[tuple[int, int], int]], parts: Sequence[str]
) -> list[tuple[tuple[int, int], int]]:
    """The nearest pair of each later row, across parts where there is one."""
    best: dict[int, tuple[bool, int, int]] = {}
    for (a, b), bits in pairs:
        offer = (parts[a] == parts[b], bits, a)
        if b not in best or offer < best[b]:
            best[b] = offer
    return [((a, b), bits) for b, (_, bits, a) in best.items()]
