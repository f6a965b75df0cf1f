"""Labels, tables and splits of random content: the order of rows and columns changes nothing."""

import csv
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flambeau import TensorData
from flambeau.data.ordered_names import ordered_names
from flambeau.data.split import PARTS, Split
from flambeau.data.tables import read_csv
from flambeau.data.targets import read_labels
from flambeau.errors import InputError, SplitError

repeatable = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # of a machine that others use, too
)

# ---------------------------------------------------------------- labels

WORDS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["007", "7", " a", "a", "A", "é", "e\u0301", "1", "True", "nan", "1,5", "a;b"]),
)
FLOATS = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 2.0, -100.0, 0.5]))
INTEGERS = st.one_of(st.integers(-3, 5), st.integers(), st.just(-100), st.just(10**400))
SCALARS = (WORDS, INTEGERS, FLOATS, st.booleans(), st.none())
LISTS = tuple(st.lists(each, max_size=3) for each in (*SCALARS, st.one_of(SCALARS)))


@st.composite
def label_lists(draw: st.DrawFn) -> list[Any]:
    """Up to 12 labels of one type or of two, each drawn from a few, so that they repeat."""
    kinds = draw(st.lists(st.sampled_from((*SCALARS, *LISTS)), min_size=1, max_size=2))
    pool = [draw(each) for each in kinds for _ in range(draw(st.integers(1, 3)))]
    return draw(st.lists(st.sampled_from(pool), min_size=1, max_size=12))


def outcome(labels: list[Any], **options: Any) -> tuple[Any, ...]:
    """Kind, names and encoding of every row; or, of an error, the words before its values."""
    try:
        found = read_labels(labels, **options)
    except InputError as error:
        return "error", re.sub(r"\d+", "N", str(error)).split()[:3], [None] * len(labels)
    return found.kind, found.names, found.values.tolist()


@repeatable
@given(
    labels=label_lists(),
    task=st.sampled_from([None, "classification", "multi_label", "regression"]),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_rows_does_not_change_how_labels_are_read(
    labels: list[Any], task: Any, order: Any
) -> None:
    rows = list(range(len(labels)))[::-1]
    if order is not None:
        order.shuffle(rows)
    kind, names, values = outcome(labels, task=task)
    moved = outcome([labels[row] for row in rows], task=task)
    assert moved == (kind, names, [values[row] for row in rows])
    if kind != "error":
        assert len(set(names)) == len(names)


@repeatable
@given(st.one_of(*(st.lists(each, min_size=2, max_size=12) for each in (WORDS, INTEGERS))))
def test_classes_are_the_sorted_labels_and_each_row_has_its_own(labels: list[Any]) -> None:
    try:
        found = read_labels(labels, task="classification")
    except InputError:
        is_empty = any(isinstance(each, str) and not each.strip() for each in labels)
        assert is_empty or len(set(labels)) == 1 or 10**400 in labels
        return
    assert found.names == tuple(map(str, sorted(set(labels))))
    assert [found.text(row) for row in range(len(labels))] == list(map(str, labels))


NUMBER_TYPES = (float, np.float64, np.longdouble, np.array, Decimal, Fraction, torch.tensor)
TEXT_TYPES = (str, np.str_, np.array, str.encode, lambda text: bytearray(text.encode()))


@repeatable
@given(
    numbers=st.lists(st.integers(-64, 64).map(lambda n: n / 4), min_size=2, max_size=8),
    types=st.lists(st.sampled_from(NUMBER_TYPES), min_size=8, max_size=8),
)
def test_the_types_of_numbers_do_not_change_how_they_are_read(
    numbers: list[float], types: list[Any]
) -> None:
    typed = [kind(number) for kind, number in zip(types, numbers, strict=False)]
    assert outcome(typed, task="regression") == outcome(numbers, task="regression")
    inputs = torch.randn(len(numbers), 1)
    alike = [types[0](number) for number in numbers]
    data = TensorData.from_tensors(inputs, alike, valid=0, task="regression")
    found = data.dataset("train", None, {}).targets["target"].tolist()
    assert found == numbers


@repeatable
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=2, max_size=8),
    types=st.lists(st.sampled_from(TEXT_TYPES), min_size=8, max_size=8),
)
def test_the_types_of_text_do_not_change_how_it_is_read(texts: list[str], types: list[Any]) -> None:
    typed = [kind(text) for kind, text in zip(types, texts, strict=False)]
    plain = [
        text.rstrip("\0") if kind in (np.str_, np.array) else text
        for kind, text in zip(types, texts, strict=False)
    ]
    assert outcome(typed, task="classification") == outcome(plain, task="classification")


