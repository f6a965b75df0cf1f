"""``check_record``: validates the record of a domain, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, cast, runtime_checkable

from flambeau.data.data import Data
from flambeau.domain.record import API_VERSION, COMMANDS, CliOption, Domain
from flambeau.errors import DomainError, did_you_mean
from flambeau.plan import Rule
from flambeau.wording import class_name


@runtime_checkable
class SupportsCheck(Protocol):
    """The attributes of ``Check`` that are read here; importing it would load much more code."""

    code: str
    run: Callable[..., object]
    reads: str
    runs: str


def check_record(record: object, reference: str) -> None:
    """Raise a DomainError unless ``record`` is a valid ``Domain``.

    Args:
        record: The object to check.
        reference: Where it is defined, for the message: ``"package.module:DOMAIN"``.

    Raises:
        DomainError: The record is invalid; the message has the reference, the field and the fault.
    """
    if not isinstance(record, Domain):
        raise DomainError(
            f"{reference} is a {type(record).__name__}, not a flambeau.domain.Domain. Define it "
            "with Domain(name=..., ...)."
        )
    if record.api != API_VERSION:
        older = isinstance(cast(object, record.api), int) and record.api < API_VERSION
        upgrade = "that package" if older else "flambeau"
        raise DomainError(
            f"{reference} was written for version {record.api!r} of the domain record, but this "
            f"flambeau reads version {API_VERSION}. Upgrade {upgrade}."
        )
    for name, fault in _faults(record):
        raise DomainError(f"{reference}: the field {name!r} {fault}.")


def _faults(record: Domain) -> Iterator[tuple[str, str]]:
    """Yield each invalid field and its fault."""
    if not isinstance(cast(object, record.name), str) or not record.name.isidentifier():
        yield "name", f"is {record.name!r}; it must be an identifier such as 'vision'"
    for table in ("data_classes", "models", "tasks", "losses", "metrics", "preprocessors"):
        yield from ((table, fault) for fault in _table_faults(table, getattr(record, table)))
    yield from _clashes(record)
    for name, kind, key in (("rules", Rule, "key"), ("checks", SupportsCheck, "code")):
        faults = _tuple_faults(getattr(record, name), kind, name.removesuffix("s").title(), key)
        yield from ((name, fault) for fault in faults)
    yield from (("cli_options", fault) for fault in _option_faults(record.cli_options))
    if not callable(record.recognise):
        yield "recognise", f"is {record.recognise!r:.80}; it must be a function of path and options"
    if record.attributions is not None and not callable(record.attributions):
        wanted = "a function attributions(predictor, item, output, background) or None"
        yield "attributions", f"is {record.attributions!r:.80}; it must be {wanted}"
    if record.demo is not None and not callable(record.demo):
        yield "demo", f"is {record.demo!r:.80}; it must be a function demo(n_samples, seed) or None"


def _option_faults(options: object) -> Iterator[str]:
    if not isinstance(options, Mapping):
        yield f"is a {type(options).__name__}; it must be a mapping from commands to options"
        return
    for command, entries in cast("Mapping[object, object]", options).items():
        if command not in COMMANDS:
            hint = did_you_mean(str(command), COMMANDS)
            yield f"has the command {command!r}, which takes no options of domains. {hint}"
        for fault in _tuple_faults(entries, CliOption, "CliOption", "name"):
            yield f"of the command {command!r} {fault}"


def _tuple_faults(entries: object, kind: type, kind_name: str, key: str) -> Iterator[str]:
    """Yield the faults of a tuple whose entries must be a ``kind`` with different ``key``."""
    if not isinstance(entries, tuple):
        yield f"is a {type(entries).__name__}; it must be a tuple"
        return
    keys: list[object] = []
    for entry in cast("tuple[object, ...]", entries):
        if not isinstance(entry, kind):
            yield f"contains {entry!r:.80}, which is not a {kind_name}"
            continue
        if getattr(entry, "extend", None) is None:  # a rule may extend the one before it
            keys.append(getattr(entry, key))
    for repeated in sorted({str(each) for each in keys if keys.count(each) > 1}):
        yield f"contains {repeated!r} more than once"


def _table_faults(table: str, entries: object) -> Iterator[str]:
    if not isinstance(entries, Mapping):
        yield f"is a {type(entries).__name__}; it must be a mapping from names to builders"
        return
    for key, value in cast("Mapping[object, object]", entries).items():
        if not isinstance(key, str) or not key:
            yield f"has the key {key!r}; keys must be non-empty strings"
        elif table == "data_classes" and not (isinstance(value, type) and issubclass(value, Data)):
            yield f"has {key!r}: {value!r:.80}, which is not a subclass of flambeau.data.Data"
        elif not callable(value):
            yield f"has {key!r}: {value!r:.80}, which cannot be called"


def _clashes(record: Domain) -> Iterator[tuple[str, str]]:
    """Yield the field and the fault of each name that core uses for another constructor."""
    from flambeau.task import Classification, MultiLabel, Regression
    from flambeau.task.registered import LOSS_NAMES, METRICS

    own: dict[str, Mapping[str, object]] = {
        "tasks": {task.builder: task for task in (Classification, MultiLabel, Regression)},
        "losses": {name: f"the loss of the task {task!r}" for name, task in LOSS_NAMES.items()},
        "metrics": METRICS,
    }
    for table, core in own.items():
        entries: object = getattr(record, table)
        if not isinstance(entries, Mapping):
            continue
        for name, constructor in cast("Mapping[object, object]", entries).items():
            if not isinstance(name, str) or constructor is core.get(name, constructor):
                continue
            other = core[name] if isinstance(core[name], str) else class_name(core[name])
            yield (
                table,
                f"has {name!r}: {class_name(constructor)}, but core has {name!r}: {other}; "
                "rename the domain's",
            )
