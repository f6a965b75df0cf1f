"""``Start``: an export with whose preprocessor and weights a new learner begins.

``StartingPoint`` also serves data that are read like an export (``data.like``): its preprocessor is
kept, its weights are not loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from flambeau.artefact.difference import read_weights
from flambeau.artefact.export_format import MODEL_FILE, ExportRecord
from flambeau.artefact.model_tensors import state_tensors
from flambeau.artefact.read_like import output_names, read_record
from flambeau.artefact.rebuild import rebuild_preprocessor
from flambeau.data.data import Data
from flambeau.data.preprocess import Preprocessor
from flambeau.domain import Domain
from flambeau.errors import ArgumentError, ArtefactError, PlanError
from flambeau.plan import Choice, Plan, Rule
from flambeau.training.optim.groups import parameter_groups
from flambeau.wording import name_some

KEY = "start"
"""The plan's key; its value is None, or ``{"export", "model", "preprocessor", "head"}``.

"model" and "preprocessor" are SHA-256 digests; "model" is None if no weights are loaded.
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
        record: Its record.
        preprocessor: Rebuilt from the record.
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
            ArtefactError: It is missing or damaged, or belongs to another domain.
        """
        path = Path(folder)
        record = read_record(path, domain.name, argument)
        preprocessor = rebuild_preprocessor(path, record, domain)
        return cls(path, record, preprocessor, digest_of(preprocessor))

    @classmethod
    def of_plan(cls, value: Mapping[str, Any], domain: Domain) -> Self:
        """Read the export in a plan's ``start``, after checking that it is still the same.

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
            has_module: Whether the user passed a module; its weights are checked when they load.

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
            kept[key] = Choice(key, value, reason, override=f"Omit {argument}.", source="user")
        return kept

    def choose(self, outputs: Mapping[str, Any], new_head: bool | None) -> Choice:
        """Return the plan's choice ``start``.

        Args:
            outputs: The task arguments of the new data.
            new_head: As in ``Start``.

        Raises:
            ArtefactError: The new data lack some classes of the export, so that it is unclear
                whether its head is to be kept.
        """
        names, saved = output_names(outputs), output_names(self.record.task.arguments)
        same = names == saved
        if new_head is None and not same and names and set(names) <= set(saved):
            raise ArtefactError(
                f"The data have the classes {name_some(names, 5)}, the export {self.folder} has "
                f"{name_some(saved, 5)} in this order. To keep its head, read the data with "
                "like=… (the same export), which uses all its classes in its order; to train a new "
                "head: start=Start(path, new_head=True)."
            )
        if new_head is False and not same:
            raise ArtefactError(
                f"new_head=False keeps the head of {self.folder}, which predicts "
                f"{name_some(saved, 5)}, but the data have {name_some(names, 5)}. Omit new_head."
            )
        fresh = (not same) if new_head is None else new_head
        head = "a new head, because you asked for it" if fresh else "its head too"
        if fresh and not same:
            head = f"a new head for {name_some(names, 5)} in place of {name_some(saved, 5)}"
        value = {
            "export": str(self.folder),
            "model": self.model_digest,
            "preprocessor": self.preprocessor_digest,
            "head": "new" if fresh else "kept",
        }
        return Choice(
            KEY,
            value,
            f"Preprocessor and weights of the export {self.folder}, {head}.",
            evidence={"created": self.record.created},
            override="Learner(data, start=Start(path, new_head=…))",
            source="user",
        )

    def preprocessor_choice(self) -> Choice:
        """Return the plan's choice ``start`` for data that are read like the export's."""
        value = {
            "export": str(self.folder),
            "model": None,
            "preprocessor": self.preprocessor_digest,
            "head": "new",
        }
        return Choice(
            KEY,
            value,
            f"Preprocessor of the export {self.folder}, like whose data these are read; the model "
            "is new.",
            evidence={"created": self.record.created},
            override="Create the data without like=.",
            source="user",
        )

    def check_like(self, like: Path | None, domain: Domain) -> None:
        """Check that data that are read like an export are read like this one.

        Raises:
            ArtefactError: They are read like another export.
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
        """Return the arguments of the task, with the target scale of a kept head."""
        saved = self.record.task.arguments
        scale = {name: saved[name] for name in ("mean", "std") if name in saved}
        return {**arguments, **(scale if head == "kept" else {})}

    def load_weights(self, model: nn.Module, head: str) -> None:
        """Load the weights into ``model`` by name; a new head keeps its own.

        Raises:
            ArtefactError: A name or shape outside a new head differs; the message lists them.
        """
        stored = read_weights(self.folder, self.record)
        own = state_tensors(model)
        free = _head_names(model) if head == "new" else frozenset[str]()
        unfit = [name for name in own if name not in free and not _fits(own[name], stored, name)]
        unfit += [name for name in stored if name not in own and not _is_within(name, free)]
        if unfit:
            shown = (f"{name} ({_shape(own, name)} / {_shape(stored, name)})" for name in unfit)
            raise ArtefactError(
                f"The weights of {self.folder} do not fit {type(model).__name__}: "
                f"{name_some(shown, 3)} (model / export). Start with the same architecture and "
                "settings as the export, or train without start=."
            )
        with torch.no_grad():
            for name, tensor in own.items():
                if name not in free:
                    tensor.copy_(stored[name])


def plan_from_export(
    start: str | Path | Start,
    data: Data,
    domain: Domain,
    rules: Sequence[Rule],
    facts: Mapping[str, Any],
    user: Mapping[str, Any],
) -> Plan:
    """Return the plan of a learner that starts from an export.

    Args:
        start: The learner's argument.
        data: Their classes decide whether the head is kept.
        domain: The domain of the data.
        rules: Core's and the domain's.
        facts: Facts about data, model and task.
        user: The user's choices.

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
    plan = Plan.derive(rules, facts, {**user, **kept})
    outputs: Mapping[str, Any] = {}
    if "task_given" not in facts:
        outputs = data.task_arguments(point.preprocessor, plan.values)
    return plan.with_choice(point.choose(outputs, start.new_head))


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
    kept = point.choices(rules, user, with_model=False)
    return Plan.derive(rules, facts, {**user, **kept}).with_choice(point.preprocessor_choice())


