"""``Facts``: measurements of the train samples, the input of every rule of the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from typing import Required  # typing has ReadOnly from Python 3.13

    from typing_extensions import ReadOnly


IGNORED = -100
"""The label that torch's losses ignore by default."""

FEWEST_ROWS_PER_CLASS = 2
"""Whole numbers of which each has fewer rows on average are read as amounts, not as classes."""


class ColumnFacts(TypedDict):
    """Shape of one sample and dtype ("float32") of an input or target."""

    shape: list[int]
    dtype: str


class Facts(TypedDict, total=False):
    """Measurements of the train samples only, as JSON values by name.

    The names are the same in every domain; a fact that does not apply is omitted. A domain adds
    facts of its own in a subclass: ``class ImageFacts(Facts, total=False)``.

    Attributes:
        n_train: Number of train samples.
        n_valid: Number of validation samples.
        n_test: Number of test samples.
        n_calibration: Number of calibration samples.
        split: Description of the split method.
        inputs: Shape and dtype of each input by name.
        targets: Shape and dtype of each target by name.
        in_memory: Whether the samples are held in memory.
        memory_bytes: Size of the samples in memory, in bytes.
        target_dtype: "float32", "int64", "bool" …. All ``target_*`` facts require that there is
            only one target.
        target_shape: Shape of one sample's target, ``[]`` for a scalar.
        target_distinct: Number of distinct target values; absent if data are read during training.
        target_min: Smallest target value.
        target_max: Largest target value.
        target_binary: Whether every target value is 0 or 1.
        target_one_hot: Whether the target has several columns, and each row has exactly one 1 and
            zeros otherwise.
        target_ignored: ``{"label": -100, "rows": number}`` if some samples have -100, the label
            that torch's losses ignore; the ``class_*`` facts do not include these samples.
        target_mean: Mean of each column of targets.
        target_std: Standard deviation of each column of targets.
        class_names: Names of the classes, or of the target columns (multi-label).
        class_names_given: Whether the user named the classes, or the labels are text.
        class_counts: Number of train samples per class, in the order of ``class_names``.
        class_weight_sums: Sum of the sample weights of each class, if the train samples have
            weights.
        has_length: Whether the number of batches in a train epoch is known; absent if it is.
        loader_batch_size: Batch size of a user-defined loader, which the plan cannot change.
        loader_batches: Number of batches of a user-defined loader in an epoch.
        estimated: The parts whose number of samples is estimated from their number of batches.
        n_read: Number of train samples that were measured, if not all of them.
        evidence: Which train samples were measured, if not all of them.
        readings: How ambiguous labels, folders and columns were interpreted: the attributes of
            `flambeau.data.reading.Reading` by name.
        started: Whether the weights of an export are loaded; added by the learner.
        model_given: Whether the user passed a module; added by the learner.
        model_dtype: Dtype of the module's parameters, if all have the same; added by the learner.
        task_given: ``{"loss": description, "metrics": names}`` of the user's task; added by the
            learner.
    """

    n_train: ReadOnly[Required[int]]
    n_valid: ReadOnly[int]
    n_test: ReadOnly[int]
    n_calibration: ReadOnly[int]
    split: ReadOnly[Required[str]]
    inputs: ReadOnly[Mapping[str, ColumnFacts]]
    targets: ReadOnly[Mapping[str, ColumnFacts]]
    in_memory: ReadOnly[bool]
    memory_bytes: ReadOnly[int]
    target_dtype: ReadOnly[str]
    target_shape: ReadOnly[list[int]]
    target_distinct: ReadOnly[int]
    target_min: ReadOnly[float]
    target_max: ReadOnly[float]
    target_binary: ReadOnly[bool]
    target_one_hot: ReadOnly[bool]
    target_ignored: ReadOnly[dict[str, int]]
    target_mean: ReadOnly[list[float]]
    target_std: ReadOnly[list[float]]
    class_names: ReadOnly[list[str]]
    class_names_given: ReadOnly[bool]
    class_counts: ReadOnly[list[int]]
    class_weight_sums: ReadOnly[list[float]]
    has_length: ReadOnly[bool]
    loader_batch_size: ReadOnly[int]
    loader_batches: ReadOnly[int]
    estimated: ReadOnly[list[str]]
    n_read: ReadOnly[int]
    evidence: ReadOnly[str]
    readings: ReadOnly[Sequence[Mapping[str, Any]]]
    started: ReadOnly[bool]
    model_given: ReadOnly[bool]
    model_dtype: ReadOnly[str]
    task_given: ReadOnly[Mapping[str, Any]]


def train_count(facts: Facts) -> str:
    """Return the number of train samples as text: "1,200", or "about 1,200" if it is estimated."""
    return f"{'about ' * ('train' in facts.get('estimated', ()))}{facts['n_train']:,}"


def class_totals(facts: Facts) -> Sequence[float]:
    """Return the weight of each class in the loss: its rows, or the sum of their weights.

    Empty if the classes were not counted.
    """
    return facts.get("class_weight_sums") or facts.get("class_counts") or ()
