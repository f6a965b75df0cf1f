"""Checks of what valid should not know: copies of train rows, their groups, the answer itself."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.memory_loader import MemoryDataset
from flambeau.doctor.finding import Finding
from flambeau.doctor.readings import distinct, lengths, places
from flambeau.doctor.subject import Subject
from flambeau.doctor.words import listed

# Rows and numbers a row that are compared; a second at most for 100,000 rows (2-core Xeon: 0.1 s).
_MOST_TRAIN, _MOST_OTHER, _MOST_NUMBERS = 100_000, 20_000, 64
_MOST_CANDIDATES = 2_000
# Real data sets have some: 1% is far above those of Fashion-MNIST or CIFAR-10 (bytes).
_LEAST_SHARE, _LEAST_COPIES = 0.01, 2
# Rows of few distinct values are equal by chance; so many chance copies of a row are too many.
_BY_CHANCE = 0.01
# Codes that depend on one another repeat too: where most train rows do, it is how the data are.
_MOSTLY_DISTINCT = 0.5

_GROUP = re.compile(
    r"^(patient|subject|participant|person|speaker|session|household|group|site|video|scene)"
    r"s?([_-]?(id|no|nr|number))?$",
    re.IGNORECASE,
)
_SHARED_GROUPS = 0.05

_ROWS_FOR_COLUMNS, _MOST_COLUMNS = 2_000, 4_096
_FEWEST_ROWS, _FEWEST_OF_CLASS = 30, 5
_SAME_LINE = 1 - 1e-5

# Full checks: standardised rows that differ by less than this share of their own size are one.
_NEAR = 0.02
_NEAR_TRAIN, _NEAR_OTHER = 20_000, 2_000
_LEAST_NUMBERS, _NEAR_NUMBERS = 16, 1_024


def duplicates_across_parts(subject: Subject) -> list[Finding]:
    """Valid or test rows that are train rows too: the scores are too good."""
    found: list[Finding] = []
    train = subject.columns("train")
    for part in ("valid", "test"):
        other = subject.columns(part)
        if train is None or other is None or not _comparable(train, other):
            continue
        pairs, compared = _copies(train, other)
        if len(pairs) < max(_LEAST_COPIES, _LEAST_SHARE * compared):
            continue
        shown = listed((f"row {here} is train row {there}" for here, there in pairs), most=3)
        found.append(
            Finding(
                "duplicates-across-parts",
                f"{len(pairs):,} of {compared:,} {part} rows have the same inputs as a train row "
                f"({shown}), so the scores are too good.",
                {"copies": len(pairs), "compared": compared, "share": len(pairs) / compared},
                "Drop the copies before the parts are made, or keep them together: "
                "split=Split.by_group(…) with one group for equal rows.",
                severity="error" if len(pairs) > compared / 2 else "warning",
            )
        )
    return found


def groups_across_parts(subject: Subject) -> list[Finding]:
    """A column that names patients, speakers or the like, with the same ones in train and valid."""
    train, valid = subject.columns("train"), subject.columns("valid")
    if train is None or valid is None:
        return []
    found: list[Finding] = []
    for name, ids in train.inputs.items():
        theirs = valid.inputs.get(name)
        if theirs is None or not _GROUP.match(name) or ids.is_floating_point():
            continue
        if ids.numel() != len(ids) or theirs.numel() != len(theirs):
            continue
        known, _ = distinct(ids)
        shared = torch.isin(theirs.flatten(), known)
        if len(ids) < 2 * len(known) or float(shared.float().mean()) < _SHARED_GROUPS:
            continue
        found.append(
            Finding(
                "groups-across-parts",
                f"{int(shared.sum()):,} of {len(theirs):,} valid rows have a {name} that train has "
                "too: the scores tell how well those are known, not how well new ones will be.",
                {
                    "groups in train": len(known),
                    "share of valid rows": float(shared.float().mean()),
                },
                f"Give each {name} to one part: split=Split.by_group({name}).",
            )
        )
    return found


def leaking_column(subject: Subject) -> list[Finding]:
    """One input number that tells the target without any error: it is the target, written twice."""
    train = subject.columns("train")
    if train is None or len(train.targets) != 1 or len(train) < _FEWEST_ROWS:
        return []
    target = next(iter(train.targets.values()))
    columns = {name: v for name, v in train.inputs.items() if v.ndim <= 2 and not v.is_complex()}
    width = sum(1 if value.ndim == 1 else value.shape[1] for value in columns.values())
    if target.numel() != len(target) or not 2 <= width <= _MOST_COLUMNS:
        return []
    rows = _spread(len(train), _ROWS_FOR_COLUMNS)
    y = target.flatten()[rows]
    found: list[Finding] = []
    for name, value in columns.items():
        x = value.reshape(len(value), -1)[rows].double()
        told = _one_line(x, y.double()) if y.is_floating_point() else _one_to_one(x, y)
        for column in told[:3]:
            which = f"{name}[:, {column}]" if x.shape[1] > 1 else name
            found.append(
                Finding(
                    "leaking-column",
                    f"The input {which} alone tells the target of all {len(rows):,} train rows "
                    "that were looked at.",
                    {"rows": len(rows), "columns like that": len(told)},
                    "Leave it out if it is not known when the model is used: it is the target or "
                    "was made from it.",
                )
            )
    return found


def near_duplicates(subject: Subject) -> list[Finding]:
    """Valid rows that are nearly a train row: copies with noise, re-encoded, rescaled."""
    train, valid = subject.columns("train"), subject.columns("valid")
    if train is None or valid is None or not _comparable(train, valid):
        return []
    rows, others = _spread(len(train), _NEAR_TRAIN), _spread(len(valid), _NEAR_OTHER)
    a, b = _real(train, rows), _real(valid, others)
    if a is None or b is None or a.shape[1] < _LEAST_NUMBERS:
        return []
    mean, std = a.mean(0), a.std(0)
    keep = std > 0
    a, b = ((part[:, keep] - mean[keep]) / std[keep] for part in (a, b))
    if a.shape[1] < _LEAST_NUMBERS:
        return []
    nearest, at = _nearest(a, b)
    near = places((nearest < _NEAR * lengths(b, 1)) & (nearest > 0))
    if len(near) < max(_LEAST_COPIES, _LEAST_SHARE * len(b)):
        return []
    place = near[0]
    first = f"row {_number(valid, int(others[place]))} is nearly train row "
    first += str(_number(train, int(rows[at[place]])))
    return [
        Finding(
            "near-duplicates",
            f"{len(near):,} of {len(b):,} valid rows are nearly a train row ({first}), so the "
            "scores are too good.",
            {"rows": len(near), "compared": len(b), "differ by less than": _NEAR},
            "Keep them together: split=Split.by_group(…) with one group for what is alike, or drop "
            "the copies.",
        )
    ]


# ---------------------------------------------------------------- equal rows


def _comparable(train: MemoryDataset, other: MemoryDataset) -> bool:
    return list(train.inputs) == list(other.inputs) and all(
        value.shape[1:] == other.inputs[name].shape[1:]
        and value.dtype == other.inputs[name].dtype
        and not value.is_complex()
        for name, value in train.inputs.items()
    )


def _copies(train: MemoryDataset, other: MemoryDataset) -> tuple[list[tuple[int, int]], int]:
    """(row of ``other``, train row) that are equal, and how many of ``other`` were compared."""
    rows, others = _spread(len(train), _MOST_TRAIN), _spread(len(other), _MOST_OTHER)
    here, there = _some_numbers(train.inputs, rows), _some_numbers(other.inputs, others)
    if _equal_by_chance(here) * len(here) > _BY_CHANCE:
        return [], len(others)
    marks, theirs = _marks(here), _marks(there)
    if _are_codes(train) and len(distinct(marks)[0]) < _MOSTLY_DISTINCT * len(marks):
        return [], len(others)
    order = marks.argsort()
    place = torch.searchsorted(marks[order], theirs).clamp(max=len(marks) - 1)
    candidates = places(marks[order][place] == theirs)[:_MOST_CANDIDATES]
    found: list[tuple[int, int]] = []
    for candidate in candidates:
        mine, its = int(rows[order[place[candidate]]]), int(others[candidate])
        if all(torch.equal(v[mine], other.inputs[name][its]) for name, v in train.inputs.items()):
            found.append((_number(other, its), _number(train, mine)))
    return found, len(others)


def _are_codes(dataset: MemoryDataset) -> bool:
    """Whether every input is whole numbers that are no pixels."""
    return not any(v.is_floating_point() or v.dtype == torch.uint8 for v in dataset.inputs.values())


def _some_numbers(inputs: Mapping[str, Tensor], rows: Tensor, most: int = _MOST_NUMBERS) -> Tensor:
    """Up to ``most`` numbers of each row, from the same places: float64 ``(rows, numbers)``."""
    parts: list[Tensor] = []
    for name, value in inputs.items():
        flat = value.reshape(len(value), -1)
        width = flat.shape[1]
        draws = keyed.generator(0, f"doctor/{name}")
        some = torch.randperm(width, generator=draws)[: max(1, most // len(inputs))]
        parts.append(flat[rows.unsqueeze(1), some].double())
    return torch.cat(parts, dim=1)


def _equal_by_chance(numbers: Tensor) -> float:
    """Probability that two rows are equal if their columns were independent."""
    some = numbers[_spread(len(numbers), 1_000)]
    log = 0.0
    for column in some.T:
        shares = distinct(column)[1].double() / len(column)
        log += math.log(float((shares**2).sum()))
    return math.exp(log)


def _marks(numbers: Tensor) -> Tensor:
    """A number a row that equal rows share: whole numbers, which no order of adding changes."""
    draws = keyed.generator(0, "doctor/marks")
    vector = torch.randint(-(2**62), 2**62, (numbers.shape[1],), generator=draws)
    return ((numbers + 0.0).view(torch.int64) * vector).sum(1)  # + 0.0 makes 0 of -0


def _spread(n: int, most: int) -> Tensor:
    """Up to ``most`` row numbers, spread evenly."""
    return torch.arange(n) if n <= most else torch.linspace(0, n - 1, most).long()


def _number(dataset: MemoryDataset, row: int) -> int:
    return row if dataset.ids is None else int(dataset.ids[row])


# ---------------------------------------------------------------- columns


def _one_to_one(x: Tensor, labels: Tensor) -> list[int]:
    """Columns of ``x`` with one value for each class, another one for another class."""
    classes, counts = distinct(labels)
    if len(classes) < 2 or int(counts.min()) < _FEWEST_OF_CLASS or len(classes) > 100:
        return []
    low = torch.stack([x[labels == label].amin(0) for label in classes])
    high = torch.stack([x[labels == label].amax(0) for label in classes])
    apart = low.sort(0).values.diff(dim=0).abs().amin(0) > 0
    return places((low == high).all(0) & apart)


def _one_line(x: Tensor, y: Tensor) -> list[int]:
    """Columns of ``x`` from which ``y`` follows by a factor and a shift."""
    x, y = x - x.mean(0), y - y.mean()
    size = lengths(x, 0) * lengths(y, 0)
    correlation = torch.where(size > 0, (x * y.unsqueeze(1)).sum(0) / size, 0.0)
    return places(correlation.abs() > _SAME_LINE)


# ---------------------------------------------------------------- near rows


def _real(dataset: MemoryDataset, rows: Tensor) -> Tensor | None:
    """Numbers of the rows' inputs side by side, float32; None where one holds codes."""
    if not all(v.is_floating_point() or v.dtype == torch.uint8 for v in dataset.inputs.values()):
        return None
    return _some_numbers(dataset.inputs, rows, _NEAR_NUMBERS).float()


def _nearest(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each of ``others`` from its nearest row, and which one that is."""
    found: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(others), 256):
        distances = torch.cdist(others[first : first + 256], rows)
        found.append((distances.amin(1), distances.argmin(1)))
    return torch.cat([best for best, _ in found]), torch.cat([at for _, at in found])
