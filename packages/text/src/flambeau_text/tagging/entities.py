"""Entities in tags such as B-PER and I-PER: their spans, and their precision, recall and F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau.task.metrics import SumMetric

_PREFIXES = "OBIES"
_O, _B, _I, _E, _S = range(len(_PREFIXES))
_OTHER_NAMES = {"M": "I", "L": "E", "U": "S"}
"""Prefixes of the schemes BMES and BILOU, and what they are called here."""


@dataclass(frozen=True)
class Entity:
    """A span of words of one type.

    Attributes:
        type: The type, without the prefix: "PER".
        start: Index of the first word.
        end: Index after the last word.
    """

    type: str
    start: int
    end: int


def split_tag(tag: str) -> tuple[str, str] | None:
    """Return prefix and type of a tag; None if it has neither the form "O" nor "B-PER".

    The prefixes L and U (BILOU) and M (BMES) are those that mean the same: E, S and I. A prefix
    alone, as for entities of one type or the words of a text without spaces, has the type "_".

    Example:
        >>> split_tag("B-PER"), split_tag("U-PER"), split_tag("B"), split_tag("O")
        (('B', 'PER'), ('S', 'PER'), ('B', '_'), ('O', ''))
        >>> split_tag("NOUN") is None
        True
    """
    if tag == "O":
        return "O", ""
    prefix, separator, kind = tag.partition("-")
    prefix = _OTHER_NAMES.get(prefix, prefix)
    kind = kind if separator else "_"
    return (prefix, kind) if kind and prefix in ("B", "I", "E", "S") else None


def are_entities(tags: Sequence[str]) -> bool:
    """Return whether all tags mark entities, and one of them does."""
    found = [split_tag(tag) for tag in tags]
    return all(found) and any(each and each[0] != "O" for each in found)


def nearly_entities(tags: Sequence[str]) -> str | None:
    """Return a tag for which the others do not mark entities; None if they mark none at all.

    Example:
        >>> nearly_entities(["O", "PER", "LOC"]), nearly_entities(["NOUN", "VERB"])
        ('PER', None)
    """
    odd = [tag for tag in tags if split_tag(tag) is None]
    # "O" in lower case is a usual way to write tags, too.
    return odd[0] if odd and any(tag in ("O", "o") or split_tag(tag) for tag in tags) else None


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """Return the entities in the tags of a sentence, in their order.

    An entity begins at B or S, at a change of type, and at I or E after O, E or S; it ends after E
    or S, before B, S or O, and at a change of type. So tags that violate their scheme (I-PER after
    O) count, too, as in the evaluation of CoNLL-2000 and in seqeval's default mode.

    Args:
        tags: Tags of the words: "O", or a prefix with a type; see `split_tag`.

    Raises:
        ValueError: A tag has another form.

    Example:
        >>> entities_of(["B-PER", "I-PER", "O", "I-LOC"])
        [Entity(type='PER', start=0, end=2), Entity(type='LOC', start=3, end=4)]
    """
    parts = [_checked(tag) for tag in tags]
    names = list(dict.fromkeys(kind for _, kind in parts))
    prefixes = torch.tensor([[_PREFIXES.index(prefix) for prefix, _ in parts]])
    kinds = torch.tensor([[names.index(kind) for _, kind in parts]])
    if not parts:
        return []
    starts, ends = _spans(prefixes, kinds)
    return [
        Entity(parts[at][1], at, int(ends[0, at]) + 1)
        for at in torch.nonzero(starts[0]).flatten().tolist()
    ]


def _checked(tag: str) -> tuple[str, str]:
    found = split_tag(tag)
    if found is None:
        raise ValueError(f"{tag!r} is no tag of an entity: write O, or B-TYPE and I-TYPE.")
    return found


def _spans(prefixes: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Return where entities start, and for each position the next position where one ends.

    Args:
        prefixes: Number of the prefix of each tag, ``(batch, words)``.
        kinds: Number of the type of each tag, ``(batch, words)``; that of O is not read.
    """
    before, kind_before = _shifted(prefixes, 1), _shifted(kinds, 1)
    after, kind_after = _shifted(prefixes, -1), _shifted(kinds, -1)
    inside = prefixes != _O
    changes = (before != _O) & (kind_before != kinds)
    starts = inside & ((prefixes == _B) | (prefixes == _S) | _is_in(before, _E, _S, _O) | changes)
    ends = inside & (_is_in(prefixes, _E, _S) | _is_in(after, _B, _S, _O) | (kind_after != kinds))
    positions = torch.arange(prefixes.shape[1], device=prefixes.device).expand_as(prefixes)
    last = torch.where(ends, positions, prefixes.shape[1])
    # The smallest end at or after each position.
    following = last.flip(1).cummin(1).values.flip(1)
    return starts, following


def _shifted(values: Tensor, by: int) -> Tensor:
    """Return the value of the word before (1) or after (-1) each word; 0 beyond the sentence."""
    zeros = values.new_zeros(len(values), 1)
    parts = (zeros, values[:, :-1]) if by == 1 else (values[:, 1:], zeros)
    return torch.cat(parts, 1)


def _is_in(values: Tensor, *numbers: int) -> Tensor:
    return torch.isin(values, torch.tensor(numbers, device=values.device))


class EntityF1(SumMetric):
    """F1 over all entities: one is right if type, first and last word are; see `entities_of`.

    Args:
        classes: The tags in the order of the class numbers.
        ignore_index: Target of words that do not count, which end a sentence.
    """

    higher_is_better = True

    def __init__(self, classes: Sequence[str], ignore_index: int = -100) -> None:
        super().__init__()
        parts = [_checked(tag) for tag in classes]
        kinds = list(dict.fromkeys(kind for _, kind in parts))
        self._prefixes = torch.tensor([_PREFIXES.index(prefix) for prefix, _ in parts])
        self._kinds = torch.tensor([kinds.index(kind) for _, kind in parts])
        self.ignore_index = ignore_index

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Add logits ``(batch, classes, words)`` and class numbers ``(batch, words)``."""
        counts = targets != self.ignore_index
        predicted = self._entities(outputs.argmax(1), counts)
        expected = self._entities(targets.clamp(min=0), counts)
        same = predicted[0] & expected[0] & (predicted[1] == expected[1])
        same &= predicted[2] == expected[2]
        for name, found in (("right", same), ("predicted", predicted[0]), ("target", expected[0])):
            self.add(name, found.sum())

    def _entities(self, tags: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return starts, ends and types."""
        prefixes = torch.where(counts, self._prefixes.to(tags.device)[tags], _O)
        kinds = self._kinds.to(tags.device)[tags]
        return (*_spans(prefixes, kinds), kinds)

    def compute(self) -> float:
        """Return 2 · right / (predicted + target); 0 without any entity."""
        sums = {name: float(self.sums.get(name, torch.zeros(()))) for name in _SUMS}
        total = sums["predicted"] + sums["target"]
        return 2.0 * sums["right"] / total if total else 0.0


_SUMS = ("right", "predicted", "target")
