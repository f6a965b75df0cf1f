"""Arrays of every memory layout have the same meaning; those that cannot be read are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flambeau import Learner, TensorData
from flambeau.errors import InputError

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def _read_only(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.tobytes(), values.dtype).reshape(values.shape)


_SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "Fortran order": np.asfortranarray,
    "negative strides": lambda x: x[::-1].copy()[::-1],
    "negative columns": lambda x: x[..., ::-1].copy()[..., ::-1],
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": _read_only,
    "long double": lambda x: x.astype(np.longdouble),
    "objects": lambda x: x.astype(object),
    "masked without masked entries": np.ma.array,
    "tensor with gradient": lambda x: torch.tensor(x, requires_grad=True),
    "transposed tensor": lambda x: torch.tensor(x.T.copy()).T,
    "expanded and sliced": lambda x: torch.tensor(x).expand(2, *x.shape)[0],
}


@pytest.mark.parametrize("convert", _SAME.values(), ids=_SAME)
def test_the_layout_of_inputs_does_not_matter(convert: Callable[[np.ndarray], Any]) -> None:
    data = TensorData.from_tensors(convert(X), Y, valid=0)
    assert np.array_equal(data.raw("train"), X)


@pytest.fixture(scope="module")
def learner() -> Learner:
    data = TensorData.from_tensors(X, Y)
    return Learner(data, quiet=True, choices={"probe": "off"})


@pytest.mark.parametrize("convert", _SAME.values(), ids=_SAME)
def test_the_layout_of_samples_to_predict_does_not_matter(
    learner: Learner, convert: Callable[[np.ndarray], Any]
) -> None:
    expected = learner.predict(X)
    assert learner.predict(convert(X)) == expected
    alone = [learner.predict(row) for row in convert(X)[:2]]
    assert alone == [learner.predict(row) for row in X[:2]]


@pytest.mark.parametrize("convert", list(_SAME.values())[:7], ids=list(_SAME)[:7])
def test_the_layout_of_labels_does_not_matter(convert: Callable[[np.ndarray], Any]) -> None:
    dtype = np.float64 if convert is _SAME["long double"] else np.int32
    data = TensorData.from_tensors(X, convert(Y.astype(dtype)), valid=0)
    assert data.dataset("train", None, {}).targets["target"].tolist() == Y.tolist()


def test_a_broadcast_view_is_one_row_many_times() -> None:
    data = TensorData.from_tensors(np.broadcast_to(X[:1], X.shape), Y, valid=0)
    assert np.array_equal(data.raw("train"), np.repeat(X[:1], len(X), axis=0))


_UNREADABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "coo": (lambda: torch.tensor(X).to_sparse(), "to_dense"),
    "csr": (lambda: torch.tensor(X).to_sparse_csr(), "to_dense"),
    "csc": (lambda: torch.tensor(X).to_sparse_csc(), "to_dense"),
    "float8": (lambda: torch.tensor(X).to(torch.float8_e5m2), "torch.float32"),
    "complex32": (lambda: torch.tensor(X).to(torch.complex32), "complex"),
    "masked": (lambda: np.ma.array(X, mask=X > 1), "masked"),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning", "ignore:ComplexHalf:UserWarning")
@pytest.mark.parametrize(("make", "fix"), _UNREADABLE.values(), ids=_UNREADABLE)
def test_arrays_without_readable_rows_are_refused(
    learner: Learner, make: Callable[[], Any], fix: str
) -> None:
    with pytest.raises(InputError, match=fix):
        TensorData.from_tensors(make(), Y)
    with pytest.raises(InputError, match=fix):
        learner.predict(make())


@pytest.mark.parametrize("values", [X + 1j, torch.tensor(X) + 1j], ids=["array", "tensor"])
def test_complex_samples_are_not_cut_to_their_real_part(learner: Learner, values: Any) -> None:
    with pytest.raises(InputError, match="is complex"):
        learner.predict(values)
