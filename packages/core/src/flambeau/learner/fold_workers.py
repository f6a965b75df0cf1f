"""``train_in_workers``: train models of folds in several processes at the same time.

Each process trains whole models with the code of a single fit and leaves the weights in the folder
of the model, from which the calling process reads them as after an interruption.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import current_process, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flambeau.data.data import Data
from flambeau.device import usable_cores
from flambeau.errors import ArgumentError, InputError, TrainingError
from flambeau.plan import Plan
from flambeau.task.task import Task
from flambeau.training.events import Callback
from flambeau.training.options import TrainingOptions
from flambeau.wording import count_of, first_line

if TYPE_CHECKING:
    from flambeau.learner.fold_runs import FoldRequest
    from flambeau.learner.learner import Learner


@dataclass(frozen=True)
class FoldJob:
    """A model of ``fit_folds``, as a worker process receives it.

    Attributes:
        fold: Number of the fold, from 1.
        learner: The class of the learner.
        train: Trains a learner: see ``fold_runs.train_member``.
        data: The data of the fold.
        plan: The plan as JSON values.
        seed: Seed of the model.
        folder: Folder of its run.
        model: Untrained module of the user; None if the plan names it.
        task: Task of the user; None if the plan names it.
        training: Training options.
        callbacks: Callbacks of the user.
        request: What to train.
        is_examined: Whether the data were examined for another model.
        settings: Settings of torch for the whole process, which a new process does not have.
    """

    fold: int
    learner: type[Learner]
    train: Callable[[Learner, FoldRequest, Path, bool], None]
    data: Data
    plan: Mapping[str, Any]
    seed: int
    folder: Path
    model: nn.Module | None
    task: Task | None
    training: TrainingOptions
    callbacks: Sequence[Callback]
    request: FoldRequest
    is_examined: bool
    settings: TorchSettings


@dataclass(frozen=True)
class TorchSettings:
    """Settings of torch that change the numbers of a model.

    Attributes:
        dtype: The default of floating-point tensors.
        matmul_precision: "highest", "high" or "medium".
        is_deterministic: Whether operators must be deterministic.
        only_warns: Whether one that is not gives a warning instead of an error.
    """

    dtype: torch.dtype
    matmul_precision: str
    is_deterministic: bool
    only_warns: bool = False

    @classmethod
    def of_this_process(cls) -> TorchSettings:
        """Return the present settings."""
        return cls(
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    def apply(self) -> None:
        """Use them in this process."""
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.use_deterministic_algorithms(self.is_deterministic, warn_only=self.only_warns)


def check_num_workers(num_workers: object, plan: Plan) -> None:
    """Check the number of worker processes.

    Raises:
        ArgumentError: It is not a whole number, or negative.
        InputError: The models train on an accelerator, which they would share, or this process may
            not start others.
    """
    if not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 0:
        raise ArgumentError(
            f"num_workers is {num_workers!r:.60}, but must be a whole number of processes; 0 "
            "trains one model after another."
        )
    device = plan.values.get("device", "cpu")
    if num_workers and not str(device).startswith("cpu"):
        raise InputError(
            f"num_workers={num_workers} trains several models at the same time, but they would "
            f"share one device ({device}). Use num_workers=0, or choices={{'device': 'cpu'}}."
        )
    if num_workers and current_process().daemon:
        raise InputError(
            f"num_workers={num_workers} starts processes, but this one is a worker of a pool and "
            "may not start any. Use num_workers=0."
        )


def plan_of_workers(plan: Plan, num_workers: int) -> Plan:
    """Return the plan of models that train at the same time.

    They share the cores, and what would be measured of the machine says little meanwhile.
    """
    threads = max(1, usable_cores() // num_workers)
    why = f"{count_of(num_workers, 'worker')} of fit_folds share the cores of this process."
    for key, value in (("num_threads", threads), ("probe", "off")):
        if key in plan and plan[key].source != "user":
            plan = plan.with_choice(replace(plan[key], value=value, reason=why, source="rule"))
    return plan


def train_in_workers(
    jobs: Sequence[FoldJob], num_workers: int, done: Callable[[FoldJob], None]
) -> None:
    """Train the models; afterwards the folder of each has its weights.

    At an error or Ctrl-C the models in training end after their step and write a checkpoint.

    Args:
        jobs: The models.
        num_workers: Number of processes.
        done: Called with each model that has been trained.

    Raises:
        InputError: Data, model, task, options or callbacks cannot be sent to another process, or a
            worker process ended.
    """
    count = min(num_workers, len(jobs))
    context = _OwnProcesses()
    # Not forked: a forked process cannot compute gradients if its parent has.
    executor = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    running: dict[Future[None], FoldJob] = {}
    try:
        for job in jobs:
            if len(running) == count:  # the data of as many jobs are in memory
                _finish_some(running, done)
            running[executor.submit(_train_job, _pickled(job))] = job
        while running:
            _finish_some(running, done)
    except BaseException:
        for process in context.started:
            if process.is_alive():
                process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class _OwnProcesses(SpawnContext):
    """Starts processes and keeps them: other threads of the caller have children of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    # The executor starts its workers with this method; in SpawnContext it is a class.
    def Process(  # pyright: ignore[reportIncompatibleVariableOverride]  # noqa: N802
        self, *args: Any, **named: Any
    ) -> SpawnProcess:
        process = SpawnProcess(*args, **named)
        self.started.append(process)
        return process


