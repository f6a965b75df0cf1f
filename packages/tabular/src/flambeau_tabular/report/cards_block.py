"""``CardsBlock``: the cards of columns on a page, as HTML with small drawings."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from flambeau.plotting import COLOURS
from flambeau.report.blocks import Block, Table, Text
from flambeau.report.page import Section
from flambeau_tabular.report.cards import Bar, ColumnCard, ColumnCards, TargetView, bar_rows

_MOST_CARDS = 60
_WIDTH, _HEIGHT, _LINE = 240, 84, 19
_CLASSES = (COLOURS[0], COLOURS[4], COLOURS[2], COLOURS[3], COLOURS[1], COLOURS[5])
# From the lowest to the highest mean of the target: distinguishable in grey, too.
_SCALE = ((46, 64, 140), (33, 145, 140), (94, 201, 98), (253, 190, 60), (222, 73, 60))


@dataclass(frozen=True, eq=False)
class CardsBlock(Block):
    """The cards of columns in a grid.

    Attributes:
        found: The cards.
    """

    found: ColumnCards

    def html(self, number: int) -> str:
        cards = "".join(_card(card, self.found.target) for card in _shown(self.found))
        return f'{_legend(self.found.target)}<div class="tiles">{cards}</div>'

    def markdown(self) -> str:
        """Return the facts of the cards as a table."""
        return Table(*_facts(_shown(self.found))).markdown()

    def content(self) -> object:
        """Return the cards as JSON values."""
        return {"target": self.found.target.name, "columns": bar_rows(_shown(self.found))}


def columns_section(found: ColumnCards) -> Section:
    """Return the section with a card for each column."""
    target = found.target
    colours = "the target" if target.classes else f"the mean of {target.name}"
    sample = "" if found.rows == found.of else f" A random sample of {found.rows:,} is shown."
    lead = (
        f"The columns of the {found.of:,} {found.part} rows.{sample} The colours of the bars show "
        f"{colours}; the association with the target is 0 for none and 1 for the strongest."
    )
    blocks: list[Block] = [Text(lead), CardsBlock(found)]
    used = [card for card in found.cards if card.bars]
    rest = used[_MOST_CARDS:]
    if rest:
        blocks += [Text("Further columns:"), Table(*_facts(rest))]
    unused = [[card.name, card.kind, card.reason] for card in found.cards if not card.bars]
    if unused:
        blocks += [
            Text("Columns that are not used:"),
            Table(["column", "kind", "reason"], unused, prose=(2,)),
        ]
    return Section("Columns", tuple(blocks))


def _shown(found: ColumnCards) -> list[ColumnCard]:
    return [card for card in found.cards if card.bars][:_MOST_CARDS]


def _facts(cards: list[ColumnCard]) -> tuple[list[str], list[list[object]]]:
    headers = ["column", "kind", "missing", "distinct", "association", "values"]
    rows: list[list[object]] = [
        [card.name, card.kind, f"{card.missing:.1%}", card.distinct, card.association, card.facts]
        for card in cards
    ]
    return headers, rows


def _card(card: ColumnCard, target: TargetView) -> str:
    drawing = _horizontal(card, target) if card.horizontal else _vertical(card, target)
    strength = card.association
    meter = ""
    if strength is not None:
        meter = (
            f'<span title="association with the target: {strength:.2f}"><span class="meter">'
            f'<i style="width:{max(2, round(100 * strength))}%"></i></span>{strength:.2f}</span>'
        )
    missing = f"{card.missing:.1%} missing" if card.missing else "none missing"
    facts = f"{card.distinct:,} distinct · {missing}"
    return (
        f'<figure title="{escape(card.reason)}"><figcaption><b>{escape(card.name)}</b>'
        f"<em>{escape(card.kind)}</em>{meter}</figcaption>{drawing}"
        f"<figcaption>{escape(facts)}<br>{escape(card.facts)}</figcaption></figure>"
    )


def _vertical(card: ColumnCard, target: TargetView) -> str:
    """Return the distribution of a number: stacked by class, or coloured by the mean target."""
    most = max(bar.count for bar in card.bars) or 1
    width = _WIDTH / len(card.bars)
    parts: list[str] = []
    for at, bar in enumerate(card.bars):
        height = bar.count / most * (_HEIGHT - 2)
        parts.append(f"<g><title>{escape(_title(bar, target))}</title>")
        top = float(_HEIGHT)
        for colour, share in _colours(bar, target):
            top -= share * height
            parts.append(_box(at * width, top, width - 1, share * height, colour))
        parts.append("</g>")
    return _svg(card, _HEIGHT, parts)


def _horizontal(card: ColumnCard, target: TargetView) -> str:
    """Return the shares of categories, most frequent first."""
    most = max(bar.count for bar in card.bars) or 1
    total = sum(bar.count for bar in card.bars) or 1
    parts: list[str] = []
    for at, bar in enumerate(card.bars):
        y, length = at * _LINE, bar.count / most * (_WIDTH - 132)
        label = bar.label if len(bar.label) <= 15 else bar.label[:14] + "…"
        middle = y + _LINE / 2 + 3.5
        parts.append(f"<g><title>{escape(_title(bar, target))}</title>")
        parts.append(f'<text x="0" y="{middle}">{escape(label)}</text>')
        left = 94.0
        for colour, share in _colours(bar, target):
            parts.append(_box(left, y + 3, share * length, _LINE - 6, colour))
            left += share * length
        parts.append(
            f'<text x="{left + 3:.1f}" y="{middle}">{_share(bar.count / total)}</text></g>'
        )
    return _svg(card, max(_HEIGHT, _LINE * len(card.bars)), parts)


def _share(share: float) -> str:
    return "< 1%" if 0 < share < 0.005 else f"{share:.0%}"


def _svg(card: ColumnCard, height: float, parts: list[str]) -> str:
    label = f"Distribution of {card.name}"
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {_WIDTH} {height:g}" '
        f'font-size="10.5" fill="currentColor">{"".join(parts)}</svg>'
    )


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    if height <= 0 or width <= 0:
        return ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" '
        f'fill="{colour}"/>'
    )


def _colours(bar: Bar, target: TargetView) -> list[tuple[str, float]]:
    """Return colours with their share of the bar."""
    if target.classes:
        return [(_CLASSES[at % len(_CLASSES)], share) for at, share in enumerate(bar.shares)]
    return [(_scale_colour(bar.mean, target), 1.0)]


def _scale_colour(value: float | None, target: TargetView) -> str:
    low, high = target.ends
    if value is None or not low < high:
        return "#9aa6b1"
    at = min(1.0, max(0.0, (value - low) / (high - low))) * (len(_SCALE) - 1)
    first = min(int(at), len(_SCALE) - 2)
    pairs = zip(_SCALE[first], _SCALE[first + 1], strict=True)
    mixed = [round(one + (other - one) * (at - first)) for one, other in pairs]
    return f"rgb({' '.join(map(str, mixed))})"


def _title(bar: Bar, target: TargetView) -> str:
    rows = f"{bar.label}: {bar.count:,} rows"
    if target.classes:
        shares = zip(target.classes, bar.shares, strict=True)
        return f"{rows}, " + ", ".join(f"{name} {share:.0%}" for name, share in shares)
    return rows if bar.mean is None else f"{rows}, mean {target.name} {bar.mean:.4g}"


def _legend(target: TargetView) -> str:
    if target.classes:
        marks = "".join(
            f'<span><i style="background:{_CLASSES[at % len(_CLASSES)]}"></i>{escape(name)}</span>'
            for at, name in enumerate(target.classes)
        )
        return f'<p class="legend">{escape(target.name)}: {marks}</p>'
    low, high = target.ends
    stops = ",".join(f"rgb({' '.join(map(str, each))})" for each in _SCALE)
    return (
        f'<p class="legend">mean of {escape(target.name)}: {low:.4g} '
        f'<i class="scale" style="background:linear-gradient(90deg,{stops})"></i> {high:.4g}</p>'
    )
