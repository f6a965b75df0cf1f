"""Convert a task to JSON arguments for an export, and rebuild the task from them.

A metric object in the task's arguments is stored as ``{"registered": "metrics", "name": NAME,
"arguments": {...}}`` and rebuilt with the constructor that core or the domain registers as NAME; a
loss object is stored in the same way, as ``{"registered": "losses", ...}``, and a task among the
arguments (of a ``CombinedTask``) as ``{"registered": "tasks", ...}``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

from flambeau.artefact.export_format import BuilderSpec, as_json_value
from flambeau.artefact.rebuild import Builders, rebuild
from flambeau.domain import Domain
from flambeau.errors import ArtefactError, FlambeauWarning
from flambeau.task.metrics import Metric
from flambeau.task.task import Task
from flambeau.wording import class_name

_REFERENCE = ("registered", "name", "arguments")


def spec_of_task(task: Task, domain: Domain) -> BuilderSpec:
    """Return builder and arguments of a task; the note names everything that is not stored.

    Args:
        task: The task. If its builder or its loss object is not registered, it is not stored, and
            the note says what to pass to ``Predictor.load``.
        domain: The domain, which registers tasks, losses and metrics. Metric objects that neither
            the domain nor core registers are omitted.

    Raises:
        ArtefactError: An argument cannot be saved, or a registered constructor does not rebuild a
            metric or loss from its ``arguments()``.
    """
    spec, missing = _spec_and_missing(task, domain)
    if missing:
        warnings.warn(f"The export contains the task {spec.note}", FlambeauWarning, stacklevel=4)
    return spec


def _spec_and_missing(task: Task, domain: Domain) -> tuple[BuilderSpec, list[str]]:
    """Return the specification of a task, and the metrics that it leaves out."""
    kind = type(task).__qualname__
    builder = _tables(domain)["tasks"].get(task.builder)
    if builder is None or (isinstance(builder, type) and type(task) is not builder):
        return _not_registered(task), []
    given = dict(task.arguments())
    tables = _tables(domain)
    loss: object = given.get("loss")
    if callable(loss) and _name_of(loss, tables["losses"]) is None:
        note = (
            f"No domain registers the loss {class_name(loss)} of {kind}. Register its "
            "constructor in Domain(losses=...), or load with Predictor.load(path, task=...)."
        )
        return BuilderSpec(None, _calibration(task), note=note), []
    missing: list[str] = []
    try:
        given = _with_task_references(given, domain, missing)
    except _NotStoredError as error:
        return BuilderSpec(None, _calibration(task), note=str(error)), []
    arguments = as_json_value(_encode(given, tables, missing), f"{kind}.arguments()")
    note = kind
    if missing:
        note += (
            f" without {', '.join(missing)}, whose class no domain registers. To export it, add it "
            "to Domain(metrics=...)."
        )
    spec = BuilderSpec(task.builder, arguments, note=note)
    # A user-defined subclass inherits the name, but the builder would build its base class.
    is_same = type(rebuild_task(spec, domain)) is type(task)
    return (spec, missing) if is_same else (_not_registered(task), [])


def rebuild_task(spec: BuilderSpec, domain: Domain) -> Task:
    """Return the task of an export, with its registered metrics and losses.

    Raises:
        ArtefactError: A name is unknown, or a constructor rejects its arguments or fails.
    """
    tables = _tables(domain)
    arguments = _decode(dict(spec.arguments), tables)
    return cast(Task, rebuild("task", BuilderSpec(spec.builder, arguments), tables["tasks"]))


class _NotStoredError(Exception):
    """A task among the arguments cannot be stored; the message says why."""


def _with_task_references(value: Any, domain: Domain, missing: list[str]) -> Any:
    """Replace tasks in ``value`` by references; add metrics that are left out to ``missing``.

    Raises:
        _NotStoredError: The builder or the loss of a task is not registered.
    """
    if isinstance(value, Task):
        spec, left_out = _spec_and_missing(value, domain)
        if spec.builder is None:
            raise _NotStoredError(spec.note)
        missing += left_out
        return {"registered": "tasks", "name": spec.builder, "arguments": dict(spec.arguments)}
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value)
        return {key: _with_task_references(part, domain, missing) for key, part in entries.items()}
    return value


def _tables(domain: Domain) -> dict[str, Builders]:
    # Only exports need these names.
    from flambeau.task.registered import METRICS, TASKS

    return {
        "losses": domain.losses,
        "metrics": {**METRICS, **domain.metrics},
        "tasks": {**TASKS, **domain.tasks},
    }


def stored_calibration(spec: BuilderSpec, builder: str) -> dict[str, Any]:
    """Return the calibration in an export for a task with this builder; empty if there is none."""
    if spec.builder not in (None, builder):
        return {}
    return dict(spec.arguments.get("calibration", {}))


def with_calibration(task: Task, spec: BuilderSpec) -> Task:
    """Return the user's task with the calibration that an export stores for its weights.

    If there is a calibration, a copy of the task is returned; ``task`` itself is not changed.
    """
    fitted: dict[str, Any] = dict(spec.arguments.get("calibration", {}))
    if not fitted:
        return task
    found = copy.copy(task)
    found.calibration = fitted
    return found


def _calibration(task: Task) -> dict[str, Any]:
    kind = type(task).__qualname__
    fitted = as_json_value(dict(task.calibration), f"The calibration of {kind}")
    return {"calibration": fitted} if fitted else {}


def _not_registered(task: Task) -> BuilderSpec:
    kind = type(task).__qualname__
    note = f"No domain registers {kind}. Load with Predictor.load(path, task=...)."
    return BuilderSpec(None, _calibration(task), note=note)


def _name_of(part: object, table: Builders) -> str | None:
    """Return the name in ``table`` of the constructor of ``part``; None if it is not registered.

    The name is the attribute ``builder`` of ``part``, else the name of its class in ``table``.
    """
    named: object = getattr(part, "builder", None)
    if isinstance(named, str) and named in table:
        return named
    return next((name for name, make in table.items() if make is type(part)), None)


def _encode(value: Any, tables: Mapping[str, Builders], missing: list[str]) -> Any:
    """Replace registered objects in ``value`` by references; add other metrics to ``missing``."""
    if isinstance(value, Mapping):
        entries: dict[Any, Any] = {}
        for key, part in cast("Mapping[Any, Any]", value).items():
            if isinstance(part, Metric) and _name_of(part, tables["metrics"]) is None:
                missing.append(f"the metric {key!r} ({type(part).__qualname__})")
            else:
                entries[key] = _encode(part, tables, missing)
        return entries
    if isinstance(value, list | tuple):
        return [_encode(part, tables, missing) for part in cast("list[Any]", value)]
    for table, builders in tables.items():
        name = _name_of(cast(object, value), builders)
        if name is not None:
            return _reference(table, name, value, builders)
    return value


def _reference(table: str, name: str, part: Any, builders: Builders) -> dict[str, Any]:
    kind = type(part).__qualname__
    spec = BuilderSpec(name, as_json_value(_arguments(part), f"{kind}.arguments()"))
    rebuilt = rebuild(_singular(table), spec, builders)
    fresh = copy.deepcopy(part)
    if isinstance(fresh, Metric):
        fresh.reset()
    if type(rebuilt) is not type(part) or _settings(rebuilt) != _settings(fresh):
        raise ArtefactError(
            f"The {_singular(table)} {name!r} ({kind}) cannot be exported: its constructor, called "
            f"with {dict(spec.arguments)}, gives {_shown(rebuilt)} instead of {_shown(fresh)}. "
            f"Return all constructor arguments from {kind}.arguments()."
        )
    return {"registered": table, "name": name, "arguments": dict(spec.arguments)}


def _arguments(part: Any) -> dict[str, Any]:
    arguments: Callable[[], Mapping[str, Any]] | None = getattr(part, "arguments", None)
    return dict(arguments()) if callable(arguments) else {}


def _decode(value: Any, tables: Mapping[str, Builders]) -> Any:
    if isinstance(value, list):
        return [_decode(part, tables) for part in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    entries = cast("dict[str, Any]", value)
    if tuple(entries) != _REFERENCE or entries["registered"] not in tables:
        return {key: _decode(part, tables) for key, part in entries.items()}
    table: str = entries["registered"]
    arguments = entries["arguments"]
    if table == "tasks":
        arguments = _decode(arguments, tables)
    spec = BuilderSpec(entries["name"], arguments)
    return rebuild(_singular(table), spec, tables[table])


def _singular(table: str) -> str:
    return {"losses": "loss", "metrics": "metric", "tasks": "task"}[table]


def _settings(part: Any) -> dict[str, Any]:
    """Return the attributes of an object that are plain values."""
    attributes: dict[str, Any] = getattr(part, "__dict__", {})
    plain = (bool, int, float, str, tuple, list, type(None))
    return {name: value for name, value in attributes.items() if isinstance(value, plain)}


def _shown(part: Any) -> str:
    settings = ", ".join(f"{name}={value!r:.40}" for name, value in _settings(part).items())
    return f"{type(part).__qualname__}({settings})"
