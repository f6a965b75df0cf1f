"""``Poisson``, ``Gamma`` and ``Tweedie``: losses, metrics and fits against scikit-learn."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Learner, Predictor, Task, TensorData, TrainingOptions
from flambeau.data.loader import LoaderOptions
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.split import Split
from flambeau.errors import InputError
from flambeau.report.baselines import baseline_scores
from flambeau.task import Classification, Regression
from flambeau.task.combined import CombinedTask
from flambeau.task.deviance_metrics import TweedieD2, TweedieDeviance
from flambeau.task.log_link import Gamma, LogLinkTask, Poisson, Tweedie
from flambeau.task.sample_losses import sample_losses
from flambeau.task.task import StepContext

N = 200
DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, generator=DRAWS, dtype=torch.float64)
OFFSET = torch.rand(N, generator=DRAWS, dtype=torch.float64)
MEAN = (0.5 * X[:, 0] - 0.3 * X[:, 1] + 0.2 + OFFSET).exp()
COUNTS = torch.poisson(MEAN, generator=DRAWS)
AMOUNTS = MEAN * (torch.rand(N, generator=DRAWS, dtype=torch.float64) + 0.5)
CLAIMS = AMOUNTS * (COUNTS > 1)
WEIGHTS = torch.rand(N, generator=DRAWS, dtype=torch.float64) + 0.1
TASKS: dict[str, tuple[LogLinkTask, Tensor, float]] = {
    "poisson": (Poisson(), COUNTS, 1.0),
    "gamma": (Gamma(), AMOUNTS, 2.0),
    "tweedie": (Tweedie(power=1.3), CLAIMS, 1.3),
}


def batches(
    y: Tensor, offset: Tensor | None = None, weights: Tensor | None = None, size: int = 37
) -> list[Batch]:
    found = []
    for rows in torch.arange(N).split(size):
        more = {} if offset is None else {"exposure": offset[rows]}
        w = None if weights is None else weights[rows]
        batch = Batch({"input": X[rows]}, {"y": y[rows]}, sample_weight=w, task_inputs=more)
        found.append(batch)
    return found


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1).double()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", TASKS)
def test_scores_equal_those_of_sklearn(name: str, weights: Tensor | None) -> None:
    from sklearn.metrics import d2_tweedie_score, mean_absolute_error, mean_tweedie_deviance

    task, y, power = TASKS[name]
    model = linear()
    with torch.no_grad():
        found = task.evaluate(model, batches(y, weights=weights), StepContext("evaluate"))
        predicted = model(X).squeeze(1).exp().numpy()
    w = None if weights is None else weights.numpy()
    deviance = mean_tweedie_deviance(y.numpy(), predicted, sample_weight=w, power=power)
    assert found["loss"] == pytest.approx(deviance / 2, rel=1e-12)
    assert found[f"{name}_deviance"] == pytest.approx(deviance, rel=1e-12)
    d2 = d2_tweedie_score(y.numpy(), predicted, sample_weight=w, power=power)
    assert found["d2"] == pytest.approx(d2, rel=1e-11)
    mae = mean_absolute_error(y.numpy(), predicted, sample_weight=w)
    assert found["mae"] == pytest.approx(mae, rel=1e-12)


def test_the_named_deviances_are_those_of_sklearn() -> None:
    from sklearn.metrics import mean_gamma_deviance, mean_poisson_deviance

    for function, power, y in (
        (mean_poisson_deviance, 1.0, COUNTS),
        (mean_gamma_deviance, 2.0, AMOUNTS),
    ):
        metric = TweedieDeviance(power)
        metric.update(MEAN, y)
        assert metric.compute() == pytest.approx(function(y.numpy(), MEAN.numpy()), rel=1e-12)
    with pytest.raises(InputError, match="power is 3, but must be between 1"):
        TweedieDeviance(3)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_d2_keeps_its_digits_for_targets_of_nearly_one_value(power: float) -> None:
    """In long double; sums of y·log(y) would leave 4 digits."""
    y = 1e4 + torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    predicted = y + 0.1
    metric = TweedieD2(power)
    for rows in torch.arange(500).split(90):
        metric.update(predicted[rows], y[rows])
    exact = y.numpy().astype(np.longdouble)

    def deviance(mu: Any) -> Any:
        if power == 1:
            return (exact * np.log(exact / mu) - exact + mu).sum()
        if power == 2:
            return (np.log(mu / exact) + exact / mu - 1).sum()
        a, b = 1 - np.longdouble(power), 2 - np.longdouble(power)
        return (exact**b / (a * b) - exact * mu**a / a + mu**b / b).sum()

    expected = 1 - deviance(predicted.numpy().astype(np.longdouble)) / deviance(exact.mean())
    # Each deviance of about 1e-5 is a difference of numbers of about 1e4 in float64.
    assert metric.compute() == pytest.approx(float(expected), abs=1e-4)


def test_d2_of_constant_targets_and_of_one_sample() -> None:
    metric = TweedieD2(1.0)
    metric.update(torch.ones(1), torch.ones(1))
    assert np.isnan(metric.compute())
    metric.update(torch.ones(1), torch.ones(1))
    assert metric.compute() == 1
    metric.update(torch.full((1,), 2.0), torch.ones(1))
    assert metric.compute() == 0
    zeros = TweedieD2(1.0)
    zeros.update(torch.full((3,), 0.5), torch.zeros(3))
    assert zeros.compute() == 0


@pytest.mark.parametrize("mean", [None, 7.5])
@pytest.mark.parametrize("name", TASKS)
def test_gradients_are_those_of_the_deviance(name: str, mean: float | None) -> None:
    """The derivative of half the deviance by log(mu) is mu**(2 - power) - y * mu**(1 - power)."""
    kind, y, power = TASKS[name]
    task = type(kind)(mean=mean) if power != 1.3 else Tweedie(power=1.3, mean=mean)
    out = torch.randn(N, 1, generator=DRAWS, dtype=torch.float64, requires_grad=True)
    total, weight = task.loss(out, Batch({"input": X}, {"y": y}))
    total.backward()
    mu = out.detach().squeeze(1).exp() * (mean or 1.0)
    expected = mu ** (2 - power) - y * mu ** (1 - power)
    assert weight == N
    assert out.grad is not None
    torch.testing.assert_close(out.grad.squeeze(1), expected, rtol=1e-12, atol=1e-12)
    assert [each.value for each in task.decode(out.detach())] == pytest.approx(mu.tolist())


@pytest.mark.parametrize("name", TASKS)
def test_a_linear_model_finds_the_coefficients_of_sklearn(name: str) -> None:
    """An offset is a rate with the exposure as weight."""
    from sklearn.linear_model import TweedieRegressor

    kind, y, power = TASKS[name]
    arguments = {"power": power} if power == 1.3 else {}
    task = type(kind)(mean=float(y.mean()), offset="exposure", **arguments)
    data = TensorData.from_tensors(X, y, valid=0, task_inputs={"exposure": OFFSET})
    run = Learner(
        data,
        linear(),
        task=task,
        choices={"batch_size": N, "optimizer": "LBFGS"},
        training=TrainingOptions(doctor=False, optimizer=torch.optim.LBFGS),
        quiet=True,
    )
    run.fit(12, lr=1.0, schedule="constant")
    # log(mu) = x·b + o: with y/exp(o) as target, the weight is exp(o)**(2 - power).
    exposure = OFFSET.exp().numpy()
    reference = TweedieRegressor(power=power, link="log", alpha=0, tol=1e-10, max_iter=10_000)
    reference.fit(X.numpy(), y.numpy() / exposure, sample_weight=exposure ** (2 - power))
    weight, bias = (p.detach() for p in run.model.parameters())
    assert weight[0].tolist() == pytest.approx(reference.coef_.tolist(), abs=2e-5)
    assert float(bias + y.mean().log()) == pytest.approx(reference.intercept_, abs=2e-5)


def test_an_offset_follows_its_rows(tmp_path: Path) -> None:
    split = Split.from_indices(range(0, N, 2), range(1, N, 2))
    data = TensorData.from_tensors(X, COUNTS, split=split, task_inputs={"exposure": OFFSET})
    task = Poisson(["claims"], mean=2.0, offset="exposure")
    options = TrainingOptions(doctor=False)
    run = Learner(
        data, linear(), task=task, training=options, choices={"batch_size": 16}, quiet=True
    )
    loader = run.built.loader("train")
    for batch in loader.batches(0):
        assert batch.indices is not None
        assert torch.equal(batch.task_inputs["exposure"], OFFSET[batch.indices])
        assert torch.equal(batch.input, X[batch.indices])
        half = batch.rows(torch.arange(len(batch)) % 2 == 0)
        assert torch.equal(half.task_inputs["exposure"], OFFSET[half.indices])
    run.fit(1, lr=0.01)
    one = {"input": X[5], "exposure": OFFSET[5]}
    expected = float((run.model(X[5]) + OFFSET[5]).detach().exp()) * 2
    assert run.predict(one).value == pytest.approx(expected, rel=1e-12)
    found = run.predict(data.raw("valid"))
    assert found[2].value == pytest.approx(expected, rel=1e-12)  # row 5 is the third of valid
    loaded = Predictor.load(run.export(tmp_path / "export"), model=linear())
    assert loaded.predict([one])[0].value == pytest.approx(expected, rel=1e-12)
    assert isinstance(loaded.task, Poisson)
    assert loaded.task.arguments() == task.arguments()
    with pytest.raises(InputError, match=r"Item 0: has no 'exposure', only 'input'"):
        loaded.predict([{"input": X[5]}])


def test_offsets_are_never_ignored_or_guessed() -> None:
    with_offset = TensorData.from_tensors(X, COUNTS, task_inputs={"exposure": OFFSET})
    options = TrainingOptions(doctor=False)

    def run(data: TensorData, task: Task) -> None:
        Learner(data, linear(), task=task, training=options, quiet=True).fit(1, lr=0.01)

    with pytest.raises(InputError, match=r"task input 'exposure', but Poisson does not read"):
        run(with_offset, Poisson())
    with pytest.raises(InputError, match=r"Poisson needs the task input 'exposure'"):
        run(TensorData.from_tensors(X, COUNTS), Poisson(offset="exposure"))
    with pytest.raises(
        InputError, match=r"task_inputs are given for the rows of inputs, but valid"
    ):
        TensorData.from_tensors(X, COUNTS, valid=(X, COUNTS), task_inputs={"e": OFFSET})
    with pytest.raises(InputError, match=r"'input' is both an input of the model and a task input"):
        TensorData.from_tensors(X, COUNTS, task_inputs={"input": OFFSET})
    with pytest.raises(InputError, match=r"'exposure' contains NaN"):
        wrong = OFFSET.clone()
        wrong[3] = torch.nan
        TensorData.from_tensors(X, COUNTS, task_inputs={"exposure": wrong})
    batch = Batch({"input": X}, {"y": COUNTS}, task_inputs={"exposure": X})
    with pytest.raises(InputError, match=r"offset 'exposure' has shape \(200, 3\) for 200 samples"):
        Poisson(offset="exposure").forward(linear(), batch, StepContext())


def test_batches_of_a_loader_keep_task_inputs() -> None:
    made = [batches(COUNTS, OFFSET), batches(COUNTS, OFFSET)]
    data = TensorData.from_loaders(made[0], made[1])
    task, options = Poisson(offset="exposure"), TrainingOptions(doctor=False)
    run = Learner(data, linear(), task=task, training=options, quiet=True)
    run.fit(1, lr=0.01)
    with torch.no_grad():
        mu = (run.model(X).squeeze(1) + OFFSET).exp()
    expected = (torch.special.xlogy(COUNTS, COUNTS / mu) - COUNTS + mu).mean()
    assert run.evaluate()["loss"] == pytest.approx(float(expected), rel=1e-12)
    short = Batch({"input": X}, {"y": COUNTS}, task_inputs={"exposure": OFFSET[:5]})
    with pytest.raises(InputError, match=r"'exposure' of a Batch has 5 rows"):
        Learner(
            TensorData.from_loaders([short]), linear(), task=task, training=options, quiet=True
        ).fit(1, lr=0.01)


def test_targets_out_of_range_are_refused_by_row() -> None:
    counts, amounts = COUNTS.clone(), AMOUNTS.clone()
    counts[[8, 3]] = torch.tensor([-2.0, -1.0]).double()
    amounts[4] = 0
    split = Split.from_indices(range(100), range(100, 150), range(150, N))
    options = TrainingOptions(doctor=False)

    def learner(task: Task, y: Tensor) -> Learner:
        data = TensorData.from_tensors(X, y, split=split)
        return Learner(data, linear(), task=task, training=options, quiet=True)

    message = r"Poisson must be at least 0, but in train sample 3, 8 have others; the first is -1"
    with pytest.raises(InputError, match=message):
        learner(Poisson(), counts).fit(1, lr=0.01)
    message = r"Gamma must be above 0, but in train sample 4 has .* Use Tweedie if 0 is possible"
    with pytest.raises(InputError, match=message):
        learner(Gamma(), amounts).fit(1, lr=0.01)
    late = COUNTS.clone()
    late[160] = -1
    run = learner(Tweedie(), late)
    run.fit(1, lr=0.01)
    with pytest.raises(InputError, match=r"in test sample 160 has"):
        run.evaluate("test")
    batch = Batch({"input": X}, {"y": counts}, indices=torch.arange(N) + 1000)
    with pytest.raises(InputError, match=r"sample 1003, 1008 have"):
        Poisson().loss(torch.zeros(N, 1), batch)


def test_missing_targets_do_not_count() -> None:
    y = AMOUNTS.clone()
    y[::3] = torch.nan
    kept = ~y.isnan()
    task, model = Gamma(ignore_nan=True), linear()
    out = model(X)
    total, weight = task.loss(out, Batch({"input": X}, {"y": y}))
    other, n = Gamma().loss(out[kept], Batch({"input": X[kept]}, {"y": y[kept]}))
    assert float(weight) == n == float(kept.sum())
    torch.testing.assert_close(total, other, rtol=1e-13, atol=0)
    gradient = torch.autograd.grad(total, model.weight)[0]
    assert bool(gradient.isfinite().all())
    assert float(task.target_weight(Batch({"input": X}, {"y": y}))) == n
    each = task.sample_losses(out, Batch({"input": X}, {"y": y}))
    assert each is not None
    assert torch.equal(each == 0, ~kept)


@pytest.mark.parametrize("name", TASKS)
def test_sample_losses_equal_those_one_by_one(name: str) -> None:
    task, y, _ = TASKS[name]
    batch = Batch({"input": X}, {"y": y}, sample_weight=WEIGHTS)
    out = linear()(X)
    found, expected = task.sample_losses(out, batch), sample_losses(task, out, batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TASKS)
def test_the_best_constant_has_the_lowest_loss(name: str) -> None:
    task, y, _ = TASKS[name]
    constant = task.constant_outputs(y, WEIGHTS)
    assert float(constant.exp()) == pytest.approx(float((y * WEIGHTS).sum() / WEIGHTS.sum()))
    batch = Batch({"input": X}, {"y": y}, sample_weight=WEIGHTS)
    losses = [float(task.loss((constant + s).expand(N, 1), batch)[0]) for s in (-0.01, 0, 0.01)]
    assert min(losses) == losses[1]
    found = baseline_scores(
        MemoryDataset({"x": X}, {"y": y}), MemoryDataset({"x": X}, {"y": y}), task
    )
    assert list(found) == ["constant"]
    assert found["constant"]["d2"] == pytest.approx(0, abs=1e-12)


def test_a_plan_chooses_a_log_link_by_name() -> None:
    data = TensorData.from_tensors(
        X.float(), COUNTS.long(), task="poisson", task_inputs={"exposure": OFFSET.float()}
    )
    run = Learner(data, quiet=True, training=TrainingOptions(doctor=False))
    assert run.plan.values["metrics"] == ["poisson_deviance", "d2", "mae"]
    run.fit(2)
    task = run.task
    assert isinstance(task, Poisson)
    rows = torch.tensor(data.split.train)
    rate = COUNTS[rows].mean() / OFFSET[rows].float().double().exp().mean()
    assert task.arguments()["mean"] == pytest.approx([float(rate)])
    assert task.offset == "exposure"
    run = Learner(
        TensorData.from_tensors(X.float(), CLAIMS.float(), task="tweedie"),
        quiet=True,
        choices={"metrics": ["rmse"]},
        training=TrainingOptions(doctor=False),
    )
    run.fit(1)
    assert list(run.evaluate()) == ["loss", "rmse"]


def test_a_combined_task_adds_the_offset_of_each_target() -> None:
    tasks: dict[str, Task] = {
        "count": Poisson(["count"], offset="exposure"),
        "class": Classification(["a", "b"]),
        "amount": Regression(["amount"]),
    }
    task = CombinedTask(tasks)
    y = {"count": COUNTS, "class": (X[:, 0] > 0).long(), "amount": AMOUNTS}
    data = TensorData.from_tensors(X, y, task_inputs={"exposure": OFFSET})
    torch.manual_seed(0)
    run = Learner(
        data,
        nn.Linear(3, 4).double(),
        task=task,
        training=TrainingOptions(doctor=False, accumulate=2),
        quiet=True,
    )
    run.fit(1, lr=0.01)
    found = run.predict({"input": X[7], "exposure": OFFSET[7]})
    assert found["count"].value == pytest.approx(
        float((run.model(X[7])[0] + OFFSET[7]).detach().exp()), rel=1e-12
    )
    wrong = {**y, "count": COUNTS - 5}
    with pytest.raises(InputError, match=r"Poisson must be at least 0, but in valid"):
        data = TensorData.from_tensors(X, wrong, task_inputs={"exposure": OFFSET})
        Learner(data, nn.Linear(3, 4).double(), task=task, quiet=True).fit(1, lr=0.01)


def test_arguments_are_checked_and_copied() -> None:
    with pytest.raises(InputError, match=r"mean is \(0.0,\), but must be above 0"):
        Poisson(mean=0.0)
    with pytest.raises(InputError, match=r"Tweedie with power 2 is Gamma"):
        Tweedie(power=2)
    with pytest.raises(InputError, match=r"power is 0.5"):
        Tweedie(power=0.5)
    task = Tweedie(["a", "b"], mean=[1.0, 2.0], power=1.7, offset="o", metrics=["d2"])
    assert copy.deepcopy(task).arguments() == Tweedie(**task.arguments()).arguments()
    out = torch.randn(6, 2, generator=DRAWS, dtype=torch.float64)
    assert torch.equal(copy.deepcopy(task)._in_target_units(out), task._in_target_units(out))


def test_loaders_on_the_host_give_task_inputs_in_order() -> None:
    data = MemoryDataset({"x": X}, {"y": COUNTS}, task_inputs={"o": OFFSET})
    found = [b.task_inputs["o"] for b in data.loader(LoaderOptions(batch_size=64)).batches(0)]
    assert torch.equal(torch.cat(found), OFFSET)
