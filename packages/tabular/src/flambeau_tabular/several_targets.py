"""Several targets at once, each read like a single one: classes, numbers, yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from flambeau.data.facts import IGNORED
from flambeau.data.targets import Targets
from flambeau.errors import InputError, did_you_mean
from flambeau_tabular.columns import Frame
from flambeau_tabular.columns.category_column import is_numeric
from flambeau_tabular.columns.cell_error import numbered_as
from flambeau_tabular.columns.cells import as_numbers, value_type
from flambeau_tabular.options import TabularOptions
from flambeau_tabular.predicted_frame import LabelType, label_type_of
from flambeau_tabular.target import missing_targets, targets_of
from flambeau_tabular.target_columns import SEVERAL


def are_of_several_kinds(frame: Frame, names: Sequence[str], options: TabularOptions) -> bool:
    """Return whether the target columns need a task each.

    So it is if the user says so, or if some are classes (text, True and False, or 0 and 1) and
    others numbers. Columns of 0 and 1 alone are labels, and columns of numbers alone numbers.

    Raises:
        InputError: ``target_tasks`` or ``target_classes`` names another column.
    """
    for option in ("target_tasks", "target_classes"):
        for name in getattr(options, option) or {}:
            if name not in names:
                raise InputError(
                    f"{option} has {name!r}, which is not a target. {did_you_mean(name, names)}"
                )
    if len(names) < 2:
        if options.target_tasks or options.target_classes or options.task == SEVERAL:
            raise InputError(
                f"target_tasks, target_classes and task={SEVERAL!r} are for several targets, but "
                f"the only target is {names[0]!r}. Pass TabularOptions(task=…) or (classes=…)."
            )
        return False
    if options.target_tasks or options.target_classes or options.task == SEVERAL:
        return True
    if options.task is not None:
        return False
    kinds = [_kind(frame.column(name)) for name in names]
    return "text" in kinds or len(set(kinds)) > 1


def _kind(cells: pa.ChunkedArray) -> str:
    """Return "flag" for True and False or 0 and 1, "number", or "text" for anything else."""
    if pa.types.is_boolean(value_type(cells)):
        return "flag"
    if not is_numeric(cells):
        return "text"
    numbers = as_numbers(cells, "")
    known = numbers[~np.isnan(numbers)]
    return "flag" if bool(((known == 0) | (known == 1)).all()) else "number"


def targets_by_name(
    frame: Frame, names: Sequence[str], options: TabularOptions
) -> tuple[dict[str, Targets], dict[str, LabelType]]:
    """Return the targets by name, and the types of class labels that are not text.

    Rows without a target have -100 as their class and NaN as their number.

    Raises:
        InputError: The cells of a target cannot be used, or an option is for one target only.
    """
    for option in ("classes", "sep", "costs"):
        if getattr(options, option) is not None:
            instead = "target_classes={column: […]}" if option == "classes" else "one target"
            raise InputError(
                f"{option}= is for a single target, but there are {len(names)}. Use {instead}."
            )
    found: dict[str, Targets] = {}
    types: dict[str, LabelType] = {}
    for name in names:
        cells = frame.column(name)
        missing = missing_targets(cells)
        known = replace(frame, table=frame.table.select([name]), index=None)
        known = known.take(np.flatnonzero(~missing))
        own = _own_options(known, name, options)
        with numbered_as(known.rows):
            targets = targets_of(known, [name], own)
        if targets.kind == "multi_label":
            raise InputError(
                f"The target {name!r} has several labels in a cell, which cannot be predicted "
                f"beside others. Predict it alone: target={name!r}."
            )
        found[name] = _with_missing(targets, missing)
        kind = label_type_of(cells.type, targets.names)
        if targets.kind == "classification" and kind is not None:
            types[name] = kind
    return found, types


def _own_options(frame: Frame, name: str, options: TabularOptions) -> TabularOptions:
    """Return the options with which one of several targets is read like a single one."""
    if not len(frame):
        raise InputError(f"The target {name!r} is missing in all rows. Leave it out.")
    task = (options.target_tasks or {}).get(name)
    classes = (options.target_classes or {}).get(name)
    if classes is not None:
        task = task or "classification"
    elif task is None:
        kind = _kind(frame.column(name))
        task = None if kind == "text" else "classification" if kind == "flag" else "regression"
    return replace(
        options, task=task, classes=classes, target_tasks=None, target_classes=None, like=None
    )


def _with_missing(targets: Targets, missing: NDArray[np.bool_]) -> Targets:
    """Return targets of all rows, given those of the rows where they are not missing."""
    if not missing.any():
        return targets
    is_class = targets.kind == "classification"
    values = torch.full(
        (len(missing),), IGNORED if is_class else torch.nan, dtype=targets.values.dtype
    )
    values[torch.from_numpy(~missing)] = targets.values
    n = int(missing.sum())
    return replace(targets, values=values, reason=f"{targets.reason}; {n:,} rows lack it")
