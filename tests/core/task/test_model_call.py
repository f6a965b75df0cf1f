"""Named inputs reach the arguments of the same names, whatever their order."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau.inspect import record_outputs
from flambeau.task.model_call import bind_inputs, call_model

IDS, MASK, TYPES = torch.tensor([1.0]), torch.tensor([20.0]), torch.tensor([300.0])


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 2)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Any, Any, Any]:
        return input_ids, attention_mask, token_type_ids


class AnyKeyword(nn.Module):
    def forward(self, x: Tensor, **others: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        return x, others


class KeywordOnly(nn.Module):
    def forward(self, x: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor]:
        return x, mask


class Positions(nn.Module):
    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return values


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        (Bert(), {"token_type_ids": 3, "attention_mask": 2, "input_ids": 1}, (1, 2, 3)),
        (Bert(), {"input_ids": 1, "token_type_ids": 3}, (1, None, 3)),
        (Bert(), {"token_type_ids": 3, "input_ids": 1}, (1, None, 3)),
        (Bert(), {"a": 1, "b": 2, "c": 3}, (1, 2, 3)),
        (Bert(), {"input_0": 1, "input_1": 2}, (1, 2, None)),
        (Bert(), {"input": 1}, (1, None, None)),
        (DataParallel(Bert()), {"input_ids": 1, "token_type_ids": 3}, (1, None, 3)),
        (
            torch.compile(Bert(), backend="eager"),
            {"attention_mask": 2, "input_ids": 1},
            (1, 2, None),
        ),
        (AnyKeyword(), {"b": 2, "x": 1, "a": 3}, (1, {"b": 2, "a": 3})),
        (KeywordOnly(), {"mask": 2, "x": 1}, (1, 2)),
        (Positions(), {"b": 2, "a": 1}, (2, 1)),
    ],
)
def test_inputs_reach_their_arguments(
    model: nn.Module, inputs: dict[str, Any], expected: Any
) -> None:
    assert call_model(model, inputs) == expected


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Bert(), ("input_ids", "mask")),
        (Bert(), ("types", "input_ids")),
        (KeywordOnly(), ("x", "m")),
    ],
)
def test_names_that_match_in_part_are_refused(model: nn.Module, names: tuple[str, ...]) -> None:
    wrong = next(name for name in names if name not in ("input_ids", "x"))
    with pytest.raises(InputError, match=rf"by name, but it has no argument '{wrong}'\. Give"):
        bind_inputs(model, names)


class Difference(nn.Module):
    """Tells its two inputs apart."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.last((first - 10.0 * second).unsqueeze(1))


class Records:
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"second": float(index), "first": 1.0, "y": index % 2}


def batches() -> list[dict[str, Tensor]]:
    second = torch.arange(20.0).split(5)
    return [{"second": s, "first": torch.ones(5), "y": (s % 2).long()} for s in second]


@pytest.mark.parametrize("kind", ["tensors", "datasets", "loaders"])
def test_the_order_of_a_dict_does_not_matter(kind: str) -> None:
    second = torch.arange(20.0)
    names: dict[str, Any] = {"inputs": ("second", "first"), "targets": ("y",), "n_classes": 2}
    data = {
        "tensors": lambda: TensorData.from_tensors(
            {"second": second, "first": torch.ones(20)}, second.long() % 2
        ),
        "datasets": lambda: TensorData.from_datasets(Records(), Records(), **names),
        "loaders": lambda: TensorData.from_loaders(batches(), batches(), **names),
    }[kind]()
    model = Difference()
    choices = {"probe": "off", "normalisation": "none"}
    options = TrainingOptions(doctor=False)
    learner = Learner(data, model, choices=choices, training=options, quiet=True)
    learner.fit(1, lr=0.1)
    with torch.no_grad():
        expected = model(torch.tensor([1.0]), torch.tensor([4.0])).softmax(1)[0, 1]
        seen = record_outputs(model, {"second": torch.tensor([4.0]), "first": torch.tensor([1.0])})
    [found] = learner.predict([{"second": 4.0, "first": 1.0}])
    assert found.probabilities["1"] == pytest.approx(float(expected))
    assert torch.allclose(seen["last"][0].softmax(1)[0, 1], expected)


class AnyArguments(nn.Module):
    """A wrapper that passes everything on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *values: Any, **named: Any) -> Any:
        return self.inner(*values, **named)


class OnlyKeywords(nn.Module):
    def forward(self, **named: Any) -> Any:
        return named


class Weighted(nn.Module):
    """Has another result for each order of the inputs."""

    def forward(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        return first + 10.0 * second + 100.0 * third


def with_partial() -> nn.Module:
    model = Bert()
    model.forward = partial(model.forward, token_type_ids=None)  # type: ignore[method-assign]
    return model


def scripted(kind: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        if kind == "traced":
            return torch.jit.trace(Weighted(), (IDS, MASK, TYPES))
        made = torch.jit.script(Weighted())
        return torch.jit.freeze(made.eval()) if kind == "frozen" else made


@pytest.mark.parametrize(
    "model",
    [
        AnyArguments(Bert()),
        torch.compile(AnyArguments(Bert()), backend="eager"),
        DataParallel(AnyArguments(Bert())),
        with_partial(),
    ],
    ids=["wrapper", "compiled", "parallel", "partial"],
)
def test_wrappers_pass_inputs_on_by_name(model: nn.Module) -> None:
    assert call_model(model, {"attention_mask": 2, "input_ids": 1}) == (1, 2, None)
    assert call_model(OnlyKeywords(), {"b": 2, "a": 1}) == {"b": 2, "a": 1}


@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen", "fx"])
def test_compiled_graphs_get_inputs_by_name(kind: str) -> None:
    model = torch.fx.symbolic_trace(Weighted()) if kind == "fx" else scripted(kind)
    inputs = {"third": TYPES, "first": IDS, "second": MASK}
    assert call_model(model, inputs) == Weighted()(IDS, MASK, TYPES)


def test_a_name_that_the_wrapped_model_lacks_is_named() -> None:
    second = torch.arange(20.0)
    data = TensorData.from_tensors({"b": second, "first": torch.ones(20)}, second.long() % 2)
    choices = {"probe": "off", "normalisation": "none"}
    options = TrainingOptions(doctor=False)
    model = AnyArguments(Difference())
    learner = Learner(data, model, choices=choices, training=options, quiet=True)
    with pytest.raises(ArgumentError, match=r"on by name, but .*unexpected keyword argument 'b'"):
        learner.fit(1, lr=0.1)
