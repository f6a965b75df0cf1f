"""From a plan to the things it names: preprocessor, model, task, loaders."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import Dataset, Loader, LoaderOptions, NonEmptyBatches, loader_world_size
from flambeau.data.preprocess import Preprocessor
from flambeau.data.user_loader import UserLoaderDataset
from flambeau.distributed import processes
from flambeau.distributed.processes import ProcessGroup
from flambeau.domain import Domain
from flambeau.errors import ArgumentError, FlambeauWarning, InputError, PlanError, did_you_mean
from flambeau.global_rng import TemporarySeed
from flambeau.plan import Plan
from flambeau.task.named_losses import loss_arguments
from flambeau.task.task import Task
from flambeau.training.compile import compile_model, undo
from flambeau.training.components import Components
from flambeau.training.freeze import has_running_statistics


@dataclass(frozen=True)
class Given:
    """What the user passed as objects rather than as values of the plan."""

    model: nn.Module | None = None
    task: Task | None = None


def check_given(model: object, task: object) -> None:
    """Refuses what is no model and no task, with what to write instead.

    Raises:
        ArgumentError: A class, a function, a name where an object is needed.
        InputError: A module without memory or with parameters of unknown shape.
    """
    if not (model is None or isinstance(model, nn.Module | str)):
        hint = f"Make one: {model.__name__}(…)." if isinstance(model, type) else ""
        raise ArgumentError(
            f"model is {model!r:.60}, but it must be an nn.Module, the name of an architecture, or "
            f"None. {hint}".rstrip()
        )
    if not (task is None or isinstance(task, Task)):
        hint = f"Make one: {task.__name__}(…)." if isinstance(task, type) else ""
        if isinstance(task, str):
            hint = f'A name is a choice: choices={{"task": {task!r}}}, or task= of the data.'
        raise ArgumentError(f"task is {task!r:.60}, but it must be a Task. {hint}".rstrip())
    if isinstance(model, nn.Module):
        _check_memory(model)


def _check_memory(model: nn.Module) -> None:
    kind = type(model).__name__
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value):
            raise InputError(
                f"{kind}'s {name!r} has no shape yet, so it cannot be trained. Call the model once "
                "on a batch before it is given to the Learner: model(inputs[:2])."
            )
        if value.is_meta:
            raise InputError(
                f"{kind}'s {name!r} is on the meta device, so it has no numbers. Make the model on "
                "a real device, or give it memory (model.to_empty(device=…)) and initialise it."
            )


def facts_of(model: nn.Module) -> dict[str, Any]:
    """What rules may know of the user's module.

    ``model_given``, and ``model_dtype`` where all its floating-point parameters have one dtype.
    """
    dtypes = {value.dtype for value in model.parameters() if value.is_floating_point()}
    facts: dict[str, Any] = {"model_given": True}
    if len(dtypes) == 1:
        facts["model_dtype"] = str(dtypes.pop()).removeprefix("torch.")
    return facts


def facts_of_task(task: Task) -> dict[str, Any]:
    """What rules may know of the user's task: its loss in words and the names of its metrics."""
    return {"loss": task.loss_name or "of the task", "metrics": list(task.metrics())}


def require_builder(
    key: str, values: Mapping[str, Any], builders: Mapping[str, Any], domain: Domain
) -> None:
    """Refuses a name in the plan that no builder of the domain has.

    Raises:
        PlanError: It gives the names there are.
    """
    name = values[key]
    if name not in builders:
        word = "model" if key == "architecture" else key
        raise PlanError(
            f"The plan's {key} is {name!r}, which the domain {domain.name!r} does not have. "
            f"{did_you_mean(str(name), builders)} One of your own is passed as an object: "
            f"Learner(data, {word}=…)."
        )


