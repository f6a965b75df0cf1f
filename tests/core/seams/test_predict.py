"""``Task.predict`` gives predictions and ``Task.forward`` what loss and metrics compare."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, Predictor, Task, TensorData, TrainingOptions
from flambeau.data import Batch
from flambeau.task import Classification, StepContext

N, BATCH_SIZE = 80, 16
VALID_BATCHES = 2  # of 32 samples


def learner(task: Task, model: nn.Module | None = None) -> Learner:
    torch.manual_seed(0)
    x = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=0.4)
    choices = {"batch_size": BATCH_SIZE, "lr": 0.1, "probe": "off"}
    options = TrainingOptions(doctor=False)
    return Learner(
        data, model or nn.Linear(4, 2), task=task, choices=choices, training=options, quiet=True
    )


class Mirrored(Classification):
    """Test-time augmentation: predicts with the mean over the inputs and their mirror image."""

    def __init__(self) -> None:
        super().__init__(["low", "high"])
        self.predicted: list[str] = []

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> Tensor:
        self.predicted.append(context.stage)
        return (model(batch.input) + model(batch.input.flip(1))) / 2


class Searching(Task):
    """Its score compares the result of a search, which outputs of ``forward`` do not have."""

    kind = "translation"

    def __init__(self) -> None:
        self.searched: list[str] = []

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        total = nn.functional.cross_entropy(outputs, batch.target, reduction="sum")
        return total, float(len(batch))

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        self.searched.append(context.stage)
        return {"found": model(batch.input).argmax(1)}

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], context: StepContext
    ) -> dict[str, float]:
        correct = count = total = 0.0
        for batch in batches:
            loss, weight = self.loss(self.forward(model, batch, context), batch)
            found = self.decode(self.predict(model, batch, context))
            correct += sum(a == b for a, b in zip(found, batch.target.tolist(), strict=True))
            total, count = total + float(loss), count + weight
        return {"loss": total / count, "exact": correct / count}

    def decode(self, outputs: Any) -> list[int]:
        return outputs["found"].tolist()


def test_by_default_predict_is_forward() -> None:
    class Counting(Classification):
        calls = 0

        def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
            self.calls += 1
            return 2.0 * super().forward(model, batch, context)

    task, model, batch = Counting(["a", "b"]), nn.Linear(4, 2), Batch({"x": torch.ones(3, 4)}, {})
    outputs = task.predict(model, batch, StepContext("predict"))
    assert torch.equal(outputs, 2.0 * model(torch.ones(3, 4)))
    assert task.calls == 1


def test_predictions_come_from_predict_and_scores_from_forward() -> None:
    task = Mirrored()
    made = learner(task)
    made.fit(3)
    assert task.predicted == []
    raw = made.data.raw("valid")
    x = torch.stack([torch.as_tensor(row) for row in raw])
    targets = torch.cat([batch.target for batch in made.built.batches("valid")])
    with torch.no_grad():
        plain = made.model.eval()(x)
        mirrored = (plain + made.model(x.flip(1))) / 2
    right = (plain.argmax(1) == targets).double().mean()
    assert (plain.argmax(1) != mirrored.argmax(1)).any()  # otherwise the test shows nothing
    assert made.evaluate()["accuracy"] == pytest.approx(float(right))
    assert task.predicted == []
    labels = [["low", "high"][index] for index in mirrored.argmax(1).tolist()]
    assert [each.label for each in made.predict(raw)] == labels
    assert task.predicted == ["predict"]  # a predictor has batches of 64


def test_a_report_shows_predictions_and_the_scores_of_evaluate() -> None:
    task = Mirrored()
    made = learner(task)
    made.fit(3)
    found = made.interpret()
    assert task.predicted == ["predict"] * VALID_BATCHES
    x = torch.cat([batch.input for batch in made.built.batches("valid")])
    with torch.no_grad():
        mirrored = (made.model(x) + made.model(x.flip(1))) / 2
    assert torch.equal(found.predicted, mirrored.argmax(1))
    assert found.predictions.scores == made.evaluate()


def test_nothing_is_searched_twice() -> None:
    task = Searching()
    made = learner(task)
    requests = {
        "valid": lambda: made.fit(1),
        "evaluate": made.evaluate,
        "predict": lambda: made.predict(made.data.raw("valid")),
    }
    for stage, request in requests.items():
        task.searched.clear()
        request()
        # A predictor has batches of 64.
        assert task.searched == [stage] * (1 if stage == "predict" else VALID_BATCHES)
    task.searched.clear()
    found = made.interpret()
    assert task.searched == ["evaluate"] * VALID_BATCHES
    assert found.predictions.kind == "other"
    assert found.predictions.scores == made.evaluate()


def test_a_task_that_does_not_search_evaluates_with_forward() -> None:
    class Once(Mirrored):
        forwards = 0

        def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
            self.forwards += 1
            return super().forward(model, batch, context)

    task = Once()
    made = learner(task)
    made.evaluate()
    assert (task.forwards, task.predicted) == (VALID_BATCHES, [])
    task.forwards = 0
    made.predict(made.data.raw("valid"))
    assert task.forwards == 0


@pytest.mark.parametrize("kind", [Mirrored, Searching])
def test_the_predictor_of_an_export_uses_predict(kind: type[Any], tmp_path: Path) -> None:
    made = learner(kind())
    made.fit(1)
    made.export(tmp_path / "model")
    task = kind()
    loaded = Predictor.load(tmp_path / "model", model=nn.Linear(4, 2), task=task, device="cpu")
    loaded.batch_size = BATCH_SIZE
    raw = made.data.raw("valid")
    assert loaded.predict(raw) == made.predict(raw)
    seen = task.predicted if isinstance(task, Mirrored) else task.searched
    assert seen == ["predict"] * VALID_BATCHES


def test_the_passes_of_a_report_start_without_a_carry() -> None:
    class Carrying(Searching):
        starts: list[object]

        def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
            self.starts.append(context.carry)
            context.carry = 1 if context.carry is None else context.carry + 1
            return super().forward(model, batch, context)

    task = Carrying()
    task.starts = []
    learner(task).interpret()
    assert task.starts == [None, 1] * 2
