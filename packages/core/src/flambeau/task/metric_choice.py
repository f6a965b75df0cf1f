"""Create the metrics of a task from the user's names, functions and metric objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.task.function_metrics import FunctionMetric
from flambeau.task.metrics import Metric, MetricFactory, StoringMetric, SumMetric

MetricFunction = Callable[[Any, Any], Any]
MetricChoice = Sequence[str | MetricFunction] | Mapping[str, Metric | MetricFunction | str]
"""A list of names and of functions of outputs and targets, or a mapping from the name in the
history to a name, a function or a metric object."""


def fresh_metrics(
    wanted: MetricChoice,
    known: Mapping[str, MetricFactory],
    ignore_index: int | None = None,
    threshold: float | Sequence[float] | None = None,
) -> dict[str, Metric]:
    """Return new metrics by name.

    Names are looked up in ``known``, objects are copied and reset, and a function becomes a
    ``FunctionMetric``.

    Args:
        wanted: The user's choice.
        known: Metrics that can be chosen by name.
        ignore_index: The ``ignore_index`` of the task; metrics of core that have none get it too.
        threshold: The threshold of the task; metrics of predicted labels without one get it too.

    Raises:
        ArgumentError: A name is unknown, or a value is neither a name nor a metric nor a function.
    """
    found = {name: _fresh(name, value, known) for name, value in _by_name(wanted).items()}
    for metric in found.values():
        is_core = isinstance(metric, SumMetric | StoringMetric)
        if is_core and getattr(metric, "ignore_index", ignore_index) is None:
            vars(metric)["ignore_index"] = ignore_index
        if threshold is not None and hasattr(metric, "use_threshold"):
            cast("Any", metric).use_threshold(threshold)
    return found


def metric_argument(wanted: MetricChoice) -> list[str] | dict[str, Any]:
    """Return ``wanted`` as a list of names, or as metrics by name, for ``Task.arguments()``."""
    named = _by_name(wanted)
    if not isinstance(wanted, Mapping) and all(isinstance(each, str) for each in wanted):
        return list(named)
    return {name: _function_metric(each) for name, each in named.items()}


def _by_name(wanted: MetricChoice) -> dict[str, Any]:
    """Return the choices by name; the name of a function is its ``__name__``."""
    if isinstance(wanted, str):
        raise ArgumentError(f"metrics is {wanted!r}; give a list of names: metrics=[{wanted!r}].")
    named = dict(wanted) if isinstance(wanted, Mapping) else _named(wanted)
    if "loss" in named:
        raise ArgumentError(
            "A metric has the name 'loss', which the history has for the loss. Give it another "
            'name: metrics={"own_loss": …}.'
        )
    return named


def _named(wanted: Sequence[str | MetricFunction]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for each in wanted:
        name: object = each if isinstance(each, str) else getattr(each, "__name__", None)
        if isinstance(each, Metric) or not isinstance(name, str) or name == "<lambda>":
            raise ArgumentError(
                f"metrics contains {each!r:.80}, which has no name. Give metric objects and "
                'lambdas in a dict, metrics={"recall": Recall()}; a metric has '
                "update(outputs, targets), compute() and reset()."
            )
        named[name] = each
    return named


def _fresh(name: str, value: Any, known: Mapping[str, MetricFactory]) -> Metric:
    if isinstance(value, str):
        if value not in known:
            raise ArgumentError(f"Unknown metric {value!r}. {did_you_mean(value, known)}")
        return known[value]()
    if isinstance(value, type):
        raise ArgumentError(
            f"The metric {name!r} is the class {value.__name__}. Create an object: "
            f'metrics={{"{name}": {value.__name__}()}}.'
        )
    metric = copy.deepcopy(_function_metric(value))
    if not isinstance(metric, Metric):
        raise ArgumentError(
            f"The metric {name!r} is {value!r:.60}. Give a name, a function of (outputs, targets), "
            "or an object with update(outputs, targets), compute() and reset()."
        )
    metric.reset()
    return metric


def _function_metric(value: Any) -> Any:
    """Return a metric for a function of outputs and targets; return other values unchanged."""
    if isinstance(value, str | type | Metric) or not callable(value):
        return value
    return FunctionMetric(value)
