"""``decode_columns``: the predictions of many samples as columns, without an object per sample."""

# The functions here are the vectorised form of the tasks' own ``decode``.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.prediction_columns import columns_of, fields_of, nested_name
from flambeau.errors import InputError
from flambeau.task.class_validation import check_logits
from flambeau.task.classification import Classification, Prediction, SetPrediction
from flambeau.task.combined import CombinedTask
from flambeau.task.multi_label import MultiLabel, MultiLabelPrediction
from flambeau.task.numerics import as_real, predicted_labels, to_rows
from flambeau.task.quantiles import QuantileEstimate, QuantileRegression
from flambeau.task.regression import Estimate, IntervalEstimate, Regression
from flambeau.task.task import Task

Columns = dict[str, Any]
"""Columns by name, each an array or a list with one entry per sample."""


@runtime_checkable
class DecodesColumns(Protocol):
    """A task with its own method to decode many samples at once."""

    def decode_columns(self, outputs: Any) -> Mapping[str, Any]:
        """Return the fields of ``decode`` as columns by name: arrays or lists of one length."""
        ...


def decode_columns(task: Task, outputs: Any, n: int) -> Columns:
    """Return the fields of the predictions that ``task.decode`` returns, as columns.

    Names and values are those of ``columns_of(task.decode(outputs))``. For core's tasks no object
    is created per sample, except the lists of several labels of a sample. A task that overrides
    ``decode`` is decoded by it, unless it is a ``DecodesColumns``.

    Args:
        task: The task.
        outputs: What ``predict`` returned, on the CPU.
        n: Number of samples.

    Returns:
        Float64 and object arrays ``(n,)``, or lists, by name.

    Raises:
        InputError: There is not one prediction per sample.
    """
    if isinstance(task, DecodesColumns):
        found = dict(task.decode_columns(outputs))
    else:
        own = _VECTORISED.get(type(task).decode)
        found = columns_of(task.decode(outputs)) if own is None else own(task, outputs, n)
    for name, values in found.items():
        if len(values) != n:
            raise InputError(
                f"{type(task).__name__} decodes {len(values)} predictions ({name!r}) for {n} "
                "inputs. It must return one for each input."
            )
    return found


def joined(parts: Sequence[Columns]) -> Columns:
    """Return the columns of consecutive samples as one; a column that a part lacks is None there.

    >>> joined([{"label": ["ant"]}, {"label": ["bee"], "score": [0.5]}])
    {'label': ['ant', 'bee'], 'score': [None, 0.5]}
    """
    found: Columns = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        sizes = [len(next(iter(part.values()))) for part in parts]
        columns = [part.get(name, [None] * size) for part, size in zip(parts, sizes, strict=True)]
        if all(isinstance(each, np.ndarray) for each in columns):
            found[name] = np.concatenate(columns)
        else:
            found[name] = [value for column in columns for value in column]
    return found


def _classes(task: Classification, outputs: Tensor, n: int) -> Columns:
    check_logits(outputs, task.classes, type(task).__name__)
    p = _array(as_real(task.calibrated(outputs.detach())).softmax(dim=1))
    threshold = task.decision_threshold
    best = p.argmax(axis=1) if threshold is None else (p[:, 1] >= threshold).astype(np.int64)
    chosen = np.take_along_axis(p, best[:, None], axis=1)[:, 0]
    columns = [_texts(task.classes)[best], chosen, *p.T]
    example = Prediction("", 0.0, dict.fromkeys(task.classes, 0.0))
    if task.interval is None:
        return _named(example, columns)
    from flambeau.task.conformal import ordered_sets

    uncalibrated = as_real(outputs.detach()).softmax(dim=1)
    sets = ordered_sets(uncalibrated, task.interval_quantiles()["classes"])
    names = [tuple(task.classes[at] for at in members) for members in sets]
    return _named(SetPrediction(**vars(example), classes=()), [*columns, names])


def _labels(task: MultiLabel, outputs: Tensor, n: int) -> Columns:
    check_logits(outputs, task.classes, type(task).__name__)
    logits = as_real(task.calibrated(outputs.detach()))
    labels = [
        tuple(name for name, is_one in zip(task.classes, row, strict=True) if is_one)
        for row in to_rows(predicted_labels(logits, task.thresholds))
    ]
    example = MultiLabelPrediction((), dict.fromkeys(task.classes, 0.0))
    return _named(example, [labels, *_array(logits.sigmoid()).T])


def _numbers(task: Regression, outputs: Tensor, n: int) -> Columns:
    if not isinstance(outputs, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        return columns_of(task.decode(outputs))  # raises
    values = [*_array(task._in_target_units(outputs.detach())).T]
    example = Estimate(dict.fromkeys(task.names, 0.0))
    if task.interval is None:
        return _named(example, values)
    from flambeau.task.conformal import widened

    ends = widened(*task.interval_ends(outputs.detach()), list(task.interval_quantiles().values()))
    prefixes = [""] if len(task.names) == 1 else [f"{name}." for name in task.names]
    keys = [f"{prefix}{end}" for end in ("low", "high") for prefix in prefixes]
    found = IntervalEstimate(example.values, dict.fromkeys(keys, 0.0))
    return _named(found, [*values, *_array(torch.cat(ends, dim=1)).T])


def _quantiles(task: QuantileRegression, outputs: Tensor, n: int) -> Columns:
    if task.interval is not None:
        return _numbers(task, outputs, n)
    values = [*_array(task._in_target_units(outputs.detach())).T]
    prefixes = [""] if len(task.names) == 1 else [f"{name}." for name in task.names]
    keys = [f"{prefix}q{level:g}" for prefix in prefixes for level in task.quantiles]
    levels = _array(task._in_units(outputs.detach()).flatten(start_dim=1))
    example = QuantileEstimate(dict.fromkeys(task.names, 0.0), dict.fromkeys(keys, 0.0))
    return _named(example, [*values, *levels.T])


def _of_each_target(task: CombinedTask, outputs: Any, n: int) -> Columns:
    own = task.outputs_of(outputs)
    if any(type(each).decode not in _VECTORISED for each in task.tasks.values()):
        return columns_of(task.decode(outputs))
    return {
        nested_name(name, field): column
        for name, each in task.tasks.items()
        for field, column in decode_columns(each, own[name], n).items()
    }


_VECTORISED = cast(
    "Mapping[Any, Callable[[Any, Any, int], Columns]]",
    {
        Classification.decode: _classes,
        CombinedTask.decode: _of_each_target,
        MultiLabel.decode: _labels,
        QuantileRegression.decode: _quantiles,
        Regression.decode: _numbers,
    },
)
"""The vectorised form of each ``decode``; a subclass with another ``decode`` has none."""


def _named(example: Any, columns: Sequence[Any]) -> Columns:
    """Return the columns under the names that the fields of a prediction have."""
    return dict(zip(fields_of(example), columns, strict=True))


def _array(values: Tensor) -> NDArray[Any]:
    return np.asarray(values.cpu().double().numpy())


def _texts(names: Sequence[str]) -> NDArray[Any]:
    found = np.empty(len(names), dtype=object)
    found[:] = names
    return found
