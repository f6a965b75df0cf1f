"""Metric and loss objects of a task in an export: stored by name, or reported as missing."""

import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, TensorData
from flambeau.artefact.export import export
from flambeau.artefact.predictor import Predictor
from flambeau.data.batch import Batch
from flambeau.domain import Domain, discovery
from flambeau.errors import ArtefactError, FlambeauWarning, InputError
from flambeau.task import Accuracy, Classification, Regression, SumMetric, Task, TopKAccuracy
from flambeau.task.registered import LOSS_NAMES, METRICS
from flambeau.task.task import StepContext
from flambeau.tensors.preprocess import TensorPreprocessor


class Above(SumMetric):
    """The share of first outputs above a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        self.add("above", (outputs[:, 0] > self.limit).sum())
        self.add("all", torch.tensor(len(outputs)))

    def compute(self) -> float:
        return float(self.sums["above"] / self.sums["all"])

    def arguments(self) -> Mapping[str, Any]:
        return {"limit": self.limit}


class Forgets(Above):
    def __init__(self, limit: float = 0.0) -> None:
        super().__init__(limit)

    def arguments(self) -> Mapping[str, Any]:
        return {}


class Pinball:
    """The quantile loss of each element."""

    def __init__(self, quantile: float) -> None:
        self.quantile = quantile

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        error = targets - outputs
        return torch.maximum(self.quantile * error, (self.quantile - 1) * error)

    def arguments(self) -> Mapping[str, Any]:
        return {"quantile": self.quantile}


DOMAIN = Domain(
    name="named",
    data_classes={},
    models={"linear": lambda n: nn.Linear(n, n)},
    tasks={"classification": Classification, "regression": Regression},
    losses={"check": Pinball},
    metrics={"above": Above, "forgets": Forgets, "check": Above},
    preprocessors={"tensor_preprocessor": TensorPreprocessor},
)


@pytest.fixture(autouse=True)
def named_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("named_module")
    module.DOMAIN = DOMAIN  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(discovery, "_loaded", {"named_module:DOMAIN": DOMAIN})


def write(folder: Path, task: Task) -> Path:
    return export(
        folder / "export",
        domain="named",
        model=nn.Linear(2, 2),
        model_spec={"builder": "linear", "arguments": {"n": 2}},
        task=task,
        preprocessor=TensorPreprocessor({"x": {"shape": [2], "dtype": "float32"}}),
    )


def task_record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "flambeau.json").read_text())["task"]


def test_registered_metrics_are_rebuilt_by_name(tmp_path: Path) -> None:
    metrics = {"top": TopKAccuracy(1), "high": Above(0.5)}
    metrics["high"].update(torch.ones(1, 2), torch.zeros(1))  # a metric that was used before
    folder = write(tmp_path, Classification(["a", "b"], metrics=metrics))
    assert task_record(folder)["arguments"]["metrics"] == {
        "top": {
            "registered": "metrics",
            "name": "top_k_accuracy",
            "arguments": {"k": 1, "ignore_index": None},
        },
        "high": {"registered": "metrics", "name": "above", "arguments": {"limit": 0.5}},
    }
    task = Predictor.load(folder, device="cpu").task
    outputs, targets = torch.tensor([[0.2, 0.0], [0.7, 0.9], [0.8, 0.1]]), torch.tensor([0, 1, 1])
    found = {}
    for name, metric in task.metrics().items():
        metric.update(outputs, targets)
        found[name] = metric.compute()
    # Two of three highest outputs are the target; two of three first outputs are above 0.5.
    assert found == pytest.approx({"top": 2 / 3, "high": 2 / 3})


def test_a_metric_without_a_name_is_left_out_and_named(tmp_path: Path) -> None:
    class Mine(Above):
        pass

    task = Classification(["a", "b"], metrics={"mine": Mine(0.5), "accuracy": Accuracy()})
    with pytest.warns(FlambeauWarning, match=r"without the metric 'mine' \(.*Mine\)"):
        folder = write(tmp_path, task)
    assert "the metric 'mine'" in task_record(folder)["note"]
    assert list(Predictor.load(folder, device="cpu").task.metrics()) == ["accuracy"]


def test_only_unregistered_metrics_leave_no_default(tmp_path: Path) -> None:
    class Mine(Above):
        pass

    with pytest.warns(FlambeauWarning, match="'mine'"):
        folder = write(tmp_path, Classification(["a", "b"], metrics={"mine": Mine(0.5)}))
    assert list(Predictor.load(folder, device="cpu").task.metrics()) == []


def test_a_registered_loss_is_rebuilt_by_name(tmp_path: Path) -> None:
    task = Regression(["a", "b"], loss=Pinball(0.9))
    folder = write(tmp_path, task)
    assert task_record(folder)["arguments"]["loss"] == {
        "registered": "losses",
        "name": "check",
        "arguments": {"quantile": 0.9},
    }
    loaded = Predictor.load(folder, device="cpu").task
    batch = Batch({}, {"y": torch.tensor([[1.0, 0.0]])}, weight=1.0)
    total, weight = loaded.loss(torch.tensor([[0.0, 1.0]]), batch)
    # 0.9 · 1 where the output is too low, 0.1 · 1 where it is too high.
    assert float(total) / float(weight) == pytest.approx(0.5)
    assert loaded.loss_name == "Pinball"


def test_an_unregistered_loss_leaves_out_the_task(tmp_path: Path) -> None:
    task = Regression(["a", "b"], loss=nn.HuberLoss(reduction="none", delta=2.0))
    folder = write(tmp_path, task)
    with pytest.raises(ArtefactError, match=r"no builder for its task.*the loss HuberLoss.*losses"):
        Predictor.load(folder)
    assert Predictor.load(folder, task=task, device="cpu").task is task


def test_a_constructor_that_forgets_an_argument_is_refused(tmp_path: Path) -> None:
    task = Classification(["a", "b"], metrics={"own": Forgets(0.5)})
    with pytest.raises(
        ArtefactError, match=r"'forgets' .*Forgets\(limit=0\.0\) instead of Forgets\(limit=0\.5\)"
    ):
        write(tmp_path, task)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("abov", {"limit": 1}, "does not register the metric builder 'abov'.*Did you mean 'above'"),
        ("above", {}, "metric builder 'above' does not accept the saved arguments"),
    ],
)
def test_a_damaged_reference_is_named(
    tmp_path: Path, name: str, arguments: Any, message: str
) -> None:
    folder = write(tmp_path, Classification(["a", "b"], metrics={"high": Above(0.5)}))
    content = json.loads((folder / "flambeau.json").read_text())
    content["task"]["arguments"]["metrics"]["high"] |= {"name": name, "arguments": arguments}
    (folder / "flambeau.json").write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match=message):
        Predictor.load(folder, device="cpu")


def test_a_loss_must_return_one_value_per_element() -> None:
    task = Regression(["a", "b"], loss=nn.HuberLoss())
    batch = Batch({}, {"y": torch.zeros(3, 2)}, weight=3.0)
    with pytest.raises(InputError, match=r"HuberLoss returned shape \(\).*reduction=\"none\""):
        task.loss(torch.zeros(3, 2), batch)


def test_core_registers_every_metric_of_its_tasks() -> None:
    known = {**Classification.known_metrics(), **Regression.known_metrics()}
    classes = {type(make()) for make in known.values()}
    assert classes <= set(METRICS.values())
    assert LOSS_NAMES["huber"] == "regression"


class ShiftedInputs(Classification):
    """Predicts with the mean over an input and a shifted copy of it."""

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        return (model(batch.input) + model(batch.input + 0.01)) / 2


class PriorShift(Classification):
    """A task with a calibration value that core's task does not know."""

    def calibrate(self, pairs: Any) -> dict[str, Any]:
        return {"shift": [0.5, -0.5]}

    def calibrated(self, outputs: Any) -> Any:
        shift = self.calibration.get("shift")
        return outputs if shift is None else outputs + outputs.new_tensor(shift)


@pytest.mark.parametrize("kind", [ShiftedInputs, PriorShift])
def test_calibration_of_a_custom_task_survives(kind: type[Classification], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator)
    y = (x[:, 0] + torch.randn(200, generator=generator) > 0).long()
    data = TensorData.from_tensors(x, y, valid=0.2, calibration=0.3)
    learner = Learner(data, task=kind(["no", "yes"]), quiet=True)
    learner.fit(1)
    fitted = learner.calibrate().values
    learner.export(tmp_path / "model")
    mine = kind(["no", "yes"])
    loaded = Predictor.load(tmp_path / "model", task=mine, device="cpu")
    assert loaded.task.calibration == fitted
    assert loaded.predict(x[0]).probability == pytest.approx(learner.predict(x[0]).probability)
    assert not mine.calibration


def test_everything_that_an_export_lacks_is_named_at_once(tmp_path: Path) -> None:
    data = TensorData.from_tensors(torch.randn(40, 3), torch.arange(40) % 2)
    Learner(data, nn.Linear(3, 2), task=PriorShift(["no", "yes"])).export(tmp_path / "model")
    with pytest.raises(ArtefactError, match=r"model and task.*model=..., task=..."):
        Predictor.load(tmp_path / "model")
