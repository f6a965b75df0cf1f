"""Checks for leaks: rows or groups in train and validation, inputs that contain the target."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.part_columns import is_group_name
from flambeau.data.split import HELD_OUT
from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.doctor.typed_torch import true_positions, unique_counts, vector_norms
from flambeau.wording import name_some

# Rows, and values per row, that are compared; 100,000 rows take 0.1 s on a 2-core Xeon.
_MOST_TRAIN, _MOST_OTHER, _MOST_VALUES = 100_000, 20_000, 64
_MOST_CANDIDATES = 2_000
# Values of a row that decide whether it is compared; rows whose values are read at once: they are
# float64, so that 64 values of 16,384 rows need 8 MB.
_MARK_VALUES, _CHUNK = 6, 1 << 14
_MIXER = 0x2545F4914F6CDD1D
# Real data sets contain some copies: 1% is far above the share in Fashion-MNIST or CIFAR-10.
_LEAST_SHARE, _LEAST_COPIES = 0.01, 2
# Rows of few distinct values are equal by chance; skip the check if more copies are expected.
_BY_CHANCE = 0.01
# Codes that depend on each other repeat too: skip the check if most train rows are repeated.
_MOSTLY_DISTINCT = 0.5

_SHARED_GROUPS = 0.05

_ROWS_FOR_COLUMNS, _MOST_COLUMNS = 2_000, 4_096
_FEWEST_ROWS, _FEWEST_OF_CLASS = 30, 5
_SAME_LINE = 1 - 1e-5

# Full check: standardised rows are near if they differ by less than this share of their norm.
_NEAR = 0.02
_NEAR_TRAIN, _NEAR_OTHER = 20_000, 2_000
_LEAST_VALUES, _NEAR_VALUES = 16, 1_024


def duplicates_across_parts(setup: TrainingSetup) -> list[Finding]:
    """Find held-out rows that are also train rows: the scores are too high."""
    found: list[Finding] = []
    train = setup.memory_dataset("train")
    for part in HELD_OUT:
        other = setup.memory_dataset(part)
        if train is None or other is None or not _comparable(train, other):
            continue
        pairs, compared = _copies(train, other)
        if len(pairs) < max(_LEAST_COPIES, _LEAST_SHARE * compared):
            continue
        ids = ((other.sample_number(here), train.sample_number(there)) for here, there in pairs)
        shown = name_some((f"row {here} is train row {there}" for here, there in ids), most=3)
        differ = sum(not _same_targets(train, there, other, here) for here, there in pairs)
        found.append(
            Finding(
                "duplicates-across-parts",
                f"{len(pairs):,} of {compared:,} {part} rows have the same inputs as a train row "
                f"({shown}), {_count_differing(differ)} another target, so the scores are too "
                "high.",
                {
                    "copies": len(pairs),
                    "compared": compared,
                    "share": len(pairs) / compared,
                    "with another target": differ,
                },
                "Drop the copies before splitting, or keep them in one part: "
                "split=Split.by_group(…) with one group for equal rows.",
                severity="error" if len(pairs) > compared / 2 else "warning",
            )
        )
    return found


def groups_across_parts(setup: TrainingSetup) -> list[Finding]:
    """Find a column whose groups (patients, speakers …) are in both train and validation rows."""
    train, valid = setup.memory_dataset("train"), setup.memory_dataset("valid")
    if train is None or valid is None:
        return []
    found: list[Finding] = []
    for name, ids in train.inputs.items():
        valid_ids = valid.inputs.get(name)
        if valid_ids is None or not is_group_name(name) or ids.is_floating_point():
            continue
        if ids.numel() != len(ids) or valid_ids.numel() != len(valid_ids):
            continue
        known, _ = unique_counts(ids)
        shared = torch.isin(valid_ids.flatten(), known)
        if len(ids) < 2 * len(known) or float(shared.float().mean()) < _SHARED_GROUPS:
            continue
        found.append(
            Finding(
                "groups-across-parts",
                f"{int(shared.sum()):,} of {len(valid_ids):,} validation rows have a {name} that "
                "also occurs in train. The scores measure how well the model works for groups in "
                "train, not for new groups.",
                {
                    "groups in train": len(known),
                    "share of valid rows": float(shared.float().mean()),
                },
                f"Put each {name} into one part: split=Split.by_group({name}).",
            )
        )
    return found


def leaking_column(setup: TrainingSetup) -> list[Finding]:
    """Find an input column from which the target follows exactly: a copy of the target."""
    train = setup.memory_dataset("train")
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
        leaking = _linear(x, y.double()) if y.is_floating_point() else _one_value_per_class(x, y)
        for column in leaking[:3]:
            which = f"{name}[:, {column}]" if x.shape[1] > 1 else name
            found.append(
                Finding(
                    "leaking-column",
                    f"The input {which} alone determines the target of all {len(rows):,} train "
                    "rows that were checked.",
                    {"rows": len(rows), "columns like that": len(leaking)},
                    "Remove the column if it is not known at prediction time: it is a copy of the "
                    "target or was computed from it.",
                )
            )
    return found


def near_duplicates(setup: TrainingSetup) -> list[Finding]:
    """Find validation rows that are almost equal to a train row, such as copies with noise."""
    train, valid = setup.memory_dataset("train"), setup.memory_dataset("valid")
    if train is None or valid is None or not _comparable(train, valid):
        return []
    rows, others = _spread(len(train), _NEAR_TRAIN), _spread(len(valid), _NEAR_OTHER)
    a, b = _numeric_rows(train, rows), _numeric_rows(valid, others)
    if a is None or b is None or a.shape[1] < _LEAST_VALUES:
        return []
    mean, std = a.mean(0), a.std(0)
    keep = std > 0
    a, b = ((part[:, keep] - mean[keep]) / std[keep] for part in (a, b))
    if a.shape[1] < _LEAST_VALUES:
        return []
    distance, at = _nearest(a, b)
    near = true_positions((distance < _NEAR * vector_norms(b, 1)) & (distance > 0))
    if len(near) < max(_LEAST_COPIES, _LEAST_SHARE * len(b)):
        return []
    position = near[0]
    first = f"row {valid.sample_number(int(others[position]))} is almost train row "
    first += str(train.sample_number(int(rows[at[position]])))
    return [
        Finding(
            "near-duplicates",
            f"{len(near):,} of {len(b):,} validation rows are almost the same as a train row "
            f"({first}), so the scores are too high.",
            {"rows": len(near), "compared": len(b), "differ by less than": _NEAR},
            "Keep similar rows in one part: split=Split.by_group(…) with one group for them, or "
            "drop the copies.",
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


def _same_targets(train: MemoryDataset, row: int, other: MemoryDataset, other_row: int) -> bool:
    return all(
        name in other.targets and torch.equal(value[row], other.targets[name][other_row])
        for name, value in train.targets.items()
    )


def _count_differing(count: int) -> str:
    return f"{count:,} of them with" if count else "none of them with"


def _copies(train: MemoryDataset, other: MemoryDataset) -> tuple[list[tuple[int, int]], int]:
    """Return equal pairs (position in ``other``, in train) and how many rows were compared."""
    rows, others = _rows_to_compare(train, other)
    some = _some_values(train.inputs, rows[_spread(len(rows), 1_000)], _MOST_VALUES)
    if _chance_of_equal_rows(some) * len(rows) > _BY_CHANCE:
        return [], len(others)
    train_hashes = _row_hashes(train, rows, _MOST_VALUES)
    other_hashes = _row_hashes(other, others, _MOST_VALUES)
    n_distinct = len(unique_counts(train_hashes)[0])
    if _are_codes(train) and n_distinct < _MOSTLY_DISTINCT * len(train_hashes):
        return [], len(others)
    order = train_hashes.argsort()
    found_at = torch.searchsorted(train_hashes[order], other_hashes)
    found_at = found_at.clamp(max=len(train_hashes) - 1)
    matches = train_hashes[order][found_at] == other_hashes
    found: list[tuple[int, int]] = []
    for candidate in true_positions(matches)[:_MOST_CANDIDATES]:
        row, other_row = int(rows[order[found_at[candidate]]]), int(others[candidate])
        if all(torch.equal(v[row], other.inputs[n][other_row]) for n, v in train.inputs.items()):
            found.append((other_row, row))
    return found, len(others)


def _rows_to_compare(train: MemoryDataset, other: MemoryDataset) -> tuple[Tensor, Tensor]:
    """Return the rows of both parts that are compared: all if there are few.

    Of many rows those with certain values are compared, so that both rows of a pair are among them.
    """
    step = -(-len(train) // _MOST_TRAIN)
    if step > 1:
        rows, others = _marked(train, step), _marked(other, step)
        if len(train) // (2 * step) < len(rows) < 2 * _MOST_TRAIN and len(others):
            return rows, others[:_MOST_OTHER]
    # The values that were looked at are the same in too many rows.
    return _spread(len(train), _MOST_TRAIN), _spread(len(other), _MOST_OTHER)


def _marked(dataset: MemoryDataset, step: int) -> Tensor:
    """Return about one of ``step`` rows, which depends only on some values of each row."""
    found: list[Tensor] = []
    for first in range(0, len(dataset), _CHUNK):
        rows = torch.arange(first, min(first + _CHUNK, len(dataset)))
        hashes = _row_hashes(dataset, rows, _MARK_VALUES)
        # The low bits of the hashes of whole numbers are 0, so all bits are mixed.
        marks = ((hashes ^ (hashes >> 32)) * _MIXER) >> 33
        found.append(rows[marks % step == 0])
    return torch.cat(found)


def _are_codes(dataset: MemoryDataset) -> bool:
    """Return whether every input holds integer codes, as opposed to pixels or real numbers."""
    return not any(v.is_floating_point() or v.dtype == torch.uint8 for v in dataset.inputs.values())


def _some_values(inputs: Mapping[str, Tensor], rows: Tensor, most: int) -> Tensor:
    """Return up to ``most`` values of each row, at the same positions: float64 ``(rows, …)``."""
    parts: list[Tensor] = []
    for name, value in inputs.items():
        flat = value.reshape(len(value), -1)
        width = flat.shape[1]
        draws = keyed.generator(0, f"doctor/{name}")
        some = torch.randperm(width, generator=draws)[: max(1, most // len(inputs))]
        parts.append(flat[rows.unsqueeze(1), some].double())
    return torch.cat(parts, dim=1)


def _chance_of_equal_rows(some: Tensor) -> float:
    """Return the probability that two rows are equal, assuming independent columns."""
    log = 0.0
    for column in some.T:
        shares = unique_counts(column)[1].double() / len(column)
        log += math.log(float((shares**2).sum()))
    return math.exp(log)


def _row_hashes(dataset: MemoryDataset, rows: Tensor, most: int) -> Tensor:
    """Return one int64 per row, the same for equal rows, whatever the order of summation."""
    found: list[Tensor] = []
    for part in torch.split(rows, _CHUNK):
        values = _some_values(dataset.inputs, part, most)
        draws = keyed.generator(0, "doctor/marks")
        vector = torch.randint(-(2**62), 2**62, (values.shape[1],), generator=draws)
        # + 0.0 turns -0 into 0
        found.append(values.add_(0.0).view(torch.int64).mul_(vector).sum(1))
    return torch.cat(found)


def _spread(n: int, most: int) -> Tensor:
    """Return up to ``most`` evenly spaced row positions."""
    return torch.arange(n) if n <= most else torch.linspace(0, n - 1, most).long()


# ---------------------------------------------------------------- columns


def _one_value_per_class(x: Tensor, labels: Tensor) -> list[int]:
    """Return the columns of ``x`` with a single value in each class that no other class has."""
    classes, counts = unique_counts(labels)
    if len(classes) < 2 or int(counts.min()) < _FEWEST_OF_CLASS or len(classes) > 100:
        return []
    low = torch.stack([x[labels == label].amin(0) for label in classes])
    high = torch.stack([x[labels == label].amax(0) for label in classes])
    apart = low.sort(0).values.diff(dim=0).abs().amin(0) > 0
    return true_positions((low == high).all(0) & apart)


def _linear(x: Tensor, y: Tensor) -> list[int]:
    """Return the columns of ``x`` of which ``y`` is an exact linear function."""
    x, y = x - x.mean(0), y - y.mean()
    size = vector_norms(x, 0) * vector_norms(y, 0)
    correlation = torch.where(size > 0, (x * y.unsqueeze(1)).sum(0) / size, 0.0)
    return true_positions(correlation.abs() > _SAME_LINE)


# ---------------------------------------------------------------- near rows


def _numeric_rows(dataset: MemoryDataset, rows: Tensor) -> Tensor | None:
    """Return the concatenated inputs of the rows as float32; None if an input holds codes."""
    if not all(v.is_floating_point() or v.dtype == torch.uint8 for v in dataset.inputs.values()):
        return None
    return _some_values(dataset.inputs, rows, _NEAR_VALUES).float()


def _nearest(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each row of ``others``, the distance and the position of the nearest row."""
    found: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(others), 256):
        distances = torch.cdist(others[first : first + 256], rows)
        found.append((distances.amin(1), distances.argmin(1)))
    return torch.cat([best for best, _ in found]), torch.cat([at for _, at in found])
