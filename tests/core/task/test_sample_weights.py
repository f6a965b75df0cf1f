"""Sample weights: as repeated rows in training, and as scikit-learn's in metrics and intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Callback, Learner, Task, TensorData, TrainState
from flambeau.data import LoaderOptions, MemoryDataset
from flambeau.data.split import Split
from flambeau.errors import InputError
from flambeau.report import Predictions, score_intervals
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.classification_metrics import TopKAccuracy
from flambeau.task.function_metrics import FunctionMetric

metrics = pytest.importorskip("sklearn.metrics")

N, N_VALID, CLASSES = 24, 12, 4
NAMES = ["a", "b", "c", "d"]


def columns(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and whole-numbered weights, one of them 0."""
    draws = torch.Generator().manual_seed(3)
    x = torch.randn(N + N_VALID, 5, generator=draws, dtype=torch.float64)
    scores = x[:, :CLASSES] + torch.randn(len(x), CLASSES, generator=draws, dtype=torch.float64)
    y = {
        "classification": scores.argmax(1),
        "multi_label": (scores > 0.5).double(),
        "regression": scores[:, :2] * 3 + 1,
    }[kind]
    weights = torch.randint(0, 4, (len(x),), generator=draws)
    weights[0] = 0
    return x, y, weights


def trained(kind: str, task: Task, *, repeated: bool) -> Learner:
    """A fit on the whole train part as one batch."""
    x, y, weights = columns(kind)
    if repeated:
        rows = torch.arange(len(x)).repeat_interleave(weights)
        n_train = int(weights[:N].sum())
        x, y, given = x[rows], y[rows], {}
    else:
        n_train, given = N, {"sample_weight": weights}
    split = Split.from_indices(range(n_train), range(n_train, len(x)))
    data = TensorData.from_tensors(x, y, split=split, task=kind, **given)
    torch.manual_seed(0)
    width = task.n_outputs or 1
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, width)).double()
    choices = {"batch_size": n_train, "optimizer": "adamw", "normalisation": "none"}
    learner = Learner(data, model, task=task, choices=choices, quiet=True)
    learner.fit(8, lr=0.05)
    return learner


