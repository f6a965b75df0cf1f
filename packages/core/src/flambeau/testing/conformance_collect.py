"""Conformance check of ``Preprocessor.collect``: predictions stay with their inputs."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from flambeau.testing.conformance_report import conformance_error
from flambeau.testing.domain_under_test import DomainUnderTest


def check_collect_keeps_the_index(tested: DomainUnderTest) -> None:
    """Check that ``predict`` gives one prediction per input, and keeps the index of a series.

    The pandas series has the raw inputs in another order, with texts as its index. Without pandas
    only a list is checked.
    """
    raw = list(tested.data.raw("valid"))
    name = tested.models[0]
    predictor = tested.predictor(tested.build(name))
    predictions: Any = predictor.predict(raw)
    is_list = isinstance(predictions, list)
    count = len(cast("list[Any]", predictions)) if is_list else 0
    if not is_list or count != len(raw):
        found = f"a list of length {count}" if is_list else f"a {type(predictions).__name__}"
        raise conformance_error(
            f"{name}: predict returns {found} for a list of {len(raw)} inputs.",
            "a prediction could not be assigned to its input",
            "return a list with one prediction per input from the preprocessor's collect",
        )
    if find_spec("pandas") is None:
        return
    pd: Any = import_module("pandas")  # the kit runs without it too
    # Duplicate and unsorted names, as the rows of a filtered or joined frame have.
    index = [f"row {row // 2}" for row in reversed(range(len(raw)))]
    series: Any = pd.Series(raw, index=index, dtype=object)
    frame: Any = predictor.predict(series)
    labels: list[Any] | None = list(frame.index) if hasattr(frame, "iloc") else None
    if labels != index or len(frame) != len(raw):
        shown = "no index" if labels is None else f"the index {labels[:3]}"
        raise conformance_error(
            f"{name}: predict returns a {type(frame).__name__} with {shown} for a series with the "
            f"index {index[:3]}.",
            "joining predictions to the rows of a frame would mix up samples",
            "keep the default collect of Preprocessor, or build the frame with index=items.index",
        )
