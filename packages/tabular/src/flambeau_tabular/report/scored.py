"""``Scored``: the rows of a report with their encoded inputs, targets and predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import ArgumentError
from flambeau.report.interpretation import Interpretation
from flambeau_tabular.columns import TableSpec
from flambeau_tabular.preprocess import TabularPreprocessor
from flambeau_tabular.report.measures import Rows
from flambeau_tabular.report.problem import Predicted, Problem, predict_encoded

if TYPE_CHECKING:
    from flambeau_tabular.data import TabularData


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows of a report.

    Attributes:
        data: The data.
        found: The interpretation, which has the model.
        problem: The problem of its task.
        spec: The fitted columns.
        ids: Row numbers in the table, ``(n,)``.
        inputs: Encoded tensors by name.
        rows: Targets, weights and groups.
        predicted: Predictions of the model.
    """

    data: TabularData
    found: Interpretation
    problem: Problem
    spec: TableSpec
    ids: NDArray[np.int64]
    inputs: dict[str, Tensor]
    rows: Rows
    predicted: Predicted

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_sample(self) -> bool:
        """Whether these are not all rows of the part."""
        return len(self.ids) < len(self.found)

    def sample_note(self) -> str:
        """Return a sentence on the number of rows."""
        if not self.is_sample:
            return f"All {len(self):,} {self.found.part} rows are used."
        return f"A random sample of {len(self):,} of {len(self.found):,} {self.found.part} rows."

    def predict(self, inputs: dict[str, Tensor]) -> Predicted:
        """Return the predictions of the model for encoded rows."""
        return predict_encoded(self.found, self.problem, inputs)

    def sample(self, most: int) -> Scored:
        """Return at most this many rows: always the same random ones."""
        if len(self) <= most:
            return self
        kept = torch.from_numpy(sampled(np.arange(len(self)), most, "sampled rows"))
        inputs = {name: each[kept] for name, each in self.inputs.items()}
        rows, predicted = self.rows.take(kept), self.predicted.take(kept)
        ids = self.ids[kept.numpy()]
        return Scored(self.data, self.found, self.problem, self.spec, ids, inputs, rows, predicted)


def scored_of(found: Interpretation, most: int = 200_000) -> Scored:
    """Return the rows of a report on a table, at most ``most`` random ones.

    Raises:
        ArgumentError: The report is not on ``TabularData``, or the task or model is not supported.
    """
    data, preprocessor = found.details.data, found.details.preprocessor
    # Only TabularData has such a preprocessor.
    if data is None or not isinstance(preprocessor, TabularPreprocessor):
        raise ArgumentError("This needs a report on TabularData: learner.interpret().")
    table = cast("TabularData", data)
    problem = Problem.of(found.task)
    if found.run is None:
        raise ArgumentError(
            "The predictions are not those of one model, whose columns could be changed. Use "
            "learner.interpret()."
        )
    if problem is None:
        raise ArgumentError(
            f"The outputs of {type(found.task).__name__} are not known. Use Classification, "
            "MultiLabel, Regression or a task derived from them."
        )
    if not found.predictions.finite:
        raise ArgumentError("Some outputs of the model are not finite. Train it again.")
    ids = sampled(found.ids.numpy(), most, "scored rows")
    inputs = preprocessor.spec.encode(table.frame, ids).inputs()
    predicted = predict_encoded(found, problem, inputs)
    rows = scored_rows(table, ids)
    return Scored(table, found, problem, preprocessor.spec, ids, inputs, rows, predicted)


def scored_rows(data: TabularData, ids: NDArray[np.int64]) -> Rows:
    """Return targets, weights and groups of rows, given by their row numbers."""
    at = torch.from_numpy(np.ascontiguousarray(ids))
    structure = data.structure
    targets = data.targets.of(ids)
    if data.targets.kind == "regression":
        targets = targets.double().reshape(len(ids), -1)
    groups = None if structure.groups is None else torch.from_numpy(structure.groups[ids])
    weights = None if structure.weights is None else structure.weights[at].double()
    return Rows(targets, weights, groups)


def sampled(rows: NDArray[np.int64], most: int, purpose: str) -> NDArray[np.int64]:
    """Return at most ``most`` of the rows, in their order: always the same random ones."""
    rows = np.array(rows)
    if len(rows) <= most:
        return rows
    draws = keyed.generator(0, purpose, len(rows))
    return rows[np.sort(torch.randperm(len(rows), generator=draws)[:most].numpy())]
