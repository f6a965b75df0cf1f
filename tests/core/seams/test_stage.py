"""``StepContext.stage``: what a task is told about each forward pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Learner, Predictor, TensorData, TrainingOptions
from flambeau.data import Batch
from flambeau.report import interpret
from flambeau.task import Classification, StepContext
from flambeau.training import Callback

N, BATCH_SIZE, EPOCHS = 64, 16, 2
STEPS = 3  # of an epoch: 48 train samples


SEEN: dict[int, list[tuple[str, int, int]]] = {}


class Recording(Classification):
    """Records the stage, the step and the size of each forward pass.

    The records are no attribute, because checks and a resumed run restore attributes.
    """

    def __init__(self) -> None:
        super().__init__(["low", "high"])
        SEEN[id(self)] = []

    @property
    def seen(self) -> list[tuple[str, int, int]]:
        return SEEN[id(self)]

    def __copy__(self) -> "Recording":
        return self

    def __deepcopy__(self, memo: object) -> "Recording":
        return self  # the doctor and the measurements copy the task; their passes count too

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        self.seen.append((context.stage, context.step, len(batch)))
        return super().forward(model, batch, context)

    @property
    def stages(self) -> list[str]:
        return [stage for stage, _, _ in self.seen]


def learner(task: Recording, **options: Any) -> Learner:
    torch.manual_seed(0)
    x = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=0.25)
    choices = {"batch_size": BATCH_SIZE, "epochs": EPOCHS, "lr": 0.1, "probe": "off"}
    options = {"training": TrainingOptions(doctor=False), **options}
    return Learner(data, nn.Linear(4, 2), task=task, choices=choices, quiet=True, **options)


EPOCH = ["train"] * STEPS + ["valid"]


def test_a_fit_trains_and_validates() -> None:
    task = Recording()
    learner(task).fit()
    assert task.stages == EPOCH * EPOCHS


@pytest.mark.parametrize("fitted", [False, True])
def test_a_request_is_no_guess_from_the_step(fitted: bool) -> None:
    """Before and after a run alike."""
    task = Recording()
    made = learner(task)
    if fitted:
        made.fit()
    requests: dict[str, Callable[[], object]] = {
        "evaluate": made.evaluate,
        "predict": lambda: made.predict(torch.zeros(2, 4)),
    }
    for stage, request in requests.items():
        task.seen.clear()
        request()
        assert set(task.stages) == {stage}


def test_a_report_evaluates_and_a_summary_predicts() -> None:
    task = Recording()
    made = learner(task)
    made.interpret()
    interpret(made.model, task, lambda: made.built.batches("valid"))
    assert set(task.stages) == {"evaluate"}
    task.seen.clear()
    made.summary()
    assert set(task.stages) == {"predict"}  # several passes: shapes, FLOPs, times


def test_a_predictor_of_an_export_predicts(tmp_path: Path) -> None:
    learner(Recording()).export(tmp_path / "model")
    task = Recording()
    loaded = Predictor.load(tmp_path / "model", model=nn.Linear(4, 2), task=task, device="cpu")
    loaded.predict(torch.zeros(4))
    assert task.stages == ["predict"]


def test_fit_auto_trains_and_validates() -> None:
    """Also where it only times steps and an evaluation."""
    task = Recording()
    learner(task).fit_auto(minutes=0.02)
    assert set(task.stages) == {"train", "valid"}


def test_measurements_and_checks_are_training() -> None:
    task = Recording()
    made = learner(task)
    made.doctor(full=True)
    assert set(task.stages) == {"train"}
    task.seen.clear()
    made.lr_find(max_steps=60)
    assert set(task.stages) <= {"train", "valid"}


class Stop(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == STEPS + 1:
            raise KeyboardInterrupt


def test_a_resumed_run_trains_and_validates(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        learner(Recording(), callbacks=[Stop()], folder=tmp_path).fit()
    task = Recording()
    resumed = learner(task, folder=tmp_path)
    resumed.resume()
    assert task.stages == EPOCH[1:]
    assert [step for _, step, _ in task.seen] == [STEPS + 1, STEPS + 2, 2 * STEPS]
    resumed.fit(1)
    assert task.stages == EPOCH[1:] + EPOCH


def test_a_context_is_of_training_by_default() -> None:
    assert StepContext().stage == "train"
