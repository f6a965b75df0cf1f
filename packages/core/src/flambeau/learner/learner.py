"""``Learner``: the one face of flambeau. It has the verbs; ``fitting`` has what they do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flambeau.artefact.export import export as write_export
from flambeau.artefact.predictor import Predictor
from flambeau.artefact.weights_file import load_model, save_model
from flambeau.data.data import Data
from flambeau.data.loader import loader_world_size
from flambeau.distributed.processes import run_on_main
from flambeau.domain import domain_of
from flambeau.errors import InputError
from flambeau.learner import fitting
from flambeau.learner.build import BuiltPlan, Given, check_given
from flambeau.learner.planning import (
    auto_of_checkpoint,
    check_arguments,
    make_plan,
    options_of,
    plan_of_checkpoint,
    with_options,
)
from flambeau.learner.run_folder import agree_on_checkpoint
from flambeau.learner.setup import Request, Setup
from flambeau.phases import recipes
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.plan import Plan
from flambeau.task.task import StepContext, Task
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.optim.groups import parameter_groups, trainable_groups
from flambeau.training.options import TrainingOptions
from flambeau.training.run import Run
from flambeau.training.run_state.resume import check_tree, read_phases
from flambeau.training.state import Position

if TYPE_CHECKING:
    from flambeau.doctor import Diagnosis
    from flambeau.inspect import Summary
    from flambeau.report.interpretation import Interpretation
    from flambeau.tuning.auto_run import Clock
    from flambeau.tuning.lr_result import LearningRate
    from flambeau.tuning.upcoming import Recipe


class Learner:
    """Trains, evaluates, predicts and exports a model on data of any domain.

    What is not given is decided by the plan: ``print(learner.plan)`` shows every choice, why it
    was made and how to change it.

    Args:
        data: Every data choice, from a domain's data class or ``TensorData.from_tensors`` and kin.
        model: None (the plan chooses), the name of an architecture, or any ``nn.Module``.
        task: Loss, metrics and decoding; None takes the one that the targets ask for.
        choices: Values of the plan that you fix, by key: ``{"batch_size": 64}``.
        plan: A plan (or the path of a saved one) to replay exactly.
        training: Where training itself is changed: step, optimizer, averaging, clipping …
        callbacks: Observers, in this order, besides progress and checkpoints; they hear events.
        seed: Key of every random draw.
        folder: The run's folder for history and checkpoints. None writes nothing unless the run
            is long or interrupted; then a folder is made under ``runs/``.
        quiet: No progress on the terminal.

    Example:
        >>> import torch
        >>> from flambeau import Data, Learner
        >>> x = torch.randn(200, 5)
        >>> learner = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True)
        >>> history = learner.fit(3)
        >>> len(learner.predict(x[:4]))
        4
    """

    def __init__(
        self,
        data: Data,
        model: nn.Module | str | None = None,
        *,
        task: Task | None = None,
        choices: Mapping[str, Any] | None = None,
        plan: Plan | str | Path | None = None,
        training: TrainingOptions | None = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        folder: str | Path | None = None,
        quiet: bool = False,
    ) -> None:
        check_arguments(data, seed, callbacks, choices, plan)
        check_given(model, task)
        self.data = data
        self.domain = domain_of(data)
        self.training = training or TrainingOptions()
        self.callbacks = tuple(callbacks)
        self.seed = seed
        self.quiet = quiet
        self.history = History()
        self._folder = Path(folder) if folder is not None else None
        self._given = Given(model if isinstance(model, nn.Module) else None, task)
        self._position = Position()
        self._built: BuiltPlan | None = None
        choices = with_options(choices or {}, self.training)
        self._asked = frozenset(choices)
        self._examined = not self.training.doctor
        self._use(make_plan(data, self.domain, model, self._given, choices, plan, self.training))

    def _use(self, plan: Plan) -> None:
        """Make a plan the learner's; nothing else assigns it."""
        self._plan = plan

    # The objects, built on first use

    @property
    def plan(self) -> Plan:
        """Every choice with its reason; ``print`` shows it as a table."""
        return self._plan

    @property
    def built(self) -> BuiltPlan:
        """Preprocessor, model, task and loaders that the plan names; built on first use."""
        return self._build(self.plan)

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""
        return self.built.model

    @property
    def task(self) -> Task:
        """Loss, metrics and decoding."""
        return self.built.task

    def _build(self, plan: Plan) -> BuiltPlan:
        if self._built is None:
            self._built = BuiltPlan(self.data, self.domain, plan, self._given, self.seed)
        return self._built

    # Training

    def fit(
        self,
        epochs: int | None = None,
        *,
        lr: float | None = None,
        schedule: str | None = None,
        schedules: Mapping[str, Schedule] | None = None,
    ) -> History:
        """Trains with one phase; what is None comes from the plan.

        Args:
            epochs: Passes over the train set.
            lr: Peak learning rate.
            schedule: A name in ``flambeau.phases.SHAPES``.
            schedules: Of other values by name: "weight_decay", "momentum", the task's own.

        Returns:
            The learner's history: a row an epoch and the loss of every step.
        """
        return self._train(
            lambda values: recipes.plain(values, trainable=self._trainable, schedules=schedules),
            epochs=epochs,
            lr=lr,
            schedule=schedule,
        )

    def fit_auto(
        self, minutes: float | None = None, *, clock: Clock = time.perf_counter
    ) -> History:
        """Trains as long as it helps, within a time budget; chooses recipe, epochs, schedule.

        Steps and an evaluation are timed first. The rate warms up, is held while the valid score
        improves beyond its noise and time allows, and falls to zero; the stretch that is best on
        valid is kept. The plan records the run, so that ``Learner(data, plan=saved).fit_auto()``
        repeats it bit for bit. Ctrl-C leaves the best weights; ``resume`` goes on.

        Args:
            minutes: The budget for all of it, preparing the data included. None repeats what the
                plan records, or takes 3.
            clock: Gives seconds from any starting point; what the budget is measured with.
        """
        from flambeau.tuning.auto_start import nominal_phases, start_auto

        auto = start_auto(minutes, self.plan, clock)
        auto.first_row = len(self.history.rows)
        return self._fit(Request(nominal_phases, auto=auto))

    def fit_one_cycle(
        self, epochs: int | None = None, *, lr: float | None = None, momentum: bool = False
    ) -> History:
        """``fit`` with the one-cycle schedule; ``momentum`` falls while the rate rises."""
        cycle = {"momentum": recipes.momentum_cycle()} if momentum else None
        return self.fit(epochs, lr=lr, schedule="one_cycle", schedules=cycle)

    def fit_flat_cos(self, epochs: int | None = None, *, lr: float | None = None) -> History:
        """``fit`` at one rate for three quarters of the run, then falling as a cosine does."""
        return self.fit(epochs, lr=lr, schedule="flat_cos")

    def fit_sgdr(
        self, cycles: int = 3, *, epochs: int = 1, lr: float | None = None, cycle_mult: int = 2
    ) -> History:
        """Warm restarts: the first cycle is ``epochs`` long; see ``plan.recipes.sgdr``."""
        options: Any = {"cycles": cycles, "cycle_mult": cycle_mult, "trainable": self._trainable}
        return self._train(lambda v: recipes.sgdr({**v, "epochs": epochs}, **options), lr=lr)

    def fine_tune(
        self,
        epochs: int | None = None,
        *,
        lr: float | None = None,
        freeze_epochs: int = 1,
        layer_decay: float | None = None,
    ) -> History:
        """Trains the head alone, then everything, earlier groups more slowly.

        The second phase runs at half the rate, falling geometrically to a hundredth of it from
        head to stem, or by ``layer_decay`` a group; see ``plan.recipes.fine_tune``.
        """
        groups = list(parameter_groups(self.model))
        options: Any = {"freeze_epochs": freeze_epochs, "layer_decay": layer_decay}
        return self._train(
            lambda values: recipes.fine_tune(values, groups, **options), epochs=epochs, lr=lr
        )

    def gradual_unfreeze(
        self, epochs: int | None = None, *, lr: float | None = None, epochs_per_group: int = 1
    ) -> History:
        """The head, then one group more at a time; see ``plan.recipes.gradual_unfreezing``."""
        groups = list(parameter_groups(self.model))
        return self._train(
            lambda values: recipes.gradual_unfreezing(
                values, groups, epochs_per_group=epochs_per_group
            ),
            epochs=epochs,
            lr=lr,
        )

    def fit_phases(self, phases: Sequence[Phase]) -> History:
        """Train with your own list of phases, as ``flambeau.phases.recipes`` makes them."""
        return self._fit(Request(lambda values: tuple(phases), finds_lr=False))

    def resume(self, path: str | Path | None = None) -> History:
        """Continue an interrupted run with the same steps that it would have made.

        Args:
            path: A checkpoint, or the folder of a run; None takes the learner's own folder. Of a
                folder it is the newest whole checkpoint; damaged ones are a FlambeauWarning.

        Raises:
            ResumeError: The checkpoint belongs to another model, other data or another plan.
            ArtefactError: It is damaged, or every one in the folder is.
        """
        folder, checkpoint, tree = agree_on_checkpoint(path or self._folder)
        tree = check_tree(tree, checkpoint)
        plan = plan_of_checkpoint(
            tree,
            self.plan,
            self.domain,
            self.data,
            checkpoint,
            asked=self._asked,
            is_built=self._built is not None,
            training=self.training,
        )
        setup = replace(
            self._setup(), plan=plan, position=Position(), folder=self._folder or folder
        )
        auto = auto_of_checkpoint(tree)
        self._use(fitting.resume(setup, read_phases(tree, checkpoint), tree, auto, self._started))
        return self.history

    def lr_find(self, *, most_steps: int = 240) -> LearningRate:
        """Measure a peak learning rate on real steps; afterwards everything is as before.

        ``print`` shows it with its interval and cost, ``.plot()`` draws it; ``value`` is None
        where there is no answer, and ``reason`` says why.

        Args:
            most_steps: Bound on the optimizer steps it may take.
        """
        from flambeau.tuning.lr_finder import Start, find

        values = self.plan.values
        [phase] = recipes.plain(values, trainable=self._trainable)
        components = self.built.components(values)
        options = options_of(self.training, values)
        return find(Start(components, options, phase, self._position), most_steps)

    @property
    def _trainable(self) -> tuple[str, ...] | None:
        """The groups that the plan trains; None for all."""
        return trainable_groups(self.plan["trainable"].value, self.model)

    def _train(self, recipe: Recipe, **asked: Any) -> History:
        """Train with the recipe's phases; values that are None stay the plan's."""
        choices = {key: value for key, value in asked.items() if value is not None}
        return self._fit(Request(recipe, choices))

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
            seed=self.seed,
            quiet=self.quiet,
            folder=self._folder,
            fingerprint=self._fingerprint,
            examines=not self._examined,
        )

    @cached_property
    def _fingerprint(self) -> Mapping[str, Any]:
        return self.data.fingerprint()

    def _started(self, plan: Plan, run: Run) -> None:
        """Take over plan and position of a run before its first step: it may be interrupted."""
        self._use(plan)
        self._position = run.state.position
        self._examined = True

    # Which groups learn

    def freeze(self) -> None:
        """Only the head learns from the next fit on."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Every group learns from the next fit on."""
        self._use(self.plan.override("trainable", "all"))

    def freeze_to(self, first: int) -> None:
        """The groups from ``first`` on learn; negative numbers count from the head."""
        names = tuple(parameter_groups(self.model))
        if not names[first:]:
            raise InputError(
                f"freeze_to({first}) leaves nothing to train: the groups are {', '.join(names)}."
            )
        self._use(self.plan.override("trainable", list(names[first:])))

    # Answers

    def evaluate(self, part: str = "valid") -> dict[str, float]:
        """Loss and metrics on "train", "valid" or "test", in fp32 as an export would give them."""
        self._require(part)
        model, loader = self.model.eval(), self.built.evaluation_loader(part)
        context = StepContext(
            training=False,
            values=dict(self.task.values),
            seed=self.seed,
            sharded=loader_world_size(loader) > 1,
        )
        with torch.no_grad():
            return self.task.evaluate(model, self.built.batches(part, loader), context)

    def _require(self, part: str) -> None:
        if len(self.data.split.part(part)) == 0:
            raise InputError(
                f"The data have no {part} samples. Give a share or samples for it: {part}=0.2."
            )

    def interpret(self, part: str = "valid") -> Interpretation:
        """What the model answers on a part, where it errs and how sure that is; in fp32.

        ``print`` shows scores with intervals; ``.report("report.html")`` writes curves, mistakes
        with their pictures, calibration, data and plan to one page.

        Args:
            part: "train", "valid" or "test".
        """
        from flambeau.report.interpretation import ReportDetails, interpret

        self._require(part)
        context = StepContext(training=False, values=dict(self.task.values), seed=self.seed)
        details = ReportDetails(
            title=f"{self.plan.values['architecture']} on {self.domain.name} data",
            data=self.data,
            plan=self.plan,
            history=self.history,
            dataset=self.built.dataset,
            notes={"device": str(self.built.device), "seed": str(self.seed)},
        )
        return interpret(
            self.model,
            self.task,
            lambda: self.built.batches(part),
            part=part,
            context=context,
            details=details,
        )

    def predictor(self) -> Predictor:
        """What ``export`` would give, on this learner's model."""
        built = self.built
        return Predictor(
            built.preprocessor,
            built.model,
            built.task,
            device=built.device,
            batch_size=self.plan.values["batch_size"],
        )

    def predict(self, items: Any) -> Any:
        """The answer for one raw item, or a list of answers for many."""
        return self.predictor().predict(items)

    def summary(self) -> Summary:
        """Layers with shapes, parameters and what is trainable, from one real batch."""
        from flambeau.inspect import summary

        part = "valid" if len(self.data.split.valid) else "train"
        inputs = next(self.built.batches(part)).inputs
        return summary(self.model, inputs, bn=self.plan["bn"])

    def doctor(self, *, full: bool = False) -> Diagnosis:
        """What very likely is not as it was meant; costs one batch, and changes nothing.

        Args:
            full: Also look for near duplicates, and whether a copy of the model learns a few
                samples by heart: seconds to minutes.
        """
        from flambeau.doctor import checks_for, diagnose
        from flambeau.learner.examine import training_setup

        return diagnose(
            training_setup(self._setup(), self.plan), checks_for(self.domain.checks), full=full
        )

    # What lasts

    def save(self, path: str | Path) -> Path:
        """Writes the weights alone to one safetensors file; returns its path."""
        return run_on_main(lambda: save_model(self.model, path))

    def load(self, path: str | Path) -> None:
        """Takes the weights of such a file, or of an export's folder, into the model.

        Raises:
            ArtefactError: The file is missing or damaged, or belongs to another model.
        """
        load_model(self.model, path)

    def export(self, folder: str | Path) -> Path:
        """Writes weights and JSON from which ``Predictor.load`` predicts, without any pickle."""
        built = self.built
        return run_on_main(
            lambda: write_export(
                folder,
                domain=self.domain.name,
                model=built.model,
                model_spec=built.model_spec,
                task=built.task,
                preprocessor=built.preprocessor,
                plan=self.plan.to_json(),
            )
        )
