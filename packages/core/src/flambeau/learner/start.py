"""``Start``: an export with whose preprocessor and weights a new learner begins.

``StartingPoint`` is also used for data that are read like an export (``data.like``): then the
preprocessor of the export is kept, but its weights are not loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from flambeau.artefact.difference import read_weights
from flambeau.artefact.export_format import MODEL_FILE, ExportRecord, export_folder
from flambeau.artefact.model_tensors import check_ties, describe, fits, state_tensors
from flambeau.artefact.read_like import output_names, read_record, refuse_ensemble, target_scales
from flambeau.artefact.rebuild import rebuild_preprocessor
from flambeau.artefact.task_spec import stored_calibration
from flambeau.data.data import Data
from flambeau.data.preprocess import Preprocessor
from flambeau.domain import Domain
from flambeau.errors import ArgumentError, ArtefactError, PlanError
from flambeau.plan import Choice, Plan, Rule
from flambeau.task.task import Task
from flambeau.training.optim.groups import layer_groups, parameter_groups
from flambeau.wording import describe_values, name_some

KEY = "start"
"""The plan's key; its value is None, or ``{"export", "model", "preprocessor", "head"}``.

"export" is absolute, so that a saved plan can be used from every working folder. "model" and
"preprocessor" are SHA-256 digests; "model" is None if no weights are loaded.
"""


@dataclass(frozen=True)
class Start:
    """An export to train further: its preprocessor is kept, its weights are loaded by name.

    Args:
        folder: The folder that ``learner.export`` wrote.
        new_head: Whether the last layer group keeps its initial weights. None decides by the
            outputs: the same class or target names keep the head, other names get a new one.

    Example:
        >>> learner = Learner(data, start=Start("pets", new_head=True))  # doctest: +SKIP
    """

    folder: str | Path
    new_head: bool | None = None


@dataclass(frozen=True)
class StartingPoint:
    """The content of the export in ``Start``.

    Attributes:
        folder: The export's folder.
        record: Everything in the export except its tensors.
        preprocessor: The preprocessor, rebuilt from the record.
        preprocessor_digest: SHA-256 of the preprocessor's arguments and tensors.
    """

    folder: Path
    record: ExportRecord
    preprocessor: Preprocessor
    preprocessor_digest: str

    @classmethod
    def read(cls, folder: str | Path, domain: Domain, argument: str = "start") -> Self:
        """Read the export in ``folder``.

        Args:
            folder: The folder that ``learner.export`` wrote.
            domain: The domain of the data.
            argument: The argument that names the folder, for messages.

        Raises:
            ArtefactError: The export is missing or damaged, or belongs to another domain.
        """
        path = export_folder(folder)
        refuse_ensemble(path, argument)
        record = read_record(path, domain.name, argument)
        preprocessor = rebuild_preprocessor(path, record, domain)
        return cls(path, record, preprocessor, digest_of(preprocessor))

    @classmethod
    def of_plan(cls, value: Mapping[str, Any], domain: Domain) -> Self:
        """Read the export that a plan's ``start`` names, and check that it is unchanged.

        Raises:
            ArtefactError: The folder is missing, or contains another model or preprocessor.
        """
        found = cls.read(value["export"], domain)
        same = {
            "preprocessor": found.preprocessor_digest == value["preprocessor"],
            "model": value["model"] in (None, found.model_digest),
        }
        for kind, unchanged in same.items():
            if not unchanged:
                raise ArtefactError(
                    f"The {kind} in {value['export']} differs from the one with which the plan was "
                    "made: the export was replaced. Restore it, or make a new plan: "
                    "Learner(data, start=…) without plan=."
                )
        return found

    @property
    def model_digest(self) -> str:
        """SHA-256 of the file with the weights."""
        return self.record.sha256[MODEL_FILE]

    def choices(
        self,
        rules: Sequence[Rule],
        given: Mapping[str, Any],
        *,
        with_model: bool,
        has_module: bool = False,
    ) -> dict[str, Choice]:
        """Return the choices of the export's plan that determine its preprocessor (and model).

        Args:
            rules: The rules of the new plan.
            given: The user's choices.
            with_model: Whether the weights of the export are loaded, so that the choices that
                determine its model are kept too.
            has_module: Whether the user passed a module; it is checked when the weights are loaded.

        Raises:
            ArtefactError: The export has no builder for its model, and no module was passed.
            PlanError: A choice of the user contradicts the export.
        """
        builder = self.record.model.builder
        if with_model and builder is None and not has_module:
            raise ArtefactError(
                f"{self.folder} has only the weights of a user-defined module. Pass a module of "
                f"the same class: Learner(data, module, start=…). {self.record.model.note}"
            )
        saved = {"architecture": builder}
        if self.record.plan is not None:
            saved = Plan.from_json(self.record.plan).values
        of_module = ("architecture", "weights", "head") if has_module else ()
        argument, parts = ("like=", "preprocessor fits")
        if with_model:
            argument, parts = ("start=", "preprocessor and weights fit")
        kept: dict[str, Choice] = {}
        for rule in rules:
            key = rule.key
            wanted = rule.determines == "preprocessor" or (with_model and rule.determines)
            if not wanted or key not in saved or key in of_module:
                continue
            value = saved[key]
            if key in given and given[key] != value:
                raise PlanError(
                    f"{key} is {given[key]!r}, but the export {self.folder} was trained with "
                    f"{value!r}, and its {parts} only this value. Omit {key}, or train without "
                    f"{argument}."
                )
            reason = f"As in the export {self.folder}, whose {parts} only this value."
            if key == "weights":
                reason = f"The weights of the export {self.folder} replace the initial ones."
            kept[key] = Choice(key, value, reason, override=f"Omit {argument}.", source="user")
        return kept

    def task_choice(self, given: Mapping[str, Any]) -> dict[str, Choice]:
        """Return the export's task as a choice, if ``given`` has the same task; else nothing."""
        name = self.record.task.builder
        if name is None or given.get("task") != name:
            return {}
        reason = f"As in the export {self.folder}, because the data are read with like=."
        advice = "Create the data without like=."
        return {"task": Choice("task", name, reason, override=advice, source="user")}

    @property
    def output_names(self) -> list[str]:
        """Classes or regression targets of the export; empty if its task does not name them."""
        return list(output_names(self.record.task.arguments))

    def choose(self, names: Sequence[str], new_head: bool | None, task: str) -> Choice:
        """Return the plan's choice ``start``.

        Args:
            names: Classes or regression targets of the new task.
            new_head: As in ``Start``.
            task: Name of the builder of the new task.

        Raises:
            ArtefactError: It is unclear whether the head of the export is to be kept: the new
                task lacks some of its classes, or only one of the two tasks names its outputs.
        """
        names, saved = list(names), self.output_names
        same = names == saved
        if new_head is None and bool(names) != bool(saved):
            raise ArtefactError(
                f"The outputs of {self.folder} are {_shown(saved)}, those of the new task are "
                f"{_shown(names)}, so it is unclear whether the head of the export fits. To keep "
                "this head: start=Start(path, new_head=False); for a new head: new_head=True."
            )
        if new_head is None and not same and names and set(names) <= set(saved):
            raise ArtefactError(
                f"The data have the classes {name_some(names, 5)}, the export {self.folder} has "
                f"{name_some(saved, 5)} in this order. To keep its head, read the data with "
                "like=… (the same export), which uses all its classes in its order; to train a new "
                "head: start=Start(path, new_head=True)."
            )
        if new_head is False and names and saved and not same:
            raise ArtefactError(
                f"new_head=False keeps the head of {self.folder}, which predicts "
                f"{name_some(saved, 5)}, but the data have {name_some(names, 5)}. Omit new_head."
            )
        fresh = (not same) if new_head is None else new_head
        head = "with a new head, because new_head=True" if fresh else "including its head"
        if not fresh and (fitted := self.calibration(task)):
            head += f" and, until it is trained, its calibration ({describe_values(fitted)})"
        if fresh and not same:
            head = f"with a new head for {name_some(names, 5)} in place of {name_some(saved, 5)}"
        value = {
            "export": os.path.abspath(self.folder),
            "model": self.model_digest,
            "preprocessor": self.preprocessor_digest,
            "head": "new" if fresh else "kept",
        }
        return Choice(
            KEY,
            value,
            f"Preprocessor and weights ({head}) of the export {self.folder}.",
            evidence={"created": self.record.created},
            override="Learner(data, start=Start(path, new_head=…))",
            source="user",
        )

    def preprocessor_choice(self) -> Choice:
        """Return the plan's choice ``start`` for data that are read like the export's."""
        value = {
            "export": os.path.abspath(self.folder),
            "model": None,
            "preprocessor": self.preprocessor_digest,
            "head": "new",
        }
        return Choice(
            KEY,
            value,
            f"Preprocessor of the export {self.folder}, because the data are read with like=; the "
            "model is new.",
            evidence={"created": self.record.created},
            override="Create the data without like=.",
            source="user",
        )

    def check_like(self, like: Path | None, domain: Domain) -> None:
        """Check that ``like``, the export like which the data are read, equals this export.

        Raises:
            ArtefactError: The data are read like another export.
        """
        if like is None:
            return
        other = type(self).read(like, domain, "like")
        mine = self.preprocessor_digest, self.model_digest
        if mine != (other.preprocessor_digest, other.model_digest):
            raise ArtefactError(
                f"start={str(self.folder)!r}, but the data were read like another export, "
                f"like={str(like)!r}. Create the data with like={str(self.folder)!r}."
            )

    def task_arguments(self, arguments: Mapping[str, Any], head: str) -> dict[str, Any]:
        """Return the task's arguments, with the export's "mean" and "std" if its head is kept."""
        saved = self.record.task.arguments
        scale = {name: saved[name] for name in ("mean", "std") if name in saved}
        return {**arguments, **(scale if head == "kept" else {})}

    def calibration(self, task: str) -> Mapping[str, Any]:
        """Return the export's calibration; empty if its task has another builder than ``task``."""
        return stored_calibration(self.record.task, task)

    def check_scale(self, task: Task) -> None:
        """Raise an ArtefactError if the user's task and the kept head scale targets differently."""
        own = target_scales(task.arguments())
        for name, value in target_scales(self.record.task.arguments).items():
            if name in own and own[name] != value:
                raise ArtefactError(
                    f"The task has {name}={own[name]!r:.60}, but the head of {self.folder} was "
                    f"trained with {name}={value!r:.60}. Give the task the same {name}, omit "
                    "task=, or train a new head: start=Start(path, new_head=True)."
                )

    def load_weights(self, model: nn.Module, head: str) -> None:
        """Load the weights into ``model`` by name; a new head keeps its initial weights.

        Raises:
            ArtefactError: Outside a new head, names, shapes or shared weights differ; the message
                lists them.
        """
        stored = read_weights(self.folder, self.record)
        own = state_tensors(model)
        fresh = _Head.of(model) if head == "new" else _Head()
        kept = {name: tensor for name, tensor in own.items() if name not in fresh.tensors}
        unfit = [name for name in kept if name not in stored or not fits(own[name], stored[name])]
        unfit += [name for name in stored if name not in own and not fresh.contains(name)]
        if unfit:
            shown = (
                f"{name} ({_described(own, name)} / {_described(stored, name)})" for name in unfit
            )
            raise ArtefactError(
                f"The weights of {self.folder} do not fit {type(model).__name__}: "
                f"{name_some(shown, 3)} (model / export). Start with the same architecture and "
                "settings as the export, or train without start=."
            )
        check_ties(kept, stored, str(self.folder / MODEL_FILE))
        with torch.no_grad():
            for name, tensor in kept.items():
                tensor.copy_(stored[name])


