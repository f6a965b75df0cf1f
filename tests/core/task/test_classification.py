import json
import math

import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose  # torch.testing loads sympy: 10 s on a busy core
from torch import nn
from torch.autograd.profiler import profile

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task import (
    Accuracy,
    Classification,
    MultiLabel,
    MultiLabelPrediction,
    StepContext,
    score,
)

SIZES = [(1, 2), (3, 10), (33, 10), (64, 3), (100, 101), (255, 7)]


def batch_of(targets: torch.Tensor) -> Batch:
    return Batch({"x": torch.zeros(len(targets), 1)}, {"y": targets})


def names(n: int) -> list[str]:
    return [f"c{i}" for i in range(n)]


def value_and_gradient(loss, outputs):
    leaf = outputs.clone().requires_grad_()
    value = loss(leaf)
    value.backward()
    return value.detach(), leaf.grad


def mean_loss(task, targets):
    def loss(outputs):
        total, weight = task.loss(outputs, batch_of(targets))
        return total / weight

    return loss


# ---------------------------------------------------------------- one label per sample


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "c"), SIZES)
def test_sum_over_weight_equals_torchs_mean_bitwise(n: int, c: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    outputs = torch.randn(n, c, generator=draw) * 3
    targets = torch.randint(c, (n,), generator=draw)
    ours = value_and_gradient(mean_loss(Classification(names(c)), targets), outputs)
    theirs = value_and_gradient(lambda o: F.cross_entropy(o, targets), outputs)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    soft = torch.rand(n, c, generator=draw).softmax(1)
    ours = value_and_gradient(mean_loss(Classification(names(c)), soft), outputs)
    theirs = value_and_gradient(lambda o: F.cross_entropy(o, soft), outputs)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [None, -100, 1])
def test_options_match_torchs_mean(weighted: bool, smoothing: float, ignored: int | None) -> None:
    draw = torch.Generator().manual_seed(1)
    outputs = torch.randn(40, 4, generator=draw, dtype=torch.float64)
    targets = torch.randint(4, (40,), generator=draw)
    if ignored == -100:
        targets[::3] = ignored
    factors = [0.5, 1.0, 2.0, 3.5] if weighted else None
    task = Classification(
        names(4), label_smoothing=smoothing, class_weights=factors, ignore_index=ignored
    )
    weight = None if factors is None else torch.tensor(factors, dtype=torch.float64)
    skip = -7 if ignored is None else ignored

    def reference(o):
        return F.cross_entropy(o, targets, weight, ignore_index=skip, label_smoothing=smoothing)

    ours = value_and_gradient(mean_loss(task, targets), outputs)
    theirs = value_and_gradient(reference, outputs)
    # The same sums in another order of operations.
    assert_allclose(ours[0], theirs[0], rtol=1e-13, atol=0)
    assert_allclose(ours[1], theirs[1], rtol=1e-12, atol=1e-16)
    known = task.host_weight(batch_of(targets))
    assert (known is None) == (weighted or ignored is not None)
    assert known in (None, task.loss(outputs, batch_of(targets))[1])


def test_class_weights_of_soft_targets_match_torch() -> None:
    draw = torch.Generator().manual_seed(2)
    outputs = torch.randn(8, 3, generator=draw)
    soft = torch.rand(8, 3, generator=draw).softmax(1)
    task = Classification(names(3), class_weights=[1, 2, 3])
    expected = F.cross_entropy(outputs, soft, torch.tensor([1.0, 2.0, 3.0]))
    assert_allclose(mean_loss(task, soft)(outputs), expected, rtol=1e-6)
    assert task.host_weight(batch_of(soft)) == 8 == task.loss(outputs, batch_of(soft))[1]


def test_any_grouping_gives_the_same_mean() -> None:
    draw = torch.Generator().manual_seed(3)
    outputs = torch.randn(30, 4, generator=draw, dtype=torch.float64)
    targets = torch.randint(4, (30,), generator=draw)
    task = Classification(names(4), class_weights=[1, 2, 3, 4], label_smoothing=0.1)
    whole = mean_loss(task, targets)(outputs)
    parts = [task.loss(outputs[a:b], batch_of(targets[a:b])) for a, b in [(0, 7), (7, 8), (8, 30)]]
    combined = sum(total for total, _ in parts) / sum(weight for _, weight in parts)
    assert_allclose(combined, whole, rtol=1e-13, atol=0)


