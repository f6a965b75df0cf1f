"""``explain``: how much each column of one row contributes to its prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau import Learner, Predictor
from flambeau.data.batch import Batch
from flambeau.data.joint_preprocessor import JointPreprocessor
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_tabular.frame_rows import as_frame
from flambeau_tabular.preprocess import TabularPreprocessor

if TYPE_CHECKING:
    from flambeau_tabular.columns import EncodedTable, TableSpec

Slots = Mapping[str, Mapping[str, slice]]
"""Column → name of an encoded tensor → its columns there."""


@dataclass(frozen=True)
class Explanation(Mapping[str, float]):
    """The contribution of each column to one prediction; ``print`` shows a table.

    Attributes:
        output: Name of the predicted number: a class, whose probability is explained, or a target.
        prediction: The number for the row; it is ``baseline`` plus all contributions.
        baseline: The mean of the number over the background rows.
        contributions: Contribution by column, the largest first.
        errors: Standard error of each contribution, from the sampled orders.
        values: The cells of the row.
    """

    output: str
    prediction: float
    baseline: float
    contributions: dict[str, float]
    errors: dict[str, float]
    values: dict[str, Any]

    def __getitem__(self, column: str) -> float:
        return self.contributions[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.contributions)

    def __len__(self) -> int:
        return len(self.contributions)

    def __str__(self) -> str:
        from flambeau.report import text_table

        rows = [
            [name, f"{self.values.get(name)!s:.40}", f"{each:+.4g}", f"± {self.errors[name]:.2g}"]
            for name, each in self.contributions.items()
        ]
        table = text_table(["column", "value", "contribution", "error"], rows)
        return f"{self.output}: {self.prediction:.4g} = {self.baseline:.4g} (baseline) +\n{table}"


def explain(
    model: Learner | Predictor,
    row: Any,
    background: Any | None = None,
    *,
    output: str | None = None,
    samples: int = 256,
    seed: int = 0,
) -> Explanation:
    """Return the Shapley values of the columns of one row, estimated by sampling.

    The cells of a background row are replaced by those of the row, one column after another in a
    random order. What the prediction changes at a column, on average over orders and background
    rows, is the contribution of the column. The contributions sum exactly to the prediction minus
    the mean prediction of the background; for a linear model they are exact with any number of
    orders. They say what the model does, not what causes what; of columns that depend on each
    other, also combinations are used that no row has.

    Args:
        model: A learner, or a predictor of an export.
        row: The row: a dict of cells, or a frame with one row.
        background: Rows to compare with: a frame, such as rows of train. None draws 256 train rows
            of the learner.
        output: Column of the predictions of a frame: a class, whose probability is explained, or a
            target. None explains the predicted class, or the only number.
        samples: Least number of random orders; each is used forwards and backwards.
        seed: Seed of the orders.

    Raises:
        ArgumentError: There is no background, or no such output.
        InputError: ``row`` is not one row, or a cell is invalid.

    Source:
        Castro, Gómez and Tejada, "Polynomial calculation of the Shapley value based on sampling",
        2009; Štrumbelj and Kononenko, "Explaining prediction models and individual predictions with
        feature contributions", 2014.
    """
    predictor = model.predictor() if isinstance(model, Learner) else model
    preprocessor = predictor.preprocessor
    if isinstance(preprocessor, JointPreprocessor):
        raise ArgumentError(
            "explain takes one model, but this is an ensemble. Explain one of its models: "
            "Predictor(member.preprocessor, member.model, member.task) for a member of "
            "result.members."
        )
    if not isinstance(preprocessor, TabularPreprocessor):
        raise ArgumentError("explain needs a model of tables, whose columns have names.")
    if samples < 1:
        raise ArgumentError(f"samples has to be at least 1, not {samples}.")
    spec = preprocessor.spec
    frame = as_frame(row)
    if len(frame) != 1:
        raise InputError(f"explain takes one row, but the frame has {len(frame):,}. Select one.")
    own = spec.encode(frame)
    others = spec.encode(_background(model, background, seed))
    slots = column_slots(spec)
    orders = np.random.default_rng(seed)
    name = _output_name(predictor, own, output)
    # Every background row is equally often used, so that the baseline is the mean of all.
    repeats = -(-samples // (2 * len(others)))
    changes: list[NDArray[np.float64]] = []
    ends: list[tuple[float, float]] = []
    for _ in range(repeats):
        for start in range(len(others)):
            order = orders.permutation(len(slots))
            for each in (order, order[::-1]):
                found = _numbers(predictor, _walk(own, others, start, slots, each), name)
                change = np.empty(len(slots))
                change[each] = np.diff(found)
                changes.append(change)
                ends.append((float(found[0]), float(found[-1])))
    return _summed(name, list(slots), np.stack(changes), np.array(ends), frame)


def column_slots(spec: TableSpec) -> Slots:
    """Return where each input column is in the encoded tensors."""
    ends = {"numbers": 0, "flags": 0, "categories": 0, "tokens": 0}
    found: dict[str, dict[str, slice]] = {}
    for column in spec.columns:
        if column.kind in ("number", "date"):
            widths = {
                "numbers": len(column.number_names),  # pyright: ignore[reportAttributeAccessIssue]
                "flags": len(column.flag_names),  # pyright: ignore[reportAttributeAccessIssue]
            }
        elif column.kind == "text":
            widths = {"tokens": spec.text_width}
        else:
            widths = {"categories": 1}
        found[column.name] = {}
        for name, width in widths.items():
            if width:
                found[column.name][name] = slice(ends[name], ends[name] + width)
                ends[name] += width
    return found


def _walk(
    own: EncodedTable, others: EncodedTable, row: int, slots: Slots, order: NDArray[np.int64]
) -> dict[str, Tensor]:
    """Return the rows from a background row to the own one, one more column replaced in each."""
    names = list(slots)
    rows = {
        name: value[row : row + 1].repeat(len(order) + 1, 1)
        for name, value in others.inputs().items()
    }
    for step, at in enumerate(order.tolist(), start=1):
        for tensor, columns in slots[names[at]].items():
            rows[tensor][step:, columns] = own.inputs()[tensor][:, columns]
    return rows


def _numbers(predictor: Predictor, inputs: dict[str, Tensor], name: str) -> NDArray[np.float64]:
    from flambeau.task.decoded_columns import decode_columns

    n = len(inputs["numbers"])
    outputs = predictor.checked_outputs(Batch(inputs, weight=float(n), indices=torch.arange(n)))
    return np.asarray(decode_columns(predictor.task, outputs, n)[name], dtype=np.float64)


def _background(model: Learner | Predictor, background: Any, seed: int) -> Any:
    if background is not None:
        found = as_frame(background)
    elif isinstance(model, Learner):
        rows = model.data.raw("train")
        drawn = np.random.default_rng(seed).permutation(len(rows))[:256]
        found = as_frame(rows).take(np.sort(drawn))
    else:
        raise ArgumentError(
            "A predictor has no train rows to compare with. Pass background=, a frame of such rows."
        )
    if not len(found):
        raise InputError("The background has no rows. Give at least one.")
    return found


def _output_name(predictor: Predictor, own: EncodedTable, output: str | None) -> str:
    from flambeau.task.decoded_columns import decode_columns

    outputs = predictor.checked_outputs(Batch(own.inputs(), weight=1.0, indices=torch.arange(1)))
    columns = decode_columns(predictor.task, outputs, 1)
    numbers = [name for name, values in columns.items() if isinstance(values[0], float)]
    if output is not None:
        if output not in numbers:
            raise ArgumentError(f"There is no output {output!r}. {did_you_mean(output, numbers)}")
        return output
    if "label" not in columns:
        if len(numbers) != 1:
            raise ArgumentError(f"Choose what to explain: output= one of {', '.join(numbers)}.")
        return numbers[0]
    # The class is the one with the probability of the label.
    classes: Sequence[str] = [name for name in numbers if name != "probability"]
    best = [name for name in classes if columns[name][0] == columns["probability"][0]]
    label = columns["label"][0]
    return next((name for name in best if name in (label, f"probabilities.{label}")), best[0])


def _summed(
    name: str,
    columns: Sequence[str],
    changes: NDArray[np.float64],
    ends: NDArray[np.float64],
    frame: Any,
) -> Explanation:
    means = changes.mean(axis=0)
    # An order and its reverse are one draw.
    draws = changes.reshape(-1, 2, len(columns)).mean(axis=1)
    spread = draws.std(axis=0, ddof=1) if len(draws) > 1 else np.full(len(columns), np.nan)
    errors = spread / np.sqrt(len(draws))
    order: list[int] = [int(at) for at in np.argsort(-np.abs(means), kind="stable")]
    return Explanation(
        name,
        float(ends[0, 1]),
        float(ends[:, 0].mean()),
        {columns[at]: float(means[at]) for at in order},
        {columns[at]: float(errors[at]) for at in order},
        {column: frame.column(column)[0].as_py() for column in columns},
    )