def plan_from_export(
    start: str | Path | Start,
    data: Data,
    domain: Domain,
    rules: Sequence[Rule],
    facts: Mapping[str, Any],
    user: Mapping[str, Any],
    task: Task | None,
) -> Plan:
    """Return the plan of a learner that starts from an export.

    Args:
        start: The learner's argument ``start``.
        data: The data, whose classes decide whether the head is kept, unless a task is given.
        domain: The domain of the data.
        rules: Core's and the domain's.
        facts: Facts about data, model and task.
        user: The user's choices.
        task: The task that the user passed.

    Raises:
        ArgumentError: ``start`` is neither a path nor a ``Start``.
        ArtefactError: The export cannot be read or does not fit the data.
        PlanError: A choice contradicts the export.
    """
    if isinstance(start, str | Path):
        start = Start(start)
    if not isinstance(start, Start):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(
            f"start is {start!r:.60}; give the folder of an export, or Start(folder, new_head=…)."
        )
    point = StartingPoint.read(start.folder, domain)
    point.check_like(data.like, domain)
    has_module = bool(facts.get("model_given"))
    kept = point.choices(rules, user, with_model=True, has_module=has_module)
    if data.like is not None:
        kept |= point.task_choice(user)
    plan = Plan.derive(rules, {**facts, "started": True}, {**user, **kept})
    names = _names_of(task, data, point.preprocessor, plan.values)
    builder = str(plan.values["task"]) if task is None else task.builder
    choice = point.choose(names, start.new_head, builder)
    if task is not None and choice.value["head"] == "kept":
        point.check_scale(task)
    return plan.with_choice(choice)


