"""``EnsembleOutputs``: the loss is the mean over the members, and a sample counts once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau import Batch, Classification, Learner, MultiLabel, Regression, TensorData
from flambeau.errors import InputError
from flambeau.task import CustomLoss
from flambeau.task.ensemble_outputs import EnsembleOutputs
from flambeau.task.task import Task
from flambeau.training.options import TrainingOptions

N, K = 7, 3
DRAWS = torch.Generator().manual_seed(0)
LABELS = torch.randint(0, 4, (N,), generator=DRAWS)
IGNORED = torch.where(torch.arange(N) % 3 == 0, -1, LABELS)
SOFT = torch.rand(N, 4, generator=DRAWS).double().softmax(1)
TAGS = torch.randint(0, 2, (N, 4), generator=DRAWS)
NUMBERS = torch.randn(N, 2, generator=DRAWS).double()
WEIGHTS = torch.rand(N, generator=DRAWS).double() + 0.1
NAMES = ["a", "b", "c", "d"]


def squares(outputs: Tensor, batch: Batch) -> Tensor:
    """Read targets, inputs and extras, one row for each row of the outputs."""
    shift = torch.tensor(batch.extras["shift"], dtype=outputs.dtype)
    return (outputs[:, 0] - batch.target[:, 0] - batch.input[:, 0] - shift) ** 2


CASES: dict[str, tuple[Task, Tensor, int]] = {
    "classes": (Classification(NAMES), LABELS, 4),
    "smoothed": (Classification(NAMES, label_smoothing=0.1), LABELS, 4),
    "weighted classes": (Classification(NAMES, class_weights=[1, 2, 0, 3.5]), LABELS, 4),
    "ignored": (Classification(NAMES, ignore_index=-1), IGNORED, 4),
    "soft": (Classification(NAMES), SOFT, 4),
    "own loss": (
        Classification(NAMES, loss=nn.CrossEntropyLoss(reduction="none")), LABELS, 4,
    ),
    "tags": (MultiLabel(NAMES), TAGS, 4),
    "numbers": (Regression(["u", "v"], [1.0, 2.0], [3.0, 0.5]), NUMBERS, 2),
    "huber": (Regression(["u", "v"], loss="huber"), NUMBERS, 2),
    "function": (CustomLoss(squares), NUMBERS, 2),
    "terms": (CustomLoss(lambda o, b: {"a": squares(o, b), "b": o[:, 1]}), NUMBERS, 2),
}  # fmt: skip


def batch_of(target: Tensor, weights: Tensor | None = None) -> Batch:
    x = torch.linspace(-1, 1, N, dtype=torch.float64).unsqueeze(1)
    return Batch(
        {"input": x},
        {"target": target},
        weight=float(N) if weights is None else float(weights.sum()),
        sample_weight=weights,
        indices=torch.arange(N),
        extras={"shift": [0.1 * i for i in range(N)]},
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_the_members_losses(case: str, weights: Tensor | None) -> None:
    task, target, width = CASES[case]
    batch = batch_of(target, weights)
    members = torch.randn(N, K, width, generator=torch.Generator().manual_seed(1)).double()
    members.requires_grad_()
    total, weight = task.loss(EnsembleOutputs(members), batch)
    each = [task.loss(members[:, k], batch) for k in range(K)]
    expected = torch.stack([t for t, _ in each]).mean()
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    assert float(weight) == pytest.approx(float(each[0][1]), rel=1e-12)
    promised = task.host_weight(batch)
    assert promised is None or promised == pytest.approx(float(weight), rel=1e-12)
    # Each member has the gradient of its own loss, divided by the number of members.
    found = torch.autograd.grad(total, members, retain_graph=True)[0]
    for k in range(K):
        own = torch.autograd.grad(each[k][0], members, retain_graph=True)[0]
        torch.testing.assert_close(found[:, k], own[:, k] / K, rtol=1e-12, atol=1e-12)


def test_one_member_equals_plain_outputs() -> None:
    outputs = torch.randn(N, 4, generator=DRAWS)
    batch = batch_of(LABELS)
    assert Classification(NAMES).loss(EnsembleOutputs(outputs[:, None]), batch) == Classification(
        NAMES
    ).loss(outputs, batch)


class Penalised(Regression):
    def loss(self, outputs: Any, batch: Batch) -> Any:
        total, weight = super().loss(outputs, batch)
        return total + 100.0, weight


def test_a_subclass_that_adds_to_the_loss_adds_once() -> None:
    members = torch.randn(N, K, 2, generator=DRAWS).double()
    plain, _ = Regression(["u", "v"]).loss(EnsembleOutputs(members), batch_of(NUMBERS))
    more, weight = Penalised(["u", "v"]).loss(EnsembleOutputs(members), batch_of(NUMBERS))
    assert float(more - plain) == pytest.approx(100.0)
    assert weight == N * 2


def test_wrong_widths_have_the_usual_error() -> None:
    with pytest.raises(InputError, match="4 classes"):
        Classification(NAMES).loss(EnsembleOutputs(torch.zeros(N, K, 3)), batch_of(LABELS))


class Pair(nn.Module):
    """Two linear members; in eval mode the mean of their outputs."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.members = nn.ModuleList([nn.Linear(3, n_outputs), nn.Linear(3, n_outputs)])

    def forward(self, x: Tensor) -> Tensor | EnsembleOutputs:
        outputs = torch.stack([member(x) for member in self.members], dim=1)
        return EnsembleOutputs(outputs) if self.training else outputs.mean(1)


