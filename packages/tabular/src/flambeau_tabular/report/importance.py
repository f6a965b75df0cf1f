"""``permutation_importance``: how much worse the predictions are without a column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import ArgumentError, did_you_mean
from flambeau.report.interpretation import Interpretation
from flambeau.report.intervals import Interval, percentiles, resampled_counts
from flambeau.report.text_table import text_table
from flambeau_tabular.explain import Slots, column_slots
from flambeau_tabular.report.associations import associated_columns
from flambeau_tabular.report.measures import measures_of
from flambeau_tabular.report.scored import Scored, scored_of

_MOST_FORWARDS = 1_000_000  # rows through the model, over all columns and repeats
_RESAMPLES = 200


@dataclass(frozen=True)
class Importances(Mapping[str, Interval]):
    """Importance of each column, or group of columns, the highest first; ``print`` shows a table.

    Attributes:
        measure: The measure that gets worse, such as "log_loss".
        baseline: Its value with all columns.
        intervals: Its increase by column or group, with a 95% interval over rows.
        members: Columns of each group.
        rows: Number of rows.
        repeats: Number of permutations.
    """

    measure: str
    baseline: float
    intervals: dict[str, Interval]
    members: dict[str, tuple[str, ...]]
    rows: int
    repeats: int

    def __getitem__(self, name: str) -> Interval:
        return self.intervals[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.intervals)

    def __len__(self) -> int:
        return len(self.intervals)

    def __str__(self) -> str:
        rows = [[name, each.value, each.low, each.high] for name, each in self.intervals.items()]
        table = text_table(["column", f"increase of {self.measure}", "low", "high"], rows)
        return f"{self.measure} {self.baseline:.4g} on {self.rows:,} rows\n{table}"


def permutation_importance(
    found: Interpretation,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    repeats: int = 5,
    most_rows: int = 5_000,
    seed: int = 0,
) -> Importances:
    """Return how much the loss of the model increases if a column is permuted over the rows.

    It says how much this model uses a column, not what causes the target. Of columns that say the
    same, each one alone looks unimportant; therefore strongly associated columns are permuted
    together.

    Args:
        found: ``learner.interpret(part)`` of a learner on tables.
        groups: Columns to permute together, by name of the group; other columns are permuted alone.
            None finds columns with an association of at least 0.8.
        repeats: Number of permutations of each column.
        most_rows: Rows that are used: fewer with many columns, so that at most a million rows go
            through the model.
        seed: Seed of the permutations.

    Raises:
        ArgumentError: The report is not on a table, or a group names an unknown column.

    Source:
        Breiman, "Random forests", 2001; as in ``sklearn.inspection.permutation_importance``.
    """
    return importances_of(scored_of(found), groups, repeats, most_rows, seed)


def importances_of(
    scored: Scored,
    groups: Mapping[str, Sequence[str]] | None = None,
    repeats: int = 5,
    most_rows: int = 5_000,
    seed: int = 0,
) -> Importances:
    """Return the importances of rows that are already scored; see `permutation_importance`."""
    slots = column_slots(scored.spec)
    sampled = scored.sample(most_rows)
    members = _members(sampled, slots, groups)
    fitting = _MOST_FORWARDS // max(1, len(members) * repeats)
    sampled = sampled.sample(max(500, fitting))
    n = len(sampled)
    orders = permutations(n, repeats, seed)
    first = measures_of(sampled.problem)[0]
    weights = sampled.rows.each()
    counts = torch.ones(1, n, dtype=torch.float64)
    if sampled.rows.units > 1:
        drawn = list(resampled_counts(n, _RESAMPLES, sampled.rows.groups, seed))
        counts = torch.cat([counts, *drawn])
    counts = counts * weights
    base = first.of(sampled.predicted, sampled.rows.targets)(counts)
    found: dict[str, Interval] = {}
    for name, columns in members.items():
        losses: list[Tensor] = []
        for order in orders:
            predicted = sampled.predict(permuted(sampled.inputs, slots, columns, order))
            losses.append(first.of(predicted, sampled.rows.targets)(counts))
        change = torch.stack(losses).mean(dim=0) - base
        found[name] = Interval(float(change[0]), *percentiles(change[1:]))
    ordered = dict(sorted(found.items(), key=lambda pair: -pair[1].value))
    return Importances(first.name, float(base[0]), ordered, members, n, repeats)


def permutations(n: int, repeats: int, seed: int) -> list[Tensor]:
    """Return the orders of the rows in which the cells of a column are taken."""
    return [
        torch.randperm(n, generator=keyed.generator(seed, "importance", n, repeat))
        for repeat in range(repeats)
    ]


def permuted(
    inputs: Mapping[str, Tensor], slots: Slots, columns: Sequence[str], order: Tensor
) -> dict[str, Tensor]:
    """Return the inputs with the cells of some columns taken from other rows."""
    changed = dict(inputs)
    for column in columns:
        for tensor, where in slots[column].items():
            if changed[tensor] is inputs[tensor]:
                changed[tensor] = inputs[tensor].clone()
            changed[tensor][:, where] = inputs[tensor][order, where]
    return changed


def _members(
    scored: Scored, slots: Slots, groups: Mapping[str, Sequence[str]] | None
) -> dict[str, tuple[str, ...]]:
    if groups is None:
        found = associated_columns(scored.spec, scored.inputs)
        groups = {" + ".join(each): each for each in found}
    names = list(slots)
    for group in groups.values():
        for column in group:
            if column not in slots:
                raise ArgumentError(
                    f"A group names the column {column!r}. {did_you_mean(column, names)}"
                )
    grouped = {column for group in groups.values() for column in group}
    alone = {name: (name,) for name in names if name not in grouped}
    return {**{name: tuple(each) for name, each in groups.items()}, **alone}
