"""``fit_folds``: train a learner on each fold of the data and with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.atomic_write import remove_folder
from flambeau.callbacks import ProgressBar
from flambeau.callbacks.history_writer import read_history
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.split import Split
from flambeau.distributed import processes
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.global_rng import TemporarySeed
from flambeau.learner.build import BuiltPlan, UserObjects
from flambeau.learner.fold_record import check_folder
from flambeau.learner.fold_result import FoldMember, FoldResult, HeldOut, targets_of
from flambeau.learner.fold_workers import (
    FoldJob,
    TorchSettings,
    check_num_workers,
    plan_of_workers,
    train_in_workers,
)
from flambeau.learner.recipe_methods import RECIPES
from flambeau.learner.setup import Setup
from flambeau.plan import Plan
from flambeau.task.averages import averages_of
from flambeau.task.metrics import score
from flambeau.task.task import StepContext, Task

if TYPE_CHECKING:
    from flambeau.learner.learner import Learner

WEIGHTS = "weights.safetensors"
"""The file in the folder of a model that is written when its training has finished."""

NewMember: TypeAlias = "Callable[[Data, Plan | None, int, Path | None, BuiltPlan | None], Learner]"
"""Returns the learner of one model: see ``Learner._member``."""


@dataclass(frozen=True)
class FoldRequest:
    """The arguments of ``Learner.fit_folds``.

    Attributes:
        k: Number of folds, or a split for each.
        seeds: The seeds with which each fold is trained.
        recipe: A name in ``RECIPES``.
        arguments: Arguments of that method, those that were given.
        resume: Whether to continue what is in the learner's folder.
        num_workers: Number of processes that train models at the same time; 0 for none.
    """

    k: int | Sequence[Split]
    seeds: tuple[int, ...]
    recipe: str = "fit"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    resume: bool = False
    num_workers: int = 0


def seeds_of(seeds: object, first: int) -> tuple[int, ...]:
    """Return the seeds: as given, or the next ``seeds`` numbers from ``first`` on.

    Raises:
        ArgumentError: They are not distinct whole numbers, or there are none.
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = range(first, first + seeds)
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        raise ArgumentError(
            f"seeds is {seeds!r:.60}. Give the number of models for each fold (2), or their seeds "
            "([0, 1])."
        )
    found = cast("Sequence[object]", seeds)
    numbers = [each for each in found if isinstance(each, int) and not isinstance(each, bool)]
    if len(numbers) < len(found) or len(set(numbers)) < len(numbers):
        raise ArgumentError(f"seeds is {seeds!r:.60}, but must be distinct whole numbers.")
    return tuple(numbers)


def fit_folds(
    setup: Setup, new_member: NewMember, request: FoldRequest, given: UserObjects
) -> FoldResult:
    """Train the models, one after another or in workers, and return held-out predictions.

    Args:
        setup: The setup of the learner.
        new_member: Returns the learner of one model.
        request: What to train.
        given: The user's module and task, of which each model gets copies.

    Raises:
        ArgumentError: The recipe is unknown, or the folder contains something else.
        InputError: Several processes run, or the data cannot be split anew, or cannot be sent to
            worker processes.
    """
    if request.recipe not in RECIPES:
        known = did_you_mean(request.recipe, RECIPES)
        raise ArgumentError(f"Unknown recipe {request.recipe!r}. {known}")
    if processes.initialize() is not None:
        raise InputError(
            "fit_folds runs in one process, but several were launched. Launch one, or train each "
            "of data.folds(k) with a learner of its own."
        )
    check_num_workers(request.num_workers, setup.plan)
    folds = setup.data.folds(request.k, seed=setup.seed)
    keys = {key: getattr(request, key) for key in ("seeds", "recipe", "arguments")}
    k = None if isinstance(request.k, Sequence) else request.k
    check_folder(setup, folds, {"k": k, **keys}, given, resume=request.resume)
    with _root_of(setup, request) as root:
        training = _Training(setup, new_member, request, len(folds), root)
        if request.num_workers:
            try:
                training.train_in_workers(folds)
            except BaseException as error:
                _add_resume_note(error, setup)
                raise
        return _result(setup, request, folds, training)