def check_plan_like(values: Mapping[str, Any], like: Path, domain: Domain) -> None:
    """Check that a saved plan keeps the preprocessor of the export like whose data are read.

    Raises:
        ArtefactError: It keeps another one, or none.
    """
    planned: Mapping[str, Any] | None = values.get(KEY)
    own = StartingPoint.read(like, domain, "like").preprocessor_digest
    if planned is None or planned["preprocessor"] != own:
        other = "no export" if planned is None else str(planned["export"])
        raise ArtefactError(
            f"The data are read like={str(like)!r}, but the plan keeps the preprocessor of "
            f"{other}. Create the data as for the plan, or make a new plan: Learner(data) without "
            "plan=."
        )


def digest_of(preprocessor: Preprocessor) -> str:
    """Return the SHA-256 of a preprocessor's builder, arguments and tensors."""
    content = {"builder": preprocessor.builder, "arguments": preprocessor.arguments()}
    found = hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode())
    for name, tensor in sorted(preprocessor.tensors().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _head_names(model: nn.Module) -> frozenset[str]:
    groups = list(parameter_groups(model).values())
    head = {id(parameter) for parameter in groups[-1]} if groups else set[int]()
    named = model.named_parameters(remove_duplicate=False)
    return frozenset(name for name, parameter in named if id(parameter) in head)


def _is_within(name: str, free: frozenset[str]) -> bool:
    """Whether a tensor of the export belongs to the module of a new head."""
    parents = {other.rpartition(".")[0] for other in free}
    return any(name.startswith(f"{parent}.") for parent in parents if parent)


def _fits(tensor: Tensor, stored: Mapping[str, Tensor], name: str) -> bool:
    return name in stored and stored[name].shape == tensor.shape


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return "×".join(map(str, tensors[name].shape)) or "scalar" if name in tensors else "absent"
