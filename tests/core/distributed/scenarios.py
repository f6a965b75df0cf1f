"""What the tests of this folder run alone and in several processes: the same script for both.

    python scenarios.py FOLDER NAME …      under RANK, WORLD_SIZE, … or alone

Each scenario gives plain values and tensors; they are saved as FOLDER/NAME.RANK-of-WORLD_SIZE.pt.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flambeau import Batch, Callback, Data, Learner, Task, TensorData, TrainingOptions
from flambeau.data.split import Split
from flambeau.distributed import processes
from flambeau.errors import FlambeauError, InputError, TrainingError
from flambeau.inspect.watch.layer_statistics import GRADIENT_COLUMNS, OUTPUT_COLUMNS
from flambeau.inspect.watch.layer_watch import LayerWatch
from flambeau.inspect.watch.weight_watch import WEIGHT_COLUMNS
from flambeau.task import Classification, Regression
from flambeau.task.combined import CombinedTask
from flambeau.training import EMA

RANK, WORLD_SIZE = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
N_TRAIN, BATCH_SIZE = 43, 8  # the last batch has 3 samples; with accumulation of 2 it stands alone


class Net(nn.Module):
    """No dropout and no batch statistics; one layer that is never used."""

    def __init__(self, seed: int = 1, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.unused = nn.Linear(2, 2, dtype=torch.float64)
        self.stem = nn.Linear(5, 16, dtype=torch.float64)
        self.head = nn.Linear(16, outputs, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.stem(x))).squeeze(1)


def table(n_train: int = N_TRAIN, n_valid: int = 21, n_calibration: int = 0) -> Data:
    draws = torch.Generator().manual_seed(0)
    n = n_train + n_valid
    x = torch.randn(n + n_calibration, 5, generator=draws, dtype=torch.float64)
    y = (x[:, :3] + torch.randn(len(x), 3, generator=draws)).argmax(1)
    rows = torch.arange(len(x)).numpy()
    split = Split.from_indices(rows[:n_train], rows[n_train:n], (), rows[n:])
    return TensorData.from_tensors(x, y, split=split)


def learner(
    data: Data | None = None,
    model: nn.Module | None = None,
    *,
    choices: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Learner:
    """With other first weights on every process: those of process 0 count."""
    values = {"batch_size": BATCH_SIZE, "lr": 0.05, "weight_decay": 0.01, **(choices or {})}
    # Net has a layer that it does not use, which the doctor would find.
    options = replace(arguments.pop("training", TrainingOptions()), doctor=False)
    return Learner(
        data or table(),
        model or Net(seed=1 + RANK),
        choices=values,
        training=options,
        quiet=True,
        **arguments,
    )


def outcome(run: Learner) -> dict[str, Any]:
    return {
        "weights": {name: value.clone() for name, value in run.model.state_dict().items()},
        "losses": list(run.history.step_losses),
        "rows": [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in run.history.rows
        ],
    }


# ---------------------------------------------------------------- the step


class TokenLoss(Classification):
    """A loss whose weight only the device knows, different in every sample."""

    def host_weight(self, batch: Batch) -> float | None:
        return None

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        weights = 0.5 + batch.input[:, 0].abs()
        losses = nn.functional.cross_entropy(outputs, batch.target, reduction="none")
        return (losses * weights).sum(), weights.sum()


def sgd(folder: Path) -> dict[str, Any]:
    def momentum(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Any]:
        decay = values["weight_decay"]
        optimizer = torch.optim.SGD(
            model.parameters(), lr=values["lr"], momentum=0.9, weight_decay=decay
        )
        return {"main": optimizer}

    run = learner(training=TrainingOptions(optimizer=momentum))
    run.fit(2)
    return outcome(run) | {"again": run.evaluate("valid"), "train": run.evaluate("train")}


class LearnedScale(Classification):
    """A parameter of the task; each rank starts at another value, and rank 0's counts."""

    def __init__(self) -> None:
        super().__init__(["a", "b", "c"])
        self.scale = nn.Parameter(torch.tensor(0.5 + RANK))

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        return super().loss(outputs * self.scale, batch)


