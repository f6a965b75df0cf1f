"""A loader of the user's own may yield ``Batch`` objects with weights, masks and host values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import Batch, Callback, Learner, Task, TensorData, TrainingOptions
from flambeau.errors import InputError
from flambeau.task import Classification, Regression

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(12, 3, generator=DRAWS)
Y = X.sum(1, keepdim=True)
LABELS = (X[:, 0] > 0).long()
WEIGHTS = torch.arange(12.0) % 4  # some are 0
CHOICES = {"device": "cpu", "probe": "off", "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0}


class Loader:
    """Batches of ``size`` rows as ``Batch``, with the given fields."""

    def __init__(self, size: int, targets: Tensor = Y, **fields: Any) -> None:
        self.size, self.targets, self.fields = size, targets, fields

    def __len__(self) -> int:
        return len(X) // self.size

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(X), self.size):
            rows = slice(start, start + self.size)
            fields = {
                name: value[rows] if isinstance(value, Tensor | list) else value
                for name, value in self.fields.items()
            }
            if "extras" in fields:
                fields["extras"] = {"text": fields["extras"]}
            yield Batch({"input": X[rows]}, {"target": self.targets[rows]}, **fields)


def learner(train: Any, valid: Any = None, *, task: Task | None = None, **more: Any) -> Learner:
    torch.manual_seed(0)
    task = task or Regression(["y"])
    return Learner(
        TensorData.from_loaders(train, valid),
        nn.Linear(3, task.n_outputs or 1),
        task=task,
        choices=CHOICES,
        training=TrainingOptions(doctor=False),
        quiet=True,
        **more,
    )


def trained(train: Any, **more: Any) -> Tensor:
    run = learner(train, **more)
    run.fit(1, lr=0.1, schedule="constant")
    return run.model.weight.detach().clone()  # type: ignore[union-attr,operator]


def start() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def descended(model: nn.Linear, loss: Tensor, lr: float) -> Tensor:
    loss.backward()
    assert model.weight.grad is not None
    return model.weight.detach() - lr * model.weight.grad


def test_sample_weights_reach_the_step() -> None:
    model = start()
    loss = ((model(X) - Y).square()[:, 0] * WEIGHTS).sum() / WEIGHTS.sum()
    expected = descended(model, loss, 0.1)
    torch.testing.assert_close(trained(Loader(12, sample_weight=WEIGHTS)), expected)
    as_list = list(Loader(12, sample_weight=WEIGHTS.int()))
    torch.testing.assert_close(trained(as_list), expected)
    by_collate = DataLoader(
        TensorDataset(X, Y, WEIGHTS),
        batch_size=12,
        shuffle=True,
        collate_fn=lambda rows: Batch(
            {"input": torch.stack([row[0] for row in rows])},
            {"target": torch.stack([row[1] for row in rows])},
            sample_weight=torch.stack([row[2] for row in rows]),
        ),
    )
    torch.testing.assert_close(trained(by_collate), expected)


def test_the_factor_on_the_learning_rate_reaches_the_step() -> None:
    model = start()
    expected = descended(model, (model(X) - Y).square().mean(), 0.05)
    torch.testing.assert_close(trained(Loader(12, lr_scale=0.5)), expected)


class ReadsExtras(Regression):
    def __init__(self) -> None:
        super().__init__(["y"])
        self.seen: list[tuple[list[str], list[int]]] = []

    def loss(self, outputs: Any, batch: Batch) -> Any:
        assert batch.indices is not None
        self.seen.append((batch.extras["text"], batch.indices.tolist()))
        return super().loss(outputs, batch)


def test_extras_and_numbers_reach_the_task() -> None:
    texts, numbers = [f"row {i}" for i in range(12)], torch.arange(100, 112)
    task = ReadsExtras()
    run = learner(Loader(6, extras=texts, indices=numbers), task=task)
    run.fit(1, lr=0.1)
    assert task.seen[-2:] == [(texts[:6], list(range(100, 106))), (texts[6:], [*range(106, 112)])]


def test_evaluation_uses_the_weights() -> None:
    parts = Loader(4, LABELS, sample_weight=WEIGHTS)
    run = learner(parts, parts, task=Classification(["no", "yes"]))
    scores = run.evaluate()
    model: Any = run.model
    outputs = model(X).detach()
    right = (outputs.argmax(1) == LABELS).float()
    assert scores["accuracy"] == pytest.approx(float((right * WEIGHTS).sum() / WEIGHTS.sum()))
    losses = nn.functional.cross_entropy(outputs, LABELS, reduction="none")
    assert scores["loss"] == pytest.approx(float((losses * WEIGHTS).sum() / WEIGHTS.sum()))
    predicted = [str(each).split()[0] for each in run.predict(X)]
    assert predicted == [["no", "yes"][i] for i in outputs.argmax(1).tolist()]


class StopsAt(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("as_list", [False, True])
def test_a_resumed_run_gets_the_same_batches(tmp_path: Path, as_list: bool) -> None:
    def loader() -> Any:
        found = Loader(4, sample_weight=WEIGHTS, lr_scale=0.5)
        return list(found) if as_list else found

    whole = learner(loader(), folder=tmp_path / "whole")
    whole.fit(3, lr=0.1)
    broken = learner(loader(), folder=tmp_path / "broken", callbacks=[StopsAt()])
    with pytest.raises(KeyboardInterrupt):
        broken.fit(3, lr=0.1)
    again = learner(loader(), folder=tmp_path / "broken")
    again.resume()
    assert torch.equal(again.model.weight, whole.model.weight)  # type: ignore[arg-type]
    assert list(again.history.step_losses) == list(whole.history.step_losses)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample_weight": torch.ones(3)}, r"'sample_weight' of a Batch has 3 rows.* 12 samples"),
        ({"sample_weight": -torch.ones(12)}, r"sample_weight is -1 in row 0"),
        ({"sample_weight": torch.ones(12, 1)}, r"one number per row"),
        ({"masks": {"mask": torch.ones(2, 3)}}, r"'mask' of a Batch has 2 rows"),
        ({"lr_scale": float("nan")}, r"lr_scale of a Batch is nan"),
        ({"weight": -1.0}, r"weight of a Batch is -1.0"),
        ({"targets": {"target": Y[:4]}}, r"different numbers of samples"),
        ({"inputs": {}}, r"has no inputs"),
    ],
)
def test_an_invalid_batch_is_named(fields: Any, message: str) -> None:
    batch = Batch(**{"inputs": {"input": X}, "targets": {"target": Y}, **fields})
    with pytest.raises(InputError, match=message):
        TensorData.from_loaders([batch])


def test_a_layout_for_named_fields_is_refused() -> None:
    with pytest.raises(InputError, match=r"name their inputs and targets themselves. Omit"):
        TensorData.from_loaders(Loader(4), n_inputs=1)
