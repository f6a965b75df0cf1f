"""Whether the scores of two runs on a part are comparable, as far as their records say."""

from __future__ import annotations

from dataclasses import dataclass

from flambeau.runs.saved_run import SavedRun
from flambeau.wording import name_some

_OF_TRAIN = (
    "train rows",
    "first and last train rows",
    "class_counts",
    "target_distinct",
    "target_min",
    "target_max",
    "sample weights",
)
"""Values of ``Data.fingerprint`` that describe the train samples."""


@dataclass(frozen=True)
class DataMatch:
    """How the data of two runs compare.

    Attributes:
        obstacle: Why the scores on the part are not comparable; None if they are.
        is_certain: Whether the obstacle, or its absence, does not depend on the content of the
            samples: of files only number and order are recorded.
        notes: What differs, but leaves the scores comparable.
    """

    obstacle: str | None
    is_certain: bool = True
    notes: tuple[str, ...] = ()


def match_data(one: SavedRun, other: SavedRun, part: str) -> DataMatch:
    """Compare the identity of the data of two runs.

    Args:
        one: A run.
        other: Another run.
        part: "valid" or "test".
    """
    first, second = one.data, other.data
    if not first or not second:
        which = name_some(str(run.folder) for run in (one, other) if not run.data)
        return DataMatch(f"the data of {which} are not recorded", is_certain=False)
    differing = [k for k in {**first, **second} if str(first.get(k)) != str(second.get(k))]
    own = f"{part} rows"
    if own in differing:
        return DataMatch(f"they have other {part} samples ({first.get(own)}; {second.get(own)})")
    others = [f"{name} rows" for name in ("train", "valid", "test", "calibration") if name != part]
    rest = [key for key in differing if key not in _OF_TRAIN and key not in others]
    if rest:
        return DataMatch(f"they have other data: {name_some(rest)} differ")
    of_train = [key for key in differing if key in _OF_TRAIN]
    if not of_train:
        return DataMatch(None)
    note = f"The runs trained on other samples ({name_some(of_train)} differ)."
    if of_train == ["train rows"]:
        return DataMatch(None, notes=(note,))
    # The same row numbers may then be those of another file.
    return DataMatch(f"they have other data: {name_some(of_train)} differ", False, (note,))