def task_parameters(folder: Path) -> dict[str, Any]:
    task = LearnedScale()
    run = learner(task=task)
    run.fit(2)
    return outcome(run) | {"scale": task.scale.detach().clone()}


def ignored_targets(folder: Path) -> dict[str, Any]:
    """Only the device knows the weight of a step; all weights and gradients are float64."""
    torch.manual_seed(2)
    draws = torch.Generator().manual_seed(3)
    x = torch.randn(60, 4, generator=draws, dtype=torch.float64)
    y = torch.where(torch.arange(60) % 7 == 2, -100, torch.arange(60) % 3)
    run = learner(
        TensorData.from_tensors(x, y, valid=0.3),
        nn.Linear(4, 3).double(),
        task=Classification(["a", "b", "c"], ignore_index=-100),
        choices={"optimizer": "sgd"},
    )
    run.fit(2)
    return {"weights": {k: v.clone() for k, v in run.model.state_dict().items()}}


def combined_targets(folder: Path) -> dict[str, Any]:
    """Two targets with other missing rows; alone one big batch, else seven micro-batches.

    The last micro-batch has one sample, so that the second process has none.
    """
    draws = torch.Generator().manual_seed(3)
    n = N_TRAIN + 12
    x = torch.randn(n, 4, generator=draws, dtype=torch.float64)
    labels = torch.where(torch.arange(n) % 5 == 2, -100, torch.arange(n) % 3)
    amounts = x[:, 0] + 2
    amounts[torch.arange(n) % 4 < 2] = torch.nan
    weights = torch.rand(n, generator=draws, dtype=torch.float64) + 0.5
    split = Split.from_indices(range(N_TRAIN), range(N_TRAIN, n))
    tasks = {
        "label": Classification(["a", "b", "c"], ignore_index=-100, class_weights=[1.0, 2.0, 3.0]),
        "amount": Regression(["amount"], ignore_nan=True),
    }
    targets = {"label": labels, "amount": amounts}
    torch.manual_seed(RANK)
    size, accumulate = (N_TRAIN, 1) if WORLD_SIZE == 1 else (7, 7)
    run = learner(
        TensorData.from_tensors(x, targets, split=split, sample_weight=weights),
        nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)).double(),
        task=CombinedTask(tasks, {"label": 1.0, "amount": 0.3}),
        training=TrainingOptions(accumulate=accumulate, keep_best="valid_loss"),
        choices={"optimizer": "sgd", "batch_size": size},
    )
    run.fit(4)
    return outcome(run)


def adamw(folder: Path) -> dict[str, Any]:
    run = learner(choices={"optimizer": "adamw"})
    run.fit_one_cycle(2)
    return outcome(run)


def stages(folder: Path) -> dict[str, Any]:
    """What each forward pass was for, in a fit and in what a user requests after it."""

    class Recording(Classification):
        seen: list[str]

        def forward(self, model: nn.Module, batch: Batch, context: Any) -> Any:
            self.seen.append(context.stage)
            return super().forward(model, batch, context)

    task = Recording(["a", "b", "c"])
    task.seen = []
    run = learner(table(n_train=BATCH_SIZE * 2, n_valid=BATCH_SIZE), task=task)
    run.fit(2)
    run.evaluate("valid")
    run.predict(torch.zeros(5, dtype=torch.float64))
    return {"seen": task.seen}


def accumulation(folder: Path) -> dict[str, Any]:
    run = learner(training=TrainingOptions(accumulate=2))
    run.fit(2)
    return outcome(run)


def by_steps(folder: Path) -> dict[str, Any]:
    """Evaluations inside epochs; the next fit starts with a new epoch."""
    training = TrainingOptions(accumulate=2, keep_best="valid_loss")
    run = learner(training=training)
    run.fit(steps=8, evaluate_every=3)
    run.fit(1)
    return outcome(run)


