"""What the doctor looks for in pictures, beside core's checks."""

from __future__ import annotations

from torch import Tensor

from flambeau.data.split import PARTS
from flambeau.doctor import CORE_CHECKS, Check, Finding, Subject
from flambeau_vision.data import ImageData
from flambeau_vision.duplicates import MOST_COMPARED, search
from flambeau_vision.fitting import record_of
from flambeau_vision.series import have_names, split_series

_PAGE = "docs/doctor.md#"
# So many files are hashed before a fit: 2,000 photographs of 100 KB take 0.3 s.
_MOST_HASHED = 2_000
_LEAST_COPIES, _LEAST_SHARE = 2, 0.01
_LEAST_TORN = 0.05  # of the valid pictures, in series that train has too

_CORE = {check.code: check for check in CORE_CHECKS}


def find_duplicates(subject: Subject) -> list[Finding]:
    """Files of train that are in valid or test too, by their bytes; arrays as core does."""
    data = subject.data
    if not isinstance(data, ImageData):
        return []
    items = data.samples["item"]
    if isinstance(items, Tensor):
        return list(_CORE["duplicates-across-parts"].run(subject) or ())  # pyright: ignore[reportArgumentType]
    if len(items) > _MOST_HASHED:
        return []  # data.report() compares all of them
    return _copies(data, "duplicates-across-parts", "the same as", limit=0)


def find_near_duplicates(subject: Subject) -> list[Finding]:
    """Pictures of valid or test that look like one of train, though their bytes differ."""
    data = subject.data
    if not isinstance(data, ImageData):
        return []
    return _copies(data, "near-duplicates", "nearly the same as", limit=MOST_COMPARED)


def _copies(data: ImageData, code: str, how: str, *, limit: int) -> list[Finding]:
    parts, labels = _parts(data), [data.targets.text(row) for row in range(len(data.samples))]
    wanted = "near" if limit else "same"
    found = [
        pair
        for pair in search(data.samples["item"], parts, labels, limit=limit).pairs
        if pair.kind == wanted and pair.crosses and all(pair.parts) and "train" in pair.parts
    ]
    others = sum(part in ("valid", "test") for part in parts)
    if len(found) < max(_LEAST_COPIES, _LEAST_SHARE * others):
        return []
    return [
        Finding(
            code,
            f"{len(found):,} of {others:,} valid and test pictures are {how} one of train "
            f"({found[0]}), so the scores are too good.",
            {"pictures": len(found), "of": others, "with another label": _disagree(found)},
            "Drop the copies, or keep them together: split=Split.by_group(…) with one group for "
            "equal pictures.",
        )
    ]


def find_series(subject: Subject) -> Finding | None:
    """Series of pictures, by their names, that lie in train and in valid."""
    data = subject.data
    if not isinstance(data, ImageData) or not have_names(items := data.samples["item"]):
        return None
    parts = _parts(data)
    labels = [data.targets.text(row) for row in range(len(data.samples))]
    series = [s for s in split_series(items, parts, labels) if "train" in s.parts]
    torn = sum(parts[row] == "valid" for each in series for row in each.rows)
    if not torn or torn < _LEAST_TORN * parts.count("valid"):
        return None
    first = series[0]
    return Finding(
        "groups-across-parts",
        f"{len(series):,} series of pictures are torn apart, such as {first.name!r} "
        f"({len(first.rows):,} pictures in {' and '.join(first.parts)}): if they show one person, "
        "film or place, the scores tell how well that is known.",
        {"series": len(series), "valid pictures in them": torn},
        "Give each series to one part: split=Split.by_group(…) with its name as the group.",
    )


def find_foreign_normalisation(subject: Subject) -> Finding | None:
    """Pretrained weights, and pictures that are normalised in another way than theirs were."""
    values = subject.values
    given = values.get("normalisation")
    if values.get("weights") is None or given == "weights" or record_of(values) is None:
        return None
    return Finding(
        "normalisation-of-weights",
        f"The weights of {values.get('architecture')} were trained on pictures with another "
        f"normalisation than {given!r}, so its first layer sees other colours than it knows.",
        {"weights": str(values["weights"]), "normalisation": str(given)},
        'Leave it to the plan, or choices={"normalisation": "weights"}.',
    )


def _parts(data: ImageData) -> list[str]:
    """The part of every row; "" where ``subset`` left it out."""
    parts = [""] * len(data.samples)
    for part in PARTS:
        for row in data.split.part(part):
            parts[int(row)] = part
    return parts


def _disagree(pairs: list) -> int:
    return sum(pair.disagrees for pair in pairs)


CHECKS: tuple[Check, ...] = (
    Check(
        "duplicates-across-parts",
        "train pictures in valid or test",
        find_duplicates,
        "data",
        "first fit",
        f"{_PAGE}duplicates-across-parts",
    ),
    Check(
        "groups-across-parts",
        "series of pictures in train and valid",
        find_series,
        "data",
        "first fit",
        f"{_PAGE}groups-across-parts",
    ),
    Check(
        "near-duplicates",
        "pictures that look like one of train",
        find_near_duplicates,
        "data",
        "full",
        f"{_PAGE}near-duplicates",
    ),
    Check(
        "normalisation-of-weights",
        "another normalisation than the weights'",
        find_foreign_normalisation,
        "facts",
        "first fit",
        f"{_PAGE}normalisation-of-weights",
    ),
)
"""They take the place of core's of the same code."""
