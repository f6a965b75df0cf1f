"""``FoldResult``: the models of a cross-validation, their held-out predictions and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from flambeau.artefact.ensemble_builders import ensemble_spec, with_ensembles
from flambeau.artefact.predictor import Coverage, Predictor
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.joint_preprocessor import JointPreprocessor, encoded_batches
from flambeau.data.loader import LoaderOptions
from flambeau.data.preprocess import PredictsTables, Preprocessor
from flambeau.data.split import Split
from flambeau.domain import Domain
from flambeau.errors import ArgumentError
from flambeau.learner.build import require_part
from flambeau.plan import Plan
from flambeau.report.text_table import text_table
from flambeau.task.decoded_columns import decode_columns
from flambeau.task.metrics import score
from flambeau.task.model_ensemble import EnsembleTask, ModelEnsemble
from flambeau.task.predicted_intervals import CONFORMAL
from flambeau.task.task import StepContext, Task
from flambeau.training.history import History
from flambeau.training.logged_values import evaluate
from flambeau.wording import count_of

if TYPE_CHECKING:
    from flambeau.report.interpretation import Interpretation
    from flambeau.task.fold_scores import FoldScores

_ROW = "row"


@dataclass(frozen=True, eq=False)
class FoldMember:
    """One trained model of a cross-validation.

    Attributes:
        fold: Number of its fold, from 1.
        seed: Its seed.
        model: The model, in eval mode.
        task: Its task, fitted on the train rows of its fold.
        preprocessor: Its preprocessor, likewise.
        model_spec: Builder and arguments of the model; None for a module of the user.
        history: The history of its training.
        scores: Loss and metrics on the validation rows of its fold.
    """

    fold: int
    seed: int
    model: nn.Module
    task: Task
    preprocessor: Preprocessor
    model_spec: Mapping[str, Any] | None
    history: History
    scores: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions for rows by models that were not trained on them; all on the CPU.

    Attributes:
        rows: Row numbers as in ``data.split``, ascending, int64 ``(n,)``; ``data.source_rows``
            returns those in the table that the user gave.
        folds: The fold in which each row was held out, from 1, int64 ``(n,)``.
        outputs: Mean predictions of the models of that fold, ``(n, …)``: probabilities of classes
            or labels, numbers in the units of their targets.
        batch: Targets and sample weights of the rows.
        groups: The group of each row; None without groups.
    """

    rows: Tensor
    folds: Tensor
    outputs: Tensor
    batch: Batch
    groups: Sequence[Any] | None

    @classmethod
    def of_fold(
        cls,
        fold: int,
        outputs: Tensor,
        targets: Sequence[Batch],
        groups: Sequence[Any] | None,
    ) -> HeldOut:
        """Return the predictions of one fold, in the order of its validation part.

        Args:
            fold: Number of the fold.
            outputs: Mean predictions, on the CPU.
            targets: Targets and weights of the validation part: ``targets_of`` its batches.
            groups: The group of each row.
        """
        batch = _joined(targets)
        rows = batch.inputs[_ROW]
        return cls(rows, torch.full_like(rows, fold), outputs, batch, groups)

    @classmethod
    def joined(cls, folds: Sequence[HeldOut]) -> HeldOut:
        """Return the predictions of all folds, in the order of the rows."""
        batch = _joined([each.batch for each in folds])
        order = batch.inputs[_ROW].argsort(stable=True)
        groups = None
        if all(each.groups is not None for each in folds):
            every = [group for each in folds for group in each.groups or ()]
            groups = [every[int(at)] for at in order]
        return cls(
            batch.inputs[_ROW][order],
            torch.cat([each.folds for each in folds])[order],
            torch.cat([each.outputs for each in folds])[order],
            batch.rows(order),
            groups,
        )


