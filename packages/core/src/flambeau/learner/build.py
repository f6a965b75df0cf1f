"""``BuiltPlan``: the preprocessor, model, task and loaders that a plan specifies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flambeau.callbacks import ProgressBar
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.facts import class_totals
from flambeau.data.loader import Dataset, Loader, LoaderOptions, NonEmptyBatches, loader_world_size
from flambeau.data.preprocess import Preprocessor
from flambeau.data.user_dataset import UserLoaderDataset
from flambeau.distributed import processes
from flambeau.distributed.processes import ProcessGroup
from flambeau.domain import Domain
from flambeau.errors import ArgumentError, FlambeauWarning, InputError, PlanError, did_you_mean
from flambeau.global_rng import TemporarySeed
from flambeau.plan import Plan
from flambeau.task.named_losses import loss_arguments
from flambeau.task.task import Task
from flambeau.task.task_module import move_task
from flambeau.training.compile import compile_model, undo
from flambeau.training.components import Components
from flambeau.training.freeze import has_running_statistics
from flambeau.wording import describe_values

if TYPE_CHECKING:
    from flambeau.artefact.predictor import Predictor
    from flambeau.artefact.weights_meaning import Meaning
    from flambeau.learner.start import StartingPoint


@dataclass(frozen=True)
class UserObjects:
    """The model and task that the user passed as objects rather than as values of the plan."""

    model: nn.Module | None = None
    task: Task | None = None


def unwrapped(
    model: nn.Module | str | None, choices: Mapping[str, Any]
) -> tuple[nn.Module | str | None, Mapping[str, Any]]:
    """Return the model without wrappers, and the choices.

    For a model that ``torch.compile`` compiled, the choice ``compile="whole"`` is added.

    Args:
        model: The learner's argument ``model``.
        choices: The learner's argument ``choices``.
    """
    if not isinstance(model, nn.Module):
        return model, choices
    from flambeau.learner.wrapped_model import unwrapped_model

    inner, was_compiled = unwrapped_model(model)
    return inner, {"compile": "whole", **choices} if was_compiled else choices


def model_facts(model: nn.Module) -> dict[str, Any]:
    """Return the facts about the user's module that rules read.

    ``model_given``, and ``model_dtype`` if all its floating-point parameters have the same dtype.
    """
    dtypes = {value.dtype for value in model.parameters() if value.is_floating_point()}
    facts: dict[str, Any] = {"model_given": True}
    if len(dtypes) == 1:
        facts["model_dtype"] = str(dtypes.pop()).removeprefix("torch.")
    return facts


def task_facts(task: Task) -> dict[str, Any]:
    """Return the facts about the user's task: the name of its loss and of its metrics."""
    return {"loss": task.loss_name or "of the task", "metrics": list(task.metrics())}


def builder_of(model: nn.Module, domain: Domain) -> str | None:
    """Return the name of the builder that rebuilds a module of the user; None without one.

    A module of a domain that is not built by the plan (a pretrained model of another library) has
    an attribute ``builder``, the name under which its domain registers the builder, and a method
    ``arguments()``, which returns the JSON arguments.
    """
    name = getattr(model, "builder", None)
    known = isinstance(name, str) and name in domain.models
    return name if known and callable(getattr(model, "arguments", None)) else None


def require_part(data: Data, part: str) -> None:
    """Raise an InputError if a part of the data has no samples."""
    if len(data.split.part(part)) == 0:
        raise InputError(
            f"The data have no {part} samples. Set a share when you build the data: {part}=0.2; or "
            f"give {part} samples of their own (data sets and loaders have no shares)."
        )


def require_builder(
    key: str, values: Mapping[str, Any], builders: Mapping[str, Any], domain: Domain
) -> None:
    """Check that the domain has a builder for the plan's value of ``key``.

    Raises:
        PlanError: The domain has no such builder; the message names those that it has.
    """
    name = values[key]
    if name not in builders:
        word = "model" if key == "architecture" else key
        raise PlanError(
            f"The plan's {key} is {name!r}, which the domain {domain.name!r} does not have. "
            f"{did_you_mean(str(name), builders)} Pass a custom one as an object: "
            f"Learner(data, {word}=…)."
        )