X = torch.randn(40, 3, generator=DRAWS).double()
Y = X @ torch.tensor([1.0, -2.0, 0.5]).double()


def fitted(model: nn.Module, *, accumulate: int = 1, size: int = 16, **data: Any) -> Learner:
    learner = Learner(
        TensorData.from_tensors(X, Y[:, None], valid=8, **data),
        model.double(),
        task=Regression(["y"]),
        choices={"batch_size": size, "optimizer": "sgd", "weight_decay": 0.0, "probe": "off"},
        training=TrainingOptions(accumulate=accumulate),
        quiet=True,
    )
    learner.fit(2, lr=0.1, schedule="constant")
    return learner


def by_hand(
    losses: Callable[[nn.Linear], Tensor], members: Sequence[nn.Linear], steps: int
) -> None:
    optimizer = torch.optim.SGD([p for m in members for p in m.parameters()], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack([losses(member) for member in members]).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("weights", [None, torch.rand(40, generator=DRAWS).double() + 0.1])
def test_a_fit_equals_a_loop_by_hand(weights: Tensor | None) -> None:
    """Batches of all 32 train samples, so that their order does not matter."""
    data = {} if weights is None else {"sample_weight": weights}
    learner = fitted(Pair(1), size=32, **data)
    rows = torch.as_tensor(learner.data.split.train)
    w = torch.ones(32).double() if weights is None else weights[rows]
    reference = Pair(1).double()

    def loss(member: nn.Linear) -> Tensor:
        return (
            F.mse_loss(member(X[rows]), Y[rows, None], reduction="none")[:, 0] * w
        ).sum() / w.sum()

    by_hand(loss, list(reference.members), 2)
    for a, b in zip(learner.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_accumulation_does_not_change_the_steps() -> None:
    whole, parts = fitted(Pair(1)), fitted(Pair(1), accumulate=4, size=4)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_metrics_and_predictions_use_the_averaged_outputs() -> None:
    learner = fitted(Pair(1))
    valid = torch.as_tensor(learner.data.split.valid)
    with torch.no_grad():
        mean = torch.stack([member(X[valid]) for member in learner.model.members]).mean(0)[:, 0]
    scores = learner.evaluate()
    assert scores["mae"] == pytest.approx(float((mean - Y[valid]).abs().mean()), rel=1e-9)
    assert scores["loss"] == pytest.approx(float((mean - Y[valid]).square().mean()), rel=1e-9)
    assert learner.predict(X[valid])[0].value == pytest.approx(float(mean[0]), rel=1e-6)