@dataclass(frozen=True, eq=False)
class FoldResult:
    """The result of ``learner.fit_folds``; ``print`` shows the scores of each fold and of all rows.

    Attributes:
        data: The data of the learner.
        domain: Their domain.
        plan: The learner's plan, with which all models were trained.
        members: The models, by fold and seed.
        held_out: Their predictions for the rows that they were not trained on.
        is_forward: Whether the folds go forward in time.
    """

    data: Data
    domain: Domain
    plan: Plan
    members: tuple[FoldMember, ...]
    held_out: HeldOut
    is_forward: bool = False

    def __str__(self) -> str:
        lines = [self._title()]
        every = self.interpretation
        names = list(every.predictions.scores)
        rows: list[list[object]] = []
        for fold, scores in self.fold_scores.items():
            n = int((self.held_out.folds == fold).sum())
            rows.append([str(fold), f"{n:,}", *(_shown(scores.get(name)) for name in names)])
        rows.append(["all", f"{len(every):,}", *(_shown(every.scores[name]) for name in names)])
        intervals = [every.intervals.get(name) for name in names]
        ends = ["" if i is None else f"{i.low:.4g} to {i.high:.4g}" for i in intervals]
        if any(ends):
            rows.append(["95%", "", *ends])
        return "\n".join([*lines, text_table(["fold", "rows", *names], rows), *self.notes])

    def __len__(self) -> int:
        return len(self.held_out.rows)

    def _title(self) -> str:
        seeds = list(dict.fromkeys(each.seed for each in self.members))
        n = len(set(self.held_out.folds.numpy().tolist()))
        each = f" with {count_of(len(seeds), 'seed')} each" if len(seeds) > 1 else ""
        return f"Predictions for held-out rows by {n} folds{each}"

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What to keep in mind about the scores."""
        found: list[str] = []
        split, n = self.data.split, len(self.held_out.rows)
        left_out = len(split.train) + len(split.valid) - n
        if left_out:
            why = "the folds go forward in time" if self.is_forward else "no fold has them in valid"
            found.append(f"{left_out:,} of {left_out + n:,} rows were never held out: {why}.")
        if len(split.calibration):
            n_unused = len(split.calibration)
            found.append(f"The {n_unused:,} calibration rows are not used.")
        kept = self.plan.values.get("keep_best")
        if kept is not None:
            found.append(
                f"Each model has the weights of its best epoch on its own held-out rows "
                f"(keep_best={kept!r}), so the scores are slightly too good. Without it: "
                'choices={"keep_best": None}.'
            )
        return tuple(found)

    # Held-out predictions and scores

    @property
    def task(self) -> Task:
        """The task that decodes and scores mean predictions."""
        return self._every.of_mean

    @cached_property
    def columns(self) -> dict[str, Any]:
        """The held-out predictions as columns by name, with "row" and "fold" of each.

        "row" is the number in the source, which counts rows without a target too.
        """
        found = decode_columns(self._every, self.held_out.outputs.unsqueeze(1), len(self))
        rows = self.data.source_rows(self.held_out.rows.numpy())
        folds = self.held_out.folds.numpy()
        return {"row": rows, "fold": folds, **found}

    @cached_property
    def predictions(self) -> Any:
        """The decoded prediction for each held-out row, in the order of ``held_out.rows``.

        For a table a frame: a pandas frame with the index of these rows if the data were read from
        one, else an Arrow table. Otherwise a list.
        """
        outputs = self.held_out.outputs.unsqueeze(1)  # as if there were one fold
        first = self.members[0].preprocessor
        if not isinstance(first, PredictsTables):
            return self._every.decode(outputs)
        rows = self.held_out.rows.numpy()
        nothing = np.empty(0, np.int64)
        split = Split(nothing, rows, nothing, for_training=False)
        items = self.data.with_split(split).raw("valid")
        return first.collect_columns(items, self._every.decode_columns(outputs))

    @cached_property
    def fold_scores(self) -> dict[int, dict[str, float]]:
        """Loss and metrics of the held-out predictions of each fold, by its number."""
        return {fold: self._scores(self.held_out.folds == fold) for fold in self._all_folds()}

    @cached_property
    def interpretation(self) -> Interpretation:
        """The held-out predictions of all rows: scores with 95% intervals, plots and a report."""
        from flambeau.report.interpretation import Interpretation, ReportDetails
        from flambeau.report.predictions import Predictions

        task, held_out = self.task, self.held_out
        summary = task.summarise(self._outputs(), held_out.batch)
        weights = held_out.batch.sample_weight
        found = Predictions(
            held_out.rows,
            summary,
            self._scores(torch.ones_like(held_out.rows, dtype=torch.bool)),
            None if weights is None else weights.double(),
        )
        title = f"{self.plan.values['architecture']}: {self._title().lower()}"
        details = ReportDetails(
            title, self.data, self.plan, preprocessor=self.members[0].preprocessor
        )
        return Interpretation("out-of-fold", task, found, details, {"models": self._title()})

    @property
    def scores(self) -> Mapping[str, float]:
        """Loss and metrics of the held-out predictions of all rows."""
        return self.interpretation.scores

    def _outputs(self) -> Any:
        return self._every.of_fold(self.held_out.outputs)

    def _scores(self, chosen: Tensor) -> dict[str, float]:
        task = self.task
        metrics: dict[str, Any] = {**task.loss_metrics(), **task.metrics()}
        outputs = self._every.of_fold(self.held_out.outputs[chosen])
        task.update(metrics, outputs, self.held_out.batch.rows(chosen))
        return {name: score(each) for name, each in metrics.items()}

    # The ensemble

    def ensemble(self, folds: Iterable[int] | None = None) -> Predictor:
        """Return one predictor that averages the models.

        Args:
            folds: Numbers of the folds whose models are used. By default all; of folds that go
                forward in time the last one, whose models were trained on all earlier rows.

        Raises:
            ArgumentError: A fold has no models, or their predictions cannot be averaged.
        """
        chosen = self._chosen(folds)
        task = self._ensemble_task(chosen)
        if scores := self._interval_scores(task, chosen):
            task.calibration = {CONFORMAL: scores}
        members = [each for each in self.members if each.fold in chosen]
        inputs = self._preprocessors(chosen)[0]
        model = ModelEnsemble(each.model for each in members)
        return Predictor(JointPreprocessor(inputs), model.eval(), task)

    def predict(self, items: Any, *, interval: Coverage = None) -> Any:
        """Return the mean prediction of the ensemble, as ``learner.predict`` does.

        Args:
            items: One raw input or several.
            interval: Coverage of intervals, or of sets of classes, such as 0.9.
        """
        return self.ensemble().predict(items, interval=interval)

    def evaluate(self, part: str = "test") -> dict[str, float]:
        """Return loss and metrics of the ensemble on "test" or "calibration".

        Raises:
            ArgumentError: The models were trained on samples of the part.
            InputError: The part has no samples.
        """
        if part in ("train", "valid"):
            raise ArgumentError(
                f"The models were trained on rows of {part}. The scores of held-out rows are in "
                "result.scores."
            )
        require_part(self.data, part)
        predictor = self.ensemble()
        preprocessor, device = predictor.preprocessor, predictor.device
        options = LoaderOptions(batch_size=predictor.batch_size, device=device)
        values = self.plan.values
        with torch.no_grad():
            encoded = encoded_batches(self.data, part, preprocessor, values, options)
            batches = (preprocessor.on_device(batch.to(device)) for batch in encoded)
            context = StepContext("evaluate", values=dict(predictor.task.values))
            return evaluate(predictor.task, predictor.model, batches, context)

    def export(self, folder: str | Path, folds: Iterable[int] | None = None) -> Path:
        """Write the ensemble as one export, for ``Predictor.load`` and ``flambeau predict``.

        Args:
            folder: As for ``learner.export``.
            folds: As for ``ensemble``.
        """
        from flambeau.artefact.export import export
        from flambeau.artefact.read_like import reading_notes

        predictor = self.ensemble(folds)
        chosen = self._chosen(folds)
        return export(
            folder,
            domain=with_ensembles(self.domain),
            model=predictor.model,
            model_spec=ensemble_spec([m.model_spec for m in self.members if m.fold in chosen]),
            task=predictor.task,
            preprocessor=predictor.preprocessor,
            plan=self.plan.to_json(),
            notes=reading_notes(self.data.reading_options),
        )

    def _all_folds(self) -> list[int]:
        return sorted({each.fold for each in self.members})

    def _chosen(self, folds: Iterable[int] | None) -> list[int]:
        known = self._all_folds()
        if folds is None:
            return known[-1:] if self.is_forward else known
        chosen = sorted(set(folds))
        if not chosen or set(chosen) - set(known):
            raise ArgumentError(f"folds is {chosen}, but must be some of {known}.")
        return chosen

    @cached_property
    def _every(self) -> EnsembleTask:
        """The task of all models."""
        return self._ensemble_task(self._all_folds())

    def _ensemble_task(self, folds: Sequence[int]) -> EnsembleTask:
        members = [each for each in self.members if each.fold in folds]
        number = {fold: at for at, fold in enumerate(folds)}
        tasks = {f"fold {each.fold}, seed {each.seed}": each.task for each in members}
        of_members = [number[each.fold] for each in members]
        return EnsembleTask(tasks, of_members, self._preprocessors(folds)[1])

    def _interval_scores(self, task: EnsembleTask, folds: Sequence[int]) -> dict[str, Any]:
        """Return the scores of the held-out rows as JSON values."""
        from flambeau.task.combined import CombinedTask
        from flambeau.task.fold_intervals import fit_fold_scores, fit_several_fold_scores

        parts: list[tuple[Any, Batch, Sequence[Any] | None]] = []
        for fold in folds:
            chosen = (self.held_out.folds == fold).nonzero().squeeze(1)
            groups = self.held_out.groups
            own = None if groups is None else [groups[int(at)] for at in chosen]
            outputs = task.of_fold(self.held_out.outputs[chosen])
            parts.append((outputs, self.held_out.batch.rows(chosen), own))
        if not isinstance(task.of_mean, CombinedTask):
            return _as_json(fit_fold_scores(task.of_mean, parts))
        of_targets = fit_several_fold_scores(task.of_mean, parts)
        return {name: _as_json(scores) for name, scores in of_targets.items()}

    def _preprocessors(self, folds: Sequence[int]) -> tuple[list[Preprocessor], list[int]]:
        """Return the distinct preprocessors, and the number of that of each model."""
        distinct: list[Preprocessor] = []
        numbers: list[int] = []
        for member in self.members:
            if member.fold not in folds:
                continue
            own = member.preprocessor
            same = [at for at, each in enumerate(distinct) if _encodes_alike(each, own)]
            numbers.append(same[0] if same else len(distinct))
            if not same:
                distinct.append(own)
        return distinct, numbers


def _as_json(scores: Mapping[str, FoldScores]) -> dict[str, Any]:
    return {name: each.arguments() for name, each in scores.items()}


def _encodes_alike(one: Preprocessor, other: Preprocessor) -> bool:
    if one is other:
        return True
    tensors, others = one.tensors(), other.tensors()
    return (
        one.arguments() == other.arguments()
        and tensors.keys() == others.keys()
        and all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    )


def targets_of(batch: Batch) -> Batch:
    """Return targets and weights of a batch on the CPU, with row numbers in place of inputs."""
    rows = batch.indices if batch.indices is not None else torch.arange(len(batch))
    kept = replace(batch, inputs={}, masks={}, extras={}, task_inputs={})
    return replace(kept.map(lambda value: value.cpu()), inputs={_ROW: rows})


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return the targets and weights of several batches as one."""
    first, weights = batches[0], [each.sample_weight for each in batches]
    given = [each for each in weights if each is not None]
    return Batch(
        {_ROW: torch.cat([each.inputs[_ROW] for each in batches])},
        {name: torch.cat([each.targets[name] for each in batches]) for name in first.targets},
        sample_weight=torch.cat(given) if len(given) == len(batches) else None,
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
