"""predict takes every kind of array that training takes, and gives the same prediction."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, Predictor, TensorData, TrainingOptions

X = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
Y = np.arange(30) % 2


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.unsqueeze(-1))


def trained(x: Any, model: nn.Module) -> Predictor:
    data = TensorData.from_tensors(x, Y)
    options = TrainingOptions(doctor=False)
    learner = Learner(data, model, training=options, choices={"probe": "off"}, quiet=True)
    learner.fit(1)
    return learner.predictor()


FORMS = {
    "reversed": lambda x: x[..., ::-1],
    "big-endian": lambda x: x[..., ::-1].astype(">f4"),
    "big-endian double": lambda x: x[..., ::-1].astype(">f8"),
    "object": lambda x: x[..., ::-1].astype(object),
    "read-only": lambda x: np.broadcast_to(x[..., ::-1], x.shape),
    "fortran": lambda x: np.asfortranarray(x[..., ::-1]),
    "float16": lambda x: x[..., ::-1].astype(np.float16).astype(">f2"),
}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return trained(X, nn.Linear(4, 2))


@pytest.mark.parametrize("form", FORMS)
def test_arrays_are_read_as_in_training(form: str, predictor: Predictor) -> None:
    rows = FORMS[form](X[:5])
    plain = torch.tensor(X[:5, ::-1].copy())
    plain = plain.half().float() if form == "float16" else plain
    with torch.no_grad():
        expected = predictor.model(plain)
    assert torch.allclose(predictor.outputs(rows), expected)
    assert torch.allclose(predictor.outputs(list(rows)), expected)
    assert torch.allclose(predictor.outputs(rows[0]), expected[:1])
    assert torch.allclose(predictor.outputs([{"input": rows[1]}]), expected[1:2])
    TensorData.from_tensors(FORMS[form](X), Y)


@pytest.mark.parametrize(
    "value", [1.5, np.float32(1.5), np.float64(1.5), np.array(1.5), torch.tensor(1.5)]
)
def test_scalars_are_one_sample(value: Any) -> None:
    predictor = trained(X[:, 0], Scalar())
    with torch.no_grad():
        expected = predictor.model(torch.tensor([1.5])).softmax(1)[0, 1]
    found = predictor.predict(value)
    assert found.probabilities["1"] == pytest.approx(float(expected))
    assert len(predictor.predict([value, value])) == 2


def test_numpy_integers_and_bools_are_samples() -> None:
    predictor = trained(X[:, 0], Scalar())
    expected = predictor.predict(1.0).probabilities
    for value in (np.int64(1), np.uint8(1), np.bool_(True)):
        assert predictor.predict(value).probabilities == expected


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_matrices_and_buffers_are_samples(predictor: Predictor) -> None:
    with torch.no_grad():
        expected = predictor.model(torch.tensor(X[:5]))
    for rows in (np.asmatrix(X[:5]), memoryview(np.ascontiguousarray(X[:5]))):
        assert torch.allclose(predictor.outputs(rows), expected)
    for row in (np.asmatrix(X[:5])[1], memoryview(X[1].copy())):
        assert torch.allclose(predictor.outputs(row), expected[1:2])
