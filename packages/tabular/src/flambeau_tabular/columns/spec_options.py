"""``SpecOptions``: how the columns of a table are encoded."""

from __future__ import annotations

from dataclasses import dataclass

from flambeau.errors import InputError
from flambeau_tabular.options import OutOfRange, Scaling


@dataclass(frozen=True)
class SpecOptions:
    """How columns are encoded.

    Attributes:
        scaling: How numbers are scaled; see `Scaler`.
        out_of_range: "clip" moves numbers and dates beyond those in train to the nearest one in
            train; "keep" leaves them.
        min_count: Categories with fewer train rows share the code for unknown ones.
        max_categories: A column has codes for only this many of its most frequent categories. The
            default keeps codes within 16 bits.
        text_buckets: Number of different tokens of free text; see `TextColumn`.
        max_text_width: Most tokens of one text.

    Raises:
        InputError: A number is too small.
    """

    scaling: Scaling = "robust"
    out_of_range: OutOfRange = "clip"
    min_count: int = 1
    max_categories: int = 32_766
    text_buckets: int = 16_384
    max_text_width: int = 64

    def __post_init__(self) -> None:
        least = {"min_count": 1, "max_categories": 1, "text_buckets": 2, "max_text_width": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"{name} has to be at least {bound}, got {getattr(self, name)}.")