class BuiltPlan:
    """The objects that a plan names, each made once, when it is first needed.

    Attributes:
        domain: Whose builders are used.
        values: The plan's values by key.
        preprocessor: Fitted on train.
        task: Loss, metrics, decoding.
        model: On ``device``.
        device: Where the model runs.
    """

    def __init__(self, data: Data, domain: Domain, plan: Plan, given: Given, seed: int) -> None:
        self.data = data
        self.domain = domain
        self.values: Mapping[str, Any] = dict(plan.values)
        self.seed = seed
        self.device = torch.device(self.values["device"])
        self.preprocessor: Preprocessor = data.preprocessor(self.values)
        self.task: Task = given.task or self._planned_task(plan)
        self.model_spec: dict[str, Any] | None = None
        if given.model is None:
            arguments = dict(data.model_arguments(self.values))
            self.model_spec = {"builder": self.values["architecture"], "arguments": arguments}
            model: nn.Module = self._seeded_model(arguments)
        else:
            model = given.model
        layout = getattr(torch, self.values.get("memory_format", "contiguous_format"))
        # channels_last reorders 4-d weights only; any other layout leaves a module as it is.
        self.model: nn.Module = model.to(self.device).to(memory_format=layout)
        self._compiled = compile_model(self.model, self.values.get("compile", "off"))
        self._datasets: dict[str, Dataset] = {}
        self._loaders: dict[tuple[str, bool, ProcessGroup | None], Loader] = {}

    def apply(self, values: Mapping[str, Any]) -> None:
        """Apply a plan's batch size, memory format and compilation; the model stays the same."""
        before, self.values = self.values, dict(values)
        changed = {
            key
            for key in ("batch_size", "compile", "memory_format")
            if before.get(key) != values.get(key)
        }
        if "batch_size" in changed:
            self._loaders.clear()
        if "memory_format" in changed:
            layout = values["memory_format"]
            self.model.to(memory_format=getattr(torch, layout))
            arguments = dict(self.preprocessor.arguments())
            if "memory_format" in arguments:
                build = self.domain.preprocessors[self.preprocessor.builder]
                arguments["memory_format"] = layout
                self.preprocessor = build(**arguments, **self.preprocessor.tensors())
        if "compile" in changed:
            undo(self._compiled)
            self._compiled = compile_model(self.model, values["compile"])

    def _planned_task(self, plan: Plan) -> Task:
        """The task that the plan names, with the loss and the metrics that the user asked for."""
        arguments = dict(self.data.task_arguments(self.values))
        task: Task = self._build("task", self.domain.tasks, arguments)
        made = task.arguments()
        wanted = {
            "loss": loss_arguments(self.values, self.data.facts().get("class_counts")),
            "metrics": {"metrics": self.values.get("metrics")},
        }
        for key, expected in wanted.items():
            asked = key in plan and plan[key].source == "user"
            if asked and any(made.get(name) != value for name, value in expected.items()):
                raise PlanError(
                    f"{key} is {self.values[key]!r}, but the domain {self.domain.name!r} builds "
                    f"its task {self.values['task']!r} without it. Pass a task that has it: "
                    "Learner(data, task=…)."
                )
        return task

    def _seeded_model(self, arguments: Mapping[str, Any]) -> nn.Module:
        """A model whose first weights depend on the seed alone; torch's generator is put back."""
        with TemporarySeed().at(self.seed):
            return self._build("architecture", self.domain.models, arguments)

    def _build(
        self, key: str, builders: Mapping[str, Callable[..., Any]], arguments: Mapping[str, Any]
    ) -> Any:
        require_builder(key, self.values, builders, self.domain)
        return builders[self.values[key]](**arguments)

    def dataset(self, part: str) -> Dataset:
        """The samples of "train", "valid" or "test"."""
        if part not in self._datasets:
            self._datasets[part] = self.data.dataset(part, self.preprocessor, self.values)
        return self._datasets[part]

    def loader(self, part: str, *, shared: bool = False, ordered: bool = False) -> Loader:
        """Batches of ``part``; only train is shuffled.

        Args:
            part: "train", "valid" or "test".
            shared: This process's share of them, where several make the run.
            ordered: Train too in the order of its samples, every one of them: to look at it
                rather than to train on it. A loader of the user's own comes as it is.
        """
        together = processes.current() if shared else None
        train = part == "train" and not ordered
        key = part, train, together
        if key not in self._loaders:
            size = self.values["batch_size"]
            options = LoaderOptions(
                batch_size=size,
                shuffle=train,
                drop_last=train and self._single_last(size),
                seed=self.seed,
                num_workers=self._workers(),
                device=self.device,
                keep_on_device=self._keeps_on_device(),
                rank=together.rank if together else 0,
                world_size=together.world_size if together else 1,
            )
            self._loaders[key] = self.dataset(part).loader(options)
            if train:
                self._warn_of_single_last(self._loaders[key])
        return self._loaders[key]

    def evaluation_loader(self, part: str) -> Loader:
        """What this process evaluates: its share where ``Task.evaluate`` puts the scores together.

        A task with an ``evaluate`` of its own sees all samples on every process.
        """
        adds_up = type(self.task).evaluate is Task.evaluate
        loader = self.loader(part, shared=adds_up, ordered=True)
        return NonEmptyBatches(loader) if loader_world_size(loader) > 1 else loader

    def batches(self, part: str, loader: Loader | None = None) -> Iterator[Batch]:
        """The batches of a part as the model sees them: in order, on its device, normalised.

        Args:
            part: "train", "valid" or "test".
            loader: Where they come from; None reads every sample of the part.
        """
        source = loader or self.loader(part, ordered=True)
        return (self.preprocessor.on_device(b.to(self.device)) for b in source.batches(0))

    def _warn_of_single_last(self, loader: Loader) -> None:
        """A loader of the user's own is left as it is, but its last batch may end the run."""
        dataset = self.dataset("train")
        if not isinstance(dataset, UserLoaderDataset) or not self._keeps_statistics():
            return
        n, size = len(dataset), self.values["batch_size"]
        if n > size and n % size == 1 and loader.steps_per_epoch == n // size + 1:
            warnings.warn(
                f"[last-batch-of-one] The train loader's last batch has 1 of its {n} samples, from "
                "which batch norm can take no statistics. Build it with drop_last=True.",
                FlambeauWarning,
                stacklevel=2,
            )

    def _keeps_statistics(self) -> bool:
        return any(map(has_running_statistics, self.model.modules()))

    def _keeps_on_device(self) -> bool | None:
        """Whether data in memory live where the model runs; None where no plan says so."""
        place = self.values.get("data_device")
        return None if place is None else place != "cpu"

    def _workers(self) -> int:
        """Worker processes of this process: those of the machine are shared."""
        planned: int = self.values.get("num_workers", 0)
        together = processes.current()
        return planned if together is None else -(-planned // together.local_world_size)

    def _single_last(self, batch_size: int) -> bool:
        """Whether a process's last batch is one sample: batch norm takes no statistics from it."""
        n = len(self.dataset("train"))
        together = processes.current()
        return (
            n > batch_size
            and 0 < n % batch_size < 2 * (together.world_size if together else 1)
            and self._keeps_statistics()
        )

    def sample_batch(self, n: int) -> Batch:
        """Return ``n`` train samples, from a loader of their own: the run's does not move."""
        options = LoaderOptions(
            batch_size=n,
            shuffle=True,
            seed=self.seed,
            device=self.device,
            keep_on_device=False,
        )
        return next(iter(self.dataset("train").loader(options).batches(0)))

    def components(self, values: Mapping[str, Any] | None = None) -> Components:
        """Return what a run is built from, with the values of a plan.

        Args:
            values: Of the plan as it is now (a fit may have changed the learning rate); None
                keeps those that were applied last.
        """
        if values is not None:
            self.apply(values)
        return Components(
            model=self.model,
            task=self.task,
            train=self.loader("train", shared=True),
            valid=self.evaluation_loader("valid") if len(self.data.split.valid) else None,
            augment=tuple(self.data.transforms(self.values)),
            on_device=self.preprocessor.on_device,
            device=self.device,
            seed=self.seed,
            values=self.values,
        )
