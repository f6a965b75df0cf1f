"""``model_outputs``: what a model computes for the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flambeau_tabular.frame_rows import FrameRows
from flambeau_tabular.preprocess import TabularPreprocessor

if TYPE_CHECKING:
    from flambeau.artefact.predictor import Predictor
    from flambeau_tabular.columns import Frame


def model_outputs(predictor: Predictor, frame: Frame) -> Tensor:
    """Return the outputs for rows before decoding, ``(rows, outputs)``, on the CPU.

    Raises:
        InputError: A cell is invalid, or an output is nan.

    Warns:
        FlambeauWarning: Many cells are unlike those of the train rows.
    """
    rows = FrameRows(frame)
    batch = predictor.preprocessor.encode(rows)
    size = predictor.batch_size
    outputs = torch.cat(
        [
            predictor.checked_outputs(batch.rows(slice(start, start + size)), start)
            for start in range(0, len(rows), size)
        ]
    )
    if isinstance(predictor.preprocessor, TabularPreprocessor):
        predictor.preprocessor.warn_of_rows(rows)
    return outputs
