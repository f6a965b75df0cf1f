"""``report_sections``: the sections that tables add to a report's page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flambeau.errors import ArgumentError
from flambeau.report.blocks import Text
from flambeau.report.interpretation import Interpretation
from flambeau.report.page import Section
from flambeau.wording import first_line
from flambeau_tabular.report.baselines import Baselines
from flambeau_tabular.report.baselines_section import baselines_section
from flambeau_tabular.report.calibration_sections import coverage_section, temperature_section
from flambeau_tabular.report.cards import ColumnCards, column_cards
from flambeau_tabular.report.cards_block import columns_section
from flambeau_tabular.report.model_sections import (
    dependence_section,
    importance_section,
    importances_for_page,
)
from flambeau_tabular.report.row_sections import drift_section, slices_section
from flambeau_tabular.report.scored import Scored, scored_of

if TYPE_CHECKING:
    from flambeau_tabular.data import TabularData

_MOST_ROWS = 50_000


def report_sections(data: TabularData, found: Interpretation) -> list[Section]:
    """Return the sections of a table in the order of the page.

    Args:
        data: The data of the report.
        found: The interpretation of a model on a part of them.
    """
    baselines = found.baselines
    sections = [baselines_section(baselines)] if isinstance(baselines, Baselines) else []
    try:
        scored = scored_of(found, _MOST_ROWS)
    except ArgumentError as error:
        sections.append(Section("Model", (Text(f"Not examined: {first_line(error)}"),)))
    else:
        sections += model_sections(scored)
    cards = _cards(data, found)
    sections.append(columns_section(cards))
    return sections


def _cards(data: TabularData, found: Interpretation) -> ColumnCards:
    """Return the cards of the columns with the target; with the first of several."""
    ids = found.ids.numpy()
    if data.several_targets:
        name, targets = next(iter(data.several_targets.items()))
        data, ids = data.of_target(name), ids[~targets.missing(ids)]
    return column_cards(data) if len(data.split.train) else column_cards(data, ids, found.part)


def model_sections(scored: Scored) -> Iterator[Section]:
    """Yield the sections that need predictions of the model."""
    importances = importances_for_page(scored)
    yield importance_section(importances)
    makers: list[Callable[[Scored], Section | None]] = [
        lambda each: dependence_section(each, importances),
        temperature_section,
        coverage_section,
        slices_section,
        drift_section,
    ]
    for make in makers:
        section = make(scored)
        if section is not None:
            yield section