def test_pixels_are_samples() -> None:
    draw = torch.Generator().manual_seed(4)
    outputs = torch.randn(2, 3, 4, 5, generator=draw)
    targets = torch.randint(3, (2, 4, 5), generator=draw)
    total, weight = Classification(names(3)).loss(outputs, batch_of(targets))
    assert weight == 40
    assert_allclose(total / weight, F.cross_entropy(outputs, targets), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_integer_is_a_class_number(dtype: torch.dtype) -> None:
    outputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 2, 1, 0])
    found = Classification(names(3)).loss(outputs, batch_of(targets.to(dtype)))[0]
    assert torch.equal(found, F.cross_entropy(outputs, targets, reduction="sum"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    outputs = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets = torch.zeros(500, dtype=torch.long)
    total, _ = Classification(names(3)).loss(outputs, batch_of(targets))
    assert total.dtype is torch.float32
    assert torch.equal(total, F.cross_entropy(outputs.float(), targets, reduction="sum"))


def test_no_label_is_ignored_by_default() -> None:
    targets = torch.tensor([0, -100])  # torch's cross_entropy ignores it silently
    with pytest.raises(IndexError, match="-100 is out of bounds"):
        Classification(names(3)).loss(torch.zeros(2, 3), batch_of(targets))


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (
            torch.zeros(64, 3),
            torch.zeros(64, 1, dtype=torch.long),
            r"shape \(64, 1\), but Classification expects \(64,\)\. The data set returns an array",
        ),
        (torch.zeros(4, 3), torch.zeros(4), r"dtype torch.float32, but .* 0 to 2 as integers"),
        (torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.long), "use MultiLabel, or"),
        (torch.zeros(4, 3), torch.zeros(5, dtype=torch.long), r"shape \(5,\), .* expects \(4,\)"),
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.long), r"1 column, but .* has 3 classes"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.long), r"shape \(4,\), but .* logits"),
        ((torch.zeros(4, 3),), torch.zeros(4, dtype=torch.long), "output is of type tuple, but"),
    ],
)
def test_wrong_shapes_and_dtypes_are_refused(outputs, targets, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classification(names(3)).loss(outputs, batch_of(targets))


@pytest.mark.parametrize("ignored", [None, -1])
@pytest.mark.parametrize("factors", [None, [1, 2, 3]])
def test_loss_reads_nothing_from_the_device(ignored, factors) -> None:
    task = Classification(names(3), class_weights=factors, ignore_index=ignored)
    with profile() as recorded:  # test_metrics verifies this way to detect reads
        task.loss(torch.zeros(4, 3), batch_of(torch.zeros(4, dtype=torch.long)))
    operations = {event.name for event in recorded.function_events}
    assert "aten::cross_entropy_loss" in operations
    assert not operations & {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"classes": "cat"}, ArgumentError, r"classes must be a list .* 'cat'"),
        ({"classes": ["cat"]}, InputError, "at least 2 classes"),
        ({"classes": ["cat", "dog", "cat"]}, InputError, "'cat' more than once"),
        ({"classes": [0, 1]}, ArgumentError, "must be strings, not 0. Write '0'"),
        ({"classes": ["a", "b"], "label_smoothing": 1.5}, InputError, "not 1.5"),
        ({"classes": ["a", "b"], "class_weights": [1.0]}, InputError, "1 class_weights for 2"),
        ({"classes": ["a", "b"], "class_weights": [1.0, -1]}, InputError, "must be finite, ≥ 0"),
        ({"classes": ["a", "b"], "class_weights": [1.0, math.nan]}, InputError, "finite"),
        ({"classes": ["a", "b"], "metrics": ["acuracy"]}, ArgumentError, "'accuracy'"),
    ],
)
def test_invalid_arguments_are_refused(arguments, error, message: str) -> None:
    with pytest.raises(error, match=message):
        Classification(**arguments)


