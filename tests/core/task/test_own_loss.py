"""Classification(loss=...): a loss of the user's own, like Regression(loss=...)."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau import Batch, Classification, Learner, Regression, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau.task import MeanAbsoluteError

DRAW = torch.Generator().manual_seed(0)
LOGITS, LABELS = torch.randn(20, 3, generator=DRAW), torch.arange(20) % 3
WEIGHTS = torch.rand(20, generator=DRAW)
PADDED = torch.where(torch.arange(20) < 5, -100, LABELS)


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy times the squared probability of a mistake."""
    each = F.cross_entropy(outputs, targets, reduction="none")
    return each * (1 - (-each).exp()).square()


@pytest.mark.parametrize("targets", [LABELS, PADDED])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_loss_is_summed_with_its_weight(targets: Tensor, weights: Tensor | None) -> None:
    task = Classification(["a", "b", "c"], loss=focal, ignore_index=-100)
    batch = Batch({"input": LOGITS}, {"target": targets}, sample_weight=weights)
    total, weight = task.loss(LOGITS, batch)
    expected, count = 0.0, 0.0
    for row in range(20):
        if targets[row] != -100:
            factor = 1.0 if weights is None else float(weights[row])
            p = float(LOGITS[row].softmax(0)[targets[row]])
            expected -= factor * (1 - p) ** 2 * float(torch.tensor(p).log())
            count += factor
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(weight) == pytest.approx(count)


def test_an_object_of_torch_equals_the_default() -> None:
    batch = Batch({"input": LOGITS}, {"target": LABELS})
    own = Classification(["a", "b", "c"], loss=nn.CrossEntropyLoss(reduction="none"))
    total, weight = own.loss(LOGITS, batch)
    expected, count = Classification(["a", "b", "c"]).loss(LOGITS, batch)
    assert (float(total), weight) == (pytest.approx(float(expected)), count)
    assert (own.loss_name, own.standard_loss) == ("CrossEntropyLoss", "")
    soft = Batch({"input": LOGITS}, {"target": LOGITS.softmax(1)})
    assert float(own.loss(LOGITS, soft)[0]) == pytest.approx(
        float(Classification(["a", "b", "c"]).loss(LOGITS, soft)[0])
    )


def test_a_learner_trains_with_it() -> None:
    learner = Learner(
        TensorData.from_tensors(torch.randn(60, 4), torch.arange(60) % 3),
        nn.Linear(4, 3),
        task=Classification(["a", "b", "c"], loss=focal),
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    learner.fit(1)
    part = learner.data.dataset("valid", learner.data.preprocessor({}), {})
    with torch.no_grad():
        expected = focal(learner.model(part.inputs["input"]), part.targets["target"]).mean()
    assert learner.evaluate()["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "focal"}, "loss is 'focal', but must be a function"),
        ({"loss": nn.CrossEntropyLoss}, "loss is <class"),
        ({"loss": focal, "label_smoothing": 0.1}, "label_smoothing has no effect together"),
        ({"loss": focal, "class_weights": [1, 1, 2]}, "class_weights has no effect together"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Classification(["a", "b", "c"], **arguments)
    with pytest.raises(ArgumentError, match="loss is the class HuberLoss"):
        Regression(loss=nn.HuberLoss)


def test_a_mean_is_no_loss_per_target() -> None:
    task = Classification(["a", "b", "c"], loss=nn.CrossEntropyLoss())
    with pytest.raises(InputError, match=r"returned shape \(\) .*reduction=.none"):
        task.loss(LOGITS, Batch({"input": LOGITS}, {"target": LABELS}))


@pytest.mark.parametrize(
    "choices",
    [
        {"loss": nn.CrossEntropyLoss()},
        {"loss": nn.HuberLoss},
        {"loss": focal},
        {"metrics": [focal]},
        {"metrics": {"mae": MeanAbsoluteError()}},
    ],
)
def test_objects_are_no_choices(choices: dict[str, Any]) -> None:
    [key] = choices
    data = TensorData.from_tensors(LOGITS, LABELS)
    with pytest.raises(ArgumentError, match=f"'{key}'.* takes names.*task=Classification"):
        Learner(data, nn.Linear(3, 3), choices=choices)