def check_replayed(plan: Plan, data: Data, domain: Domain, task: Task | None) -> None:
    """Check that the outputs of a replayed plan's task fit the head that the plan keeps.

    Args:
        plan: A saved plan, whose ``start`` may be None.
        data: The data, whose classes are compared with the export's, unless a task is given.
        domain: The domain of the data.
        task: The task that the user passed.

    Raises:
        ArtefactError: The plan keeps the head, but the classes or their order differ; or the
            export cannot be read, or was replaced.
    """
    value = plan.values.get(KEY)
    if value is None or value["head"] != "kept":
        return
    point = StartingPoint.of_plan(value, domain)
    names, saved = _names_of(task, data, point.preprocessor, plan.values), point.output_names
    if names and saved and names != saved:
        raise ArtefactError(
            f"The plan keeps the head of {point.folder}, which predicts {_shown(saved)} in this "
            f"order, but the data have {_shown(names)}. Make a new plan: Learner(data, "
            f"start={str(point.folder)!r}) without plan=. Its start=Start(path, new_head=True) "
            "trains a new head."
        )
    if task is not None:
        point.check_scale(task)


def plan_like_export(
    like: Path,
    domain: Domain,
    rules: Sequence[Rule],
    facts: Mapping[str, Any],
    user: Mapping[str, Any],
) -> Plan:
    """Return the plan of a learner on data that are read like an export, for a new model.

    Args:
        like: The export's folder.
        domain: The domain of the data.
        rules: Core's and the domain's.
        facts: Facts about data, model and task.
        user: The user's choices.

    Raises:
        ArtefactError: The export cannot be read.
        PlanError: A choice contradicts the export.
    """
    point = StartingPoint.read(like, domain, "like")
    kept = point.choices(rules, user, with_model=False) | point.task_choice(user)
    return Plan.derive(rules, facts, {**user, **kept}).with_choice(point.preprocessor_choice())