@repeatable
@given(st.lists(st.text(max_size=4), min_size=2, max_size=10))
def test_tensors_and_labels_of_text_have_the_same_classes(texts: list[str]) -> None:
    kind, names, values = outcome(texts, task="classification")
    try:
        data = TensorData.from_tensors(torch.randn(len(texts), 1), texts, valid=0)
    except InputError as error:
        assert kind == "error" or "NUL" in str(error)  # noqa: PT017 only some are refused
        return
    if kind == "error":  # a single class, or text without a visible character
        return
    found = data.dataset("train", None, {}).targets["target"].tolist()
    assert (tuple(data.facts()["class_names"]), found) == (names, values)


@repeatable
@given(st.lists(st.text(max_size=4), min_size=1, max_size=8, unique=True), st.randoms())
def test_a_dict_of_names_is_the_list_in_any_order(names: list[str], random: Any) -> None:
    pairs = list(enumerate(names))
    random.shuffle(pairs)
    assert ordered_names(dict(pairs), "names") == tuple(names)
    assert ordered_names({name: number for number, name in pairs}, "names") == tuple(names)


@repeatable
@given(st.lists(st.sets(st.sampled_from(["b", "a", "007", "7", " a", "é"])), min_size=1))
def test_several_labels_of_a_row_are_those_given(tags: list[set[str]]) -> None:
    if not any(tags):
        with pytest.raises(InputError, match="No row has a label"):
            read_labels(tags)
        return
    found = read_labels(tags)
    assert found.names == tuple(sorted(set().union(*tags)))
    for row, values in enumerate(found.values.tolist()):
        assert {name for name, on in zip(found.names, values, strict=True) if on} == tags[row]


# ---------------------------------------------------------------- tables

# Without \r, which csv.writer does not quote if it is not in the line end.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6)
CODES = st.integers(0, 99).map(lambda number: f"0{number}")
COLUMNS: dict[str, tuple[Any, Any]] = {
    "integers": (st.integers(-(10**20), 10**20).map(str), int),
    "floats": (st.floats().map(repr), float),
    "codes": (CODES, str),
    "text": (TEXT.map(lambda text: f"x{text}"), str),
}


