"""``fit_data``: the arguments of ``fit`` as ``TabularData``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_consistent_length
from torch import Tensor

from flambeau.data.checked_weights import checked_weights
from flambeau.data.row_codes import number_values
from flambeau.data.split_request import SplitRequest
from flambeau.data.targets import Targets
from flambeau.errors import ArgumentError, InputError
from flambeau_tabular.assemble import with_separate_parts
from flambeau_tabular.columns import Frame, infer_kinds
from flambeau_tabular.data import TabularData
from flambeau_tabular.options import TabularOptions
from flambeau_tabular.sklearn.read_targets import ReadTargets
from flambeau_tabular.structure import Structure

_OF_TARGETS = ("classes", "sep", "like")


@dataclass(frozen=True)
class FitRows:
    """The rows of a fit, before they are split.

    Attributes:
        frame: The columns of ``X``.
        numbers: Columns that are numbers because ``X`` is an array of numbers.
        read: What was read from ``y``.
        weights: Sample weights ``(n,)``; None for equal ones.
        groups: The group of each row as a number; None without groups.
    """

    frame: Frame
    numbers: Sequence[str]
    read: ReadTargets
    weights: Tensor | None = None
    groups: NDArray[np.int64] | None = None

    def without_weight_zero(self) -> FitRows:
        """Return the rows with a weight above 0: a row of weight 0 is as good as absent."""
        if self.weights is None or bool((self.weights > 0).all()):
            return self
        kept = np.flatnonzero(self.weights.numpy() > 0)
        return FitRows(
            self.frame.take(kept),
            self.numbers,
            replace(self.read, targets=self.read.targets.select(kept)),
            self.weights[torch.from_numpy(kept)],
            None if self.groups is None else self.groups[kept],
        )


def fit_rows(
    frame: Frame, numbers: Sequence[str], read: ReadTargets, sample_weight: Any, groups: Any
) -> FitRows:
    """Return the rows of a fit; rows of weight 0 are left out.

    Raises:
        ValueError: Lengths differ; a weight is negative or not finite, or all are 0; or a group is
            missing.
    """
    check_consistent_length(frame.table, read.targets.values, sample_weight, groups)
    weights = codes = None
    if sample_weight is not None:
        weights = _weights_of(sample_weight)
    if groups is not None:
        codes, _ = number_values(groups, "groups")
    return FitRows(frame, numbers, read, weights, codes).without_weight_zero()


def fit_data(
    rows: FitRows, valid: FitRows | None, options: TabularOptions, request: SplitRequest
) -> TabularData:
    """Return the data of a fit.

    Args:
        rows: Rows to train on, from which the request draws parts.
        valid: Separate validation rows; None draws them.
        options: How the columns are read.
        request: Sizes of the parts and seed.

    Raises:
        ArgumentError: An option does not apply, or two arguments contradict each other.
        SplitError: The parts cannot be formed.
    """
    _check_options(options, rows)
    targets, weights, groups, given = rows.read.targets, rows.weights, rows.groups, None
    frame = rows.frame
    if valid is not None:
        frame, given = with_separate_parts(frame, replace(request, valid=valid.frame))
        targets = _joined(targets, valid.read.targets)
        weights = _joined_weights(rows, valid)
        groups = _joined_groups(rows, valid)
    for name in (*options.drop, *(options.kinds or {})):
        frame.column(name)  # raises for a column that does not exist
    structure = Structure.of(frame, options)
    if weights is not None:
        weights = weights.to(torch.get_default_dtype())
        structure = replace(structure, weights=weights)
    if groups is not None:
        structure = replace(structure, groups=groups)
    split = request.resolve(
        len(frame),
        given=given,
        classes=targets.values.numpy() if targets.kind == "classification" else None,
        class_names=targets.names,
        groups=structure.groups,
        times=structure.times,
        embargo=options.embargo,
    )
    unused = {*options.drop, *(name for role, name in options.roles.items() if role != "time")}
    numbers = [name for name in rows.numbers if name not in unused]
    kinds = {**_numbers(frame, split.train, numbers), **(options.kinds or {})}
    return TabularData(
        frame,
        targets,
        split,
        options.updated({"kinds": kinds or None}),
        target_names=targets.names if targets.kind == "regression" else ("y",),
        structure=structure,
        notes=split.notes,
        label_type=rows.read.label_type,
    )


def _numbers(frame: Frame, train: NDArray[np.int64], names: Sequence[str]) -> dict[str, str]:
    """Return the kind "number" for these columns, except those without two train values."""
    kinds = infer_kinds(frame.drop(set(frame.column_names) - set(names)), train) if names else {}
    return {
        name: "number" for name, kind in kinds.items() if kind.kind not in ("constant", "empty")
    }


def _weights_of(sample_weight: Any) -> Tensor:
    array = np.asarray(sample_weight, dtype=np.float64)
    if array.ndim == 1 and len(array) and not array.any():
        raise InputError(
            "All sample weights are zero, so no row counts. Give at least one weight above 0."
        )
    return checked_weights(torch.tensor(array))


def _check_options(options: TabularOptions, rows: FitRows) -> None:
    for name in _OF_TARGETS:
        if getattr(options, name) is not None:
            raise ArgumentError(
                f"options has {name}={getattr(options, name)!r:.60}, which does not apply here: "
                "the estimator reads the targets from y. Omit it."
            )
    kind = rows.read.targets.kind
    if options.kind not in (None, kind):
        raise ArgumentError(
            f"options has task={options.task!r}, but the targets in y are for {kind!r}. Use "
            "FlambeauClassifier for classes and labels, FlambeauRegressor for numbers."
        )
    for role, value in (("weight", rows.weights), ("group", rows.groups)):
        column = getattr(options, role)
        if column is not None and value is not None:
            argument = "sample_weight" if role == "weight" else "groups"
            raise ArgumentError(
                f"fit got {argument}, and options names the column {column!r} with the {role} of "
                "each row. Give one of them."
            )
    if options.embargo is not None and options.time is None:
        raise InputError("embargo needs time=…, the column from which it is measured.")
    if options.time is not None and rows.groups is not None:
        raise ArgumentError(
            f"options names the column {options.time!r} with the time of each row, by which rows "
            "are split, so groups would have no effect. Omit one of them."
        )


def _joined(targets: Targets, other: Targets) -> Targets:
    if targets.kind != other.kind or targets.values.shape[1:] != other.values.shape[1:]:
        raise InputError(
            f"y_val has shape {tuple(other.values.shape)} ({other.kind}), but y has "
            f"{tuple(targets.values.shape)} ({targets.kind}). Give targets of one form."
        )
    # Of float32 and float64 the result is float64.
    return replace(targets, values=torch.cat([targets.values, other.values]))


def _joined_weights(rows: FitRows, valid: FitRows) -> Tensor | None:
    if rows.weights is None and valid.weights is None:
        return None
    each = [
        torch.ones(len(part.frame)).double() if part.weights is None else part.weights
        for part in (rows, valid)
    ]
    return torch.cat(each)


def _joined_groups(rows: FitRows, valid: FitRows) -> NDArray[np.int64] | None:
    if rows.groups is None:
        return None
    # Groups of validation rows are unknown; parts are drawn from the train rows alone.
    own = np.arange(len(valid.frame)) + rows.groups.max() + 1
    return np.concatenate([rows.groups, own])