def _finish_some(running: dict[Future[None], FoldJob], done: Callable[[FoldJob], None]) -> None:
    """Wait for a job that runs, and remove those that have finished."""
    finished, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in finished:
        job = running.pop(future)
        try:
            future.result()
        except BrokenProcessPool as error:
            raise InputError(
                f"A worker process of fit_folds ended unexpectedly. {_main_module()}The memory "
                "may have been too small for several models: then use a lower num_workers."
            ) from error
        except BaseException as error:
            error.add_note(f"This was a model of fold {job.fold}, with seed {job.seed}.")
            raise
        done(job)


def _main_module() -> str:
    """Return what to do if a worker ended because it could not import the program."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        return ""
    if not Path(file).is_file():  # such as <stdin>
        return (
            f"Each worker imports the program, but {file} is no file: save the program in one, or "
            "use num_workers=0. "
        )
    return (
        "In a script, call fit_folds under `if __name__ == '__main__':`, because each worker "
        "imports the script. "
    )


def _pickled(job: FoldJob) -> bytes:
    try:
        return pickle.dumps(job)
    except Exception as error:
        raise InputError(
            f"The model of fold {job.fold} cannot be sent to a worker process: {first_line(error)} "
            "Functions and classes of data, model, task and callbacks must be importable by name, "
            "not lambdas or local ones. Or train one model after another: num_workers=0."
        ) from error


def _start_worker() -> None:
    """Let the calling process alone decide on Ctrl-C, and end with it, also if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _train_job(content: bytes) -> None:
    """Train one model in a worker process."""
    job = _unpickled(content)
    job.settings.apply()
    try:
        _train_model(job)
    except Exception as error:
        if _can_be_sent(error):
            raise
        raise TrainingError(f"{type(error).__qualname__}: {error}") from error


def _unpickled(content: bytes) -> FoldJob:
    try:
        return pickle.loads(content)
    except (AttributeError, ImportError) as error:
        raise InputError(
            f"A worker process cannot import what the model needs: {first_line(error)} Functions "
            "and classes of a notebook or an interactive session exist only there: move them to a "
            "module. Or train one model after another: num_workers=0."
        ) from error


def _can_be_sent(error: Exception) -> bool:
    """Return whether the calling process can receive the error; the pool would break otherwise."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever the class of the user raises
        return False
    return True


def _train_model(job: FoldJob) -> None:
    learner = job.learner(
        job.data,
        job.model,
        task=job.task,
        plan=Plan.from_json(job.plan),
        training=job.training,
        callbacks=job.callbacks,
        seed=job.seed,
        folder=job.folder,
        quiet=True,
    )
    learner._examined = job.is_examined  # pyright: ignore[reportPrivateUsage]
    job.train(learner, job.request, job.folder, True)
