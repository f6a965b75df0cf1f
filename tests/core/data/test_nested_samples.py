"""Samples and batches whose inputs or targets are tuples or dicts of fields."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from flambeau import Classification, Learner, TensorData, TrainingOptions
from flambeau.data.collate import BatchLayout
from flambeau.errors import InputError

A = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
B = torch.randn(24, 5, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 2


class Samples(Dataset[Any]):
    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last(torch.cat([a, b], dim=1))


SAMPLES: dict[str, Callable[[int], Any]] = {
    "tuple": lambda i: ((A[i], B[i]), Y[i]),
    "list": lambda i: ([A[i], B[i]], Y[i]),
    "arrays": lambda i: ((A[i].numpy(), B[i].numpy()), int(Y[i])),
    "dict": lambda i: ({"b": B[i], "a": A[i]}, Y[i]),
}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("source", ["data sets", "loaders", "batches"])
def test_nested_inputs_are_inputs_of_the_model(kind: str, source: str) -> None:
    samples = Samples(SAMPLES[kind])
    loader = DataLoader(samples, batch_size=6, shuffle=source == "loaders")
    if source == "data sets":
        data = TensorData.from_datasets(samples, samples, n_classes=2)
    elif source == "loaders":
        data = TensorData.from_loaders(loader, DataLoader(samples, 6), n_classes=2)
    else:
        data = TensorData.from_loaders(list(loader), list(loader), n_classes=2)
    options = TrainingOptions(doctor=False)
    learner = Learner(data, TwoInputs(), training=options, choices={"probe": "off"}, quiet=True)
    learner.fit(1, lr=0.1)
    with torch.no_grad():
        expected = learner.model(A, B)
    found = learner.evaluate()["loss"]
    assert found == pytest.approx(nn.functional.cross_entropy(expected, Y).item())
    one = {"a": A[0], "b": B[0]} if kind == "dict" else (A[0], B[0])
    probability = learner.predict(one).probabilities["1"]
    assert probability == pytest.approx(expected.softmax(1)[0, 1].item(), abs=1e-6)


def test_fields_are_named_by_position_or_key() -> None:
    layout = BatchLayout()
    assert layout.inputs_and_targets(((A, B), Y)) == (
        {"input_0": A, "input_1": B},
        {"target": Y},
    )
    assert layout.inputs_and_targets((A, {"p": Y, "q": B})) == (
        {"input": A},
        {"p": Y, "q": B},
    )
    assert layout.inputs_and_targets(({"a": A, "b": B}, (Y, B))) == (
        {"a": A, "b": B},
        {"target_0": Y, "target_1": B},
    )
    chosen = BatchLayout(inputs=("b",), targets=("q",))
    assert chosen.inputs_and_targets(({"a": A, "b": B}, {"p": Y, "q": A})) == ({"b": B}, {"q": A})


def test_what_is_not_clear_is_refused() -> None:
    with pytest.raises(InputError, match="no field 'c'"):
        BatchLayout(inputs=("c",)).inputs_and_targets(({"a": A}, Y))
    with pytest.raises(InputError, match="'a' both as an input and as a target"):
        BatchLayout().inputs_and_targets(({"a": A}, {"a": Y}))
    with pytest.raises(InputError, match="'input' of a batch is a list, not a tensor"):
        BatchLayout().batch(([1.0, 2.0], Y))
    with pytest.raises(InputError, match="'input_0' of a batch is a tuple, not a tensor"):
        BatchLayout(n_inputs=2).batch(((A, B), A, Y))


def test_two_targets_train_a_task_of_their_own() -> None:
    class TwoTargets(Classification):
        def loss(self, outputs: Any, batch: Any) -> Any:
            first = nn.functional.cross_entropy(outputs, batch.targets["label"], reduction="sum")
            return first + 0.0 * batch.targets["box"].sum(), float(len(batch))

        def update(self, metrics: Any, outputs: Any, batch: Any) -> None:
            metrics["loss"].update(*self.loss(outputs, batch))

    samples = Samples(lambda i: (A[i], {"label": Y[i], "box": B[i]}))
    data = TensorData.from_datasets(samples, samples)
    task = TwoTargets(["n", "p"], metrics={})
    options = TrainingOptions(doctor=False)
    learner = Learner(data, nn.Linear(3, 2), task=task, training=options, quiet=True)
    assert learner.fit(1).column("valid_loss")[0] > 0