def check_plan_like(values: Mapping[str, Any], like: Path, domain: Domain) -> None:
    """Check that a saved plan keeps the preprocessor of the export ``like``.

    Raises:
        ArtefactError: The plan keeps the preprocessor of another export, or of no export.
    """
    planned: Mapping[str, Any] | None = values.get(KEY)
    own = StartingPoint.read(like, domain, "like").preprocessor_digest
    if planned is None or planned["preprocessor"] != own:
        other = "no export" if planned is None else str(planned["export"])
        raise ArtefactError(
            f"The data are read like={str(like)!r}, but the plan keeps the preprocessor of "
            f"{other}. Create the data as when the plan was made, or make a new plan: "
            "Learner(data) without plan=."
        )


def digest_of(preprocessor: Preprocessor) -> str:
    """Return the SHA-256 of a preprocessor's builder, arguments and tensors."""
    content = {"builder": preprocessor.builder, "arguments": preprocessor.arguments()}
    found = hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode())
    for name, tensor in sorted(preprocessor.tensors().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _names_of(
    task: Task | None, data: Data, preprocessor: Preprocessor, values: Mapping[str, Any]
) -> list[str]:
    """Return the output names of the user's task, or of the data if no task was passed."""
    if task is not None:
        return list(task.output_names)
    return list(output_names(data.task_arguments(preprocessor, values)))


def _shown(names: Sequence[str]) -> str:
    return name_some(names, 5) if names else "not named"


@dataclass(frozen=True)
class _Head:
    """The head of a model: its last layer group.

    Attributes:
        tensors: Names of its parameters and buffers (running statistics).
        modules: Names of its modules, each with a dot at the end.
    """

    tensors: frozenset[str] = frozenset()
    modules: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        groups = parameter_groups(model)
        if not groups:
            return cls()
        name, parameters = list(groups.items())[-1]
        inner = {id(part) for part in layer_groups(model)[name]}
        # A parameter that an earlier group shares is not the head's, although its module is.
        own = {id(parameter) for parameter in parameters}
        named = cast("Iterator[tuple[str, nn.Module]]", model.named_modules(remove_duplicate=False))
        modules = tuple(f"{at}." for at, module in named if at and id(module) in inner)
        tensors = {
            at for at, each in model.named_parameters(remove_duplicate=False) if id(each) in own
        }
        tensors |= {
            at for at, _ in model.named_buffers(remove_duplicate=False) if at.startswith(modules)
        }
        return cls(frozenset(tensors), modules)

    def contains(self, name: str) -> bool:
        """Return whether the tensor ``name`` belongs to a module of the head."""
        return name.startswith(self.modules)


def _described(tensors: Mapping[str, Tensor], name: str) -> str:
    return describe(tensors[name]) if name in tensors else "absent"
