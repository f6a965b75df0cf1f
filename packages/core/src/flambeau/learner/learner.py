"""``Learner``: the main class of flambeau. ``fitting`` implements its training methods."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flambeau.artefact.predictor import Coverage, Errors, Predictor
from flambeau.data.data import Data
from flambeau.data.loader import loader_world_size
from flambeau.distributed.processes import run_on_main
from flambeau.domain import domain_of
from flambeau.errors import InputError, explains_arguments
from flambeau.learner import fitting
from flambeau.learner.build import BuiltPlan, UserObjects, require_part, unwrapped
from flambeau.learner.inspection_methods import InspectionMethods
from flambeau.learner.planning import argument_hint, check_arguments, make_plan, with_options
from flambeau.learner.recipe_methods import RecipeMethods
from flambeau.learner.setup import Request, Resume, Setup
from flambeau.phases import recipes
from flambeau.phases.schedule import Schedule
from flambeau.plan import Plan
from flambeau.task.task import StepContext, Task
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.optim.groups import groups_from, trainable_groups
from flambeau.training.options import TrainingOptions
from flambeau.training.run import Run
from flambeau.training.state import Position
from flambeau.wording import count_of, describe_values

if TYPE_CHECKING:
    from flambeau.data.split import Split
    from flambeau.learner.calibrating import CalibrationResult
    from flambeau.learner.fold_result import FoldResult
    from flambeau.learner.start import Start
    from flambeau.report.interpretation import Interpretation
    from flambeau.tuning.auto_run import Clock
    from flambeau.tuning.lr_result import LearningRate


@explains_arguments(argument_hint)
class Learner(RecipeMethods, InspectionMethods):
    """Trains, evaluates and exports a model, and predicts with it, on data of any domain.

    The plan chooses every setting that is not given. ``print(learner.plan)`` shows each choice,
    its reason and how to change it. Model, task and loaders are built when they are first needed.

    Args:
        data: The data with their splits, from a domain's data class (``ImageData.from_folder``) or
            from ``TensorData``.
        model: An ``nn.Module``, the name of an architecture, or None to let the plan choose one.
        task: Loss, metrics and decoding of predictions. None chooses a task from the targets.
        choices: Values to fix in the plan, by key: ``{"batch_size": 64}``.
        plan: A plan, or the path of a saved one, whose choices are used unchanged. ``model``,
            ``task`` and ``choices`` take precedence over it.
        start: Folder of an export, or a ``Start``: its preprocessor is kept and its weights are
            trained further, with a new head if the classes differ.
        training: Options that are not in the plan: train step, optimizer, averaging, clipping, ….
        callbacks: Called on training events, in this order, after progress bar and checkpoints.
        seed: Seed of initial weights, sample order, augmentation; not dropout (torch.manual_seed).
        folder: Where history and checkpoints are written; a folder with the run of another learner
            is refused. None writes nothing, except that a long or interrupted run creates a folder
            under ``runs/``.
        quiet: Whether to show no progress.

    Example:
        >>> import torch
        >>> from flambeau import Learner, TensorData
        >>> x = torch.randn(200, 5)
        >>> learner = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True)
        >>> history = learner.fit(3)
        >>> len(learner.predict(x[:4]))
        4
    """

    def __init__(  # noqa: PLR0913 - docs/decisions/0004
        self,
        data: Data,
        model: nn.Module | str | None = None,
        *,
        task: Task | None = None,
        choices: Mapping[str, Any] | None = None,
        plan: Plan | str | Path | None = None,
        start: str | Path | Start | None = None,
        training: TrainingOptions | None = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        folder: str | Path | None = None,
        quiet: bool = False,
    ) -> None:
        check_arguments(data, seed, callbacks, choices, plan, training)
        from flambeau.learner.object_checks import check_objects

        check_objects(model, task)
        model, choices = unwrapped(model, choices or {})
        self.data = data
        self.domain = domain_of(data)
        self.training = training or TrainingOptions()
        self.callbacks = tuple(callbacks)
        self.seed = int(seed)
        self.quiet = quiet
        self.history = History()
        self._folder = None if folder is None else Path(folder).absolute()
        self._own_folder: Path | None = None
        self._given = UserObjects(model if isinstance(model, nn.Module) else None, task)
        self._position = Position()
        self._fits = []
        self._built: BuiltPlan | None = None
        self._shared: BuiltPlan | None = None
        self._is_replay = plan is not None
        self._user_keys = frozenset(choices := with_options(choices, self.training))
        self._examined = not self.training.doctor
        given, options = self._given, self.training
        self._use(make_plan(data, self.domain, model, given, choices, plan, options, start))

    def _use(self, plan: Plan) -> None:
        """Set the learner's plan. No other method assigns it."""
        self._plan = plan

    def __repr__(self) -> str:
        size = ""
        if self._built is not None:
            size = f", {sum(p.numel() for p in self._built.model.parameters()):,} parameters"
        done = f"{count_of(self._position.epoch, 'epoch')} trained"
        if self._built is not None and (fitted := self.task.calibration):
            done += f", calibrated: {describe_values(fitted)}"
        return f"Learner({self.domain.name}, {self.plan.values['architecture']}{size}, {done})"

    # The objects, built on first use

    @property
    def plan(self) -> Plan:
        """Every choice with its reason; ``print`` shows them as a table."""
        return self._plan

    @property
    def built(self) -> BuiltPlan:
        """The preprocessor, model, task and loaders that the plan specifies, built on first use."""
        return self._build(self.plan)

    @property
    def model(self) -> nn.Module:
        """The model, on the plan's device."""
        return self.built.model

    @property
    def task(self) -> Task:
        """The task: loss, metrics and decoding of predictions."""
        return self.built.task

    def _build(self, plan: Plan) -> BuiltPlan:
        if self._built is None:
            given, shared = self._given, self._shared
            self._built = BuiltPlan(self.data, self.domain, plan, given, self.seed, shared)
        return self._built

    # Training

    def fit(
        self,
        epochs: int | None = None,
        *,
        steps: int | None = None,
        lr: float | None = None,
        schedule: str | None = None,
        schedules: Mapping[str, Schedule] | None = None,
        evaluate_every: int | None = None,
    ) -> History:
        """Train with one learning-rate schedule; an argument that is None takes the plan's value.

        A further call continues from the current weights, with a new optimizer.

        Args:
            epochs: Passes over the train set.
            steps: Optimizer steps, in place of epochs; the last epoch may be incomplete.
            lr: Peak learning rate.
            schedule: Shape of the learning-rate schedule, a name in ``flambeau.phases.SHAPES``.
            schedules: Schedules by the name of the value: "lr" (replaces ``lr`` and ``schedule``),
                "weight_decay", "momentum", "dropout_factor", or a value that the task declares.
            evaluate_every: Optimizer steps between two evaluations; by default those of an epoch.

        Returns:
            The learner's history: one row per evaluation and the loss of every step.
        """
        return self._train(
            lambda values: recipes.single_phase(
                values, trainable=self._trainable, schedules=schedules
            ),
            epochs=epochs,
            steps=steps,
            lr=lr,
            schedule=schedule,
            evaluate_every=evaluate_every,
        )

    def fit_auto(
        self, minutes: float | None = None, *, clock: Clock = time.perf_counter
    ) -> History:
        """Train within a time budget; recipe, epochs and schedule are chosen automatically.

        A few training steps and an evaluation are timed; if too few epochs would fit, a smaller
        input or network is chosen, unless you or a saved plan set them. The learning rate warms up,
        is held at its peak while the score improves by more than its noise and time remains, and
        decays to zero. The model is evaluated regularly; the best weights are kept.

        The plan records the run: ``Learner(data, plan=saved).fit_auto()`` repeats it with the same
        weights, bit for bit, on a CPU. Ctrl-C keeps the best weights; ``resume`` continues the run.

        Args:
            minutes: Time budget for the whole call, including the preparation of the data. None
                repeats the run that the plan records, or takes 3 minutes without such a record.
            clock: Function that returns the time in seconds, from any starting point.
        """
        from flambeau.tuning.auto_start import create_auto_run, placeholder_phases

        auto = create_auto_run(minutes, self.plan, clock)
        auto.first_row = len(self.history.rows)
        return self._fit(Request(placeholder_phases, auto=auto))

    def fit_folds(
        self,
        k: int | Sequence[Split] = 5,
        seeds: int | Sequence[int] = 1,
        *,
        recipe: str = "fit",
        epochs: int | None = None,
        steps: int | None = None,
        lr: float | None = None,
        resume: bool = False,
        num_workers: int = 0,
    ) -> FoldResult:
        """Train a new model on each fold of the train and valid samples, and with each seed.

        Each model equals that of ``Learner(fold, plan=learner.plan, seed=seed)`` for a fold of
        ``data.folds(k)``: its preprocessing is fitted on the train samples of the fold, its dropout
        is drawn with the seed. This learner is not trained; test and calibration are not used.

        Args:
            k: Number of folds; or a split for each.
            seeds: Models for each fold; or their seeds.
            recipe: Training method: "fit", "one_cycle", "flat_cos", "fine_tune" or "gradual".
            epochs: As for this method.
            steps: As for this method.
            lr: As for this method.
            resume: Continue what an interrupted call with the same arguments left in the folder of
                the learner. Without a folder nothing is written.
            num_workers: Processes that train models at the same time, on a CPU; they share its
                cores. 0 trains one model after another.

        Returns:
            Predictions for the samples that were held out, their scores with intervals, and the
            ensemble of the models.

        Raises:
            InputError: The data cannot be split anew or sent to workers, or the learner's module
                is already trained.
        """
        from flambeau.learner.fold_runs import FoldRequest, fit_folds, seeds_of

        given = {"epochs": epochs, "steps": steps, "lr": lr}
        arguments = {name: value for name, value in given.items() if value is not None}
        found = seeds_of(seeds, self.seed)
        request = FoldRequest(k, found, recipe, arguments, resume, num_workers)
        return fit_folds(self._setup(), self._member, request, self._given)

    def _member(
        self,
        data: Data,
        plan: Plan | None,
        seed: int,
        folder: Path | None,
        shared: BuiltPlan | None,
    ) -> Learner:
        """Return an untrained learner for one model of ``fit_folds``.

        Args:
            data: The data of the fold.
            plan: The plan of the models before it; None for the first model, which is examined.
            seed: Seed of the model.
            folder: Folder of its run.
            shared: Objects for the same data, whose preprocessing is used.
        """
        model, task = copy.deepcopy((self._given.model, self._given.task))
        if model is not None and self._position.step:
            raise InputError(
                f"The module {type(model).__name__} was trained on rows that the folds hold out. "
                "Give a new Learner a module that is not trained on these data."
            )
        training, callbacks = self.training, self.callbacks
        member = Learner(
            data,
            model,
            task=task,
            plan=plan or self.plan,
            training=training,
            callbacks=callbacks,
            seed=seed,
            folder=folder,
            quiet=self.quiet,
        )
        member._shared, member._user_keys = shared, self._user_keys
        member._examined = self._examined or plan is not None
        return member

    def resume(self, path: str | Path | None = None) -> History:
        """Continue an interrupted run with the steps that remained when it was interrupted.

        Args:
            path: A checkpoint, or the folder of a run; None takes the learner's folder. In a folder
                the newest complete checkpoint is used; a FlambeauWarning reports damaged ones.

        Raises:
            ResumeError: There is no checkpoint, or it belongs to another model, other data or
                another plan.
            ArtefactError: The checkpoint, or every checkpoint in the folder, is damaged.
            ArgumentError: The learner's folder contains another run.
        """
        self._fits = []  # the history becomes that of the run
        continued = Resume(path or self._folder, self._user_keys, self._built is not None)
        self._use(fitting.resume(self._setup(), continued, self._started))
        return self.history

    def lr_find(self, *, max_steps: int = 240) -> LearningRate:
        """Return a peak learning rate measured with short training runs, its range and its cost.

        ``.plot()`` plots the result. If none was found, ``value`` is None and ``reason`` says why.
        Weights, optimizer state and random generators are restored afterwards. The plan does not
        change: pass the value on, ``learner.fit(lr=found.value)``.

        Args:
            max_steps: Upper limit on the optimizer steps used, at least 60.
        """
        from flambeau.learner.factory_rate import find_lr

        return find_lr(self._setup(), self._trainable, max_steps)

    @property
    def _trainable(self) -> tuple[str, ...] | None:
        """The parameter groups that the plan lets train; None for all groups."""
        return trainable_groups(self.plan["trainable"].value, self.model)

    def _fit(self, request: Request) -> History:
        self._use(fitting.fit(self._setup(), request, self._started))
        return self.history

    def _setup(self) -> Setup:
        return Setup(
            data=self.data,
            domain=self.domain,
            plan=self.plan,
            built=self._build,
            training=self.training,
            history=self.history,
            position=Position(epoch=self._position.epoch, step=self._position.step),
            callbacks=self.callbacks,
            inspection=self._inspection,
            seed=self.seed,
            quiet=self.quiet,
            folder=self._folder,
            own_folder=self._own_folder,
            fingerprint=self._fingerprint,
            examines=not self._examined,
            changeable=None if self._built or self._is_replay else self._given,
        )

    @cached_property
    def _fingerprint(self) -> Mapping[str, Any]:
        return self.data.fingerprint()

    def _started(self, plan: Plan, run: Run) -> None:
        """Keep plan and position of a run before its first step, in case it is interrupted."""
        self._use(plan)
        self._position = run.state.position
        self._own_folder = run.settings.folder
        self._examined = True
        from flambeau.learner.fit_steps import FitSteps

        self._fits.append(FitSteps.of(plan, run))

    # Trainable parameter groups

    def freeze(self) -> None:
        """Train only the head (the last parameter group) from the next fit on."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Train all parameter groups from the next fit on."""
        self._use(self.plan.override("trainable", "all"))

    def freeze_to(self, first: int) -> None:
        """Train the groups from index ``first`` on; negative indices count from the head."""
        self._use(self.plan.override("trainable", groups_from(self.model, first)))

    # Evaluation and prediction

    def evaluate(self, part: str = "valid") -> dict[str, float]:
        """Return loss, metrics and logged values on "train", "valid", "test" or "calibration"."""
        from flambeau.training.logged_values import evaluate

        require_part(self.data, part)
        loader = self.built.evaluation_loader(part)
        context = self._context(sharded=loader_world_size(loader) > 1)
        with torch.no_grad():
            return evaluate(self.task, self.model.eval(), self.built.batches(part, loader), context)

    def _context(self, *, sharded: bool = False) -> StepContext:
        values = dict(self.task.values)
        return StepContext("evaluate", values=values, seed=self.seed, sharded=sharded)

    def interpret(self, part: str = "valid") -> Interpretation:
        """Return predictions, errors and metrics with confidence intervals on a part of the data.

        ``print`` shows the metrics. ``.report("report.html")`` writes one page with training
        curves, the largest errors, calibration, data and plan. The model computes in fp32.

        Args:
            part: "train", "valid", "test" or "calibration".
        """
        from flambeau.learner.examine import report_details
        from flambeau.report.interpretation import interpret

        require_part(self.data, part)
        inspection = self.inspect() if self.is_inspected else None
        details = report_details(self._setup(), self.built, inspection)
        read = partial(self.built.batches, part)
        return interpret(
            self.model, self.task, read, part=part, context=self._context(), details=details
        )

    def calibrate(self, *, intervals: bool = False) -> CalibrationResult:
        """Fit temperature, thresholds or factors of the task on the calibration part of the data.

        Predictions, metrics and exports use them until the model is trained further.
        ``intervals`` allows ``predict(interval=0.9)``: intervals or sets of classes.
        """
        from flambeau.learner.calibrating import calibrate

        require_part(self.data, "calibration")
        return calibrate(self.data, self.built, self._context(), intervals=intervals)

    def predictor(self) -> Predictor:
        """Return a ``Predictor``, which predicts the same as one loaded from an export."""
        return self.built.predictor()

    def predict(self, items: Any, *, errors: Errors = "raise", interval: Coverage = None) -> Any:
        """Return the prediction for one raw input (an image path, a text, a tensor), or a list."""
        return self.predictor().predict(items, errors=errors, interval=interval)

    # Saving and export

    def save(self, path: str | Path) -> Path:
        """Write only the model's weights to one safetensors file and return its path."""
        from flambeau.artefact.weights_file import save_model

        return run_on_main(lambda: save_model(self.model, path, self.built.meaning))

    def load(self, path: str | Path) -> None:
        """Load weights into the model from a file of ``save``, an export, a checkpoint or a run.

        From a checkpoint (of a run: the newest one) the weights of the best epoch are loaded if the
        run keeps them, else the averaged weights if there are any, else the last weights.

        Raises:
            ArtefactError: The file is missing or damaged, or is for another model or vocabulary.
        """
        from flambeau.learner.loading import load_any

        calibration = load_any(self.model, path, self.built.meaning)
        self.built.set_calibration(calibration, quiet=self.quiet)

    def export(self, folder: str | Path, *, difference: bool = False) -> Path:
        """Write a folder of safetensors and JSON files, without pickle, for ``Predictor.load``.

        With ``difference`` only the weights that differ from those of ``start`` are written. Unless
        the learner is quiet, a line names the objects that ``Predictor.load`` needs as arguments.
        """
        path = run_on_main(lambda: self.built.export(folder, self.plan, difference=difference))
        if not self.quiet:
            self.built.print_missing_parts(path)
        return path
