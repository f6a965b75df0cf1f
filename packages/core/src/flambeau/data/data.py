"""``Data``: every data choice in one immutable object."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.split import PARTS, Split
from flambeau.data.transform import Transform
from flambeau.errors import InputError

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
- ``loader_batch_size``: batch size of a loader that the user brought, which stays as it is
- ``target_mean`` and ``target_std`` (lists of float): of floating-point targets, by column
- ``evidence``: what the figures rest on where they rest on a part of the train rows only (str)
"""


_IDENTIFYING_FACTS = (
    "class_names",
    "class_counts",
    "target_distinct",
    "target_min",
    "target_max",
)


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
        """Which samples are train, valid and test.

        A property: a dataclass keeps the split in a field of another name (``rows``).
        """

    @property
    def choices(self) -> Mapping[str, Any]:
        """What the user fixed when building the data; enters the plan with source "user"."""
        return {}

    @property
    def issued_warnings(self) -> Collection[str]:
        """Codes of the warnings that were given when the data were made or read.

        The doctor does not repeat them before a fit.
        """
        return ()

    @abstractmethod
    def facts(self) -> Facts:
        """Measured on train rows only. Plain JSON values; computed once."""

    @abstractmethod
    def preprocessor(self, values: Mapping[str, Any]) -> Preprocessor:
        """Fitted on the train rows with the plan's values (key → value)."""

    @abstractmethod
    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        """The samples of ``part`` ("train", "valid" or "test").

        ``flambeau evaluate`` has an export's preprocessor but no plan: what a sample looks like is
        for the preprocessor to say, and ``values`` may lack any key.
        """

    @abstractmethod
    def model_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON keyword arguments for the domain's model builders (channels, outputs, size)."""

    @abstractmethod
    def task_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON keyword arguments for the task builder (class names)."""

    @abstractmethod
    def raw(self, part: str) -> Sequence[Any]:
        """The raw inputs of ``part`` as one would hand them to ``predict``."""

    @classmethod
    def inputs_from_path(cls, path: Path) -> Sequence[Any]:
        """The raw items that ``flambeau predict MODEL PATH`` answers for.

        By default the path itself is the one item; a kind of data with many samples a file reads
        them here, without needing labels. The command counts them from 1; a blank text is no item
        to answer, but keeps its place.
        """
        return [str(path)]

    def subset(self, rows: Mapping[str, Sequence[int]]) -> Data:
        """The same data with only these rows in each part; for quick trials and learning curves.

        The conformance kit takes valid rows away with it, to see that nothing was measured on
        them: what was fitted on train must stay the same.

        Args:
            rows: Part → row numbers, as ``split`` has them. Train and valid must be named; test
                is empty where it is not.

        Raises:
            InputError: The class does not offer it.
        """
        raise InputError(
            f"{type(self).__name__} has no subset(rows). Build the data anew from fewer samples, "
            "or define it in the class."
        )

    def transforms(self, values: Mapping[str, Any]) -> Sequence[Transform]:
        """Augmentation for training batches, from the plan's values."""
        return ()

    def fingerprint(self) -> dict[str, Any]:
        """Return what distinguishes these data from others: a run is only resumed on its own data.

        Plain values that a message can show: classes, targets and the rows of each part. Files are
        known by their number and order alone, so that a folder may move. A user's loader shows too
        little to compare.
        """
        facts = self.facts()
        found = {name: facts[name] for name in _IDENTIFYING_FACTS if name in facts}
        if "loader_batch_size" in facts:
            return found
        for part in PARTS:
            rows = self.split.part(part)
            found[f"{part} rows"] = f"{len(rows):,} (digest {digest(rows.tobytes())})"
        return found

    def report(self) -> str:
        """What was found, in words: counts, sizes, classes, what could not be read."""
        return "\n".join(f"{name}: {value}" for name, value in self.facts().items())

    def preview(self, row: int) -> Preview | None:
        """What a person is shown of a sample in a report; None shows its row number.

        Args:
            row: As ``split`` numbers it.
        """
        return None


def digest(content: bytes) -> str:
    """Return a short hash of the content."""
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def select_values(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Those of ``keys`` that the plan has, for ``task_arguments`` of core's tasks."""
    return {key: values[key] for key in keys if key in values}


def head_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """``dropout`` for ``model_arguments`` of a builder that takes it, where the plan asks for it.

    The plan's ``head`` is ``{"dropout": share}``; one without dropout leaves the builder its own.
    """
    head = values.get("head")
    dropout = cast("Mapping[str, Any]", head).get("dropout") if isinstance(head, Mapping) else None
    return {"dropout": dropout} if dropout else {}
