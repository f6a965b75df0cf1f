"""``Data``: every data choice in one immutable object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.split import Split
from flambeau.data.transform import Transform

Facts = Mapping[str, Any]
"""What was measured on the train rows: plain JSON values by name, the input of every rule.

Names that core's rules read, the same in every domain; a fact that does not apply is left out:

- ``n_train``, ``n_valid``, ``n_test``: samples (int); ``split``: how they were parted (str)
- ``inputs``: ``{name: {"shape": [sizes of one sample], "dtype": "float32"}}``
- ``in_memory`` (bool) and ``memory_bytes``: whether the samples are held in memory, and their size
- ``target_dtype`` ("int64"), ``target_shape`` (of one sample, ``[]`` for a number),
  ``target_distinct`` (distinct values), ``target_min``, ``target_max``
- ``target_binary``: every value is 0 or 1 (bool)
- ``class_names`` (list of str) and ``class_counts`` (train rows in each, in that order)
- ``evidence``: what the figures rest on where they rest on a part of the train rows only (str)
"""


class Data(ABC):
    """What a domain's data class gives the Learner. Immutable: a change gives a new object.

    The straight line: ``facts`` feed the plan's rules; the plan's values fit the preprocessor;
    preprocessor and values make the data sets; a data set makes its loader.
    """

    domain: ClassVar[str]
    """Where the domain record stands, as in an entry point: ``"package.module:DOMAIN"``."""

    @property
    @abstractmethod
    def split(self) -> Split:
        """Which samples are train, valid and test."""

    @property
    @abstractmethod
    def choices(self) -> Mapping[str, Any]:
        """What the user fixed when building the data; enters the plan with source "user"."""

    @abstractmethod
    def facts(self) -> Facts:
        """Measured on train rows only. Plain JSON values; computed once."""

    @abstractmethod
    def preprocessor(self, values: Mapping[str, Any]) -> Preprocessor:
        """Fitted on the train rows with the plan's values (key → value)."""

    @abstractmethod
    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        """The samples of ``part`` ("train", "valid" or "test")."""

    @abstractmethod
    def model_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON keyword arguments for the domain's model builders (channels, outputs, size)."""

    @abstractmethod
    def task_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON keyword arguments for the task builder (class names)."""

    @abstractmethod
    def raw(self, part: str) -> Sequence[Any]:
        """The raw inputs of ``part`` as one would hand them to ``predict``."""

    def transforms(self, values: Mapping[str, Any]) -> Sequence[Transform]:
        """Augmentation for training batches, from the plan's values."""
        return ()

    def report(self) -> str:
        """What was found, in words: counts, sizes, classes, what could not be read."""
        return "\n".join(f"{name}: {value}" for name, value in self.facts().items())