def _starting_point(values: Mapping[str, Any], domain: Domain) -> StartingPoint | None:
    if values.get("start") is None:
        return None
    from flambeau.learner.start import StartingPoint

    return StartingPoint.of_plan(values["start"], domain)


class BuiltPlan:
    """The objects that a plan specifies. Data sets and loaders are created on first use.

    Args:
        data: The data.
        domain: Has the builders of model, task and preprocessor.
        plan: The plan.
        given: Model and task that the user passed as objects.
        seed: Seed of initial weights and sample order.
        shared: Objects for the same data, whose preprocessor and data sets are used.

    Attributes:
        domain: The domain whose builders are used.
        values: The plan's values by key.
        preprocessor: The preprocessor, fitted on the train part.
        task: The task, which defines loss, metrics and decoding of predictions.
        model: The model, on ``device``.
        device: The device on which the model runs.
    """

    def __init__(
        self,
        data: Data,
        domain: Domain,
        plan: Plan,
        given: UserObjects,
        seed: int,
        shared: BuiltPlan | None = None,
    ) -> None:
        self.data = data
        self.domain = domain
        self.values: Mapping[str, Any] = dict(plan.values)
        self.seed = seed
        self.device = torch.device(self.values["device"])
        self._start = _starting_point(self.values, domain)
        # The model is new where the data were only read like the export's.
        weights = self._start if self._start and self.values["start"]["model"] else None
        self.preprocessor: Preprocessor = (
            shared.preprocessor if shared else self._fitted_preprocessor()
        )
        self.task: Task = given.task or self._planned_task(plan)
        self.model_spec: dict[str, Any] | None = None
        if given.model is None:
            arguments = dict(data.model_arguments(self.preprocessor, self.values))
            if weights is not None and "weights" in arguments:
                arguments["weights"] = None  # the export's replace them
            self.model_spec = {"builder": self.values["architecture"], "arguments": arguments}
            model: nn.Module = self._seeded_model(arguments)
        else:
            model = given.model
            builder = builder_of(model, domain)
            if builder is not None:
                described: Any = model  # the method is checked
                self.model_spec = {"builder": builder, "arguments": dict(described.arguments())}
        if weights is not None:
            weights.load_weights(model, self.values["start"]["head"])
            if self.values["start"]["head"] == "kept" and not self.task.calibration:
                self.task.calibration = weights.calibration(self.task.builder)
        self._base = None if weights is None else weights.folder
        layout = getattr(torch, self.values.get("memory_format", "contiguous_format"))
        # channels_last changes the strides of 4-d weights only.
        self.model: nn.Module = model.to(self.device).to(memory_format=layout)
        move_task(self.task, self.device)
        self._compiled = compile_model(self.model, self.values.get("compile", "off"))
        self._datasets: dict[str, Dataset] = shared._datasets if shared else {}
        self._loaders: dict[tuple[str, bool, ProcessGroup | None], Loader] = {}

    def _fitted_preprocessor(self) -> Preprocessor:
        return self._start.preprocessor if self._start else self.data.preprocessor(self.values)

    def apply(self, values: Mapping[str, Any]) -> None:
        """Apply a plan's batch size, memory format and compile mode to the existing objects."""
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

    @property
    def meaning(self) -> Meaning:
        """Preprocessor, task and domain, which define what the model's inputs and outputs mean."""
        from flambeau.artefact.weights_meaning import Meaning

        return Meaning(self.preprocessor, self.task, self.domain)

    def set_calibration(self, values: Mapping[str, Any], *, quiet: bool) -> None:
        """Set the calibration after a change of weights; print a line if one is only removed."""
        before, self.task.calibration = self.task.calibration, values
        if before and not values and not quiet:
            ProgressBar.write_line(
                f"The weights change, so the calibration ({describe_values(before)}) is "
                "removed. To fit a new one afterwards: learner.calibrate()."
            )

    def predictor(self) -> Predictor:
        """Return a predictor that predicts the same as one from an export of the model."""
        from flambeau.artefact.predictor import Predictor

        model, task = self.model, self.task
        return Predictor(self.preprocessor, model, task, device=self.device)

    def export(self, folder: str | Path, plan: Plan, *, difference: bool) -> Path:
        """Write an export folder for ``Predictor.load``; see ``Learner.export``."""
        from flambeau.artefact.export import export
        from flambeau.artefact.read_like import reading_notes

        base = self._base if difference else None
        if difference and base is None:
            raise ArgumentError(
                "export(difference=True) writes only weights that differ from those of an export, "
                "but this learner did not start from one. Use Learner(data, start=…), or omit "
                "difference=True."
            )
        return export(
            folder,
            domain=self.domain,
            model=self.model,
            model_spec=self.model_spec,
            task=self.task,
            preprocessor=self.preprocessor,
            plan=plan.to_json(),
            notes=reading_notes(self.data.reading_options),
            base=base,
        )

    def print_missing_parts(self, folder: Path) -> None:
        """Print which objects ``Predictor.load`` needs in addition to the export in ``folder``."""
        from flambeau.artefact.export_format import ExportRecord

        record = ExportRecord.read(folder)
        for spec in (record.model, record.task):
            if spec.builder is None:
                ProgressBar.write_line(f"The export {folder} is not complete. {spec.note}")

    def _planned_task(self, plan: Plan) -> Task:
        """Return the plan's task, with the loss and the metrics that the user chose."""
        arguments = dict(self.data.task_arguments(self.preprocessor, self.values))
        if self._start is not None:
            arguments = self._start.task_arguments(arguments, self.values["start"]["head"])
        if "metrics" in arguments:
            arguments["metrics"] = self._with_metric_objects(arguments["metrics"])
        task: Task = self._build("task", self.domain.tasks, arguments)
        made = dict(task.arguments())
        made["metrics"] = list(made.get("metrics", ()))
        wanted = {
            "loss": loss_arguments(self.values, class_totals(self.data.facts())),
            "metrics": {"metrics": self.values.get("metrics")},
        }
        for key, expected in wanted.items():
            is_users = key in plan and plan[key].source == "user"
            if is_users and any(made.get(name) != value for name, value in expected.items()):
                raise PlanError(
                    f"{key} is {self.values[key]!r}, but the task {self.values['task']!r} of the "
                    f"domain {self.domain.name!r} does not use it. Pass a task that does: "
                    "Learner(data, task=…)."
                )
        return task

    def _with_metric_objects(self, names: Any) -> Any:
        """Return the plan's metrics: objects for the domain's metrics, names for core's.

        Raises:
            PlanError: A metric of the domain needs arguments.
        """
        own = self.domain.metrics
        if not any(name in own for name in names):
            return names
        found: dict[str, Any] = {}
        for name in names:
            try:
                found[name] = own[name]() if name in own else name
            except TypeError as error:
                raise PlanError(
                    f"The metric {name!r} of the domain {self.domain.name!r} cannot be created by "
                    f"its name: {error}. Pass an object to the task: metrics={{{name!r}: …}}."
                ) from error
        return found

    def _seeded_model(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Return a model whose initial weights depend only on the seed; restore random state."""
        with TemporarySeed().at(self.seed):
            return self._build("architecture", self.domain.models, arguments)

    def _build(
        self, key: str, builders: Mapping[str, Callable[..., Any]], arguments: Mapping[str, Any]
    ) -> Any:
        require_builder(key, self.values, builders, self.domain)
        return builders[self.values[key]](**arguments)

    def dataset(self, part: str) -> Dataset:
        """Return the data set of "train", "valid", "test" or "calibration"."""
        if part not in self._datasets:
            from flambeau.learner.part_checks import check_part

            found = self.data.dataset(part, self.preprocessor, self.values)
            check_part(self.task, part, found)
            self._datasets[part] = found
        return self._datasets[part]

    def loader(self, part: str, *, shared: bool = False, ordered: bool = False) -> Loader:
        """Return the loader of ``part``; only the train loader shuffles.

        Args:
            part: "train", "valid", "test" or "calibration".
            shared: Whether the loader yields only this process's share of each batch in a run of
                several processes.
            ordered: Whether the train part, too, is read completely and in order, for evaluation
                rather than training. A user-defined loader is returned unchanged.
        """
        group = processes.current() if shared else None
        train = part == "train" and not ordered
        key = part, train, group
        if key not in self._loaders:
            options = self._loader_options(train=train, group=group)
            self._loaders[key] = self.dataset(part).loader(options)
            if train:
                self._warn_of_single_last(self._loaders[key])
        return self._loaders[key]

    def _loader_options(self, *, train: bool, group: ProcessGroup | None = None) -> LoaderOptions:
        size = self.values["batch_size"]
        return LoaderOptions(
            batch_size=size,
            shuffle=train,
            drop_last=train and self._single_last(size),
            seed=self.seed,
            num_workers=self._workers(),
            device=self.device,
            keep_on_device=self._keeps_on_device(),
            rank=group.rank if group else 0,
            world_size=group.world_size if group else 1,
        )

    def changed_loader(self, changes: Mapping[str, Any]) -> Loader:
        """Return a new train loader of one process with changed ``LoaderOptions``, to try them."""
        options = replace(self._loader_options(train=True), **changes)
        return self.dataset("train").loader(options)

    def evaluation_loader(self, part: str) -> Loader:
        """Return the loader of the samples that this process evaluates.

        Each process gets a share of the samples, and ``Task.evaluate`` combines the results. If a
        task overrides ``evaluate``, every process gets all samples.
        """
        adds_up = type(self.task).evaluate is Task.evaluate
        loader = self.loader(part, shared=adds_up, ordered=True)
        return NonEmptyBatches(loader) if loader_world_size(loader) > 1 else loader

    def batches(self, part: str, loader: Loader | None = None) -> Iterator[Batch]:
        """Yield the batches of a part as model inputs: in order, on the device, normalised.

        Args:
            part: "train", "valid", "test" or "calibration".
            loader: Yields the raw batches; None reads every sample of the part.
        """
        source = loader or self.loader(part, ordered=True)
        return (self.preprocessor.on_device(b.to(self.device)) for b in source.batches(0))

    def _warn_of_single_last(self, loader: Loader) -> None:
        """Warn if the last batch of a user-defined loader has one sample: batch norm would fail."""
        dataset = self.dataset("train")
        if not isinstance(dataset, UserLoaderDataset) or not self._keeps_statistics():
            return
        n, size = len(dataset), self.values["batch_size"]
        if n > size and n % size == 1 and loader.steps_per_epoch == n // size + 1:
            warnings.warn(
                f"[last-batch-of-one] The train loader's last batch has 1 of its {n} samples, but "
                "batch norm needs at least 2. Build the loader with drop_last=True.",
                FlambeauWarning,
                stacklevel=2,
            )

    def _keeps_statistics(self) -> bool:
        return any(map(has_running_statistics, self.model.modules()))

    def _keeps_on_device(self) -> bool | None:
        """Whether data in memory are kept on the model's device; None if the plan does not say."""
        device = self.values.get("data_device")
        return None if device is None else device != "cpu"

    def _workers(self) -> int:
        """Number of loader workers of this process: its share of the plan's ``num_workers``."""
        planned: int = self.values.get("num_workers", 0)
        group = processes.current()
        return planned if group is None else -(-planned // group.local_world_size)

    def _single_last(self, batch_size: int) -> bool:
        """Whether a process's last batch could have one sample, on which batch norm fails."""
        n = len(self.dataset("train"))
        group = processes.current()
        return (
            n > batch_size
            and 0 < n % batch_size < 2 * (group.world_size if group else 1)
            and self._keeps_statistics()
        )

    def sample_batch(self, n: int) -> Batch:
        """Return a batch of ``n`` train samples; the loader of the run does not advance."""
        options = LoaderOptions(
            batch_size=n,
            shuffle=True,
            seed=self.seed,
            device=self.device,
            keep_on_device=False,
        )
        return next(iter(self.dataset("train").loader(options).batches(0)))

    def components(self, values: Mapping[str, Any] | None = None) -> Components:
        """Return the components from which a run is built, with the values of a plan.

        Args:
            values: Values of the plan as it is now (a fit may have changed the learning rate); None
                keeps the values that were applied last.
        """
        if values is not None:
            self.apply(values)
        if len(self.data.split.valid):
            from flambeau.learner.part_checks import check_valid_weights

            check_valid_weights(self.task, self.dataset("valid"))
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
