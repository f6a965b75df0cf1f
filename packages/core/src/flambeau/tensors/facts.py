"""``TensorFacts``: the type of the facts of ``TensorData``, which extends core's ``Facts``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flambeau.data.facts import ColumnFacts, Facts

if TYPE_CHECKING:
    from typing import Required  # typing has ReadOnly from Python 3.13

    from typing_extensions import ReadOnly


class TensorFacts(Facts, total=False):
    """Facts about the train samples; the keys below are always present."""

    inputs: ReadOnly[Required[Mapping[str, ColumnFacts]]]
    targets: ReadOnly[Required[Mapping[str, ColumnFacts]]]
    in_memory: ReadOnly[Required[bool]]