def test_decode_names_the_classes() -> None:
    outputs = torch.tensor([[0.0, 2.0, 1.0], [5.0, 0.0, 0.0]])
    first, second = Classification(["ant", "bee", "cat"]).decode(outputs)
    assert (first.label, second.label) == ("bee", "ant")
    assert list(first.probabilities) == ["ant", "bee", "cat"]
    expected = [math.exp(v) / (1 + math.e + math.e**2) for v in (0, 2, 1)]
    assert list(first.probabilities.values()) == pytest.approx(expected, rel=1e-6)
    assert first.probability == first.probabilities["bee"]
    with pytest.raises(InputError, match="2 columns, but Classification has 3 classes"):
        Classification(["ant", "bee", "cat"]).decode(torch.zeros(1, 2))


def test_arguments_rebuild_the_task() -> None:
    task = Classification(
        ("a", "b"), label_smoothing=0.1, class_weights=[1, 2], metrics=["macro_f1", "accuracy"]
    )
    again = Classification(**json.loads(json.dumps(task.arguments())))
    assert again.arguments() == task.arguments()
    assert list(again.metrics()) == ["macro_f1", "accuracy"]
    assert task.n_outputs == 2


def test_metrics_are_new_objects_or_user_defined() -> None:
    task = Classification(["a", "b"])
    one, two = task.metrics()["accuracy"], task.metrics()["accuracy"]
    one.update(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    assert math.isnan(score(two))
    custom = Classification(["a", "b"], metrics={"custom": Accuracy()})
    assert list(custom.metrics()) == ["custom"]
    assert list(custom.arguments()["metrics"]) == ["custom"]


def test_evaluate_equals_one_large_batch() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    x, y = torch.randn(50, 5), torch.randint(3, (50,))
    task = Classification(names(3), metrics=["accuracy", "balanced_accuracy", "macro_f1"])
    with torch.no_grad():
        batches = [Batch({"x": x[i : i + 8]}, {"y": y[i : i + 8]}) for i in range(0, 50, 8)]
        found = task.evaluate(model, batches, StepContext("evaluate"))
        outputs = model(x)
    assert found["loss"] == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-6)
    assert found["accuracy"] == (outputs.argmax(1) == y).double().mean().item()
    assert all(type(value) is float for value in found.values())


# ---------------------------------------------------------------- several labels


@pytest.mark.parametrize(("n", "c"), SIZES)
def test_multi_label_equals_torchs_mean(n: int, c: int) -> None:
    draw = torch.Generator().manual_seed(n)
    outputs = torch.randn(n, c, generator=draw, dtype=torch.float64)
    targets = torch.randint(2, (n, c), generator=draw)
    ours = value_and_gradient(mean_loss(MultiLabel(names(c)), targets), outputs)
    theirs = value_and_gradient(
        lambda o: F.binary_cross_entropy_with_logits(o, targets.double()), outputs
    )
    assert torch.equal(ours[0], theirs[0])
    # torch divides by the count, we multiply by its reciprocal: the rounding differs.
    assert_allclose(ours[1], theirs[1], rtol=1e-15, atol=0)
    assert MultiLabel(names(c)).host_weight(batch_of(targets)) == n * c


def test_multi_label_decodes_any_number_of_labels() -> None:
    task = MultiLabel(["sun", "rain", "snow"], threshold=0.4)
    outputs = torch.tensor([[2.0, -0.3, -5.0], [-1.0, -1.0, -1.0]])
    both, none = task.decode(outputs)
    assert both == MultiLabelPrediction(("sun", "rain"), both.probabilities)
    assert both.probabilities["sun"] == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-6)
    assert none.labels == ()


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), r"\(4,\), .* expects \(4, 3\)"),
        (torch.zeros(4, 2), torch.zeros(4, 2), "2 columns, but MultiLabel has 3 classes"),
        (torch.zeros(4), torch.zeros(4), "MultiLabel expects logits"),
    ],
)
def test_multi_label_refuses_wrong_shapes(outputs, targets, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MultiLabel(names(3)).loss(outputs, batch_of(targets))


def test_arguments_rebuild_a_multi_label_task() -> None:
    task = MultiLabel(["a", "b"], 0.3, metrics=["micro_f1"])
    again = MultiLabel(**json.loads(json.dumps(task.arguments())))
    assert again.arguments() == task.arguments()
    assert MultiLabel(["a"]).n_outputs == 1
    with pytest.raises(InputError, match="between 0 and 1, not 1"):
        MultiLabel(["a"], 1)