@contextmanager
def _root_of(setup: Setup, request: FoldRequest) -> Generator[Path | None]:
    """Yield the folder of the models; for workers without one a temporary folder."""
    if setup.folder is None and request.num_workers:
        with TemporaryDirectory(prefix="flambeau-folds-") as name:
            yield Path(name)
    else:
        yield setup.folder


def _result(
    setup: Setup, request: FoldRequest, folds: Sequence[Data], training: _Training
) -> FoldResult:
    members: list[FoldMember] = []
    held_out: list[HeldOut] = []
    for number, data in enumerate(folds, start=1):
        try:
            own, rows = training.fit_fold(number, data)
        except BaseException as error:
            error.add_note(
                f"This was a model of fold {number}; the learner's own model is not trained."
            )
            _add_resume_note(error, setup)
            raise
        members += own
        held_out.append(rows)
    return FoldResult(
        data=setup.data,
        domain=setup.domain,
        plan=setup.plan,
        members=tuple(members),
        held_out=HeldOut.joined(held_out),
        is_forward=_is_forward(setup.data, request.k),
    )


def _add_resume_note(error: BaseException, setup: Setup) -> None:
    if setup.folder is not None:
        error.add_note(
            "The models that were finished are kept. Continue with the same call and resume=True; "
            f"the folder is {setup.folder}."
        )


class _Training:
    """Trains the models of the folds.

    Args:
        setup: The setup of the learner.
        new_member: Returns the learner of one model.
        request: What to train.
        n_folds: Number of folds.
        root: Folder of the folders of the models; None writes nothing.
    """

    def __init__(
        self,
        setup: Setup,
        new_member: NewMember,
        request: FoldRequest,
        n_folds: int,
        root: Path | None,
    ) -> None:
        self.setup, self.new_member = setup, new_member
        self.request, self.n_folds, self.root = request, n_folds, root
        self.plan: Plan | None = None
        self._trained: set[Path] = set()  # by workers

    def train_in_workers(self, folds: Sequence[Data]) -> None:
        """Train all models whose folders lack their weights, several at the same time."""
        workers = self.request.num_workers
        self.plan = plan_of_workers(self.setup.plan, workers)
        jobs: list[FoldJob] = []
        for fold, data in enumerate(folds, start=1):
            for seed in self.request.seeds:
                folder = self._folder(fold, seed)
                if folder is None or (folder / WEIGHTS).is_file():
                    continue
                jobs.append(self._job(fold, data, seed, folder, is_examined=bool(jobs)))
        count = 0

        def done(job: FoldJob) -> None:
            nonlocal count
            count += 1
            self._trained.add(job.folder)
            if not self.setup.quiet:
                where = f"fold {job.fold} of {self.n_folds}, seed {job.seed}"
                ProgressBar.write_line(f"Trained {where} ({count} of {len(jobs)})")

        if jobs:
            train_in_workers(jobs, workers, done)

    def _job(self, fold: int, data: Data, seed: int, folder: Path, *, is_examined: bool) -> FoldJob:
        member = self.new_member(data, self.plan, seed, None, None)
        given = member._given  # pyright: ignore[reportPrivateUsage]
        return FoldJob(
            fold=fold,
            learner=type(member),
            train=train_member,
            data=data,
            plan=member.plan.to_json(),
            seed=seed,
            folder=folder,
            model=given.model,
            task=given.task,
            training=member.training,
            callbacks=tuple(member.callbacks),
            request=self.request,
            is_examined=is_examined,
            settings=TorchSettings.of_this_process(),
        )

    def _folder(self, fold: int, seed: int) -> Path | None:
        return None if self.root is None else self.root / f"fold-{fold}-seed-{seed}"

    def fit_fold(self, fold: int, data: Data) -> tuple[list[FoldMember], HeldOut]:
        """Train the models of one fold, and return them and their held-out predictions.

        Args:
            fold: Number of the fold, from 1.
            data: The data of the fold.
        """
        members: list[FoldMember] = []
        averages: list[Tensor] = []
        targets: list[Batch] = []
        shared: BuiltPlan | None = None
        for seed in self.request.seeds:
            folder = self._folder(fold, seed)
            learner = self.new_member(data, self.plan, seed, folder, shared)
            quiet = self.setup.quiet or folder in self._trained
            if not quiet:
                ProgressBar.write_line(f"Fold {fold} of {self.n_folds}, seed {seed}")
            train_member(learner, self.request, folder, quiet)
            found, targets, scores = _held_out(learner)
            averages.append(found)
            members.append(_member_of(learner, fold, folder, scores))
            shared = learner.built
            self.plan = with_measured(self.plan or self.setup.plan, learner.plan)
        outputs = torch.stack(averages).mean(dim=0)
        return members, HeldOut.of_fold(fold, outputs, targets, data.groups("valid"))


