"""``Learner``: the one face of flambeau. It holds parts and verbs; the loop is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flambeau import domain as domains
from flambeau.artefact.export import export as write_export
from flambeau.artefact.predictor import Predictor
from flambeau.artefact.weights import load_model, save_model
from flambeau.callbacks import ProgressBar
from flambeau.callbacks.standard import with_standard
from flambeau.data.data import Data
from flambeau.data.loader import shares_with
from flambeau.device import num_threads
from flambeau.distributed.processes import on_main
from flambeau.doctor import Report, Subject, checks_for, course_of, diagnose, warn_before_fit
from flambeau.errors import ArgumentError, ArtefactError, InputError, PlanError, ResumeError
from flambeau.learner.agreement import agree_on_checkpoint, agree_on_folder, make_run
from flambeau.learner.build import Given, Realised, check_given
from flambeau.learner.planning import (
    check_arguments,
    continued_plan,
    make_plan,
    options_of,
    taken_up,
    with_options,
)
from flambeau.learner.verbs import RecipeVerbs
from flambeau.phases import recipes
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.plan import Plan
from flambeau.plan.accepted_values import check_values
from flambeau.plan.rules_machine import TO_MEASURE
from flambeau.task.task import StepContext, Task
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.loop import fit as run_fit
from flambeau.training.optim.groups import groups_that_learn
from flambeau.training.optim.optimizer import parameter_groups
from flambeau.training.options import TrainingOptions
from flambeau.training.run import Run, RunSettings
from flambeau.training.run_state.restore import check_tree, phases_of, restore_whole
from flambeau.training.state import Position
from flambeau.tuning.bn_decision import settle
from flambeau.tuning.lr_choice import is_open, measured

if TYPE_CHECKING:
    from flambeau.inside import Summary
    from flambeau.report.interpretation import Interpretation
    from flambeau.tuning.auto_run import AutoRun, Clock
    from flambeau.tuning.lr_finder import Start
    from flambeau.tuning.lr_result import LearningRate


class Learner(RecipeVerbs):
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
        self.domain = domains.of(data)
        self.training = training or TrainingOptions()
        self.callbacks = tuple(callbacks)
        self.seed = seed
        self.quiet = quiet
        self.history = History()
        self._folder = Path(folder) if folder is not None else None
        self._given = Given(model if isinstance(model, nn.Module) else None, task)
        self._identity: Mapping[str, Any] | None = None
        self._position = Position()
        self._realised: Realised | None = None
        choices = with_options(choices or {}, self.training)
        self._asked = frozenset(choices)
        self._examined = not self.training.doctor
        self.plan = make_plan(data, self.domain, model, self._given, choices, plan, self._check)

    def _check(self, values: Mapping[str, Any]) -> None:
        check_values(values, leave=("optimizer",) if self.training.optimizer else ())

    # The parts, made on first use

    @property
    def realised(self) -> Realised:
        """Preprocessor, model, task and loaders that the plan names; made on first use."""
        if self._realised is None:
            self._realised = Realised(self.data, self.domain, self.plan, self._given, self.seed)
        return self._realised

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""
        return self.realised.model

    @property
    def task(self) -> Task:
        """Loss, metrics and decoding."""
        return self.realised.task

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
            lambda values: recipes.plain(values, trainable=self._learning, schedules=schedules),
            epochs=epochs,
            lr=lr,
            schedule=schedule,
        )

    def _train(self, recipe: Callable[[Mapping[str, Any]], list[Phase]], **asked: Any) -> History:
        """What was asked for becomes the plan's; where it knows no rate, a long run measures it."""
        given = {key: value for key, value in asked.items() if value is not None}
        self._check(given)
        for key, value in given.items():
            if value != self.plan[key].value:
                self.plan = self.plan.override(key, value)
        phases = recipe(self.plan.values)
        if is_open(self.plan["lr"], self.training):
            self._probe(phases)
            epochs = sum(phase.epochs for phase in phases)
            found = measured(self.plan["lr"], self._lr_start(phases[0]), epochs, self._tell)
            self.plan = self.plan.with_choice(found)
            phases = recipe(self.plan.values)
        return self.fit_phases(phases)

    def lr_find(self, *, most_steps: int = 240) -> LearningRate:
        """Measures a peak learning rate on real steps, after which everything is as before.

        ``print`` shows it with its interval and cost, ``.plot()`` a picture; ``value`` is None
        where there is no answer, and ``reason`` says why.

        Args:
            most_steps: Bound on the optimizer steps it may take.
        """
        from flambeau.tuning.lr_finder import find

        [phase] = recipes.plain(self.plan.values, trainable=self._learning)
        return find(self._lr_start(phase), most_steps)

    @property
    def _learning(self) -> tuple[str, ...] | None:
        return groups_that_learn(self.plan["trainable"].value, self.model)

    def _lr_start(self, phase: Phase) -> Start:
        from flambeau.tuning.lr_finder import Start

        values = self.plan.values
        parts = replace(self.realised.parts(), values=values)
        options = options_of(self.training, values)
        return Start(parts, options, phase, self._position, make_run)

    def _tell(self, line: str) -> None:
        if not self.quiet:
            ProgressBar.tell(line)

    def _budgeted(self, minutes: float | None, clock: Clock) -> History:
        from flambeau.learner.auto import Begun, plan_auto, start_auto

        auto = start_auto(minutes, self.plan, clock)
        at = Position(epoch=self._position.epoch, step=self._position.step)
        begun = Begun(self.realised, self.training, at, self._tell)
        self.plan = plan_auto(auto, self.plan, begun)
        auto.first_row = len(self.history.rows)
        with auto.draws(self.seed):
            return self._run(auto.phases(), at, planner=auto)

    def fit_phases(self, phases: Sequence[Phase]) -> History:
        """Trains with your own list of phases; every other verb ends here."""
        return self._run(phases, Position(epoch=self._position.epoch, step=self._position.step))

    def resume(self, path: str | Path | None = None) -> History:
        """Continues an interrupted run with the same steps it would have made.

        Args:
            path: A checkpoint, or the folder of a run; None takes the learner's own folder. Of a
                folder it is the newest whole checkpoint; damaged ones are a FlambeauWarning.

        Raises:
            ResumeError: The checkpoint belongs to another model, other data or another plan.
            ArtefactError: It is damaged, or every one in the folder is.
        """
        before = self.plan, self._folder
        try:
            return self._resume(*agree_on_checkpoint(path or self._folder))
        except (ArgumentError, ArtefactError, PlanError, ResumeError):
            self.plan, self._folder = before
            raise

    def _resume(self, folder: Path, checkpoint: Path, tree: Mapping[str, Any]) -> History:
        tree = check_tree(tree, checkpoint)
        if self._folder is None:
            self._folder = folder
        saved = Plan.from_json(tree["plan"])
        self.plan = continued_plan(
            saved.bind(domains.rules_of(self.domain), self.data.facts()),
            self.plan,
            checkpoint,
            asked=self._asked,
            is_realised=self._realised is not None,
        )
        self._check(self.plan.values)
        if tree["phases"] is None:
            raise ResumeError(
                f"{checkpoint} was written with a schedule that is a function of your own, which "
                "cannot be saved. Use a named shape of flambeau.phases.SHAPES."
            )
        return self._run(phases_of(tree, checkpoint), Position(), tree, taken_up(tree))

    def _probe(self, phases: Sequence[Phase]) -> None:
        """What the plan leaves to be measured of the machine: memory, precision, threads."""
        if self.plan["probe"].value in TO_MEASURE:
            from flambeau.tuning.measure import measured_plan

            self.plan = measured_plan(self.plan, self.realised, self.training, phases)

    def _run(
        self,
        phases: Sequence[Phase],
        position: Position,
        tree: Mapping[str, Any] | None = None,
        planner: AutoRun | None = None,
    ) -> History:
        if tree is None:
            self._probe(phases)
        values = self.plan.values
        self.realised.follow(values)
        # The folder's name is fixed now, the folder is made when something is written.
        if self._identity is None:
            self._identity = self.data.fingerprint()
        folder = agree_on_folder(self._folder, self.domain.name)
        settings = RunSettings(
            options=options_of(self.training, values),
            phases=tuple(phases),
            callbacks=with_standard(
                self.callbacks, quiet=self.quiet, writes=self._folder is not None
            ),
            plan=self._plan_as_json,
            folder=folder,
            data=self._identity,
            planner=planner,
        )
        # The optimizer starts from the plan as it is now: fit(lr=…) may have changed it.
        parts = replace(self.realised.parts(), values=values)
        parts = parts if planner is None else planner.cut(parts)
        run = make_run(parts, settings, self.history, position)
        if tree is not None:
            restore_whole(run, tree)
        with num_threads(values["num_threads"]):
            self.plan = settle(run, self.plan)
        if tree is None and not self._examined:
            on_main(lambda: warn_before_fit(self._subject(run), self.domain.checks))
        self._examined = True
        self._position = run.state.position
        with num_threads(values["num_threads"]), run.connected():
            run_fit(run)
        if planner is not None:
            self.plan = planner.recorded(self.plan, self.history, run.best.epoch)
        return self.history

    def _plan_as_json(self) -> dict[str, Any]:
        # The plan at the moment of asking: a fit may have put a decision into it.
        return self.plan.to_json()

    # Which groups learn

    def freeze(self) -> None:
        """Only the head learns from the next fit on."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Every group learns from the next fit on."""
        self.plan = self.plan.override("trainable", "all")

    def freeze_to(self, first: int) -> None:
        """The groups from ``first`` on learn; negative numbers count from the head."""
        names = tuple(parameter_groups(self.model))
        if not names[first:]:
            raise InputError(
                f"freeze_to({first}) leaves nothing to train: the groups are {', '.join(names)}."
            )
        self.plan = self.plan.override("trainable", list(names[first:]))

    # Answers

    def evaluate(self, part: str = "valid") -> dict[str, float]:
        """Loss and metrics on "train", "valid" or "test", in fp32 as an export would give them."""
        self._require(part)
        model, loader = self.model.eval(), self.realised.evaluation_loader(part)
        context = StepContext(
            training=False,
            values=dict(self.task.values),
            seed=self.seed,
            shared=shares_with(loader) > 1,
        )
        with torch.no_grad():
            return self.task.evaluate(model, self.realised.batches(part, loader), context)

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
        from flambeau.report.interpretation import Background, interpret

        self._require(part)
        context = StepContext(training=False, values=dict(self.task.values), seed=self.seed)
        background = Background(
            title=f"{self.plan.values['architecture']} on {self.domain.name} data",
            data=self.data,
            plan=self.plan,
            history=self.history,
            dataset=self.realised.dataset,
            notes={"device": str(self.realised.device), "seed": str(self.seed)},
        )
        return interpret(
            self.model,
            self.task,
            lambda: self.realised.batches(part),
            part=part,
            context=context,
            background=background,
        )

    def predictor(self) -> Predictor:
        """What ``export`` would give, on this learner's model."""
        parts = self.realised
        return Predictor(
            parts.preprocessor,
            parts.model,
            parts.task,
            device=parts.device,
            batch_size=self.plan.values["batch_size"],
        )

    def predict(self, items: Any) -> Any:
        """The answer for one raw item, or a list of answers for many."""
        return self.predictor().predict(items)

    def summary(self) -> Summary:
        """Layers with shapes, parameters and what is trainable, from one real batch."""
        from flambeau.inside import summary

        part = "valid" if len(self.data.split.valid) else "train"
        inputs = next(self.realised.batches(part)).inputs
        return summary(self.model, inputs, bn=self.plan["bn"])

    def doctor(self, *, full: bool = False) -> Report:
        """What very likely is not as it was meant; costs one batch, and changes nothing.

        Args:
            full: Also look for near duplicates, and whether a copy of the model learns a few
                samples by heart: seconds to minutes.
        """
        return diagnose(self._subject(), checks_for(self.domain.checks), full=full)

    def _subject(self, run: Run | None = None) -> Subject:
        plan, make = self.plan.values, lambda: self.realised
        phases = recipes.plain(plan, trainable=self._learning)
        tried = "lr_find" in self.plan["lr"].evidence
        course = replace(course_of(self.training, phases, run), lr_is_measured=tried)
        steps = self._position.step
        return Subject(self.data, plan, make, steps_done=steps, seed=self.seed, course=course)

    # What lasts

    def save(self, path: str | Path) -> Path:
        """Writes the weights alone to one safetensors file; returns its path."""
        return on_main(lambda: save_model(self.model, path))

    def load(self, path: str | Path) -> None:
        """Takes the weights of such a file, or of an export's folder, into the model.

        Raises:
            ArtefactError: The file is missing or damaged, or belongs to another model.
        """
        load_model(self.model, path)

    def export(self, folder: str | Path) -> Path:
        """Writes weights and JSON from which ``Predictor.load`` predicts, without any pickle."""
        parts = self.realised
        return on_main(
            lambda: write_export(
                folder,
                domain=self.domain.name,
                model=parts.model,
                model_spec=parts.model_spec,
                task=parts.task,
                preprocessor=parts.preprocessor,
                plan=self.plan.to_json(),
            )
        )
