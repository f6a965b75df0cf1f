"""``TabularOptions``: how a table is read, shared by all constructors of ``TabularData``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from flambeau.artefact.read_like import (
    filled_like,
    nested_tasks,
    output_names,
    read_record,
    reading_options,
)
from flambeau.checked_arguments import checked_count
from flambeau.data.ordered_names import ordered_names
from flambeau.data.targets import Kind
from flambeau.errors import ArtefactError, InputError, did_you_mean, explains_arguments
from flambeau_tabular.column_kind import ColumnKind, Override
from flambeau_tabular.csv_options import CsvOptions
from flambeau_tabular.out_of_scope import argument_hint

LogLinkTask = Literal["poisson", "gamma", "tweedie"]
LOG_LINK_TASKS: tuple[str, ...] = get_args(LogLinkTask)
NUMBER_TASKS: tuple[str, ...] = ("regression", "quantile_regression", *LOG_LINK_TASKS)
"""Tasks whose targets are numbers."""
OF_ONE_TARGET: tuple[str, ...] = ("classification", *NUMBER_TASKS)
"""Tasks that each of several targets may have."""
TASKS: tuple[str, ...] = (*OF_ONE_TARGET, "multi_label", "combined")
TaskName = Kind | Literal["quantile_regression", "combined"] | LogLinkTask
Target = str | Sequence[str]
"""A target column, or several."""

Scaling = Literal["robust", "standard", "quantile", "none"]
"""How numbers are scaled; see `flambeau_tabular.columns.scaling.Scaler`."""

OutOfRange = Literal["clip", "keep"]
"""What happens to numbers and dates beyond those in train; see `SpecOptions`."""

_READING = ("kinds", "drop", "time", "group", "weight", "exposure", "offset", "sep")
_ROLES = ("time", "group", "weight", "exposure", "offset")


@explains_arguments(argument_hint)
@dataclass(frozen=True)
class TabularOptions:
    """How a table is read. Direct arguments of a constructor override these values.

    Attributes:
        kinds: Kind of a column → "number", "category", "ordered", "boolean", "date", "text", or
            "id" for a column that is not an input; a list of all values in order makes a column
            ordered. Columns that are not named get the kind that their train cells suggest.
        drop: Columns that are not inputs of the model.
        time: Column with the time of each row. The parts are then split by time, and no score is
            computed on rows that are earlier than train rows.
        group: Column with the group of each row (a person, a machine), which is not an input. A
            group is in one part only.
        weight: Column with the weight of each row in loss and metrics, which is not an input.
        exposure: For counts and amounts ("poisson", "gamma", "tweedie"): column with the time, the
            area or the number of persons for which the target was counted, above 0. The expected
            value is a rate times the exposure; the column is not an input of the network.
        offset: The same as the logarithm of the exposure; only one of both.
        embargo: With ``time``: rows less than this duration before a later part are left out, see
            ``Split.by_time``.
        task: "classification", "multi_label", "regression", "quantile_regression", "poisson"
            (counts and rates), "gamma" (amounts above 0) or "tweedie" (amounts that are often 0);
            "combined" gives each of several targets a task. None infers it from the targets.
        target_tasks: Task of some of several targets by name, such as ``{"price": "gamma"}``; the
            others are read like a single target.
        target_classes: Classes of some of several targets by name, in their order.
        costs: Costs of the mistakes of two classes, ``{"false_positive": 1, "false_negative": 5}``;
            see ``Classification``.
        classes: All classes in the order of the model's outputs; None uses those in the data,
            sorted.
        sep: Separator between several labels in one cell of the target.
        csv: How a text file is read: ``CsvOptions``, or its values by name.
        scaling: How numbers are scaled: "robust", "standard", "quantile" or "none"; None lets the
            plan choose.
        min_count: Categories with fewer train rows share the code for unknown ones; None lets the
            plan choose.
        like: Folder of an export: kinds, task and classes are the export's unless they are set, and
            a learner keeps the export's preprocessor.

    Raises:
        ArtefactError: ``like`` is not an export of ``TabularData``.
        InputError: A value is invalid, or differs from that of ``like``.
    """

    kinds: Mapping[str, Override] | None = None
    drop: Sequence[str] = ()
    time: str | None = None
    group: str | None = None
    weight: str | None = None
    exposure: str | None = None
    offset: str | None = None
    embargo: Any | None = None
    task: TaskName | None = None
    target_tasks: Mapping[str, TaskName] | None = None
    target_classes: Mapping[str, Sequence[str]] | None = None
    costs: Mapping[str, float] | None = None
    classes: Sequence[str] | None = None
    sep: str | None = None
    csv: CsvOptions | Mapping[str, Any] | None = None
    scaling: Scaling | None = None
    min_count: int | None = None
    like: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.drop, str):
            raise InputError(f"drop={self.drop!r} is a string. Give a list: [{self.drop!r}].")
        for role in _ROLES:  # columns of pandas may have numbers as names
            if (name := getattr(self, role)) is not None:
                object.__setattr__(self, role, str(name))
        object.__setattr__(self, "drop", tuple(map(str, self.drop)))
        if self.kinds is not None:
            object.__setattr__(self, "kinds", {str(key): kind for key, kind in self.kinds.items()})
        if self.classes is not None:
            object.__setattr__(self, "classes", ordered_names(self.classes, "classes"))
        if self.task is not None and self.task not in TASKS:
            raise InputError(f"Unknown task={self.task!r}. {did_you_mean(self.task, TASKS)}")
        self._check_targets()
        if self.csv is not None:
            object.__setattr__(self, "csv", CsvOptions.of(self.csv))
        if self.scaling is not None and self.scaling not in get_args(Scaling):
            raise InputError(
                f"Unknown scaling={self.scaling!r}. {did_you_mean(self.scaling, get_args(Scaling))}"
            )
        if self.min_count is not None:
            object.__setattr__(self, "min_count", checked_count(self.min_count, "min_count"))
        if self.exposure is not None and self.offset is not None:
            raise InputError(
                f"exposure={self.exposure!r} and offset={self.offset!r}: the offset is the "
                "logarithm of the exposure. Give one of them."
            )
        roles: dict[str, str] = {}
        for role in _ROLES:
            name = getattr(self, role)
            if name is not None and name in roles:
                raise InputError(
                    f"{role}={name!r} and {roles[name]}={name!r} are the same column. Give two."
                )
            if name is not None:
                roles[name] = role
        if self.like is not None:
            self._fill_from_export()

    def _check_targets(self) -> None:
        for name, task in (self.target_tasks or {}).items():
            if task not in OF_ONE_TARGET:
                raise InputError(
                    f"target_tasks has {task!r} for {name!r}. {did_you_mean(task, OF_ONE_TARGET)}"
                )
        if self.target_classes is not None:
            named = {
                str(name): ordered_names(classes, f"target_classes[{name!r}]")
                for name, classes in self.target_classes.items()
            }
            object.__setattr__(self, "target_classes", named)
        has_own = self.target_tasks or self.target_classes
        if has_own and self.task not in (None, "combined"):
            raise InputError(
                f"task={self.task!r} is that of all targets, but target_tasks or target_classes "
                "give each its own. Omit task."
            )

    def _fill_from_export(self) -> None:
        record = read_record(self.like or "", "tabular", "like")
        if record.preprocessor.builder != "tabular_preprocessor":
            raise ArtefactError(
                f"{self.like} is an export of a model for CollabData, which TabularData cannot "
                "read data for. Score ratings in Python, with CollabData.from_df."
            )
        builder = record.task.builder
        saved = {
            "classes": output_names(record.task.arguments) or None,
            "task": builder if builder in TASKS else None,
        }
        if builder in NUMBER_TASKS:
            saved["classes"] = None
        if builder == "combined":
            own = nested_tasks(record.task.arguments)
            names = {n: record.task.arguments["tasks"][n]["name"] for n, _ in own}
            saved = {
                "task": builder,
                "target_tasks": names,
                "target_classes": {
                    n: tuple(each["classes"]) for n, each in own if "classes" in each
                },
            }
        given = {name: getattr(self, name) for name in saved}
        for name, value in filled_like(self.like or "", given, saved).items():
            object.__setattr__(self, name, value)
        known = reading_options(record)
        for name in ("kinds", *_ROLES, "sep"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, known.get(name))
        if self.csv is None and known.get("csv"):
            object.__setattr__(self, "csv", CsvOptions.of(known["csv"]))
        if not self.drop:
            object.__setattr__(self, "drop", tuple(known.get("drop", ())))

    @property
    def csv_options(self) -> CsvOptions | None:
        """The options for text files; None if the user set none."""
        return None if self.csv is None else CsvOptions.of(self.csv)

    @property
    def roles(self) -> dict[str, str]:
        """The columns of time, group, weight and exposure by their role."""
        found = {role: getattr(self, role) for role in _ROLES}
        return {role: name for role, name in found.items() if name is not None}

    @property
    def kind(self) -> Kind | None:
        """What the targets are: classes, labels or numbers; None if they decide it."""
        if self.task == "combined":
            return None
        return "regression" if self.task in NUMBER_TASKS else cast("Kind | None", self.task)

    @property
    def reading_options(self) -> dict[str, Any]:
        """The options to use for reading further tables for the same model, as JSON values."""
        found = {name: getattr(self, name) for name in _READING}
        found["drop"] = list(self.drop) or None
        found["csv"] = None if self.csv_options is None else self.csv_options.to_json() or None
        if self.kinds is not None:
            found["kinds"] = {name: _as_json(kind) for name, kind in self.kinds.items()}
        return {name: value for name, value in found.items() if value is not None}

    def updated(self, given: Mapping[str, Any]) -> TabularOptions:
        """Return the options with all values of ``given`` that are not None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def _as_json(kind: Override) -> Any:
    if isinstance(kind, ColumnKind):
        return list(kind.levels) if kind.levels is not None else kind.kind
    return kind if isinstance(kind, str) else list(kind)


def kinds_of_export(folder: str | os.PathLike[str]) -> dict[str, ColumnKind]:
    """Return the kinds of the columns that an export's preprocessor encodes."""
    saved = read_record(folder, "tabular", "like").preprocessor.arguments["columns"]
    return {
        each["name"]: ColumnKind(
            each["kind"],
            "as in the export",
            levels=tuple(each["values"]) if each["kind"] == "ordered" else None,
            style=each.get("style", "iso"),
        )
        for each in saved
    }
