"""``column_cards``: kind, missing cells, distribution and relation to the target of each column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flambeau_tabular.column_kind import UNUSED
from flambeau_tabular.report.associations import association
from flambeau_tabular.report.scored import sampled
from flambeau_tabular.report.views import View, view_of

if TYPE_CHECKING:
    from flambeau_tabular.data import TabularData

_MOST_ROWS, _BINS, _MOST_CATEGORIES, _MOST_CLASSES = 20_000, 20, 6, 5


@dataclass(frozen=True, eq=False)
class Bar:
    """A bin of a number, or a category.

    Attributes:
        label: Its range or name.
        count: Number of rows.
        shares: Share of each class among them; empty if the target is a number.
        mean: Mean of the target among them; None if the target is a class.
    """

    label: str
    count: int
    shares: tuple[float, ...] = ()
    mean: float | None = None


@dataclass(frozen=True, eq=False)
class ColumnCard:
    """What is known about a column, from train rows.

    Attributes:
        name: Name of the column.
        kind: Its kind.
        reason: Why it has this kind.
        missing: Share of missing cells.
        distinct: Number of distinct values.
        facts: Further facts as text, such as the quartiles.
        association: Association with the target, 0..1; None if it is not known.
        bars: The distribution.
        horizontal: Whether the bars are categories.
    """

    name: str
    kind: str
    reason: str
    missing: float
    distinct: int
    facts: str
    association: float | None
    bars: tuple[Bar, ...]
    horizontal: bool


@dataclass(frozen=True, eq=False)
class TargetView:
    """The target of the train rows, as classes or as a number.

    Attributes:
        name: What the colours show.
        values: Class numbers, or numbers, ``(n,)``.
        classes: Names of the classes; empty for numbers.
    """

    name: str
    values: NDArray[np.float64]
    classes: tuple[str, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """The 10% and the 90% quantile of numbers, the ends of the scale of colours."""
        low, high = np.quantile(self.values, [0.1, 0.9])
        return float(low), float(high)


@dataclass(frozen=True, eq=False)
class ColumnCards:
    """The cards of all columns, and what the colours of their bars mean.

    Attributes:
        target: The target of the rows.
        cards: The cards; columns that are not used have no bars.
        rows: Number of rows that were counted.
        of: Number of rows of the part.
        part: Name of the part.
    """

    target: TargetView
    cards: tuple[ColumnCard, ...]
    rows: int
    of: int
    part: str = "train"


def column_cards(
    data: TabularData, ids: NDArray[np.int64] | None = None, part: str = "train"
) -> ColumnCards:
    """Return a card for each column, from at most 20,000 rows.

    Args:
        data: The data.
        ids: Row numbers; None for the train rows.
        part: Name of the part of the rows.
    """
    ids = data.split.train if ids is None else ids
    rows = sampled(ids, _MOST_ROWS, "column cards")
    target = target_view(data, rows)
    cards: list[ColumnCard] = []
    for name, kind in data.columns.items():
        view = None if kind.kind in UNUSED else view_of(data.frame, name, kind, rows)
        if view is None or view.missing.all():
            cards.append(ColumnCard(name, kind.kind, kind.reason, 0.0, 0, "", None, (), False))
        else:
            cards.append(_card(view, kind.reason, target))
    return ColumnCards(target, tuple(cards), len(rows), len(ids), part)


def target_view(data: TabularData, rows: NDArray[np.int64]) -> TargetView:
    """Return the target of rows; of several numbers the first, of labels the number of labels."""
    values = data.targets.values[rows].double().numpy()
    names = data.targets.names
    title = str(data.reading_options["target"])
    if data.targets.kind == "multi_label":
        return TargetView("number of labels", values.sum(axis=1), ())
    if data.targets.kind == "regression":
        columns = values.reshape(len(rows), -1)
        return TargetView(names[0] if len(names) > 1 else title, columns[:, 0], ())
    counts = np.bincount(values.astype(np.int64), minlength=len(names))
    if len(names) <= _MOST_CLASSES + 1:
        return TargetView(title, values, tuple(names))
    kept = np.sort(np.argsort(-counts, kind="stable")[:_MOST_CLASSES])
    table = np.full(len(names), _MOST_CLASSES)
    table[kept] = np.arange(_MOST_CLASSES)
    shown = (*(names[at] for at in kept), f"{len(names) - _MOST_CLASSES} others")
    return TargetView(title, table[values.astype(np.int64)].astype(np.float64), shown)


def _card(view: View, reason: str, target: TargetView) -> ColumnCard:
    known = ~view.missing
    coded = view.codes is not None
    cells = np.asarray(view.codes, np.float64) if coded else np.asarray(view.numbers)
    strength = association(cells[known], coded, target.values[known], bool(target.classes))
    if coded:
        bars, facts, distinct = _category_bars(view, target)
    else:
        bars, facts, distinct = _number_bars(view, target)
    missing = float(view.missing.mean())
    return ColumnCard(view.name, view.kind, reason, missing, distinct, facts, strength, bars, coded)


def _number_bars(view: View, target: TargetView) -> tuple[tuple[Bar, ...], str, int]:
    numbers = np.asarray(view.numbers)
    known = numbers[~view.missing]
    distinct = len(np.unique(known))
    low, high = np.quantile(known, [0.005, 0.995])
    if not low < high:
        low, high = known.min(), known.max()
    clipped = np.clip(numbers, low, high)
    edges = np.linspace(low, high, (min(_BINS, distinct) if distinct > 1 else 1) + 1)
    bins = np.where(view.missing, -1, np.searchsorted(edges[1:-1], clipped, side="right"))
    bars = tuple(
        _bar(f"{view.text(edges[at])} to {view.text(edges[at + 1])}", bins == at, target)
        for at in range(len(edges) - 1)
    )
    quarter = [view.text(each) for each in np.quantile(known, [0, 0.5, 1])]
    what = "words: " if view.kind == "text" else ""
    return bars, f"{what}{quarter[0]} … median {quarter[1]} … {quarter[2]}", distinct


def _category_bars(view: View, target: TargetView) -> tuple[tuple[Bar, ...], str, int]:
    codes = np.asarray(view.codes)
    counts = np.bincount(codes[codes >= 0], minlength=len(view.names))
    order = np.argsort(-counts, kind="stable")
    shown = order[:_MOST_CATEGORIES]
    if view.kind == "ordered":
        shown = np.sort(shown)
    bars = [_bar(view.names[at], codes == at, target) for at in shown.tolist()]
    rest = order[_MOST_CATEGORIES:]
    if len(rest):
        bars.append(_bar(f"{len(rest):,} others", np.isin(codes, rest), target))
    top = int(order[0])
    return tuple(bars), f"most frequent: {view.names[top]}", len(view.names)


def _bar(label: str, chosen: NDArray[np.bool_], target: TargetView) -> Bar:
    values, n = target.values[chosen], int(chosen.sum())
    if target.classes:
        counts = np.bincount(values.astype(np.int64), minlength=len(target.classes))
        return Bar(label, n, tuple((counts / max(1, n)).tolist()))
    return Bar(label, n, (), float(values.mean()) if n else None)


def bar_rows(cards: Sequence[ColumnCard]) -> list[dict[str, object]]:
    """Return the cards as JSON values."""
    return [
        {
            "column": card.name,
            "kind": card.kind,
            "reason": card.reason,
            "missing": card.missing,
            "distinct": card.distinct,
            "facts": card.facts,
            "association": card.association,
            "bars": [
                {
                    "label": bar.label,
                    "rows": bar.count,
                    "shares": list(bar.shares),
                    "mean": bar.mean,
                }
                for bar in card.bars
            ],
        }
        for card in cards
    ]
