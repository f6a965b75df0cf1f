"""``TabularFacts``: measurements of the train rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from flambeau.data.facts import Facts

if TYPE_CHECKING:
    from typing import Required

    from typing_extensions import ReadOnly


class ColumnDescription(TypedDict):
    """Kind of a column, the reason, and the numbers that it is based on."""

    kind: str
    reason: str
    evidence: Mapping[str, Any]
    confidence: float


class TabularFacts(Facts, total=False):
    """Core's facts, and the columns of the table.

    Attributes:
        columns: Each column that can be an input, by name.
        roles: Columns of time, group and weight by their role.
        label_kind: The task that follows from the targets.
        target_names: Names of the target columns.
        target_reason: The property of the targets that decided the task.
        n_rows: Number of rows in all parts.
        target_whole: Whether all train targets are whole numbers.
        target_zeros: Share of the train targets that are 0.
        csv: How the text file was read, as the attributes of `CsvDialect`; None for other sources.
        several_targets: For targets of several kinds: task, and the ``target_*`` and ``class_*``
            facts of each target by name.
    """

    columns: ReadOnly[Required[Mapping[str, ColumnDescription]]]
    roles: ReadOnly[Mapping[str, str]]
    label_kind: ReadOnly[Required[str]]
    target_names: ReadOnly[list[str]]
    target_reason: ReadOnly[str]
    n_rows: ReadOnly[int]
    target_whole: ReadOnly[bool]
    target_zeros: ReadOnly[float]
    csv: ReadOnly[Mapping[str, Any] | None]
    several_targets: ReadOnly[Mapping[str, Mapping[str, Any]]]
