"""``Domain``: what a package hands to core, and how it is found.

A package names its record in the entry-point group ``flambeau.domains``
(``vision = "flambeau_vision.domain:DOMAIN"``). Records are read on first use, never at import;
installing a package activates nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast, runtime_checkable

from flambeau.data.data import Data
from flambeau.doctor.check import Check
from flambeau.errors import DomainError, nearest
from flambeau.plan import CORE_RULES, Choice, Rule, combine

API = 1
"""The version of ``Domain`` that this release of core reads."""

GROUP = "flambeau.domains"
"""The entry-point group in which packages name their records."""

# Core's own domain stands beside the others, without privileges in the Learner or the predictor.
_OWN = {"tensors": "flambeau.tensors.domain:DOMAIN"}


@runtime_checkable
class FromPath(Protocol):
    """What ``flambeau fit PATH`` asks of a domain's first data class."""

    @classmethod
    def from_path(cls, path: Path, options: Mapping[str, Any]) -> Data:
        """The data at ``path``; ``options`` are the command's, by their ``CliOption.key``.

        ``flambeau evaluate`` adds ``"classes"``, the names that the model answers with in their
        order, which then take the place of those found in the data.
        """
        ...


@dataclass(frozen=True)
class CliOption:
    """An option that the domain adds to ``flambeau fit PATH``.

    Attributes:
        name: Without the dashes: ``"size"`` for ``--size 64``.
        type: int, float, str or bool; one that is bool may stand alone, and is true then.
        help: One sentence for ``--help``.
        key: A key of the plan, or a name that ``from_path`` reads in its options; "path" where it
            may stand for the PATH itself, by the domain's own word (``--source a.en``).
    """

    name: str
    type: type[int] | type[float] | type[str] | type[bool]
    help: str
    key: str