class Logging(Classification):
    """Logs a mean of the inputs, which is the same for any grouping of the samples."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        self.log(batch, mean_input=batch.input.mean(), logit=outputs.mean())
        return super().loss(outputs, batch)


def logged(folder: Path) -> dict[str, Any]:
    """The last batch of an epoch has three samples for two processes."""
    run = learner(task=Logging(["a", "b", "c"]), training=TrainingOptions(accumulate=2))
    run.fit(2)
    return outcome(run) | {"again": run.evaluate()}


def logged_by_a_step(folder: Path) -> dict[str, Any]:
    def own(model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Any) -> Any:
        from flambeau.training import train_step

        step.log(mean_input=micro_batches[0].input.mean())
        return train_step(model, micro_batches, task, step)

    run = learner(training=TrainingOptions(train_step=own))
    run.fit(steps=7, evaluate_every=4)
    return outcome(run)


def rate(folder: Path) -> dict[str, Any]:
    run = learner(table(n_train=600), choices={"batch_size": 32})
    found = run.lr_find()
    rates = {"value": found.value, "low": found.low, "high": found.high, "steps": found.steps}
    run.fit(1, lr=found.value)
    return outcome(run) | rates


def single_last(folder: Path) -> dict[str, Any]:
    """One sample in the last batch: the share of process 0 is empty."""
    run = learner(table(n_train=BATCH_SIZE * 3 + 1, n_valid=1))
    run.fit(2)
    return outcome(run)


def single_last_accumulated(folder: Path) -> dict[str, Any]:
    run = learner(
        table(n_train=BATCH_SIZE * 3 + 1, n_valid=1), training=TrainingOptions(accumulate=2)
    )
    run.fit(2)
    return outcome(run)


def unknown_weights(folder: Path) -> dict[str, Any]:
    training = TrainingOptions(accumulate=2)
    run = learner(task=TokenLoss(["a", "b", "c"]), training=training)
    run.fit(2)
    return outcome(run)


class CountsTokens(Classification):
    """Returns its own weight, and inherits a promise that was made for another loss."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        tokens = 1 + (batch.input[:, 0].abs() * 3).long()
        losses = nn.functional.cross_entropy(outputs, batch.target, reduction="none")
        return (losses * tokens).sum(), int(tokens.sum())


