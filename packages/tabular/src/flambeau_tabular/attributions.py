"""``column_attributions``: how much each column of a row moves its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.artefact.predictor import Predictor
from flambeau.data.attributions import Attributions
from flambeau_tabular.explain import explain


def column_attributions(
    predictor: Predictor, item: Any, output: str | None, background: Sequence[Any]
) -> Attributions:
    """Return the contributions of ``explain`` to the prediction for a row.

    Args:
        predictor: A predictor of rows.
        item: A row: a dict of cells, or a frame with one row.
        output: As for ``explain``.
        background: Train rows to compare with.

    Raises:
        ArgumentError: The predictor is not one of tables, or there is no such output.
    """
    found = explain(predictor, item, background, output=output)
    columns = tuple(found.values)
    return Attributions(
        found.output,
        "Shapley values of the columns",
        tuple(f"{name} = {found.values[name]!s:.30}" for name in columns),
        tuple(found.contributions[name] for name in columns),
        total=found.prediction - found.baseline,
    )