def _no_path(path: Path) -> float:
    """0: the domain reads no paths."""
    return 0.0


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Everything that core needs to know of a kind of data.

    The names in ``models``, ``tasks`` and ``builders`` stand in artefacts, so they are part of
    the file format: flat, without clashes among the three, and kept once published.

    Attributes:
        name: Its name in artefacts and on the command line, as in the entry point.
        api: The version of this record that the package was written for.
        data_classes: Classes that hold the data's choices, by name; the first one offers
            ``from_path`` (see ``FromPath``) where ``recognise`` claims paths.
        models: Model builders, ``builder(**data.model_arguments(values)) -> nn.Module``.
        tasks: Task builders, ``builder(**data.task_arguments(values)) -> Task``.
        builders: Constructors of preprocessors, ``builder(**arguments, **tensors)``.
        rules: Rules of the plan. One whose key core decides as well replaces core's. Without one
            for ``architecture``, the first of ``models`` is taken.
        checks: Checks for the doctor. One whose code core has as well replaces core's.
        recognise: How sure the domain is that it can read a path: 0 (not at all) to 1.
        cli_options: Options that it adds to ``flambeau fit PATH``.
        demo: ``demo(n_samples, seed) -> Data``, a small data set that is made, not fetched; for
            ``flambeau demo NAME`` and the conformance kit.
    """

    name: str
    api: int = API
    data_classes: Mapping[str, type[Data]]
    models: Mapping[str, Callable[..., Any]]
    tasks: Mapping[str, Callable[..., Any]]
    rules: tuple[Rule, ...] = ()
    checks: tuple[Check, ...] = ()
    builders: Mapping[str, Callable[..., Any]] = field(default_factory=dict[str, Any])
    recognise: Callable[[Path], float] = _no_path
    cli_options: tuple[CliOption, ...] = ()
    demo: Callable[[int, int], Data] | None = None


def rules_of(domain: Domain) -> tuple[Rule, ...]:
    """Core's rules with the domain's among them: what a plan is derived from."""
    own = domain.rules
    if domain.models and all(rule.key != "architecture" for rule in own):
        own = (_first_model(domain.name, tuple(domain.models)), *own)
    return combine(CORE_RULES, own)


def _first_model(name: str, models: tuple[str, ...]) -> Rule:
    """The rule for ``architecture`` of a domain that brings none."""
    first, *others = models
    reason = f"The only architecture of the domain {name!r}."
    if others:
        reason = f"The first of the {len(models)} architectures of the domain {name!r}."
    choice = Choice(
        "architecture",
        first,
        reason,
        alternatives=tuple(others),
        override="Learner(data, module) with any nn.Module",
        source="default",
    )
    return Rule("architecture", (), lambda facts, values: choice)


@dataclass(frozen=True)
class Found:
    """A domain that is installed, whether or not it works.

    Attributes:
        name: Its name.
        reference: Where its record stands, ``"package.module:DOMAIN"``.
        distribution: The package that brings it.
        domain: The record, or None where it cannot be used.
        error: Why it cannot be used.
    """

    name: str
    reference: str
    distribution: str
    domain: Domain | None = None
    error: DomainError | None = None

    def usable(self) -> Domain:
        """The record.

        Raises:
            DomainError: It cannot be used, and why.
        """
        if self.domain is None:
            raise self.error or DomainError(f"The domain {self.name!r} has no record.")
        return self.domain


# ---------------------------------------------------------------- finding


@cache
def discover() -> Mapping[str, Found]:
    """Every installed domain by name, the broken and doubled ones with their error.

    The entry points are read on the first call and then kept. Nothing is raised here: an error is
    raised by ``get`` when its domain is asked for.
    """
    places = {(name, ref, "flambeau") for name, ref in _OWN.items()}
    places |= {(entry.name, entry.value, _owner(entry)) for entry in entry_points(group=GROUP)}
    names = sorted({name for name, _, _ in places})
    return MappingProxyType(
        {
            name: _examine(name, sorted(place for place in places if place[0] == name))
            for name in names
        }
    )


def get(name: str) -> Domain:
    """The domain of that name: one that is in use already, else an installed one.

    Raises:
        DomainError: No domain has the name, two have it, or the one that has it is broken.
    """
    used = {id(domain): (ref, domain) for ref, domain in _used.items() if domain.name == name}
    if len(used) > 1:
        raise _doubled(name, (reference for reference, _ in used.values()))
    for _, domain in used.values():
        return domain
    installed = discover()
    if name in installed:
        return installed[name].usable()
    brought = [
        found.name for found in installed.values() if found.distribution == f"flambeau-{name}"
    ]
    if brought:
        raise DomainError(
            f"No domain is named {name!r}; the package flambeau-{name} brings {', '.join(brought)}."
        )
    raise DomainError(
        f"No domain is named {name!r}. {nearest(name, installed)} Installed: "
        f"{', '.join(installed)}. A missing one comes with its package: "
        f"pip install flambeau-{name}"
    )


def of(data: Data) -> Domain:
    """The domain of a data object, from the reference ``"package.module:DOMAIN"`` in its class.

    Raises:
        DomainError: The class names no domain, or the record cannot be used.
    """
    reference: object = getattr(data, "domain", None)
    if not isinstance(reference, str):
        raise DomainError(
            f"{type(data).__name__}.domain is {reference!r}, but it must say where the domain's "
            'record stands. Write in the class: domain = "package.module:DOMAIN".'
        )
    return load(reference)


def recognise(path: str | Path) -> Domain:
    """The domain that is surest that it can read ``path``.

    Raises:
        DomainError: The path does not exist, no domain claims it, or two are equally sure; with
            every domain's confidence.
    """
    path = Path(path)
    if not path.exists():
        raise DomainError(f"{path} does not exist. Give the file or folder that holds the data.")
    working = {name: entry.domain for name, entry in discover().items() if entry.domain}
    sure = {name: float(domain.recognise(path)) for name, domain in working.items()}
    best = max(sure.values(), default=0.0)
    winners = [name for name, confidence in sure.items() if confidence == best > 0]
    if len(winners) == 1:
        return working[winners[0]]
    seen = ", ".join(f"{name} {confidence:.2f}" for name, confidence in sure.items())
    broken = [f"{name}: {entry.error}" for name, entry in discover().items() if entry.error]
    problem = "Two domains are equally sure of" if winners else "No installed domain can read"
    raise DomainError(
        f"{problem} {path} (confidence 0 to 1: {seen or 'none is installed'}). Name the domain "
        "yourself, or build the data in Python with its data class."
        + (f" Not asked, since broken: {'; '.join(broken)}" if broken else "")
    )


# ---------------------------------------------------------------- loading

# Records in use, by reference: a domain that is being written need not be installed.
_used: dict[str, Domain] = {}


def load(reference: str) -> Domain:
    """The record at ``"package.module:DOMAIN"``, checked once and then kept.

    Raises:
        DomainError: It cannot be imported, or a field is not as ``Domain`` says.
    """
    if reference not in _used:
        _used[reference] = _read(reference)
    return _used[reference]


def _read(reference: str) -> Domain:
    module, colon, attribute = reference.partition(":")
    if not (module and colon and attribute):
        raise DomainError(
            f"{reference!r} does not name a domain's record. Write 'package.module:DOMAIN'."
        )
    try:
        record: object = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a foreign package raises, the message must name it
        raise DomainError(
            f"The domain at {reference} cannot be read: {type(error).__name__}: {error}. "
            "Reinstall or mend the package, or remove it."
        ) from error
    check_record(record, reference)
    return cast(Domain, record)


def _doubled(name: str, owners: Iterable[str]) -> DomainError:
    return DomainError(
        f"The name {name!r} is given to more than one domain: {', '.join(sorted(owners))}. "
        "Uninstall or rename all but one of them."
    )


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"


def _examine(name: str, places: list[tuple[str, str, str]]) -> Found:
    """What the places (name, reference, distribution) that claim ``name`` amount to."""
    _, reference, owner = places[0]
    if len(places) > 1:
        owners = ", ".join(owner for _, _, owner in places)
        error = _doubled(name, (f"{owner} ({ref})" for _, ref, owner in places))
        return Found(name, reference, owners, error=error)
    try:
        domain = load(reference)
    except DomainError as error:
        return Found(name, reference, owner, error=error)
    if domain.name != name:
        error = DomainError(
            f"{owner} registers {reference} as {name!r}, but the record's name is "
            f"{domain.name!r}. Use one name in both places."
        )
        return Found(name, reference, owner, error=error)
    return Found(name, reference, owner, domain=domain)


# ---------------------------------------------------------------- checking a record


def check_record(record: object, reference: str) -> None:
    """Refuse a record that is not as ``Domain`` says.

    Raises:
        DomainError: Naming the place, the field and the fault.
    """
    if not isinstance(record, Domain):
        raise DomainError(
            f"{reference} is a {type(record).__name__}, not a flambeau.domain.Domain. "
            "Make the record with Domain(name=..., ...)."
        )
    if record.api != API:
        older = isinstance(cast(object, record.api), int) and record.api < API
        raise DomainError(
            f"{reference} was written for version {record.api!r} of the domain record, this "
            f"flambeau reads version {API}. Upgrade {'that package' if older else 'flambeau'}."
        )
    for name, fault in _faults(record):
        raise DomainError(f"{reference}: the field {name!r} {fault}.")


def _faults(record: Domain) -> Iterator[tuple[str, str]]:
    if not isinstance(cast(object, record.name), str) or not record.name.isidentifier():
        yield "name", f"is {record.name!r}; it must be a plain word such as 'vision'"
    for table in ("data_classes", "models", "tasks", "builders"):
        yield from ((table, fault) for fault in _table_faults(table, getattr(record, table)))
    yield from _clashes(record)
    kinds: dict[str, type] = {"rules": Rule, "cli_options": CliOption, "checks": Check}
    for name, kind in kinds.items():
        entries: object = getattr(record, name)
        if not isinstance(entries, tuple):
            yield name, f"is a {type(entries).__name__}; it must be a tuple"
            continue
        for entry in cast("tuple[object, ...]", entries):
            if not isinstance(entry, kind):
                yield name, f"holds {entry!r:.80}, which is no {kind.__name__}"
    for name, entries in (
        ("rules", [rule.key for rule in record.rules]),
        ("cli_options", [option.name for option in record.cli_options]),
        ("checks", [check.code for check in record.checks]),
    ):
        for twice in sorted({entry for entry in entries if entries.count(entry) > 1}):
            yield name, f"has {twice!r} more than once"
    if not callable(record.recognise):
        yield "recognise", f"is {record.recognise!r:.80}; it must be a function of a path"
    if record.demo is not None and not callable(record.demo):
        yield "demo", f"is {record.demo!r:.80}; it must be a function demo(n_samples, seed) or None"


def _table_faults(table: str, entries: object) -> Iterator[str]:
    if not isinstance(entries, Mapping):
        yield f"is a {type(entries).__name__}; it must map names to what they build"
        return
    for key, value in cast("Mapping[object, object]", entries).items():
        if not isinstance(key, str) or not key:
            yield f"has the key {key!r}; names are text"
        elif table == "data_classes" and not (isinstance(value, type) and issubclass(value, Data)):
            yield f"has {key!r}: {value!r:.80}, which is no subclass of flambeau.data.Data"
        elif not callable(value):
            yield f"has {key!r}: {value!r:.80}, which cannot be called"


def _clashes(record: Domain) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for table in ("models", "tasks", "builders"):
        for name in cast("Mapping[str, object]", getattr(record, table)):
            if name in seen:
                yield table, f"has {name!r}, which is in {seen[name]!r} as well; rename one of them"
            seen[name] = table
