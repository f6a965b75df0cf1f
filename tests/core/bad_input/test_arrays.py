"""Invalid arrays are refused before training, with row, column and value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flambeau import Data, Learner, Split, TensorData
from flambeau.errors import ArgumentError, FlambeauWarning, InputError, SplitError

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
WORDS = np.array(["a", "b", "c"])[Y.numpy()]


def fit(data: Data, model: nn.Module | None = None) -> Learner:
    learner = Learner(data, model, quiet=True, choices={"batch_size": 8})
    learner.fit(1)
    return learner


def with_value(tensor: torch.Tensor, position: tuple[int, ...], value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed[position] = value
    return changed


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.empty(0, 6), torch.empty(0).long(), r"at least one sample.*shape \(0, 6\)"),
        (np.empty((0, 6)), np.empty(0, int), "at least one sample"),
        (X[:1], Y[:1], "1 rows are too few for 2 parts"),
        (torch.empty(60, 0), Y, r"shape \(48, 0\), so its samples have no values"),
        (X, Y[:50], "'input' has 60, 'target' has 50. Every tensor needs one row per sample"),
        (with_value(X, (7, 3), float("nan")), Y, r"train row 7\. The first is nan in column 3"),
        (with_value(X, (0, 0), float("-inf")), Y, r"row 0\. The first is -inf in column 0"),
        (torch.tensor(1.0), Y, "'input' is a scalar tensor"),
        (X.to_sparse(), Y, r"layout is torch.sparse_coo.*to_dense\(\)"),
        (torch.empty(60, 6, device="meta"), Y, "meta device, so it has no values"),
        (np.array([["1", "a"]] * 60), Y, "has dtype <U1, which is not numeric: encode the strings"),
        (
            np.full(60, "2026-01-01", "datetime64[D]"),
            Y,
            "not numeric: convert it to durations",
        ),
        (X.numpy().astype(complex), Y, "give the real and imaginary parts"),
        (np.array([[1, "x"], [2, 3]] * 30, object), Y, r"\[0, 1\] is 'x' of type str"),
        (np.array([[1, None], [2, 3]] * 30, object), Y, r"\[0, 1\] is None.*missing value"),
        (np.array([[1, 2], [2**80, 3]] * 30, object), Y, "has dtype object"),
    ],
)
def test_invalid_inputs_are_refused_with_their_position(
    inputs: Any, targets: Any, message: str
) -> None:
    with pytest.raises((InputError, SplitError), match=message):
        TensorData.from_tensors(inputs, targets)


def test_an_invalid_pixel_is_named() -> None:
    images = with_value(torch.zeros(60, 3, 4, 4), (9, 1, 2, 3), float("inf"))
    with pytest.raises(InputError, match=r"row 9\. The first is inf at index \(1, 2, 3\)"):
        TensorData.from_tensors(images, Y)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "inputs is None"),
        (set(), "'input' is a set, not a tensor, NumPy array, list or column"),
    ],
)
def test_inputs_that_are_not_arrays_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        TensorData.from_tensors(inputs, Y)


@pytest.mark.parametrize(
    ("targets", "task", "message"),
    [
        (torch.zeros(60).long(), "auto", "All 48 train rows have the class '0'"),
        (np.array(["a"] * 60), "auto", "All 48 train rows have the class 'a'"),
        (Y[:, None], "auto", r"shape \(rows, 1\).*targets\[:, 0\]"),
        (torch.ones(60, 3).long(), "classification", r"shape \(rows, 3\).*argmax\(1\)"),
        (
            Y - 1,
            "classification",
            "3 distinct values of int64 from -1 to 1. Number the classes from 0",
        ),
        (Y + 5000, "auto", "from 5,000 to 5,002. Number the classes from 0"),
        (Y * 10**12, "auto", "Number the classes from 0"),
        (
            Y.float() + 0.5,
            "classification",
            "contains 0.5 in train row 0, which is not a class number",
        ),
        (WORDS, "regression", "targets are strings"),
        (Y, "multi_label", r"shape \(\d+,\), but task='multi_label' needs a column"),
        (torch.full((60, 2), 3), "multi_label", "contains 3 in train row 0, column 0"),
    ],
)
def test_targets_are_refused_before_training(targets: Any, task: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(TensorData.from_tensors(X, targets, task=task))


def test_a_label_without_train_rows_is_named_with_its_row() -> None:
    only = TensorData.from_tensors(X, Y % 2, valid=(X[:3], torch.tensor([0, 1, 2])))
    with pytest.raises(InputError, match=r"row 62: 2\)\. Within valid it is row 2"):
        fit(only)
    with pytest.raises(
        InputError, match="valid targets contain 'z' in row 1, which no train row has"
    ):
        TensorData.from_tensors(X, WORDS, valid=(X[:2], np.array(["a", "z"])))
    with pytest.raises(
        InputError, match=r"train targets contain 'c' in row 2, .*not in class_names"
    ):
        TensorData.from_tensors(X, WORDS, class_names=["a", "b"])


def test_a_class_without_train_rows_is_named() -> None:
    with pytest.warns(FlambeauWarning, match="No train row has the class 'd'.*class_names"):
        fit(TensorData.from_tensors(X, Y, class_names=list("abcd")))
    gap = TensorData.from_tensors(X, (Y % 2) * 2)
    with pytest.warns(FlambeauWarning, match="the class '1'.*without gaps"):
        fit(gap)
    given = TensorData.from_tensors(
        X, Y % 2, valid=(X[:2] + 0.5, torch.tensor([0, 2])), class_names=list("abc")
    )
    with pytest.warns(FlambeauWarning, match="the class 'c'.*The valid rows 61 have it"):
        fit(given)


@pytest.mark.parametrize(
    "targets",
    [
        Y > 0,
        (Y > 0).numpy(),
        (Y > 0).float(),
        (Y > 0).double().numpy(),
        WORDS.astype(object),
        np.array([0, 1, 2] * 20, object),
    ],
)
def test_labels_of_other_dtypes_are_classes(targets: Any) -> None:
    learner = fit(TensorData.from_tensors(X, targets))
    assert learner.plan.values["task"] == "classification"
    assert learner.predict(X[:1])[0].label in ("0", "1", "2", "a", "b", "c")


def test_integer_valued_floats_can_be_declared_as_classes() -> None:
    learner = fit(TensorData.from_tensors(X, Y.numpy().astype(float), task="classification"))
    assert learner.task.arguments()["classes"] == ["0", "1", "2"]
    assert Learner(TensorData.from_tensors(X, Y.float())).plan.values["task"] == "regression"


def test_words_get_the_same_code_in_every_part() -> None:
    data = TensorData.from_tensors(X, WORDS, valid=(X[:2], np.array(["c", "a"])))
    valid = data.dataset("valid", data.preprocessor({}), {})
    assert valid.targets["target"].tolist() == [2, 0]
    named = TensorData.from_tensors(X, WORDS, class_names=["c", "b", "a"])
    train = named.dataset("train", named.preprocessor({}), {})
    expected = torch.tensor([2, 1, 0])[Y[torch.as_tensor(named.split.train)]]
    assert torch.equal(train.targets["target"], expected)


@pytest.mark.parametrize("inputs", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("weights", [torch.float64, torch.float32])
def test_floats_are_cast_to_the_dtype_of_the_module(
    inputs: torch.dtype, weights: torch.dtype
) -> None:
    torch.manual_seed(0)
    learner = fit(TensorData.from_tensors(X.to(inputs), Y), nn.Linear(6, 3).to(weights))
    choice = learner.plan["input_dtype"]
    if inputs == weights:
        assert (choice.value, choice.source) == (None, "default")
    else:
        assert choice.value == str(weights).removeprefix("torch.")
        assert "Your module computes in" in choice.reason
    assert learner.predictor().outputs(X[:4]).dtype == weights


def test_a_sample_may_be_a_single_number() -> None:
    assert len(fit(TensorData.from_tensors(X[:, 0], Y)).predict(X[:5, 0])) == 5


@pytest.mark.parametrize(
    ("valid", "kind", "message"),
    [
        (1.5, SplitError, "valid=1.5 is invalid"),
        (-0.1, SplitError, "valid=-0.1 is invalid"),
        (float("nan"), SplitError, "valid=nan is invalid"),
        ("0.2", ArgumentError, "valid is '0.2' of type str"),
        (True, ArgumentError, "valid is True of type bool"),
        ([X, Y], ArgumentError, "of type list"),
        ((X, Y, Y), ArgumentError, "valid is a tuple of 3. Give two elements"),
        ((X[:, :5], Y), InputError, r"valid input 'input' has shape \(5,\) per sample, but train"),
        ((X.long(), Y), InputError, r"has dtype int64, but train has float32"),
        (({"other": X}, Y), InputError, "valid inputs are other, but train has input"),
        ((X[:9], Y[:5]), InputError, "'input' has 9, 'target' has 5"),
    ],
)
def test_invalid_valid_parts_are_refused(valid: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        TensorData.from_tensors(X, Y, valid=valid)


def test_overlapping_parts_are_named() -> None:
    with pytest.raises(SplitError, match="train and valid both contain rows 45, 46"):
        Split.from_indices(range(50), range(45, 60))
    with pytest.raises(ArgumentError, match="split is a tuple, not a Split"):
        TensorData.from_tensors(X, Y, split=([0], [1]))  # type: ignore[arg-type]


def test_the_report_names_valid_rows_that_are_in_train_too() -> None:
    data = TensorData.from_tensors(X, Y, valid=(torch.cat([X[7:9], X[:1] + 1]), Y[:3]))
    assert "valid rows with the inputs of a train row: 2 (row 60 is train row 7" in data.report()
    assert "in train too" not in TensorData.from_tensors(X, Y).report()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (X[:3, :5], r"Item 0: .*shape \(5,\)"),
        (with_value(X[:3], (1, 2), float("nan")), r"Item 1: .*NaN.*nan in column 2"),
        ("a.jpg", "cannot be converted to a tensor for 'input': 'a.jpg'"),
        (None, "Cannot predict from a NoneType"),
    ],
)
def test_invalid_inputs_of_predict_are_refused(items: Any, message: str) -> None:
    learner = Learner(TensorData.from_tensors(X, Y), quiet=True)
    with pytest.raises(InputError, match=message):
        learner.predict(items)
