"""Labels of every scalar type mean the same number, text or nothing at all."""

import datetime
import enum
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from flambeau import TensorData
from flambeau.data.targets import read_labels
from flambeau.errors import InputError


class Kind(enum.Enum):
    BIG = 1
    SMALL = 2


class Code(enum.IntEnum):
    LOW = 3
    HIGH = 7


class Shade(str, enum.Enum):  # noqa: UP042 the older form
    DARK = "dark"
    DIM = "dim"


class Word(enum.StrEnum):
    YES = "y"
    NO = "n"


_NUMBERS: dict[str, list[Any]] = {
    "decimal": [Decimal("0.5"), Decimal("2.25")],
    "fraction": [Fraction(1, 2), Fraction(9, 4)],
    "whole fraction": [Fraction(3), Fraction(4)],
    "long double": [np.longdouble(0.5), np.longdouble(2.25)],
    "float16": [np.float16(0.5), np.float16(2.25)],
    "0-d float": [np.array(0.5), torch.tensor(2.25)],
}
_TEXTS: dict[str, tuple[list[Any], tuple[str, str]]] = {
    "bytes": ([b"b", b"a"], ("a", "b")),
    "bytearray": ([bytearray(b"b"), bytearray(b"a")], ("a", "b")),
    "np.bytes_": ([np.bytes_(b"b"), np.bytes_(b"a")], ("a", "b")),
    "np.str_": ([np.str_("b"), np.str_("a")], ("a", "b")),
    "0-d text": ([np.array("b"), np.array("a")], ("a", "b")),
    "enum": ([Kind.SMALL, Kind.BIG], ("BIG", "SMALL")),
    "text enum": ([Shade.DIM, Shade.DARK], ("dark", "dim")),
    "StrEnum": ([Word.YES, Word.NO], ("n", "y")),
    "text and its enum": (["dim", Shade.DARK], ("dark", "dim")),
}


@pytest.mark.parametrize("pair", _NUMBERS.values(), ids=_NUMBERS)
def test_numbers_of_every_type_are_amounts(pair: list[Any]) -> None:
    expected = [float(value) for value in pair] * 5
    read = read_labels(pair * 5)
    assert (read.kind, read.values.tolist()) == ("regression", expected)
    data = TensorData.from_tensors(torch.randn(10, 2), pair * 5, valid=0)
    assert data.dataset("train", None, {}).targets["target"].tolist() == expected


@pytest.mark.parametrize(("pair", "names"), _TEXTS.values(), ids=_TEXTS)
def test_text_of_every_type_names_classes(pair: list[Any], names: tuple[str, str]) -> None:
    read = read_labels(pair * 5)
    assert (read.names, read.values.tolist()) == (names, [1, 0] * 5)
    data = TensorData.from_tensors(torch.randn(10, 2), pair * 5, valid=0)
    assert tuple(data.facts()["class_names"]) == names
    assert data.dataset("train", None, {}).targets["target"].tolist() == [1, 0] * 5


def test_members_of_an_int_enum_are_their_numbers() -> None:
    read = read_labels([Code.HIGH, 3, Code.LOW, 7])
    assert (read.names, read.values.tolist()) == (("3", "7"), [1, 0, 0, 1])
    data = TensorData.from_tensors(torch.randn(4, 2), [Code.HIGH, 3, Code.LOW, 7], valid=0)
    assert data.dataset("train", None, {}).targets["target"].tolist() == [7, 3, 3, 7]


def test_arrays_of_bytes_and_long_doubles_are_read() -> None:
    x = torch.randn(10, 2)
    data = TensorData.from_tensors(x, np.array([b"b", b"a"] * 5), valid=0)
    assert data.facts()["class_names"] == ["a", "b"]
    amounts = np.array([0.5, 2.25] * 5, dtype=np.longdouble)
    data = TensorData.from_tensors(amounts.reshape(5, 2), torch.arange(5) % 2, valid=0)
    assert data.raw("train")[0].tolist() == [0.5, 2.25]
    small = torch.tensor([0.5, 2.25] * 5).to(torch.float8_e4m3fn)
    assert read_labels(small).values.tolist() == [0.5, 2.25] * 5


def test_rows_of_decimals_are_rows_of_numbers() -> None:
    read = read_labels([[Decimal("0.5"), Fraction(1, 4)], [Decimal("1.5"), Fraction(3, 4)]])
    assert (read.kind, read.values.tolist()) == ("regression", [[0.5, 0.25], [1.5, 0.75]])


_DAY = datetime.date(2024, 5, 1)
_TIMES: dict[str, Any] = {
    "datetime64[D]": np.array(["2024-05-01", "2024-05-02"] * 3, dtype="datetime64[D]"),
    "datetime64[ns]": np.array(["2024-05-01", "2024-05-02"] * 3, dtype="datetime64[ns]"),
    "timedelta64": np.array([1, 2] * 3, dtype="timedelta64[s]"),
    "list of datetime64": list(np.array(["2024-05-01"] * 6, dtype="datetime64[ns]")),
    "date": [_DAY, _DAY + datetime.timedelta(1)] * 3,
    "datetime": [datetime.datetime(2024, 5, 1), datetime.datetime(2024, 5, 2)] * 3,
    "time": [datetime.time(1), datetime.time(2)] * 3,
    "timedelta": [datetime.timedelta(1), datetime.timedelta(2)] * 3,
}


@pytest.mark.parametrize("labels", _TIMES.values(), ids=_TIMES)
def test_times_are_refused_until_the_task_is_given(labels: Any) -> None:
    with pytest.raises(InputError, match="could be a class or an amount"):
        read_labels(labels)
    with pytest.raises(InputError, match="not numeric"):
        TensorData.from_tensors(torch.randn(6, 2), labels)


def test_times_as_classes_have_readable_names() -> None:
    for unit in "ns", "D":
        labels = np.array(["2024-05-02", "2024-05-01"], dtype=f"datetime64[{unit}]")
        read = read_labels(labels, task="classification")
        assert [name[:10] for name in read.names] == ["2024-05-01", "2024-05-02"]
        assert read.values.tolist() == [1, 0]


@pytest.mark.parametrize("value", [np.datetime64("NaT"), np.timedelta64("NaT")], ids=str)
def test_a_missing_time_is_a_missing_label(value: Any) -> None:
    with pytest.raises(InputError, match="row 1 is missing"):
        read_labels([type(value)(1, "D"), value], task="classification")


@pytest.mark.parametrize(
    "labels",
    [[1j, 2j], np.array([1j, 2j]), np.array([[1j, 2j], [1, 1j]]), torch.tensor([1j, 2j])],
    ids=["list", "array", "rows", "tensor"],
)
def test_complex_labels_are_refused(labels: Any) -> None:
    with pytest.raises(InputError, match="complex number"):
        read_labels(labels)


def test_rows_with_fields_are_refused() -> None:
    fields = np.array([(1, 2), (3, 4)], dtype=[("a", int), ("b", int)])
    with pytest.raises(InputError, match="row with fields"):
        read_labels(fields)
    with pytest.raises(InputError, match="row with fields"):
        read_labels(list(fields))


def test_masked_rows_of_a_list_are_refused() -> None:
    rows = [np.ma.array([1.0, 2.0]), np.ma.array([3.0, 4.0], mask=[0, 1])]
    with pytest.raises(InputError, match="Row 1 of 'input' is a masked array"):
        TensorData.from_tensors(rows, [0, 1])