def with_measured(plan: Plan, measured: Plan) -> Plan:
    """Return the plan with the settings of the machine that another run has measured.

    They decide how fast a step is, and are measured once for all models. Choices that are measured
    on the data, such as a learning rate, are not taken over.
    """
    for key in ("precision", "memory_format", "num_threads", "compile"):
        if key in plan and plan[key].source != "user":
            plan = plan.with_choice(measured[key])
    return plan.with_choice(measured["probe"])


def train_member(learner: Learner, request: FoldRequest, folder: Path | None, quiet: bool) -> None:
    """Train one model; a finished one is loaded, an interrupted one continued.

    Args:
        learner: The untrained learner of the model.
        request: What to train.
        folder: Folder of the model; None writes nothing.
        quiet: Whether to print nothing.
    """
    averages_of(learner.task)  # refuses a task without averages before anything is trained
    if folder is not None and (folder / WEIGHTS).is_file():
        learner.load(folder / WEIGHTS)
        if not quiet:
            ProgressBar.write_line(f"Finished before: {folder}")
        return
    # Dropout draws from the global generator: each model depends on its own seed alone.
    with TemporarySeed().at(learner.seed):
        if folder is not None and latest_checkpoint(folder) is not None:
            learner.resume(folder)
        else:
            if folder is not None and folder.exists():  # it ended before its first checkpoint
                remove_folder(folder)
            getattr(learner, RECIPES[request.recipe])(**request.arguments)
    if folder is not None:
        learner.save(folder / WEIGHTS)


def _held_out(learner: Learner) -> tuple[Tensor, list[Batch], dict[str, float]]:
    """Return predictions for the validation part, on the scale of averages, targets and scores."""
    built, task = learner.built, learner.task
    is_plain = type(task).predict is Task.predict and type(task).evaluate is Task.evaluate
    # Of other tasks the scores need a pass of their own.
    metrics: dict[str, Any] = {**task.loss_metrics(), **task.metrics()} if is_plain else {}
    averages, context = averages_of(task), StepContext("predict", values=dict(task.values))
    found: list[Tensor] = []
    targets: list[Batch] = []
    built.model.eval()
    with torch.no_grad():
        for batch in built.batches("valid"):
            outputs = task.predict(built.model, batch, context)
            if is_plain:
                task.update(metrics, outputs, batch)
            found.append(averages.to_average(outputs).cpu())
            targets.append(targets_of(batch))
    scores = {name: score(each) for name, each in metrics.items()}
    return torch.cat(found), targets, scores if is_plain else learner.evaluate("valid")


def _member_of(
    learner: Learner, fold: int, folder: Path | None, scores: Mapping[str, float]
) -> FoldMember:
    built = learner.built
    built.apply({**learner.plan.values, "compile": "off"})
    history = learner.history
    if not history.rows and folder is not None:
        history = read_history(folder) or history
    return FoldMember(
        fold=fold,
        seed=learner.seed,
        model=built.model.eval(),
        task=built.task,
        preprocessor=built.preprocessor,
        model_spec=built.model_spec,
        history=history,
        scores=scores,
    )


def _is_forward(data: Data, k: int | Sequence[Split]) -> bool:
    """Return whether the folds go forward in time."""
    rows = np.sort(np.concatenate([data.split.train, data.split.valid]))
    return not isinstance(k, Sequence) and data.split_arguments(rows).get("times") is not None
