"""The loop against one written by hand: the same losses to the bit, the same steps when grouped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from flambeau import Batch, Learner, Task, TensorData, TrainingOptions

STEPS = 200


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4)
    )


def table() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(1_000, 20, generator=draws)
    return x, (x[:, :4] + torch.randn(1_000, 4, generator=draws)).argmax(1)


OPTIMIZERS: dict[str, tuple[dict[str, object], Callable[[list[nn.Parameter]], Optimizer]]] = {
    "sgd": (
        {"optimizer": "sgd", "weight_decay": 0.0},
        lambda parameters: SGD(parameters, lr=0.05, fused=True),
    ),
    "adamw": (
        {"optimizer": "adamw", "weight_decay": 0.0},
        lambda parameters: AdamW(parameters, lr=0.05, weight_decay=0.0, fused=True),
    ),
}


@pytest.mark.parametrize("nonfinite", ["raise", "off"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usefixtures("one_thread")
def test_losses_are_those_of_a_hand_written_loop_to_the_bit(name: str, nonfinite: str) -> None:
    choices, make_optimizer = OPTIMIZERS[name]
    x, y = table()
    learner = Learner(
        TensorData.from_tensors(x, y, valid=0.2),
        net(),
        choices={"batch_size": 16, **choices},
        training=TrainingOptions(nonfinite=nonfinite),
        quiet=True,
    )
    loader = learner.built.loader("train")
    assert loader.steps_per_epoch == 50
    torch.manual_seed(11)
    history = learner.fit(4, lr=0.05, schedule="constant")

    model = net()
    optimizer = make_optimizer(list(model.parameters()))
    expected: list[float] = []
    torch.manual_seed(11)
    model.train()
    for epoch in range(4):
        for batch in loader.batches(epoch):
            loss = nn.functional.cross_entropy(model(batch.input), batch.target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            expected.append(loss.item())
        model.eval()
        with torch.no_grad():
            model(x)
        model.train()

    assert len(history.step_losses) == STEPS
    assert list(history.step_losses) == expected
    for mine, theirs in zip(learner.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def fit_fp64(batch_size: int, accumulate: int, task: Task | None = None) -> Learner:
    """110 rows in one or more groupings; dropout and batch statistics off."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(110, 5, dtype=torch.float64, generator=draws)
    y = (x.sum(1) > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    order = torch.arange(100)
    loaders = [
        [(x[i], y[i]) for i in order.split(batch_size)],
        [(x[100:], y[100:])],
    ]
    learner = Learner(
        TensorData.from_loaders(*loaders, n_classes=2),
        model,
        task=task,
        training=TrainingOptions(accumulate=accumulate),
        quiet=True,
    )
    learner.fit(3, lr=0.01)
    return learner


class UnknownWeight(Task):
    """Mean cross entropy whose weight only the device knows."""

    def host_weight(self, batch: Batch) -> None:
        return None

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        total = nn.functional.cross_entropy(outputs, batch.target, reduction="sum")
        return total, (batch.target >= 0).sum()


@pytest.mark.parametrize("task", [None, UnknownWeight()], ids=["known", "unknown"])
def test_accumulation_over_ragged_batches_equals_one_large_batch(task: Task | None) -> None:
    """28 rows in steps of 4 × 7, the last step 7 + 7 + 2: the same as batches of 28 and 16."""
    small, large = fit_fp64(7, 4, task), fit_fp64(28, 1, task)
    assert len(small.history.step_losses) == len(large.history.step_losses) == 12
    for mine, theirs in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.tensor(small.history.step_losses),
        torch.tensor(large.history.step_losses),
        rtol=0,
        atol=1e-12,
    )
    assert small.history.column("train_loss") == pytest.approx(
        large.history.column("train_loss"), abs=1e-12
    )
