"""``fit_folds``: train a learner on each fold of the data and with several seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.artefact.export_format import as_json_value
from flambeau.atomic_write import remove_folder, storage_errors
from flambeau.callbacks import ProgressBar
from flambeau.callbacks.history_writer import read_history
from flambeau.data.data import Data
from flambeau.data.split import Split
from flambeau.distributed import processes
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.global_rng import TemporarySeed
from flambeau.learner.build import BuiltPlan
from flambeau.learner.fold_result import FoldMember, FoldResult, HeldOut
from flambeau.learner.recipe_methods import RECIPES
from flambeau.learner.run_folder import run_exists_error
from flambeau.learner.setup import Setup
from flambeau.task.averages import averages_of
from flambeau.task.task import StepContext

if TYPE_CHECKING:
    from flambeau.learner.learner import Learner

RECORD = "folds.json"
"""The file in the folder of a cross-validation that says what is trained in it."""

WEIGHTS = "weights.safetensors"
"""The file in the folder of a model that is written when its training has finished."""

NewMember: TypeAlias = "Callable[[Data, int, Path | None, BuiltPlan | None], Learner]"
"""Returns the learner of one model: its data, seed, folder, and objects to share."""


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
    _check_folder(setup, folds, request)
    members: list[FoldMember] = []
    held_out: list[HeldOut] = []
    for number, data in enumerate(folds, start=1):
        try:
            own, rows = _fit_fold(setup, new_member, request, data, (number, len(folds)))
        except BaseException as error:
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


def _fit_fold(
    setup: Setup, new_member: NewMember, request: FoldRequest, data: Data, number: tuple[int, int]
) -> tuple[list[FoldMember], HeldOut]:
    """Train the models of one fold, and return them and their held-out predictions.

    Args:
        setup: The setup of the learner.
        new_member: Returns the learner of one model.
        request: What to train.
        data: The data of the fold.
        number: Number of the fold, and number of folds.
    """
    fold, n_folds = number
    members: list[FoldMember] = []
    averages: list[Tensor] = []
    shared: BuiltPlan | None = None
    for seed in request.seeds:
        folder = None if setup.folder is None else setup.folder / f"fold-{fold}-seed-{seed}"
        learner = new_member(data, seed, folder, shared)
        if not setup.quiet:
            ProgressBar.write_line(f"Fold {fold} of {n_folds}, seed {seed}")
        _train(learner, request, folder, quiet=setup.quiet)
        averages.append(_held_out_averages(learner))
        members.append(_member_of(learner, fold, folder))
        shared = learner.built
    batches = [] if shared is None else [*shared.batches("valid")]  # there is a seed
    outputs = torch.stack(averages).mean(dim=0)
    return members, HeldOut.of_fold(fold, outputs, batches, data.groups("valid"))


def _train(learner: Learner, request: FoldRequest, folder: Path | None, *, quiet: bool) -> None:
    """Train one model; a finished one is loaded, an interrupted one continued."""
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


def _held_out_averages(learner: Learner) -> Tensor:
    """Return the predictions for the validation part, as ``Averages.to_average`` gives them."""
    built, task = learner.built, learner.task
    averages, context = averages_of(task), StepContext("predict", values=dict(task.values))
    built.model.eval()
    with torch.no_grad():
        found = [
            averages.to_average(task.predict(built.model, batch, context)).cpu()
            for batch in built.batches("valid")
        ]
    return torch.cat(found)


def _member_of(learner: Learner, fold: int, folder: Path | None) -> FoldMember:
    scores = learner.evaluate("valid")
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


# ---------------------------------------------------------------- the folder


def _check_folder(setup: Setup, folds: Sequence[Data], request: FoldRequest) -> None:
    """Write what is trained to the folder, or compare it with what is written there.

    Raises:
        ArgumentError: There is no folder to resume from, it contains something else, or it
            contains this and ``resume`` is not set.
    """
    folder = setup.folder
    if folder is None:
        if request.resume:
            raise ArgumentError(
                "resume=True needs the folder of the models. Give it to the learner: "
                "Learner(data, folder=…)."
            )
        return
    wanted = {
        "seeds": list(request.seeds),
        "recipe": request.recipe,
        "arguments": dict(request.arguments),
        "folds": [dict(each.fingerprint()) for each in folds],
        "plan": _kept_values(setup),
    }
    wanted = as_json_value(wanted, "the arguments of fit_folds")
    file = folder / RECORD
    if not file.exists():
        if request.resume:
            raise ArgumentError(
                f"There is nothing to resume in {folder}: it has no {RECORD}. Omit resume=True."
            )
        others = [each.name for each in folder.iterdir()] if folder.exists() else []
        if set(others) - {"plan.json"}:
            raise run_exists_error(folder, sorted(others)[0])
        part = file.with_name(f".{file.name}.part")
        with storage_errors(file):
            folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(wanted, indent=2), encoding="utf-8")
            part.replace(file)
        return
    if not request.resume:
        raise ArgumentError(
            f"{folder} already contains the models of fit_folds. Continue them with the same "
            "arguments and resume=True (--resume), or use another folder."
        )
    _compare(folder, json.loads(file.read_text(encoding="utf-8")), wanted)


def _compare(folder: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, now in wanted.items():
        before = saved.get(key)
        if before == now:
            continue
        shown = key
        if isinstance(now, Mapping) and isinstance(before, Mapping):
            values, others = cast("Mapping[str, Any]", now), cast("Mapping[str, Any]", before)
            shown = next(n for n in {**others, **values} if others.get(n) != values.get(n))
            before, now = others.get(shown), values.get(shown)  # noqa: PLW2901
        reason = "" if key == "folds" else f" ({before!r:.60} there, {now!r:.60} now)"
        raise ArgumentError(
            f"The models in {folder} were trained with other {key}: {shown} differs{reason}. Use "
            "the same data and arguments to resume, or another folder."
        )


def _kept_values(setup: Setup) -> dict[str, Any]:
    """Return the values of the plan that do not belong to the machine."""
    rules, values = setup.plan.rules, setup.plan.values
    return {key: value for key, value in values.items() if not rules[key].of_machine}
