"""Runs in a process of their own: children of one that has torch loaded, so that they start soon.

    python jobs.py        reads a job (JSON) a line, answers a line {"exit": code} to each

A job of kind "run" trains a small network and writes what came of it into its folder; one of kind
"save" writes a checkpoint. The child may be killed on the way: by itself, or from outside by the
number it wrote.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flambeau import EMA, Callback, Checkpointing, Learner, TensorData, TrainingOptions
from flambeau.artefact.checkpoint_files import save_checkpoint
from flambeau.data import Batch
from flambeau.global_rng import generator_states

LIMIT_S = 300
TRAIN, VALID, FEATURES, CLASSES = 143, 40, 6, 3

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


class Net(nn.Module):
    """Batch norm, dropout, and three groups from stem to head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)))


class Augmented(torch.utils.data.Dataset[Any]):
    """Samples with noise from the global generators, as a user's own data set has it."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, noise: float) -> None:
        self.x, self.y, self.noise = x, y, noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        draw = torch.rand(FEATURES) + np.random.rand() + random.random()
        return self.x[index] + self.noise * draw, int(self.y[index])


class EverySteps(Checkpointing):
    """Checkpoints by count, so that a test does not hang on the clock."""

    def __init__(self, every: int) -> None:
        super().__init__(every_s=1e-9)
        self.every = every

    def on_step_end(self, state: Any) -> None:
        if state.position.step % self.every == 0:
            super().on_step_end(state)


class Draws(Callback):
    """Draws from the global generators at every step, as code of the user's own may."""

    def on_step_start(self, state: Any) -> None:
        torch.rand(3)
        np.random.rand()
        random.random()


class Killed(Callback):
    """Sends the process a signal at an event of a step."""

    def __init__(self, event: str, step: int, number: int) -> None:
        self.event, self.step, self.number = event, step, number

    def _maybe(self, event: str, step: int) -> None:
        if event == self.event and step == self.step:
            os.kill(os.getpid(), self.number)

    def on_step_start(self, state: Any) -> None:
        self._maybe("on_step_start", state.position.step)

    def on_gradients_ready(self, state: Any) -> None:
        self._maybe("on_gradients_ready", state.position.step)

    def on_step_end(self, state: Any) -> None:
        self._maybe("on_step_end", state.position.step - 1)

    def on_eval_step_end(self, state: Any) -> None:
        # At the end of the epoch in which the step lies.
        self._maybe("on_eval_step_end", self.step if state.position.step > self.step else -1)

    def on_epoch_end(self, state: Any) -> None:
        self._maybe("on_epoch_end", self.step if state.position.step > self.step else -1)


class Order:
    """A device transform that notes which samples came, and goes on noting in a resumed run."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, batch: Batch, seed: int) -> Batch:
        assert batch.indices is not None
        if not torch.is_grad_enabled():  # the alarm for norm layers looks at batches once more
            return batch
        with self.file.open("a") as file:
            file.write(",".join(map(str, batch.indices.tolist())) + "\n")
        return batch


def make_learner(job: dict[str, Any], folder: Path) -> Learner:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(TRAIN + VALID, FEATURES, generator=draws)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    workers = job["loader"] == "workers"
    if workers:
        data = TensorData.from_datasets(
            Augmented(x[:TRAIN], y[:TRAIN], 0.1),
            Augmented(x[TRAIN:], y[TRAIN:], 0.0),
            n_classes=CLASSES,
        )
    else:
        data = TensorData.from_tensors(x, y, valid=VALID)
    torch.manual_seed(7)
    callbacks: list[Callback] = [Draws(), EverySteps(job["every"])]
    if kill := job.get("kill"):
        number = signal.Signals[kill.get("signal", "SIGKILL")]
        callbacks.insert(0, Killed(kill["event"], kill["step"], number))
    return Learner(
        data,
        Net(),
        choices={
            "batch_size": 10,
            "precision": job["precision"],
            "num_workers": 2 if workers else 0,
            "probe": "off",  # what is counted are the steps of the run
        },
        training=TrainingOptions(
            average=EMA(0.9),
            accumulate=2,
            clip_norm=1.0,
            doctor=False,
            transforms=(Order(folder / f"order-{job['number']}.txt"),),
        ),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def run_job(job: dict[str, Any]) -> None:
    """One run, or the rest of one; at its end everything that a run leaves goes to "end"."""
    folder = Path(job["folder"])
    folder.mkdir(exist_ok=True)
    os.setsid()  # its worker processes can be told by the group
    (folder / f"pid-{job['number']}").write_text(str(os.getpid()))
    torch.manual_seed(job["number"])  # what a process drew before must not matter
    learner = make_learner(job, folder)
    if job["number"]:
        learner.resume()
    else:
        torch.manual_seed(11)
        np.random.seed(11)
        random.seed(11)
        learner.fine_tune(3, lr=0.02)
    end = {
        "model": dict(learner.model.state_dict()),
        "rows": learner.history.rows,
        "losses": list(learner.history.step_losses),
        "generators": generator_states(),
    }
    save_checkpoint(folder / "end", end, 0)


def save_job(job: dict[str, Any]) -> None:
    """Saves a checkpoint, and is killed before the call ``kill_at`` or at the byte ``limit``."""
    folder, step = Path(job["folder"]), job["step"]
    if "limit" in job:
        # The kernel ends the process in the middle of the write that passes the limit.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        save_checkpoint(folder, saved_tree(step), step)
        return
    calls = 0

    def count() -> None:
        nonlocal calls
        if calls == job.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        # Python tells of each of these before it does it.
        if event in CHANGES or (event == "open" and str(arguments[0]).startswith(str(folder))):
            count()

    fsync = os.fsync

    def counted_fsync(handle: int) -> None:
        count()  # the one call of ours that has no such event
        fsync(handle)

    os.fsync = counted_fsync
    sys.addaudithook(audit)
    save_checkpoint(folder, saved_tree(step), step)
    (folder / "calls").write_text(str(calls))


def saved_tree(step: int) -> dict[str, Any]:
    """What the checkpoint of ``step`` holds: 40 kB that no other one has."""
    draws = torch.Generator().manual_seed(step)
    return {"step": step, "x": torch.randn(10_000, generator=draws), "note": "–" * 500}


def fork(job: dict[str, Any]) -> int:
    """Starts the job in a child of this process; its number."""
    child = os.fork()
    if child:
        return child
    code = 3
    signal.alarm(LIMIT_S)  # one that hangs is killed, and its test fails
    try:
        torch.set_num_threads(1)
        save_job(job) if job["kind"] == "save" else run_job(job)
        gc.collect()  # ends worker processes; no handler of the parent's may run at the exit
        code = 0
    except BaseException as error:  # noqa: BLE001 the child ends here, and the test reads it
        note = "".join(traceback.format_exception(error))
        Path(job["folder"], f"error-{job.get('number', 0)}.txt").write_text(note)
    os._exit(code)


def exit_code(child: int) -> int:
    """How a child ended, once it has: 0, 3 after an exception, -9 where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def warm_up() -> None:
    """Before the first fork: torch's first optimizer imports its compiler, which takes seconds."""
    torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)


def main() -> None:
    warm_up()
    for line in sys.stdin:
        code = exit_code(fork(json.loads(line)))
        sys.stdout.write(json.dumps({"exit": code}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
