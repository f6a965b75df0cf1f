import json

import numpy as np
import pytest
import torch

from flambeau.data import Batch, Preprocessor
from flambeau.errors import InputError
from flambeau.tensors import TensorPreprocessor
from flambeau.tensors.preprocess import mean_and_std, non_finite_rows

StandardScaler = pytest.importorskip("sklearn.preprocessing").StandardScaler

X = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * 7 + torch.tensor(
    [0.0, 100.0, -3.0, 1e4]
)


def test_standardising_agrees_with_scikit_learn() -> None:
    fitted = TensorPreprocessor.fit({"x": X}, standardise=True)
    found = fitted.on_device(Batch({"x": X})).input
    expected = StandardScaler().fit_transform(X.double().numpy())
    # float32 holds 1e4 ± 7 to 1e-3, which is 1.4e-4 of a standard deviation.
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    in_double = fitted.on_device(Batch({"x": X.double()})).input
    np.testing.assert_allclose(in_double.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("chunk", [7, 499, 10_000])
def test_statistics_do_not_depend_on_the_chunk_size(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flambeau.tensors.preprocess._CHUNK_ROWS", chunk)
    mean, std = mean_and_std(X, by_feature=True)
    torch.testing.assert_close(mean, X.double().mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(std, X.double().std(0, correction=0), rtol=1e-12, atol=0)
    images = X.reshape(50, 2, 4, 5)
    mean, std = mean_and_std(images, by_feature=False)
    torch.testing.assert_close(mean, X.double().mean().reshape(1), rtol=1e-13, atol=0)
    torch.testing.assert_close(std, X.double().std(correction=0).reshape(1), rtol=1e-12, atol=0)


def test_a_constant_feature_becomes_zero() -> None:
    x = torch.stack([torch.full((100,), 0.1), torch.arange(100.0)], 1)
    fitted = TensorPreprocessor.fit({"x": x}, standardise=True)
    found = fitted.on_device(Batch({"x": x})).input
    assert found[:, 0].abs().max() < 1e-6
    assert found[:, 1].std(correction=0) == pytest.approx(1)


def test_each_float_input_has_its_own_statistics() -> None:
    inputs = {"a": X, "codes": torch.arange(500), "image": X.reshape(500, 2, 2) + 5}
    fitted = TensorPreprocessor.fit(inputs, standardise=True)
    assert fitted.standardised == ("a", "image")
    found = fitted.on_device(Batch(inputs)).inputs
    assert torch.equal(found["codes"], inputs["codes"])
    for name in ("a", "image"):
        assert found[name].double().mean() == pytest.approx(0, abs=1e-4)
        assert found[name].double().std(correction=0) == pytest.approx(1, abs=1e-4)
    assert list(found) == list(inputs)


def test_it_is_rebuilt_from_json_and_tensors() -> None:
    fitted = TensorPreprocessor.fit({"x": X, "n": torch.arange(500)}, standardise=True)
    assert isinstance(fitted, Preprocessor)
    arguments = json.loads(json.dumps(fitted.arguments()))
    again = TensorPreprocessor(**arguments, **fitted.tensors())
    batch = Batch({"x": X, "n": torch.arange(500)})
    assert torch.equal(fitted.on_device(batch).inputs["x"], again.on_device(batch).inputs["x"])
    assert again.arguments() == fitted.arguments()


def test_without_standardisation_the_batch_is_unchanged() -> None:
    fitted = TensorPreprocessor.fit({"x": X}, standardise=False)
    batch = Batch({"x": X})
    assert fitted.on_device(batch) is batch
    assert fitted.tensors() == {}


def test_encode_accepts_rows_of_any_type() -> None:
    fitted = TensorPreprocessor.fit({"x": X}, standardise=True)
    rows = X[:2]
    for items in (rows, rows.numpy(), list(rows), rows.tolist(), list(rows.double().numpy())):
        batch = fitted.encode(items)
        assert batch.input.dtype == torch.float32
        assert torch.equal(batch.input, rows)
        assert not batch.targets
        assert batch.weight == 2
    several = TensorPreprocessor.fit({"x": X, "n": torch.arange(500)}, standardise=False)
    for items in ([{"n": 3, "x": X[0]}], [(X[0], 3)]):
        batch = several.encode(items)
        assert torch.equal(batch.inputs["x"], X[:1])
        assert torch.equal(batch.inputs["n"], torch.tensor([3]))


def test_a_single_sample_is_recognised() -> None:
    fitted = TensorPreprocessor.fit({"x": X}, standardise=False)
    assert fitted.is_single(X[0])
    assert fitted.is_single(X[0].numpy())
    assert not fitted.is_single(X)
    assert not fitted.is_single([X[0]])
    several = TensorPreprocessor.fit({"x": X, "n": torch.arange(500)}, standardise=False)
    assert several.is_single({"x": X[0], "n": 1})
    assert several.is_single((X[0], 1))
    assert not several.is_single([(X[0], 1)])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [[1, 2, 3, 4], [1, 2, 3]],
            r"Item 1 has shape \(3,\) for 'x', .* trained on shape \(4,\)",
        ),
        ([["a", "b", "c", "d"]], "Item 0 cannot be converted to a tensor for 'x'"),
        ([[1, 2, 3, 4], [1, 2, float("nan"), 4]], "Item 1 contains NaN or infinity in 'x'"),
        ([], "There are no samples to predict"),
        ([{"y": 1}], r"Item 0 has no 'x', only 'y'\. The model needs x\."),
    ],
)
def test_encode_names_the_invalid_sample(items: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TensorPreprocessor.fit({"x": X}, standardise=False).encode(items)


def test_encode_needs_all_inputs() -> None:
    several = TensorPreprocessor.fit({"x": X, "n": torch.arange(500)}, standardise=False)
    with pytest.raises(InputError, match=r"Item 0 .* the model has 2 inputs \(x, n\)"):
        several.encode([X[0]])


def test_non_finite_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flambeau.tensors.preprocess._CHUNK_ROWS", 3)
    x = torch.zeros(10, 2)
    x[4, 1], x[9, 0], x[2, 0] = float("inf"), float("nan"), float("-inf")
    assert non_finite_rows(x) == [2, 4, 9]
    assert non_finite_rows(x, limit=2) == [2, 4]
    assert non_finite_rows(torch.arange(3)) == []
