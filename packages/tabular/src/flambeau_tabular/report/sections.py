"""``report_sections``: the sections that tables add to a report's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambeau.report.interpretation import Interpretation
from flambeau.report.page import Section
from flambeau_tabular.report.baselines import Baselines
from flambeau_tabular.report.baselines_section import baselines_section

if TYPE_CHECKING:
    from flambeau_tabular.data import TabularData


def report_sections(data: TabularData, found: Interpretation) -> list[Section]:
    """Return the sections of a table in the order of the page.

    Args:
        data: The data of the report.
        found: The interpretation of a model on a part of them.
    """
    baselines = found.baselines
    sections: list[Section] = []
    if isinstance(baselines, Baselines):
        sections.append(baselines_section(baselines))
    return sections
