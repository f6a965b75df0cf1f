import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task import Estimate, Regression, StepContext

sk = pytest.importorskip("sklearn.metrics")

TORCH = {"mse": F.mse_loss, "huber": F.huber_loss, "mae": F.l1_loss}


def batch_of(targets: torch.Tensor) -> Batch:
    return Batch({"x": torch.zeros(len(targets), 1)}, {"y": targets})


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


@pytest.mark.parametrize("loss", TORCH)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 2, 7, 33, 64, 255, 1000])
def test_sum_over_weight_equals_torchs_mean_bitwise(n: int, seed: int, loss: str) -> None:
    draw = torch.Generator().manual_seed(seed)
    outputs, targets = torch.randn(n, 1, generator=draw), torch.randn(n, generator=draw)
    ours = value_and_gradient(mean_loss(Regression(loss=loss), targets), outputs)
    theirs = value_and_gradient(lambda o: TORCH[loss](o.squeeze(1), targets), outputs)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    outputs, targets = torch.randn(n, 3, generator=draw), torch.randn(n, 3, generator=draw)
    task = Regression(["a", "b", "c"], loss=loss)
    ours = value_and_gradient(mean_loss(task, targets), outputs)
    theirs = value_and_gradient(lambda o: TORCH[loss](o, targets), outputs)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert task.host_weight(batch_of(targets)) == 3 * n == task.loss(outputs, batch_of(targets))[1]


@pytest.mark.parametrize("output_shape", [(5,), (5, 1)])
@pytest.mark.parametrize("target_shape", [(5,), (5, 1)])
def test_one_value_in_either_shape_never_broadcasts(output_shape, target_shape) -> None:
    outputs, targets = torch.arange(5.0), torch.arange(5.0) * 2
    total, weight = Regression().loss(
        outputs.reshape(output_shape), batch_of(targets.reshape(target_shape))
    )
    assert (total.item(), weight) == (0 + 1 + 4 + 9 + 16, 5)


@pytest.mark.parametrize(
    ("names", "outputs", "targets", "message"),
    [
        (
            ["a"],
            (5, 2),
            (5,),
            r"outputs of shape \(batch, 1\) or \(batch,\), but got shape \(5, 2\)",
        ),
        (["a", "b"], (5,), (5, 2), r"outputs of shape \(batch, 2\), but got shape \(5,\)"),
        (["a", "b"], (5, 2), (5,), r"targets of shape \(batch, 2\), but got shape \(5,\)"),
        (["a"], (5, 1), (1, 5), r"targets .* but got shape \(1, 5\)"),
        (["a"], (5, 1), (4,), "4 targets for 5 outputs"),
        (["a"], (5, 1), (1,), "1 targets for 5 outputs"),
    ],
)
def test_wrong_shapes_are_refused(names, outputs, targets, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Regression(names).loss(torch.zeros(outputs), batch_of(torch.zeros(targets)))


def test_a_model_with_several_outputs_is_refused() -> None:
    with pytest.raises(InputError, match="got tuple"):
        Regression().loss((torch.zeros(2, 1),), batch_of(torch.zeros(2)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float32])
def test_standardised_targets_of_any_type(dtype: torch.dtype) -> None:
    targets = torch.tensor([1_000_001, 1_000_003, 1_000_007]).to(dtype)
    outputs = torch.tensor([0.5, -1.0, 0.25])
    task = Regression(mean=1_000_003.1, std=2.5)
    total, weight = task.loss(outputs, batch_of(targets))
    standardised = (targets.double() - 1_000_003.1) / 2.5
    # float32 arithmetic on such targets would have an error of 0.01.
    assert (total / weight).item() == pytest.approx(
        F.mse_loss(outputs.double(), standardised).item(), rel=1e-6
    )
    assert total.dtype is torch.float32


def test_metrics_and_predictions_use_the_target_units() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    x, y = torch.randn(41, 4), torch.randn(41, 2) * torch.tensor([3.0, 100]) + 50
    mean, std = [50.0, 49.0], [3.0, 90.0]
    task = Regression(["size", "price"], mean, std)
    with torch.no_grad():
        batches = [Batch({"x": x[i : i + 16]}, {"y": y[i : i + 16]}) for i in range(0, 41, 16)]
        found = task.evaluate(model, batches, StepContext("evaluate"))
        # The same grouping: float32 products of 41 rows at once may differ in the last bit.
        outputs = torch.cat([model(batch.input) for batch in batches])
    predicted = outputs.double() * torch.tensor(std) + torch.tensor(mean)
    truth, guess = y.double().numpy(), predicted.numpy()
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth, guess), rel=1e-12)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, guess), rel=1e-12)
    assert found["r2"] == pytest.approx(sk.r2_score(truth, guess), rel=1e-12)
    standardised = (y - torch.tensor(mean)) / torch.tensor(std)
    assert found["loss"] == pytest.approx(F.mse_loss(outputs, standardised).item(), rel=1e-5)
    decoded = task.decode(outputs)
    assert decoded[7].values == pytest.approx(
        {"size": guess[7, 0], "price": guess[7, 1]}, rel=1e-12
    )


def test_metrics_of_one_value_in_either_shape() -> None:
    outputs, targets = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 3.0, 4.0])
    found = {}
    for shaped in (outputs, outputs.squeeze(1)):
        metrics = Regression().metrics()
        Regression().update(metrics, shaped, batch_of(targets))
        found[shaped.ndim] = {name: metric.compute() for name, metric in metrics.items()}
    assert found[1] == found[2]
    assert found[1]["mae"] == pytest.approx(1 / 3)


def test_an_estimate_of_one_value_is_a_number() -> None:
    (estimate,) = Regression(mean=10, std=2).decode(torch.tensor([[1.5]]))
    assert estimate == Estimate({"value": 13.0})
    assert estimate.value == 13 == float(estimate)
    with pytest.raises(
        InputError, match=r"2 numbers \(a, b\), so estimate.value is ambiguous.*values\['a'\]"
    ):
        _ = Estimate({"a": 1.0, "b": 2.0}).value


def test_half_precision_outputs_are_summed_in_float32() -> None:
    total, _ = Regression().loss(
        torch.ones(3000, 1, dtype=torch.bfloat16), batch_of(torch.zeros(3000))
    )
    assert total.item() == 3000


def test_arguments_rebuild_the_task() -> None:
    task = Regression(("a", "b"), [1, 2], [3, 4], "huber", metrics=["r2"])
    again = Regression(**json.loads(json.dumps(task.arguments())))
    assert again.arguments() == task.arguments()
    assert again.loss_name == "Huber loss"
    assert (again.n_outputs, list(again.metrics())) == (2, ["r2"])
    assert Regression(["a", "b"], 0, 1).std == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"names": "price"}, ArgumentError, "not the string 'price'"),
        ({"names": ["a", "a"]}, InputError, "distinct names"),
        ({"loss": "hubber"}, ArgumentError, "Did you mean 'huber'"),
        ({"mean": 1.0}, InputError, "both mean and std"),
        ({"mean": 1.0, "std": 0.0}, InputError, "must be above 0"),
        ({"mean": [1.0, 2.0], "std": 1.0}, InputError, "one finite number for each of value"),
        ({"metrics": ["rms"]}, ArgumentError, "Did you mean 'rmse'"),
    ],
)
def test_invalid_arguments_are_refused(arguments, error, message: str) -> None:
    with pytest.raises(error, match=message):
        Regression(**arguments)
