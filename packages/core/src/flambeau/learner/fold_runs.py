"""``fit_folds``: train a learner on each fold of the data and with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
from flambeau.learner.build import BuiltPlan
from flambeau.learner.fold_record import check_folder
from flambeau.learner.fold_result import FoldMember, FoldResult, HeldOut, targets_of
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
    """

    k: int | Sequence[Split]
    seeds: tuple[int, ...]
    recipe: str = "fit"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    resume: bool = False


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


def fit_folds(setup: Setup, new_member: NewMember, request: FoldRequest) -> FoldResult:
    """Train the models one after another and return their held-out predictions.

    Args:
        setup: The setup of the learner.
        new_member: Returns the learner of one model.
        request: What to train.

    Raises:
        ArgumentError: The recipe is unknown, or the folder contains something else.
        InputError: Several processes run, or the data cannot be split anew.
    """
    if request.recipe not in RECIPES:
        known = did_you_mean(request.recipe, RECIPES)
        raise ArgumentError(f"Unknown recipe {request.recipe!r}. {known}")
    if processes.initialize() is not None:
        raise InputError(
            "fit_folds runs in one process, but several were launched. Launch one, or train each "
            "of data.folds(k) with a learner of its own."
        )
    folds = setup.data.folds(request.k, seed=setup.seed)
    keys = {key: getattr(request, key) for key in ("seeds", "recipe", "arguments")}
    k = None if isinstance(request.k, Sequence) else request.k
    check_folder(setup, folds, {"k": k, **keys}, resume=request.resume)
    members: list[FoldMember] = []
    held_out: list[HeldOut] = []
    training = _Training(setup, new_member, request, len(folds))
    for number, data in enumerate(folds, start=1):
        try:
            own, rows = training.fit_fold(number, data)
        except BaseException as error:
            error.add_note(
                f"This was a model of fold {number}; the learner's own model is not trained."
            )
            if setup.folder is not None:
                error.add_note(
                    "The models that were finished are kept. Continue with the same call and "
                    f"resume=True; the folder is {setup.folder}."
                )
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


class _Training:
    """Trains the models of the folds.

    Args:
        setup: The setup of the learner.
        new_member: Returns the learner of one model.
        request: What to train.
        n_folds: Number of folds.
    """

    def __init__(
        self, setup: Setup, new_member: NewMember, request: FoldRequest, n_folds: int
    ) -> None:
        self.setup, self.new_member = setup, new_member
        self.request, self.n_folds = request, n_folds
        self.plan: Plan | None = None

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
            name, root = f"fold-{fold}-seed-{seed}", self.setup.folder
            folder = None if root is None else root / name
            learner = self.new_member(data, self.plan, seed, folder, shared)
            if not self.setup.quiet:
                ProgressBar.write_line(f"Fold {fold} of {self.n_folds}, seed {seed}")
            _train(learner, self.request, folder, quiet=self.setup.quiet)
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


def _train(learner: Learner, request: FoldRequest, folder: Path | None, *, quiet: bool) -> None:
    """Train one model; a finished one is loaded, an interrupted one continued."""
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