@st.composite
def csv_tables(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
    """The cells of a few columns, and what they are read as."""
    names = draw(st.lists(st.text("aé中 _B", min_size=1), min_size=2, max_size=4, unique=True))
    n = draw(st.integers(1, 6))
    cells, values = {}, {}
    for name in names:
        strategy, convert = COLUMNS[draw(st.sampled_from(sorted(COLUMNS)))]
        cells[name] = draw(st.lists(strategy, min_size=n, max_size=n))
        values[name] = [convert(cell) for cell in cells[name]]
    return cells, values


@repeatable
@given(
    table=csv_tables(),
    form=st.tuples(
        st.sampled_from(",;\t"),
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        st.sampled_from(["\n", "\r\n"]),
        st.sampled_from(["utf-8", "utf-8-sig"]),
    ),
    draws=st.randoms(use_true_random=False),
)
def test_a_csv_file_is_read_as_written_in_any_form_and_order(
    tmp_path_factory: pytest.TempPathFactory, table: Any, form: Any, draws: Any
) -> None:
    cells, values = table
    separator, quoting, line_end, encoding = form
    names, rows = list(cells), list(range(len(next(iter(cells.values())))))
    draws.shuffle(names)
    draws.shuffle(rows)
    path = tmp_path_factory.getbasetemp() / "random.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=line_end)
        writer.writerow(names)
        writer.writerows([cells[name][row] for name in names] for row in rows)
    text = read_csv(path)
    assert list(text.names) == names
    for name in names:
        assert text.column(name) == [cells[name][row] for row in rows]
        found = text.with_numbers().column(name)
        assert list(map(repr, found)) == [repr(values[name][row]) for row in rows]


@repeatable
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\t\r\n")), min_size=1),
)
def test_quotes_in_a_tsv_file_are_characters(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "random.tsv"
    lines = "".join(f"{row}\t{cell}\n" for row, cell in enumerate(cells))
    path.write_bytes(f"row\tcell\n{lines}".encode())
    assert read_csv(path).column("cell") == cells


# ---------------------------------------------------------------- splits

SIZES = st.one_of(st.just(0), st.integers(0, 8), st.floats(0.01, 0.5))
SEEDS = st.integers(0, 2**31)


def parts_of(split: Split, n: int) -> list[str]:
    """The part of each row, each in exactly one."""
    rows = np.concatenate([split.part(part) for part in PARTS])
    assert sorted(rows.tolist()) == list(range(n))
    part_of = {int(row): part for part in PARTS for row in split.part(part)}
    return [part_of[row] for row in range(n)]


def wanted(n: int, size: float) -> int:
    """How many of ``n`` rows a size asks for."""
    return size if isinstance(size, int) else max(1, round(n * size))


@repeatable
@given(st.integers(3, 60), SIZES, SIZES, SIZES, SEEDS)
def test_a_random_split_has_the_sizes_that_were_asked_for(
    n: int, valid: float, test: float, calibration: float, seed: int
) -> None:
    counts = [wanted(n, size) for size in (valid, test, calibration)]
    if sum(counts) >= n:
        with pytest.raises(SplitError):
            Split.random(n, valid, test, seed, calibration=calibration)
        return
    split = Split.random(n, valid, test, seed, calibration=calibration)
    found = parts_of(split, n)
    assert [found.count(part) for part in PARTS[1:]] == counts
    assert found == parts_of(Split.random(n, valid, test, seed, calibration=calibration), n)
    without = Split.random(n, valid, test, seed)
    assert without.valid.tolist() == split.valid.tolist()
    assert without.test.tolist() == split.test.tolist()


@repeatable
@given(
    st.lists(st.sampled_from(["a", "b", "é", "007"]), min_size=3, max_size=60), SIZES, SIZES, SEEDS
)
def test_a_stratified_split_has_each_class_within_one_row(
    labels: list[str], valid: float, test: float, seed: int
) -> None:
    n = len(labels)
    counts = {"valid": wanted(n, valid), "test": wanted(n, test)}
    if sum(counts.values()) >= n:
        with pytest.raises(SplitError):
            Split.random(n, valid, test, seed, stratify=labels)
        return
    found = parts_of(Split.random(n, valid, test, seed, stratify=labels), n)
    assert found == parts_of(Split.random(n, valid, test, seed, stratify=labels), n)
    left = {name: labels.count(name) - 1 for name in set(labels)}  # one row stays in train
    for part, total in counts.items():
        here = [label for label, each in zip(labels, found, strict=True) if each == part]
        assert len(here) <= total
        quotas = {name: labels.count(name) * total / n for name in left}
        for name, quota in quotas.items():
            assert here.count(name) <= quota + 1
            assert here.count(name) > quota - 1 or here.count(name) == left[name]
        if all(left[name] > quota for name, quota in quotas.items()):
            assert len(here) == total
        left = {name: count - here.count(name) for name, count in left.items()}
    for name in set(labels):
        assert ("train", name) in set(zip(found, labels, strict=True))


@repeatable
@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=60).flatmap(
        lambda groups: st.tuples(st.just(groups), st.permutations(range(len(groups))))
    ),
    SIZES,
    SIZES,
    SEEDS,
    st.sampled_from([Split.by_group, Split.by_time]),
)
def test_groups_and_times_are_never_divided_whatever_the_order_of_rows(
    groups_and_order: Any, valid: float, test: float, seed: int, by: Any
) -> None:
    groups, order = groups_and_order
    options = {"seed": seed} if by is Split.by_group else {}
    try:
        split = by(groups, valid, test, **options)
    except SplitError:
        counts = [wanted(len(groups), size) for size in (valid, test)]
        parts = 1 + sum(count > 0 for count in counts)
        assert sum(counts) >= len(groups) or len(set(groups)) <= parts
        return
    split.check_groups(groups)
    found = parts_of(split, len(groups))
    assert len(set(zip(groups, found, strict=True))) == len(set(groups))
    assert "train" in found
    assert all(part in found for part, size in (("valid", valid), ("test", test)) if size)
    moved = by([groups[row] for row in order], valid, test, **options)
    assert parts_of(moved, len(groups)) == [found[row] for row in order]
    if by is Split.by_time:
        last = max(time for time, part in zip(groups, found, strict=True) if part == "train")
        assert all(time > last for time, part in zip(groups, found, strict=True) if part != "train")


@repeatable
@given(st.lists(st.sampled_from(PARTS), min_size=2, max_size=40))
def test_given_rows_are_used_as_they_are(parts: list[Any]) -> None:
    rows = {part: [row for row, each in enumerate(parts) if each == part] for part in PARTS}
    if not rows["train"]:
        with pytest.raises(SplitError, match="train part has no rows"):
            Split.from_parts(rows)
        return
    assert parts_of(Split.from_parts(rows), len(parts)) == parts
