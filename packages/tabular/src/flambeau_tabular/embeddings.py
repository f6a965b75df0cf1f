"""``embeddings``: the learned vectors of the categories of a column, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flambeau import Learner, Predictor
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_tabular.models.category_embedding import CategoryEmbedding

if TYPE_CHECKING:
    import pyarrow as pa


def embeddings(model: Learner | Predictor, column: str) -> pa.Table:
    """Return the learned vector of each category of a column, as a ``pyarrow.Table``.

    Other models can use the vectors in place of the category. The table has the columns "value"
    (text of the category), "meaning" ("category", or "missing" and "unknown", whose value is null)
    and "e0", "e1", …, the elements of the vector in float32. ``table.to_pandas()`` gives a frame.

    Args:
        model: A learner, or a predictor of an export.
        column: Name of a column of categories.

    Raises:
        ArgumentError: The model has no categories, or no such column of categories.
        InputError: The column has so few categories that they are encoded as one-hot.
    """
    import pyarrow as pa

    predictor = model.predictor() if isinstance(model, Learner) else model
    spec: Any = getattr(predictor.preprocessor, "spec", None)
    modules = predictor.model.modules()
    found = next((each for each in modules if isinstance(each, CategoryEmbedding)), None)
    if spec is None or found is None:
        raise ArgumentError("The model has no embeddings of categories. Give a model of tables.")
    if column not in spec.category_names:
        raise ArgumentError(
            f"{column!r} is no column of categories of this model. "
            f"{did_you_mean(column, spec.category_names)}"
        )
    position = spec.category_names.index(column)
    values = next(each for each in spec.columns if each.name == column).values
    if position not in found.learned_columns:
        raise InputError(
            f"The {len(values)} categories of {column!r} are encoded as one-hot, so they have no "
            "learned vectors. Larger columns have some."
        )
    table: Any = found.tables[found.learned_columns.index(position)]
    vectors = np.asarray(table.weight.detach().float().cpu().numpy())
    columns = {
        "value": pa.array([None, None, *values], pa.string()),
        "meaning": ["missing", "unknown", *["category"] * len(values)],
    }
    parts = {f"e{at}": np.ascontiguousarray(each) for at, each in enumerate(vectors.T)}
    return pa.table(columns | parts)
