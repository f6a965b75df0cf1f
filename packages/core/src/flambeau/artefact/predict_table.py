"""``predict_table``: predictions for all rows of a table as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flambeau.data.prediction_columns import columns_of
from flambeau.task.decoded_columns import Columns, decode_columns, joined

if TYPE_CHECKING:
    from flambeau.artefact.predictor import Predictor


def predict_table(predictor: Predictor, rows: Sequence[Any]) -> Columns:
    """Return the predictions for the rows of a table as columns by name.

    The rows are encoded at once; the model runs on ``predictor.batch_size`` of them.

    Args:
        predictor: Preprocessor, model and task.
        rows: What ``table_rows`` of the preprocessor returned.

    Raises:
        InputError: A row is invalid, or the model's output for it is nan.
    """
    if not len(rows):
        return _without_rows(predictor)
    batch = predictor.preprocessor.encode(rows)
    parts: list[Columns] = []
    for start in range(0, len(rows), predictor.batch_size):
        part = batch.rows(slice(start, start + predictor.batch_size))
        outputs = predictor.checked_outputs(part, start)
        parts.append(decode_columns(predictor.task, outputs, len(part)))
    return joined(parts)


def _without_rows(predictor: Predictor) -> Columns:
    example = predictor.task.example_prediction()
    if example is None:
        return {}
    # As arrays, which have the dtypes of the columns of predictions.
    return {name: np.array(values)[:0] for name, values in columns_of([example]).items()}