@pytest.mark.filterwarnings("ignore::flambeau.errors.FlambeauWarning")
@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("classification", Classification(NAMES, metrics=("accuracy", "macro_f1"))),
        ("classification", Classification(NAMES, label_smoothing=0.2)),
        ("classification", Classification(NAMES, class_weights=(1.0, 0.5, 3.0, 2.0))),
        (
            "classification",
            Classification(NAMES, label_smoothing=0.1, class_weights=(1, 2, 3, 4), ignore_index=2),
        ),
        ("multi_label", MultiLabel(NAMES)),
        ("regression", Regression(["u", "v"], mean=1.0, std=3.0)),
        ("regression", Regression(["u", "v"], loss="huber")),
        ("regression", Regression(["u", "v"], loss="mae")),
    ],
)
def test_weighted_training_equals_repeated_rows(kind: str, task: Task) -> None:
    weighted = trained(kind, task, repeated=False)
    repeated = trained(kind, task, repeated=True)
    for ours, theirs in zip(weighted.model.parameters(), repeated.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for name in weighted.history.rows[-1]:
        if name.startswith(("train_", "valid_")):
            assert weighted.history.column(name) == pytest.approx(
                repeated.history.column(name), rel=1e-12, abs=1e-12
            )
    assert weighted.history.step_losses[-1] < weighted.history.step_losses[0]


def weighted_scores(task: Task, outputs: Tensor, targets: Tensor, weights: Tensor) -> dict:
    """The scores of three batches."""
    found = dict(task.metrics())
    for rows in torch.arange(len(outputs)).split(len(outputs) // 3 + 1):
        batch = Batch({}, {"target": targets[rows]}, sample_weight=weights[rows])
        task.update(found, outputs[rows], batch)
    return {name: float(metric.compute()) for name, metric in found.items()}


def drawn(n: int = 200) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    outputs = torch.randn(n, 8, generator=draws, dtype=torch.float64)
    weights = torch.rand(n, generator=draws, dtype=torch.float64) ** 3
    weights[:5] = 0
    return outputs, weights


def test_class_metrics_equal_those_of_scikit_learn() -> None:
    outputs, weights = drawn()
    targets = torch.randint(8, (200,), generator=torch.Generator().manual_seed(2))
    targets = torch.where(weights > 0.2, outputs.argmax(1), targets)
    names = ("accuracy", "balanced_accuracy", "macro_f1", "top_5_accuracy")
    task = Classification(list("abcdefgh"), metrics=names)
    found = weighted_scores(task, outputs, targets, weights)
    predicted = outputs.argmax(1)
    wanted = {
        "accuracy": metrics.accuracy_score(targets, predicted, sample_weight=weights),
        "balanced_accuracy": metrics.balanced_accuracy_score(
            targets, predicted, sample_weight=weights
        ),
        "macro_f1": metrics.f1_score(targets, predicted, average="macro", sample_weight=weights),
        "top_5_accuracy": metrics.top_k_accuracy_score(
            targets, outputs, k=5, labels=range(8), sample_weight=weights
        ),
    }
    assert found == pytest.approx(wanted, rel=1e-12)
    summary = task.summarise(outputs, Batch({"x": outputs}, {"target": targets}))
    predictions = Predictions(torch.arange(200), summary, {}, weights)
    intervals = score_intervals(predictions)
    values = {name: each.value for name, each in intervals.items() if name != "loss"}
    assert values == pytest.approx(wanted)
    assert all(each.low < each.value < each.high for each in intervals.values())


def test_label_metrics_equal_those_of_scikit_learn() -> None:
    outputs, weights = drawn()
    targets = outputs + torch.randn(200, 8, generator=torch.Generator().manual_seed(2)) > 0.4
    names = ("exact_match", "micro_f1", "macro_f1")
    task = MultiLabel(list("abcdefgh"), metrics=names)
    found = weighted_scores(task, outputs, targets.double(), weights)
    predicted = outputs >= 0
    wanted = {
        "exact_match": metrics.accuracy_score(targets, predicted, sample_weight=weights),
        "micro_f1": metrics.f1_score(targets, predicted, average="micro", sample_weight=weights),
        "macro_f1": metrics.f1_score(targets, predicted, average="macro", sample_weight=weights),
    }
    assert found == pytest.approx(wanted, rel=1e-12)
    summary = task.summarise(outputs, Batch({"x": outputs}, {"target": targets.double()}))
    predictions = Predictions(torch.arange(200), summary, {}, weights)
    intervals = score_intervals(predictions)
    values = {name: each.value for name, each in intervals.items() if name != "loss"}
    assert values == pytest.approx(wanted)


def test_regression_metrics_equal_those_of_scikit_learn() -> None:
    outputs, weights = drawn()
    outputs = outputs[:, :2] + 1e4
    targets = outputs + torch.randn(200, 2, generator=torch.Generator().manual_seed(2)) / 2
    task = Regression(["u", "v"], metrics=("mae", "rmse", "r2"))
    found = weighted_scores(task, outputs, targets, weights)
    wanted = {
        "mae": metrics.mean_absolute_error(targets, outputs, sample_weight=weights),
        "rmse": metrics.root_mean_squared_error(targets, outputs, sample_weight=weights),
        "r2": metrics.r2_score(targets, outputs, sample_weight=weights),
    }
    assert found == pytest.approx(wanted, rel=1e-9)  # a mean of 1e4 costs four digits
    summary = task.summarise(outputs, Batch({"x": outputs}, {"target": targets}))
    predictions = Predictions(torch.arange(200), summary, {}, weights)
    intervals = score_intervals(predictions)
    values = {name: each.value for name, each in intervals.items() if name != "loss"}
    assert values == pytest.approx(wanted)


class Plain:
    """A user's metric without weights."""

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        pass

    def compute(self) -> float:
        return 0.0

    def reset(self) -> None:
        pass


def test_a_metric_without_weights_is_refused() -> None:
    task = Classification(NAMES, metrics={"plain": Plain()})
    batch = Batch({}, {"target": torch.zeros(3).long()}, sample_weight=torch.ones(3))
    with pytest.raises(InputError, match=r"'plain' \(Plain\).*takes_weights = True"):
        task.update(task.metrics(), torch.zeros(3, 4), batch)
    task.update(task.metrics(), torch.zeros(3, 4), replace(batch, sample_weight=None))


def test_weights_follow_the_batches_of_the_memory_loader() -> None:
    weights = torch.arange(10).double() / 8
    data = MemoryDataset({"x": torch.arange(10.0)}, sample_weight=weights)
    for shuffle in (True, False):
        for rank in (0, 1):
            options = LoaderOptions(4, shuffle=shuffle, rank=rank, world_size=2)
            for batch in data.loader(options).batches(0):
                assert torch.equal(batch.sample_weight, weights[batch.input.long()])
                assert batch.weight == float(batch.sample_weight.sum())
                assert batch.first(1).weight == float(batch.sample_weight[:1].sum())
                moved = batch.to(torch.device("meta"))
                assert moved.sample_weight.is_meta


def test_batch_rows_keep_order_weights_and_token_counts() -> None:
    weights = torch.tensor([0.5, 2.0, 4.0])
    batch = Batch({"x": torch.arange(3)}, weight=6.5, sample_weight=weights)
    part = batch.rows(torch.tensor([2, 0]))
    assert (part.input.tolist(), part.sample_weight.tolist(), part.weight) == (
        [2, 0],
        [4, 0.5],
        4.5,
    )
    tokens = Batch({"x": torch.arange(3)}, weight=31.0)
    assert tokens.first(2).weight is None
    assert Batch({"x": torch.arange(3)}, weight=3.0).first(2).weight == 2.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.tensor([1.0, -1.0, 1.0]), "sample_weight is -1 in row 1"),
        (torch.tensor([1.0, 1.0, float("nan")]), "sample_weight is nan in row 2"),
        (torch.zeros(3), "Every sample_weight is 0"),
        (torch.ones(3, 1), r"sample_weight has shape \(3, 1\)"),
        (torch.ones(4), "'sample_weight' has 4"),
    ],
)
def test_impossible_weights_are_refused(weights: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TensorData.from_tensors(torch.ones(3, 2), torch.ones(3), sample_weight=weights)


@pytest.mark.parametrize("task", ["classification", "multi_label"])
def test_a_metric_without_weights_is_refused_before_a_step(task: str) -> None:
    function = FunctionMetric(lambda outputs, targets: 0.5, higher_is_better=True)
    kind = Classification if task == "classification" else MultiLabel
    scored = kind(list("abc"), metrics={"half": function})
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 3 if task == "classification" else (x > 0).long()
    arguments = {"task": task, "valid": 0.3}
    data = TensorData.from_tensors(x, y, sample_weight=torch.rand(60), **arguments)
    steps: list[int] = []

    class Count(Callback):
        def on_step_end(self, state: TrainState) -> None:
            steps.append(1)

    learner = Learner(data, task=scored, callbacks=[Count()], quiet=True)
    message = r"metric 'half' .* does not use them.*Choose metrics that use them: .*_f1"
    with pytest.raises(InputError, match=message) as caught:
        learner.fit(1)
    assert "takes_weights" not in str(caught.value)
    assert not steps
    # Weights of the train part alone do not reach the metrics.
    unweighted = TensorData.from_tensors(
        x, y, sample_weight=torch.rand(60), **{**arguments, "valid": (x[:20] + 0.1, y[:20])}
    )
    Learner(unweighted, task=scored, quiet=True).fit(1)


def test_a_top_k_that_is_always_1_is_refused_at_once() -> None:
    for chosen in (["top_5_accuracy"], {"top": TopKAccuracy(2)}):
        with pytest.raises(InputError, match=r"always 1 with 2 classes.*Choose accuracy"):
            Classification(["a", "b"], metrics=chosen)
    Classification(list("abc"), metrics={"top": TopKAccuracy(2)})
