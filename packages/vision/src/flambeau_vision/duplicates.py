"""Find duplicate images: identical bytes, or near-duplicates by perceptual hash.

A duplicate in train and valid makes validation metrics too good, and one with two labels is label
noise. Exact duplicates are found by their bytes. Re-encoded and resized copies are found by a
64-bit difference hash of their thumbnails, and each candidate is verified on the thumbnails
themselves. Cropped, flipped and rotated copies are not found.
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
from flambeau_vision.load_images import load_readable
from flambeau_vision.open_image import item_name
from flambeau_vision.resize import Geometry

MAX_COMPARED = 20_000
"""The most images compared by perceptual hash: one core takes 1.2 s for 10,000 in memory, four
times as much for twice as many, and about 2 s for 1,000 photographs in files."""

# Re-encoded (JPEG quality 30), doubled, halved and 100 pixel wide copies of photographs of ants and
# bees differ in up to 5 bits; of the 78,000 pairs of different photographs none differs in less
# than 7.
_MAX_BITS = 6
# Root mean square difference of 16 by 16 cells, in levels of 255 and as a share of the image's own
# standard deviation: up to 3.6 levels and 0.11 for those copies. Silhouettes on black agree in most
# bits; at 4 levels 5 of 20,000 pieces of clothing (Fashion-MNIST) have a near-duplicate, all of
# which look like one photograph, where the share alone matches hundreds of different trousers.
_MAX_LEVELS = 4.0
_MAX_SHARE = 0.2
# Below this standard deviation of the thumbnail, in levels of 255, an image has a uniform colour:
# its hash is noise, and all black images would match each other.
_UNIFORM_BELOW = 2.0
_THUMBNAIL = 32
_ROWS = 1024  # rows of the distance matrix computed at a time


@dataclass(frozen=True)
class Duplicate:
    """A pair of duplicate images.

    Attributes:
        kind: "exact" for identical bytes (pixels for items that are not files), or "near".
        rows: Row numbers of the two images, ascending.
        names: Paths or row numbers of the two images, for messages.
        parts: "train", "valid" or "test" of each; "" if unknown.
        labels: The label of each; "" if unknown.
        bits: Number of differing bits in the two 64-bit hashes.
    """

    kind: Literal["exact", "near"]
    rows: tuple[int, int]
    names: tuple[str, str]
    parts: tuple[str, str]
    labels: tuple[str, str]
    bits: int = 0

    @property
    def across_parts(self) -> bool:
        """Whether the two images are in different parts."""
        return self.parts[0] != self.parts[1]

    @property
    def labels_differ(self) -> bool:
        """Whether the labels of the two images differ."""
        return self.labels[0] != self.labels[1]

    def __str__(self) -> str:
        first, second = (
            f"{name} ({part})" if part else name
            for name, part in zip(self.names, self.parts, strict=True)
        )
        how = "is identical to" if self.kind == "exact" else "is a near-duplicate of"
        other = f"; labels {self.labels[0]} and {self.labels[1]}" if self.labels_differ else ""
        return f"{first} {how} {second}{other}"


@dataclass(frozen=True)
class Duplicates:
    """The result of a search for duplicates.

    Attributes:
        pairs: The pairs, those across parts first; each further copy of an image is in one pair.
        total: Number of images; all were compared by their bytes.
        compared: Number of images that were also compared by perceptual hash.
        uniform: Number of images with a uniform colour among those; they are in no pair.
    """

    pairs: tuple[Duplicate, ...]
    total: int
    compared: int
    uniform: int


def find_duplicates(
    items: Sequence[Any] | Tensor,
    parts: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    *,
    limit: int = MAX_COMPARED,
) -> list[Duplicate]:
    """Return the pairs of duplicate images; `search_duplicates` also returns counts."""
    return list(search_duplicates(items, parts, labels, limit=limit).pairs)


def search_duplicates(
    items: Sequence[Any] | Tensor,
    parts: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    *,
    limit: int = MAX_COMPARED,
    title: str | None = None,
) -> Duplicates:
    """Compare all images by their bytes and up to ``limit`` images by perceptual hash.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts, or a uint8 tensor
            ``(n, channels, height, width)``. Unreadable items are skipped.
        parts: "train", "valid" or "test" of each item.
        labels: Label of each item, as text.
        limit: The most images compared by perceptual hash; a random selection if there are more, 0
            for none.
        title: Label of the progress bar while many images are decoded; None shows no bar.

    Example:
        >>> images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
        >>> images[3] = images[1]
        >>> print(*search_duplicates(images, ["train", "train", "valid", "valid"]).pairs)
        row 1 (train) is identical to row 3 (valid)
    """
    n = len(items)
    for name, given in (("parts", parts), ("labels", labels)):
        if given is not None and len(given) != n:
            raise InputError(f"There are {len(given)} {name} for {n} images. Give one for each.")
    parts, labels = parts or [""] * n, labels or [""] * n
    groups = [rows for rows in _group_by_content(items) if len(rows) > 1]
    head = {row: rows[0] for rows in groups for row in rows}
    # One of identical images per part is compared, so that near-duplicates of it are found across
    # parts too.
    content_and_part = [(head.get(row, row), part) for row, part in enumerate(parts)]
    selected = _select_rows(content_and_part, limit)
    rows, thumbnails = _thumbnails(items, sorted({*selected, *head.values()}), title)
    spread = thumbnails.std((1, 2)).tolist() if rows else []
    uniform = {row for row, levels in zip(rows, spread, strict=True) if levels < _UNIFORM_BELOW}
    compared = [index for index, row in enumerate(rows) if row in selected]
    textured = [index for index in compared if rows[index] not in uniform]
    near = [
        (pair, bits)
        for pair, bits in _near_pairs([rows[index] for index in textured], thumbnails[textured])
        if head.get(pair[0], pair[0]) != head.get(pair[1], pair[1])
    ]
    exact = [pair for rows in groups if rows[0] not in uniform for pair in _link(rows, parts)]
    described = _Described(items, parts, labels)
    pairs = [described.pair("exact", pair, 0) for pair in exact]
    pairs += [described.pair("near", pair, bits) for pair, bits in _nearest_only(near, parts)]
    pairs.sort(key=lambda pair: (not pair.across_parts, not pair.labels_differ, pair.rows))
    n_uniform = sum(head.get(row, row) in uniform for row in range(n))
    seen = {content_and_part[rows[index]] for index in compared}
    n_compared = sum(kind in seen for kind in content_and_part)
    return Duplicates(tuple(pairs), n, n_compared, n_uniform)


def _select_rows(kinds: Sequence[tuple[int, str]], limit: int) -> set[int]:
    """Return the first row of each content and part, at most ``limit`` rows (drawn at random)."""
    first: dict[tuple[int, str], int] = {}
    for row, kind in enumerate(kinds):
        first.setdefault(kind, row)
    rows = list(first.values())
    if len(rows) <= limit:
        return set(rows)
    drawn = torch.randperm(len(rows), generator=keyed.generator(0, "duplicates", len(kinds)))
    return {rows[index] for index in drawn[:limit].tolist()}


@dataclass(frozen=True)
class _Described:
    """Items with their parts and labels, from which the records are built."""

    items: Sequence[Any] | Tensor
    parts: Sequence[str]
    labels: Sequence[str]

    def pair(self, kind: Literal["exact", "near"], rows: tuple[int, int], bits: int) -> Duplicate:
        (a, b), parts, labels = rows, self.parts, self.labels
        names = (self._name(a), self._name(b))
        return Duplicate(kind, rows, names, (parts[a], parts[b]), (labels[a], labels[b]), bits)

    def _name(self, row: int) -> str:
        item = self.items[row]
        return item_name(item) if isinstance(item, str | os.PathLike) else f"row {row}"


# ---------------------------------------------------------------- identical bytes


def _group_by_content(items: Sequence[Any] | Tensor) -> Iterable[list[int]]:
    """Return the rows grouped by identical content."""
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


def bytes_to_compare(items: Sequence[Any]) -> int:
    """Return how many bytes a comparison of the contents reads: those of items of equal size."""
    sizes: dict[tuple[str, int], int] = defaultdict(int)
    for item in items:
        with suppress(OSError):
            sizes[_size(item)] += 1
    return sum(size * count for (_, size), count in sizes.items() if count > 1)


def _size(item: Any) -> tuple[str, int]:
    """Return a cheap key that identical items share: only items with equal keys are read."""
    if isinstance(item, str | os.PathLike):
        return "file", Path(item).stat().st_size
    if isinstance(item, bytes | bytearray | memoryview):
        return "file", len(item)
    if hasattr(item, "load_image"):  # not read for a comparison
        return "data set", id(item)
    return "pixels", 0


def _content(item: Any) -> Any:
    """Return the bytes of a file; else the pixels."""
    if isinstance(item, str | os.PathLike):
        return Path(item).read_bytes()
    if isinstance(item, bytes | bytearray | memoryview):
        return item
    pixels = decode(item)
    return bytes(str(pixels.shape), "ascii") + pixels.tobytes()


def _digest(content: Any) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _link(rows: Sequence[int], parts: Sequence[str]) -> list[tuple[int, int]]:
    """Pair each row after the first with an earlier one, preferably of another part."""
    pairs: list[tuple[int, int]] = []
    for index, row in enumerate(rows[1:], start=1):
        others = [other for other in rows[:index] if parts[other] != parts[row]]
        pairs.append(((others or rows)[0], row))
    return pairs


# ---------------------------------------------------------------- near-duplicates


def _thumbnails(
    items: Sequence[Any] | Tensor, rows: list[int], title: str | None
) -> tuple[list[int], Tensor]:
    """Return the readable rows, and a grey thumbnail of each: float32 ``(n, 32, 32)``."""
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
    unreadable = set(loaded.unreadable)
    kept = [row for index, row in enumerate(rows) if index not in unreadable]
    return kept, loaded.pixels[:, 0].float()


def difference_hash(thumbnails: Tensor) -> Tensor:
    """Return the 64-bit difference hash of each image: float32 ``(n, 64)`` with bits -1 and 1.

    A bit is 1 if a cell of the 8 by 9 cells is lighter than its left neighbour.

    Args:
        thumbnails: Grey, ``(n, height, width)``.

    Source:
        N. Krawetz, "Kind of like that" (2013).
    """
    cells = F.interpolate(thumbnails.unsqueeze(1), (8, 9), mode="bilinear", antialias=True)
    return (cells[:, 0].diff(dim=2) > 0).flatten(1).float() * 2 - 1


def _near_pairs(rows: list[int], thumbnails: Tensor) -> list[tuple[tuple[int, int], int]]:
    """Return pairs whose hashes differ in few bits and whose thumbnails are similar."""
    if len(rows) < 2:
        return []
    bits = difference_hash(thumbnails)
    cells = F.avg_pool2d(thumbnails, 2).flatten(1)
    cells -= cells.mean(1, keepdim=True)
    power = cells.square().sum(1)
    most = torch.minimum(power * _MAX_SHARE**2, torch.tensor(cells.shape[1] * _MAX_LEVELS**2))
    found: list[tuple[tuple[int, int], int]] = []
    for start in range(0, len(rows), _ROWS):
        chunk = slice(start, start + _ROWS)
        # The dot product of ±1 bits is the number of equal bits minus that of differing ones.
        n_equal_bits = bits[chunk] @ bits[start:].T
        distance = power[start:] - 2 * (cells[chunk] @ cells[start:].T) + power[chunk, None]
        similar = (distance <= most[start:]) & (distance <= most[chunk, None])
        similar &= n_equal_bits >= 64 - 2 * _MAX_BITS
        for i, j in similar.triu_(diagonal=1).nonzero().tolist():
            different = (64 - int(n_equal_bits[i, j])) // 2
            found.append(((rows[start + i], rows[start + j]), different))
    return found


def _nearest_only(
    pairs: list[tuple[tuple[int, int], int]], parts: Sequence[str]
) -> list[tuple[tuple[int, int], int]]:
    """Return the nearest pair of each later row, preferably across parts."""
    best: dict[int, tuple[bool, int, int]] = {}
    for (a, b), bits in pairs:
        candidate = (parts[a] == parts[b], bits, a)
        if b not in best or candidate < best[b]:
            best[b] = candidate
    return [((a, b), bits) for b, (_, bits, a) in best.items()]
