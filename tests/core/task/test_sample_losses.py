"""``Task.sample_losses`` returns the task's loss of each sample, vectorised or one by one."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.data import Batch
from flambeau.task import Classification, MultiLabel, Regression, Task

N = 7
ABC = ["a", "b", "c"]


def batch(target: Tensor) -> Batch:
    return Batch({"x": torch.zeros(len(target), 2)}, {"target": target})


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def alone(task: Task, outputs: Tensor, target: Tensor) -> list[float]:
    """Return the loss of each sample from a batch of one."""
    found = []
    for row in range(len(target)):
        total, weight = task.loss(outputs[row : row + 1], batch(target[row : row + 1]))
        found.append(float(total) / float(weight) if float(weight) else 0.0)
    return found


LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])
TASKS = {
    "classes": (Classification(ABC), drawn(N, 3), LABELS),
    "smoothed": (Classification(ABC, label_smoothing=0.1), drawn(N, 3), LABELS),
    "weighted": (Classification(ABC, class_weights=[1, 5, 0.5]), drawn(N, 3), LABELS),
    "weight 0": (Classification(ABC, class_weights=[1, 5, 0]), drawn(N, 3), LABELS),
    "ignored": (Classification(ABC, ignore_index=2), drawn(N, 3), LABELS),
    "soft": (Classification(ABC), drawn(N, 3), drawn(N, 3).softmax(dim=1)),
    "maps": (Classification(ABC), drawn(N, 3, 2), torch.stack([LABELS, LABELS], dim=1)),
    "labels": (MultiLabel(ABC), drawn(N, 3), (drawn(N, 3) > 0).float()),
    "number": (Regression(), drawn(N), drawn(N) * 3),
    "numbers": (Regression(["a", "b"], loss="huber"), drawn(N, 2), drawn(N, 2) * 3),
    "scaled": (Regression(mean=100.0, std=5.0, loss="mae"), drawn(N, 1), 100 + drawn(N) * 9),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_loss_equals_that_of_the_sample_alone(name: str) -> None:
    task, outputs, target = TASKS[name]
    task = type(task)(**task.arguments())
    found = task.sample_losses(outputs, batch(target))
    assert found is not None
    # float32 in both; batched kernels sum in another order.
    assert found.tolist() == pytest.approx(alone(task, outputs, target), rel=1e-5, abs=1e-6)


def test_classification_losses_are_cross_entropy() -> None:
    outputs = drawn(N, 3)
    found = Classification(ABC).sample_losses(outputs, batch(LABELS))
    assert torch.allclose(found, F.cross_entropy(outputs, LABELS, reduction="none"))


class Focal(Classification):
    """A user-defined loss."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        entropy = F.cross_entropy(outputs, batch.target, reduction="none")
        return ((1 - (-entropy).exp()) ** 2 * entropy).sum(), float(len(outputs))


def test_an_overridden_loss_is_used() -> None:
    outputs, task = drawn(N, 3), Focal(ABC)
    found = task.sample_losses(outputs, batch(LABELS))
    assert found.tolist() == pytest.approx(alone(task, outputs, LABELS), rel=1e-5)
    plain = Classification(ABC).sample_losses(outputs, batch(LABELS))
    assert bool((found < plain).all())


def test_masks_are_sliced_with_their_sample() -> None:
    class Masked(Task):
        def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
            mask = batch.masks["target"]
            return ((outputs - batch.target).abs() * mask).sum(), mask.sum()

    target, mask = drawn(3, 4), torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    given = Batch({"x": torch.zeros(3, 1)}, {"target": target}, {"target": mask})
    outputs = target + torch.tensor([1.0, 2.0, 3.0]).unsqueeze(1)
    assert Masked().sample_losses(outputs, given).tolist() == pytest.approx([1, 2, 0], abs=1e-6)


def test_outputs_without_a_row_per_sample_have_no_losses() -> None:
    tokens = batch(LABELS)
    assert Classification(ABC).sample_losses(drawn(2 * N, 3), tokens) is None
    assert Classification(ABC).sample_losses((drawn(N, 3),), tokens) is None
    flat = Batch({"x": torch.zeros(2, 5)}, {"target": torch.zeros(10)})
    assert Regression().sample_losses(drawn(2), flat) is None


def test_half_precision_outputs_become_float32() -> None:
    found = Classification(ABC).sample_losses(drawn(N, 3).bfloat16(), batch(LABELS))
    assert found.dtype == torch.float32
