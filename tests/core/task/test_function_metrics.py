"""Functions as metrics: of outputs and targets, and those of scikit-learn."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import sklearn.metrics as sk
import torch
from torch import Tensor, nn

from flambeau import Classification, Learner, MultiLabel, Regression, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau.task import FunctionMetric, MeanAbsoluteError, SklearnMetric, score

DRAW = torch.Generator().manual_seed(0)
LOGITS, LABELS = torch.randn(50, 3, generator=DRAW), torch.arange(50) % 3
TWO, BINARY = torch.randn(50, 2, generator=DRAW), torch.arange(50) % 2
TAGS = (torch.randn(50, 4, generator=DRAW) > 0).float()
TAG_LOGITS, VALUES = torch.randn(50, 4, generator=DRAW), torch.randn(50, generator=DRAW)


def largest_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) - targets).abs().max()


def over_batches(metric: Any, outputs: Tensor, targets: Tensor) -> float:
    for batch in zip(outputs.split(7), targets.split(7), strict=True):
        metric.update(*batch)
    return score(metric)


P2, P3 = TWO.softmax(1)[:, 1], LOGITS.softmax(1)


@pytest.mark.parametrize(
    ("function", "takes", "outputs", "targets", "predicted", "settings"),
    [
        (sk.roc_auc_score, "probabilities", TWO, BINARY, P2, {}),
        (sk.roc_auc_score, "probabilities", LOGITS, LABELS, P3, {"multi_class": "ovr"}),
        (sk.f1_score, "labels", LOGITS, LABELS, LOGITS.argmax(1), {"average": "macro"}),
        (sk.matthews_corrcoef, "labels", TWO, BINARY, TWO.argmax(1), {}),
        (sk.f1_score, "labels", TAG_LOGITS, TAGS, TAG_LOGITS > 0, {"average": "micro"}),
        (sk.average_precision_score, "probabilities", TAG_LOGITS, TAGS, TAG_LOGITS.sigmoid(), {}),
        (sk.mean_absolute_error, "values", VALUES, VALUES.flip(0), VALUES, {}),
    ],
)
def test_functions_of_scikit_learn(
    function: Callable[..., Any],
    takes: Any,
    outputs: Tensor,
    targets: Tensor,
    predicted: Tensor,
    settings: dict[str, Any],
) -> None:
    metric = SklearnMetric(function, takes, higher_is_better=True, settings=settings)
    expected = function(targets.numpy(), predicted.double().numpy(), **settings)
    assert over_batches(metric, outputs, targets) == pytest.approx(expected, abs=1e-6)
    metric.reset()
    assert score(metric) != score(metric)  # nan


def test_ignored_labels_are_left_out_or_named() -> None:
    padded = torch.where(torch.arange(50) < 10, -100, LABELS)
    metric = SklearnMetric(sk.accuracy_score, "labels", higher_is_better=True, ignore_index=-100)
    expected = sk.accuracy_score(LABELS[10:], LOGITS[10:].argmax(1))
    assert over_batches(metric, LOGITS, padded) == pytest.approx(expected)
    plain = SklearnMetric(sk.accuracy_score, "labels", higher_is_better=True)
    with pytest.raises(InputError, match=r"contain -100, which is no class.*ignore_index=-100"):
        over_batches(plain, LOGITS, padded)


def test_a_function_sees_all_samples_at_once() -> None:
    metric = FunctionMetric(lambda outputs, targets: outputs.argmax(1).eq(targets).float().std())
    expected = LOGITS.argmax(1).eq(LABELS).float().std()
    assert over_batches(metric, LOGITS, LABELS) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    "wanted",
    [
        [largest_error],
        ["accuracy", largest_error],
        {"largest_error": largest_error},
        {
            "largest_error": FunctionMetric(largest_error, higher_is_better=False),
            "hits": "accuracy",
        },
    ],
)
def test_a_task_takes_functions(wanted: Any) -> None:
    learner = Learner(
        TensorData.from_tensors(torch.randn(50, 4), LABELS),
        nn.Linear(4, 3),
        task=Classification(["a", "b", "c"], metrics=wanted),
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    assert learner.fit(1).column("valid_largest_error")[0] in (0.0, 1.0, 2.0)
    knows = isinstance(wanted, dict) and isinstance(wanted["largest_error"], FunctionMetric)
    assert ("largest_error" in learner.task.score_modes()) is knows


def test_multi_label_and_regression_take_them_too() -> None:
    assert list(MultiLabel(["a", "b"], metrics=[largest_error]).metrics()) == ["largest_error"]
    assert list(Regression(metrics=["mae", largest_error]).metrics()) == ["mae", "largest_error"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"auc": sk.roc_auc_score}, r"roc_auc_score takes the targets first.*SklearnMetric\(roc_"),
        ([sk.f1_score], "f1_score takes the targets first"),
        ({"error": MeanAbsoluteError}, r"is the class MeanAbsoluteError. Create an object: "),
        ([lambda outputs, targets: 0.0], "lambdas in a dict"),
        ([MeanAbsoluteError()], "Give metric objects and lambdas in a dict"),
        ({"x": 3}, "The metric 'x' is 3. Give a name, a function"),
        ({"loss": largest_error}, "A metric has the name 'loss', which the history has for"),
        ({"f1": partial(sk.f1_score, average="macro")}, "f1_score takes the targets first"),
        ({"x": "acuracy"}, "Did you mean 'accuracy'"),
    ],
)
def test_what_is_not_clear_is_refused(wanted: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Classification(["a", "b"], metrics=wanted)


def test_a_function_of_scikit_learn_that_fails_is_named() -> None:
    for function in (sk.f1_score, partial(sk.f1_score, average="binary")):
        metric = SklearnMetric(function, "labels", higher_is_better=True)
        message = r"'f1_score' failed with ValueError: Target is multiclass.*[^.]\. It gets "
        message += r"targets \(50,\) and "
        with pytest.raises(ArgumentError, match=message + r"labels \(50,\)\.") as raised:
            over_batches(metric, LOGITS, LABELS)
        assert 'settings={"average": "macro"}' in str(raised.value)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r'no argument \'average\'.*settings={"average": …}'):
        SklearnMetric(sk.f1_score, "labels", higher_is_better=True, average="macro")  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match=r"Unknown takes 'label'\. Did you mean 'labels'"):
        SklearnMetric(sk.f1_score, "label", higher_is_better=True)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="is not a function"):
        FunctionMetric(MeanAbsoluteError)