def weighted_table() -> Data:
    data: Any = table(n_train=40, n_valid=8)
    train, valid = data.dataset("train", None, {}), data.dataset("valid", None, {})
    weights = torch.rand(48, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    weights[3] = 0.0
    return TensorData.from_tensors(
        torch.cat([train.inputs["input"], valid.inputs["input"]]),
        torch.cat([train.targets["target"], valid.targets["target"]]),
        split=Split.from_indices(range(40), range(40, 48)),
        sample_weight=weights,
    )


def own_weight_runs(folder: Path, accumulate: int = 1) -> dict[str, Any]:
    """The whole set in each step, as one batch or as several micro-batches."""
    choices = {"batch_size": 40 // accumulate, "optimizer": "sgd"}
    found: dict[str, Any] = {}
    for name, data, task in (
        ("tokens", table(n_train=40), CountsTokens(["a", "b", "c"])),
        ("samples", weighted_table(), None),
        ("classes", weighted_table(), Classification(["a", "b", "c"], class_weights=(1, 2, 0.3))),
    ):
        training = TrainingOptions(accumulate=accumulate)
        run = learner(data, choices=choices, task=task, training=training)
        run.fit(5, lr=0.5)
        found[name] = outcome(run)
    return found


def own_weight_accumulated(folder: Path) -> dict[str, Any]:
    return own_weight_runs(folder, accumulate=4)


class CountsOnDevice(Classification):
    """The loss of ``Classification``, whose weight only the device knows."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        total, weight = super().loss(outputs, batch)
        return total, torch.as_tensor(weight)


def skipped_steps(folder: Path) -> dict[str, Any]:
    """Five of eight samples have the weight 0, so at least one batch of two counts nothing."""
    data = table(n_train=8, n_valid=4)
    parts = [data.dataset(part, None, {}) for part in ("train", "valid")]  # type: ignore[arg-type]
    weighted = TensorData.from_tensors(
        torch.cat([part.inputs["input"] for part in parts]),  # type: ignore[attr-defined]
        torch.cat([part.targets["target"] for part in parts]),  # type: ignore[attr-defined]
        split=Split.from_indices(range(8), range(8, 12)),
        sample_weight=torch.tensor([0.0] * 5 + [1.0] * 7),
    )
    found: dict[str, Any] = {}
    for task in (Classification(["a", "b", "c"]), CountsOnDevice(["a", "b", "c"])):
        run = learner(weighted, choices={"batch_size": 2}, task=task)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.fit(2)
        found[type(task).__name__] = outcome(run)
    return found


def average_and_clipping(folder: Path) -> dict[str, Any]:
    run = learner(training=TrainingOptions(average=EMA(0.9), clip_norm=0.1))
    run.fit(3)
    return outcome(run)


def two_phases(folder: Path) -> dict[str, Any]:
    run = learner(training=TrainingOptions(keep_best="valid_loss"))
    run.fine_tune(2)
    return outcome(run)


def own_step(folder: Path) -> dict[str, Any]:
    """A step of the user's own: gradients are averaged, as everyone knows it from DDP."""

    def own(model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Any) -> Any:
        from flambeau.training import StepResult

        [batch] = micro_batches
        loss_sum, weight = task.loss(task.forward(model, batch, step.context), batch)
        loss = loss_sum / weight
        step.backward(loss)
        step.update(loss.detach())
        return StepResult(loss.detach(), weight)

    run = learner(table(n_train=40), training=TrainingOptions(train_step=own))
    run.fit(2)
    return outcome(run)


def own_step_of_unknown_weights(folder: Path) -> dict[str, Any]:
    return own_step_around_ours(folder, TokenLoss(["a", "b", "c"]))


def own_step_around_ours(folder: Path, task: Any = None) -> dict[str, Any]:
    def own(*arguments: Any) -> Any:
        from flambeau.training import train_step

        return train_step(*arguments)

    run = learner(task=task, training=TrainingOptions(train_step=own))
    run.fit(2)
    return outcome(run)


# ---------------------------------------------------------------- samples and scores


def samples(folder: Path) -> dict[str, Any]:
    """Which samples each process was given, by epoch, in train and in evaluation."""
    run = learner(table(n_train=41, n_valid=19))
    parts = run.built.components()
    assert parts.valid is not None
    train = [[b.indices for b in parts.train.batches(epoch)] for epoch in (0, 1)]
    return {"train": train, "valid": [batch.indices for batch in parts.valid.batches(0)]}


class LastSeen:
    """A metric without sums: it needs the samples in their order."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.value, self.place = 0.0, 0

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        for number in outputs.sum(1).tolist():
            self.place += 1
            self.value = 0.5 * self.value + self.place * number

    def compute(self) -> float:
        return self.value


def scores(folder: Path) -> dict[str, Any]:
    known = {name: make() for name, make in Classification.known_metrics().items()}
    known.pop("top_5_accuracy")
    task = Classification(["a", "b", "c"], metrics={**known, "last_seen": LastSeen()})
    run = learner(task=task)
    run.fit(1)
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(64, 5, generator=draws, dtype=torch.float64)
    regression = TensorData.from_tensors(x, 2.0 + x[:, 0].sin(), valid=21)
    other = learner(
        regression, Net(seed=1 + RANK, outputs=1), task=Regression(metrics=["r2", "mae", "rmse"])
    )
    other.fit(1)
    return {"labels": outcome(run), "numbers": outcome(other)}


def calibrated(folder: Path) -> dict[str, Any]:
    run = learner(table(n_calibration=40))
    run.fit(2)
    result = run.calibrate()
    parts = {name: [dict(p.before), dict(p.after)] for name, p in result.parts.items()}
    return {"values": dict(run.task.calibration), "parts": parts, "evaluated": run.evaluate()}


class OwnEvaluation(Classification):
    def evaluate(self, model: nn.Module, batches: Any, context: Any) -> dict[str, float]:
        return {"seen": float(sum(len(batch) for batch in batches))}


def own_evaluation(folder: Path) -> dict[str, Any]:
    run = learner(task=OwnEvaluation(["a", "b", "c"]))
    run.fit(1)
    return outcome(run) | {"scores": run.evaluate("valid")}


# ---------------------------------------------------------------- runs


class StopAt(Callback):
    """Sets ``stop_reason`` on one process alone."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step and self.rank == RANK:
            state.stop_reason = f"process {RANK} has seen enough"


class StopAtEpochEnd(Callback):
    def on_epoch_end(self, state: Any) -> None:
        if RANK == WORLD_SIZE - 1:
            state.stop_reason = "the last process has seen enough"


class Reason(Callback):
    """Reads the reason at the end."""

    reason: str | None = None

    def on_fit_end(self, state: Any) -> None:
        self.reason = state.stop_reason


def stops(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, callback in (
        ("in the epoch", StopAt(4, WORLD_SIZE - 1)),
        ("at its last step", StopAt(6, WORLD_SIZE - 1)),
        ("between epochs", StopAtEpochEnd()),
    ):
        reason = Reason()
        run = learner(callbacks=[callback, reason])
        run.fit(3)
        found[name] = {"steps": len(run.history.step_losses), "reason": reason.reason}
    return found


def interrupted(folder: Path) -> dict[str, Any]:
    class Press(Callback):
        def on_step_end(self, state: Any) -> None:
            if state.position.step == 4 and RANK == WORLD_SIZE - 1:
                signal.raise_signal(signal.SIGINT)

    run = learner(callbacks=[Press()], folder=folder / f"interrupted-{WORLD_SIZE}")
    try:
        run.fit(2)
    except KeyboardInterrupt as error:
        return {"steps": run._position.step, "notes": getattr(error, "__notes__", [])}
    return {}


def unbroken(folder: Path) -> dict[str, Any]:
    run = learner(training=RESUMABLE)
    run.fit(3)
    return outcome(run)


RESUMABLE = TrainingOptions(average=EMA(0.9), clip_norm=1.0)


def begun(folder: Path) -> dict[str, Any]:
    """Stops in the second epoch, at a step that has just been saved."""
    from flambeau.callbacks import Checkpointing

    place = folder / f"begun-{WORLD_SIZE}"

    class EnoughError(Exception):
        pass

    class Stop(Callback):
        def on_step_end(self, state: Any) -> None:
            if state.position.step == 9:
                raise EnoughError

    saving = Checkpointing(every_s=1e-9)
    # Every process ends by itself at the same step, as if it had been killed.
    run = learner(callbacks=[saving, Stop()], folder=place, training=RESUMABLE)
    try:
        run.fit(3)
    except EnoughError:
        return {"files": sorted(path.name for path in place.iterdir())}
    return {}


def resumed(folder: Path) -> dict[str, Any]:
    """Goes on with what the other number of processes has begun."""
    place = folder / f"begun-{1 if WORLD_SIZE == 2 else 2}"
    run = learner(folder=place, training=RESUMABLE)
    run.resume()
    return outcome(run)


class CountsRankSamples(Classification):
    """A task with state that differs between the ranks: its own samples, and a generator."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.seen = 0.0
        self.draws = torch.Generator().manual_seed(RANK)
        self.drawn: list[float] = []

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        self.seen += float(batch.input.sum())
        self.drawn.append(float(torch.rand((), generator=self.draws)))
        return super().loss(outputs, batch)


class CountsEpochs(Callback):
    """A callback with state that differs between the ranks and changes at the end of an epoch."""

    def __init__(self) -> None:
        self.total = 0

    def on_epoch_end(self, state: Any) -> None:
        self.total += 1 + RANK

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        self.total = values["total"]


def with_rank_states(folder: Path | None, *callbacks: Callback) -> tuple[Learner, Any, Any]:
    task, counts = CountsRankSamples(["a", "b", "c"]), CountsEpochs()
    run = learner(task=task, callbacks=[counts, *callbacks], folder=folder, training=RESUMABLE)
    return run, task, counts


def rank_states(folder: Path) -> dict[str, Any]:
    """The states at the end of an unbroken run."""
    run, task, counts = with_rank_states(None)
    run.fit(3)
    return {"seen": task.seen, "drawn": task.drawn, "total": counts.total}


def rank_states_begun(folder: Path) -> dict[str, Any]:
    """Ends after two epochs: every process by itself, as if it had been killed."""
    from flambeau.callbacks import Checkpointing

    class Stop(Callback):
        def on_epoch_start(self, state: Any) -> None:
            if state.position.epoch == 2:
                raise EOFError

    run, *_ = with_rank_states(folder / "rank-states", Stop(), Checkpointing(every_s=None))
    try:
        run.fit(3)
    except EOFError:
        return {}
    raise AssertionError("The run was not ended.")


def rank_states_resumed(folder: Path) -> dict[str, Any]:
    run, task, counts = with_rank_states(folder / "rank-states")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.resume()
    warned = [str(each.message) for each in caught if "rank-state" in str(each.message)]
    return {"seen": task.seen, "drawn": task.drawn, "total": counts.total, "warned": warned}


def dropout(folder: Path) -> dict[str, Any]:
    """What the processes draw in the model, and whether a resume draws the same."""
    drawn: list[float] = []

    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                drawn.append(float(torch.rand(())))
            return self.layer(x)

    torch.manual_seed(5)
    learner(model=Noise()).fit(1)
    return {"drawn": drawn}


def not_finite(folder: Path) -> dict[str, Any]:
    class Root(Classification):
        def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
            total, weight = super().loss(outputs, batch)
            assert batch.indices is not None
            return (total * float("nan") if 17 in batch.indices else total), weight

    run = learner(task=Root(["a", "b", "c"]))
    kept: dict[str, Tensor] = {}
    try:
        run.fit(1)
    except FlambeauError as error:
        kept = {name: value.clone() for name, value in run.model.state_dict().items()}
        return {"type": type(error).__name__, "message": str(error), "weights": kept}
    return {}


def files(folder: Path) -> dict[str, Any]:
    """The whole straight line, as a script would have it."""
    place = folder / f"files-{WORLD_SIZE}"
    run = learner(choices={"optimizer": "sgd"}, folder=place / "run")
    run.fit(1)
    exported = run.export(place / "model")
    run.save(place / "weights.safetensors")
    from flambeau.artefact.predictor import Predictor

    answers = Predictor.load(exported, model=Net(seed=9)).predict(torch.zeros(1, 5))
    return {
        "names": sorted(run.model.state_dict()),
        "type": type(run.model).__name__,
        "written": sorted(path.name for path in (place / "run").iterdir()),
        "answers": [answer.label for answer in answers],
    }


def statistics(folder: Path) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = learner(model=model)
        run.fit(1)
    return outcome(run) | {"warnings": [str(w.message) for w in caught]}


def running_statistics(folder: Path) -> dict[str, Any]:
    """Statistics that are not computed anew before the evaluation."""
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = learner(model=model, choices={"bn": "train", "bn_statistics": "running"})
        run.fit(1)
    return outcome(run)


def closure(folder: Path) -> dict[str, Any]:
    """An optimizer that computes the loss itself."""

    def lbfgs(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Any]:
        assert values["weight_decay"]  # the learner sets it, so a factory must read it
        return {"main": torch.optim.LBFGS(model.parameters(), values["lr"])}

    try:
        learner(training=TrainingOptions(optimizer=lbfgs)).fit(1)
    except InputError as error:
        return {"error": str(error)}
    return {}


def _trained_on_other_data() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    model[1].running_mean.fill_(0.5)
    return model


def adapted(folder: Path) -> dict[str, Any]:
    """Statistics taken once from all processes' samples, so that the steps are those of one."""
    run = learner(table(n_train=40), _trained_on_other_data(), choices={"bn": "adapt"})
    run.fit(2)
    return outcome(run)


def decided(folder: Path) -> dict[str, Any]:
    """What the processes see of their shares is put together before it is decided."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\[statistics-per-process\]")
        run = learner(table(n_train=40), _trained_on_other_data())
        run.fit(1)
    choice = run.plan["bn"]
    return outcome(run) | {"value": choice.value, "evidence": dict(choice.evidence)}


def gap(folder: Path) -> dict[str, Any]:
    """The alarm, which one process gives for all."""
    model = _trained_on_other_data()
    model[1].momentum = 0.0
    model[1].running_mean.fill_(30.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner(model=model, choices={"bn": "train", "lr": 0.1}).fit(20)
    return {"warnings": [str(w.message) for w in caught if "[train-eval-gap]" in str(w.message)]}


def loaders(folder: Path) -> dict[str, Any]:
    """A DataLoader of the user's own: with a DistributedSampler, without, and valid without."""
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

    draws = torch.Generator().manual_seed(0)
    pairs = TensorDataset(
        torch.randn(24, 5, generator=draws, dtype=torch.float64), torch.arange(24) % 3
    )
    valid = DataLoader(pairs, batch_size=5)
    names = {"class_names": ["a", "b", "c"]}
    found: dict[str, Any] = {}
    try:
        learner(TensorData.from_loaders(DataLoader(pairs, 8, shuffle=True), valid, **names)).fit(1)
    except FlambeauError as error:
        found["without"] = f"{type(error).__name__}: {error}"
    try:
        sampler = DistributedSampler(pairs, WORLD_SIZE + 1, RANK)
        data = TensorData.from_loaders(DataLoader(pairs, 4, sampler=sampler), valid, **names)
        learner(data, choices={"batch_size": 4}).fit(1)
    except FlambeauError as error:
        found["other number"] = f"{type(error).__name__}: {error}"
    if WORLD_SIZE > 1:
        sampler = DistributedSampler(pairs)
        train = DataLoader(pairs, 4, sampler=sampler)
    else:
        train = DataLoader(pairs, 8, shuffle=True)
    data = TensorData.from_loaders(train, valid, **names)
    run = learner(data, choices={"batch_size": train.batch_size})
    run.fit(1)
    found["steps"] = len(run.history.step_losses)
    found["scores"] = run.history.rows[-1]
    found["seen"] = [batch.indices for batch in run.built.components().train.batches(0)]
    return found


def images(folder: Path) -> dict[str, Any]:
    """Augmented pictures by their sample number."""
    from flambeau_vision import ImageData
    from flambeau_vision.augmentation_settings import Augmentation

    draws = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (48, 3, 16, 16), generator=draws, dtype=torch.uint8)
    data = ImageData.from_arrays(pictures.numpy(), (torch.arange(48) % 2).numpy(), valid=8)
    choices = {"batch_size": 10, "augmentation": Augmentation().as_json()}
    run = Learner(data, "small_cnn", choices=choices, quiet=True)
    parts = run.built.components()
    assert parts.augment
    seen: dict[int, Tensor] = {}
    changed = 0
    for batch in parts.train.batches(1):
        if len(batch):
            augmented = batch
            for transform in parts.augment:
                augmented = transform(augmented, parts.seed)
            assert batch.indices is not None
            changed += not torch.equal(augmented.input.float(), batch.input.float())
            seen |= dict(zip(batch.indices.tolist(), augmented.input, strict=True))
    return {"pictures": seen, "changed": changed}


# ---------------------------------------------------------------- inspect and profile


class Watched(Callback):
    """Watches every step, on every rank; ``learner.inspect`` does it on rank 0."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def on_fit_start(self, state: Any) -> None:
        self.watch = LayerWatch(state.model, n_ranks=WORLD_SIZE)

    def on_step_start(self, state: Any) -> None:
        self.watch.start_step(state.position.step)

    def on_gradients_ready(self, state: Any) -> None:
        self.watch.gradients_ready(state.gradient_factor)

    def on_step_end(self, state: Any) -> None:
        self.watch.end_step(state.optimizers.values())

    def on_epoch_end(self, state: Any) -> None:
        at = GRADIENT_COLUMNS.index("gradient_rms") + len(OUTPUT_COLUMNS)
        norm = WEIGHT_COLUMNS.index("gradient_norm")
        for each in self.watch.read():
            rows = {name: float(row[at]) for name, row in each.layers.items()}
            norms = {name: float(row[norm]) for name, row in each.weights.items()}
            self.found.append({"outputs": rows, "weights": norms, "noise": each.noise})


class Uncounted(Classification):
    """Has its weight only after the loss; the gradients are divided by it then."""

    def host_weight(self, batch: Batch) -> float | None:
        return None


def watched(folder: Path) -> dict[str, Any]:
    """Gradients of outputs and weights in each step, and what the noise scale is computed from."""
    watch, accumulated, uncounted = Watched(), Watched(), Watched()
    learner(table(n_train=40), Net(seed=2), callbacks=[watch]).fit(1)
    run = learner(
        table(n_train=40),
        Net(seed=2),
        callbacks=[accumulated],
        training=TrainingOptions(accumulate=2),
    )
    first = next(iter(run.built.components().train.batches(0)))
    model = Net(seed=2)
    nn.functional.cross_entropy(model(first.input), first.target).backward()
    own = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
    run.fit(1)
    learner(
        table(n_train=40),
        Net(seed=2),
        callbacks=[uncounted],
        task=Uncounted(["a", "b", "c"]),
        training=TrainingOptions(accumulate=2),
    ).fit(1)
    return {
        "steps": watch.found,
        "accumulated": accumulated.found,
        "uncounted": uncounted.found,
        "own_square": own,
    }


def inspected(folder: Path) -> dict[str, Any]:
    run = learner(table(n_train=40), Net(seed=2))
    watch = run.inspect(every=1)
    run.fit(1)
    record = watch.record
    steps = record.weight_series("stem.weight", "update_norm") if record.steps else {}
    return outcome(run) | {"steps": record.steps, "updates": list(steps.values())}


class SlowLast(Classification):
    """The last rank takes 20 ms longer for each loss."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        if WORLD_SIZE > 1 and RANK == WORLD_SIZE - 1:
            time.sleep(0.02)
        return super().loss(outputs, batch)


def profiled(folder: Path) -> dict[str, Any]:
    """A profile, and a fit after it."""
    run = learner(task=SlowLast(["a", "b", "c"]), choices={"optimizer": "adamw"})
    found = run.profile(8, trace=folder / "trace.json")
    run.fit_one_cycle(2)
    return outcome(run) | {"text": str(found), "found": found}


def exchanging(folder: Path) -> dict[str, Any]:
    """The ranks wait 20 ms for each exchange of the sums of a step."""
    exchange = processes.ProcessGroup.sum_over_ranks

    def slow(group: Any, numbers: Sequence[float]) -> list[float]:
        time.sleep(0.02)
        return exchange(group, numbers)

    processes.ProcessGroup.sum_over_ranks = slow
    try:
        found = learner(model=Net(seed=2)).profile(8)
    finally:
        processes.ProcessGroup.sum_over_ranks = exchange
    return {"found": found}


def profile_fails(folder: Path) -> dict[str, Any]:
    """The slowest rank cannot make a profile of what it has measured."""
    from flambeau.inspect import profile as module

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("planted")

    module.changes_for = fails
    try:
        learner(model=Net(seed=2)).profile(4)
    except (TrainingError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {}


def raises(folder: Path) -> dict[str, Any]:
    """One process has an error of its own in a step."""

    class Bad(Callback):
        def on_step_start(self, state: Any) -> None:
            if RANK == WORLD_SIZE - 1 and state.position.step == 3:
                raise ValueError("sample 7 is broken")

    run = learner(callbacks=[Bad()])
    try:
        run.fit(3)
    except (FlambeauError, ValueError) as error:
        return {"type": type(error).__name__, "message": str(error)}
    return {}


def different_data(folder: Path) -> dict[str, Any]:
    try:
        learner(table(n_train=40 + RANK))
    except ValueError as error:
        return {"message": str(error)}
    return {}


def closed(folder: Path) -> dict[str, Any]:
    """The threads of this process after a fit with DDP, once the group is left; the last one."""
    learner(model=Net(seed=2)).fit(1)
    group = processes.current()
    assert group is not None
    group.leave(None)
    return {
        "threads": [each.read_text().strip() for each in Path("/proc/self/task").glob("*/comm")]
    }


def main(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        try:
            found = globals()[name](folder)
        except Exception:  # noqa: BLE001 the test shows it
            found = {"traceback": traceback.format_exc()}
        torch.save(found, folder / f"{name}.{RANK}-of-{WORLD_SIZE}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    # A shell that starts tests in the background hands on that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(Path(sys.argv[1]), sys.argv[2:])
