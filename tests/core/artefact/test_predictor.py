"""One input or many, batches in order, eval mode and fp32, errors that name the input."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from flambeau.artefact.predictor import Predictor
from flambeau.data.batch import Batch
from flambeau.data.prediction_columns import columns_of, fields_of
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import ArgumentError, InputError
from flambeau.task import Prediction, Regression
from flambeau.task.task import StepContext, Task
from flambeau.tensors.preprocess import TensorPreprocessor


class Numbers(Preprocessor):
    """Items are numbers; a string is invalid."""

    builder = "numbers"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def encode(self, items: Sequence[Any]) -> Batch:
        for item in items:
            if isinstance(item, str):
                raise InputError(f"{item!r} is not a number")
        self.sizes.append(len(items))
        return Batch({"x": torch.tensor(np.array(items), dtype=torch.float32).reshape(-1, 1)})

    def on_device(self, batch: Batch) -> Batch:
        return batch.map(lambda x: x * 10)

    def arguments(self) -> Mapping[str, Any]:
        return {}

    def tensors(self) -> Mapping[str, Tensor]:
        return {}


class ArrayNumbers(Numbers):
    """Also takes an array of numbers; a 0-d array is a single item."""

    def is_single(self, item: Any) -> bool:
        return np.ndim(item) == 0


class Same(Task):
    def __init__(self) -> None:
        self.contexts: list[StepContext] = []

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        self.contexts.append(context)
        return model(batch.input)

    def decode(self, outputs: Tensor) -> list[Any]:
        return outputs.flatten().tolist()


class Stacked(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x, y], 1)


class Folded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1)[:, :2]


def identity(kind: type[Numbers] = Numbers, **options: Any) -> Predictor:
    return Predictor(kind(), nn.Identity(), Same(), **options)


def test_one_input_gives_one_prediction() -> None:
    assert identity().predict(3) == 30
    assert identity()(np.float64(3)) == 30


@pytest.mark.parametrize("items", [[3], (3,), iter([3]), (x for x in [3])])
def test_many_inputs_give_a_list(items: Any) -> None:
    assert identity().predict(items) == [30]


def test_a_series_gives_a_frame_with_its_index() -> None:
    series = pd.Series([3, 1, 2], index=["c", "a", "a"], name="x")
    found = identity(batch_size=2).predict(series)
    expected = pd.DataFrame({"value": [30.0, 10.0, 20.0]}, index=["c", "a", "a"])
    pd.testing.assert_frame_equal(found, expected)
    assert identity().outputs(series).flatten().tolist() == [30, 10, 20]
    # A frame with one column is the same.
    pd.testing.assert_frame_equal(identity().predict(series.to_frame()), found)
    assert identity().predict(series[:0]).index.tolist() == []


def test_a_frame_gives_a_frame_with_its_index() -> None:
    described = {name: {"shape": [], "dtype": "float32"} for name in ("x", "y")}
    task = Regression(["a", "b"])
    predictor = Predictor(TensorPreprocessor(described), Stacked(), task, batch_size=2)
    rows = {"x": [1.0, 2.0, 3.0], "y": [4.0, 5.0, 6.0]}
    frame = pd.DataFrame({**rows, "not used": ["p", "q", "r"]}, index=[7, 3, 5])
    expected = pd.DataFrame({"a": rows["x"], "b": rows["y"]}, index=[7, 3, 5])
    pd.testing.assert_frame_equal(predictor.predict(frame), expected)
    with pytest.raises(InputError, match=r"Item 1: contains NaN or infinity in 'x'"):
        predictor.predict(frame.assign(x=[1.0, float("nan"), 3.0]))


def test_a_preprocessor_can_collect_in_its_own_way() -> None:
    class Pairs(Numbers):
        def collect(self, items: Any, outputs: Sequence[Any]) -> Any:
            return list(zip(items, outputs, strict=True))

    predictor = identity(Pairs)
    assert predictor.predict([3, 1]) == [(3, 30.0), (1, 10.0)]
    assert predictor.predict(3) == 30
    assert predictor.predict(iter([3])) == [30]  # an iterator has no items any more


def test_fields_of_predictions_do_not_overwrite_each_other() -> None:
    prediction = Prediction("label", 0.7, {"label": 0.7, "cat": 0.3})
    assert fields_of(prediction) == {
        "label": "label", "probability": 0.7, "probabilities.label": 0.7, "cat": 0.3,
    }  # fmt: skip
    columns = columns_of([prediction, {"error": "x"}])
    assert columns["error"] == [None, "x"]
    assert columns["label"] == ["label", None]


def test_classes_cannot_take_the_names_of_other_columns() -> None:
    names = ["file", "item", "line", "error", "probability", "probabilities.file", "cat"]
    shares = {name: 1 / (2 + number) for number, name in enumerate(names)}
    found = fields_of(Prediction("cat", 0.5, shares))
    assert list(found) == [
        *("label", "probability"),
        *(f"probabilities.{name}" for name in names[:-1]),
        "cat",
    ]
    assert [found[f"probabilities.{name}"] for name in names[:-1]] == list(shares.values())[:-1]
    record = {"file": "a.png"} | found
    assert (record["file"], record["probability"]) == ("a.png", 0.5)


@pytest.mark.parametrize("items", [[], (), iter([])])
def test_no_input_gives_an_empty_list(items: Any) -> None:
    assert identity().predict(items) == []
    with pytest.raises(InputError, match="there are no inputs"):
        identity().outputs(items)


def test_the_preprocessor_decides_if_an_array_is_one_input() -> None:
    assert identity(ArrayNumbers).predict(np.array([1.0, 2.0])) == [10, 20]
    assert identity(ArrayNumbers).predict(np.array(1.0)) == 10
    assert identity(ArrayNumbers).predict(iter([1.0])) == [10]


def test_batches_keep_the_order() -> None:
    predictor = identity(batch_size=4)
    assert predictor.predict(list(range(10))) == [10.0 * i for i in range(10)]
    assert predictor.preprocessor.sizes == [4, 4, 2]  # type: ignore[attr-defined]
    assert predictor.predict(iter(range(8))) == [10.0 * i for i in range(8)]
    assert predictor.preprocessor.sizes[3:] == [4, 4]  # type: ignore[attr-defined]


def test_an_iterator_is_read_only_as_far_as_needed() -> None:
    read: list[int] = []

    def items() -> Any:
        for i in range(100):
            read.append(i)
            yield "bad" if i == 5 else i

    with pytest.raises(InputError, match="Item 5: 'bad' is not a number"):
        identity(batch_size=4).predict(items())
    assert read == list(range(8))


def test_a_stream_answers_each_input_before_it_reads_the_next() -> None:
    read: list[Any] = []

    def items() -> Any:
        for item in (1, "x", 3):
            read.append(item)
            yield item

    answers = identity(batch_size=1).stream(items())
    assert read == []
    assert next(answers) == 10.0
    assert read == [1]
    error = next(answers)
    assert isinstance(error, InputError)
    assert str(error) == "Item 1: 'x' is not a number"
    assert read == [1, "x"]
    assert list(answers) == [30.0]


@pytest.mark.parametrize("items", [[0, "x", 2, 3, "y"], (0, "x", 2, 3, "y")])
def test_an_error_costs_its_own_prediction_only(items: Any) -> None:
    found = list(identity(batch_size=2).stream(items))
    assert [found[0], found[2], found[3]] == [0.0, 20.0, 30.0]
    assert [str(found[at]) for at in (1, 4)] == [
        "Item 1: 'x' is not a number", "Item 4: 'y' is not a number"
    ]  # fmt: skip
    assert list(map(str, identity().predict(items, errors="return"))) == list(map(str, found))
    with pytest.raises(InputError, match="Item 1"):
        list(identity(batch_size=2).stream(items, errors="raise"))


def test_a_stream_of_a_single_text_is_refused() -> None:
    with pytest.raises(ArgumentError, match="single text"):
        identity().stream("abc")


def test_an_invalid_input_is_named_by_its_index() -> None:
    with pytest.raises(InputError, match=r"^Item 6: 'x' is not a number"):
        identity(batch_size=4).predict([0, 1, 2, 3, 4, 5, "x"])
    with pytest.raises(InputError, match=r"^'x' is not a number"):
        identity().predict("x")


def test_a_nan_output_is_named_by_its_index() -> None:
    class Nan(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x == 70, torch.nan, x)

    predictor = Predictor(Numbers(), Nan(), Same(), batch_size=2)
    with pytest.raises(InputError, match=r"Item 5: the model's output is nan \(1 of 2"):
        predictor.predict([1.0, 2.0, 3.0, 4.0, 5.0, 7.0])
    assert bool(predictor.outputs([7.0]).isnan().all())


def test_outputs_have_one_row_per_input() -> None:
    with pytest.raises(InputError, match=r"a tensor \(1, 2\) for 4 inputs"):
        Predictor(Numbers(), Folded(), Same()).outputs([1.0, 2.0, 3.0, 4.0])


def test_inputs_that_cannot_be_batched() -> None:
    with pytest.raises(ValueError, match="inhomogeneous"):
        identity().predict([[1], [1, 2]])


def test_outputs_are_raw_and_on_the_cpu() -> None:
    found = identity(batch_size=2).outputs([1, 2, 3])
    assert torch.equal(found, torch.tensor([[10.0], [20.0], [30.0]]))
    assert identity().outputs(1).shape == (1, 1)


def test_outputs_that_are_not_a_tensor() -> None:
    class Two(Same):
        def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
            return {"a": batch.input, "b": [batch.input, (batch.input, None)]}

        def decode(self, outputs: Any) -> list[Any]:
            return outputs["b"][1][0].flatten().tolist()

    predictor = Predictor(Numbers(), nn.Identity(), Two())
    assert predictor.predict([1, 2]) == [10, 20]
    with pytest.raises(InputError, match="predicts a dict instead of one tensor"):
        predictor.outputs([1])


def test_decode_must_return_one_prediction_per_input() -> None:
    class Short(Same):
        def decode(self, outputs: Tensor) -> list[Any]:
            return [1]

    with pytest.raises(InputError, match=r"Short.decode returned 1 predictions for 2 inputs"):
        Predictor(Numbers(), nn.Identity(), Short()).predict([1, 2])


def test_modes_are_restored_after_predicting() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(1), nn.Dropout(0.5))
    model[2].eval()
    before = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predictor = Predictor(Numbers(), model, Same())
    assert torch.equal(predictor.outputs([1, 2]), predictor.outputs([1, 2]))
    assert [module.training for module in model.modules()] == before == [True, True, True, False]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    with pytest.raises(InputError):
        predictor.predict(["x"])
    assert [module.training for module in model.modules()] == before


def test_modes_are_restored_after_an_error() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(RuntimeError, match="mat1"):
        Predictor(Numbers(), model, Same()).predict([1])
    assert model.training


def test_no_gradients_and_no_autocast() -> None:
    class Watch(Same):
        def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
            assert not torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            assert context.stage == "predict"
            return model(batch.input)

    torch.manual_seed(0)
    predictor = Predictor(Numbers(), nn.Linear(1, 8), Watch())
    plain = predictor.outputs([1.2345])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(predictor.outputs([1.2345]), plain)
    assert plain.dtype == torch.float32
    assert not plain.requires_grad


def test_tensors_cached_while_predicting_can_be_trained_with() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.cache = nn.Parameter(torch.ones(1)), None

        def forward(self, x: Tensor) -> Tensor:
            if self.cache is None:
                self.cache = torch.ones_like(x)
            return self.weight * self.cache * x

    model = Caching()
    Predictor(Numbers(), model, Same()).predict(1)
    model(torch.ones(1, 1)).sum().backward()
    assert model.weight.grad == 1


def test_the_task_gets_its_default_values() -> None:
    class Valued(Same):
        @property
        def values(self) -> Mapping[str, float]:
            return {"teacher_forcing": 0.5}

    task = Valued()
    Predictor(Numbers(), nn.Identity(), task).predict(1)
    assert task.contexts[0].values == {"teacher_forcing": 0.5}


def test_predict_batch_equals_outputs() -> None:
    predictor = identity()
    batch = predictor.preprocessor.encode([1, 2])
    assert torch.equal(predictor.predict_batch(batch), predictor.outputs([1, 2]))


def test_the_device_defaults_to_that_of_the_model() -> None:
    model = nn.Linear(1, 1, device="meta")
    assert Predictor(Numbers(), model, Same()).device.type == "meta"
    assert identity().device.type == "cpu"
    assert identity(device="cpu").device == torch.device("cpu")


def test_a_batch_size_of_0_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1, not 0"):
        identity(batch_size=0)


def test_it_can_be_used_between_training_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Learner predicts between training steps."""
    model = nn.Linear(1, 1)
    predictor = Predictor(Numbers(), model, Same())
    first = predictor.predict(1)
    model(torch.ones(1, 1)).sum().backward()
    with torch.no_grad():
        model.weight += 1
    assert predictor.predict(1) == pytest.approx(first + 10, abs=1e-5)
    model(torch.ones(1, 1)).sum().backward()
