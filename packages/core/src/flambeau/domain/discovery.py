"""Find the installed domains, and the domain for a name, a data object or a path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from flambeau.data.data import Data
from flambeau.domain.record import Domain, FromPath, Recognition
from flambeau.domain.record_validation import check_record
from flambeau.errors import DomainError, check_path, did_you_mean
from flambeau.wording import type_and_first_line

ENTRY_POINT_GROUP = "flambeau.domains"
"""The entry-point group in which packages name their records."""

# Core's own domain is listed with the installed ones and has no privileges.
_OWN = {"tensors": "flambeau.tensors.domain:DOMAIN"}


@dataclass(frozen=True)
class InstalledDomain:
    """A domain that an installed package registers; its record may be invalid.

    Attributes:
        name: Name of the domain.
        reference: Where the record is defined, ``"package.module:DOMAIN"``.
        distribution: The package that registers the domain.
        domain: The record; None if it cannot be used.
        error: Why the record cannot be used; None if it can.
    """

    name: str
    reference: str
    distribution: str
    domain: Domain | None = None
    error: DomainError | None = None

    def require(self) -> Domain:
        """Return the record.

        Raises:
            DomainError: The record cannot be used; the message says why.
        """
        if self.domain is None:
            raise self.error or DomainError(f"The domain {self.name!r} has no record.")
        return self.domain


@cache
def installed_domains() -> Mapping[str, InstalledDomain]:
    """Return every installed domain by name; ``error`` is set if one cannot be used.

    The entry points are read on the first call and then cached. An invalid or duplicate domain
    raises no error here, but in ``get_domain``.
    """
    entries = {(name, reference, "flambeau") for name, reference in _OWN.items()}
    entries |= {
        (entry.name, entry.value, _owner(entry)) for entry in entry_points(group=ENTRY_POINT_GROUP)
    }
    names = sorted({name for name, _, _ in entries})
    return MappingProxyType(
        {
            name: _examine(name, sorted(entry for entry in entries if entry[0] == name))
            for name in names
        }
    )


def get_domain(name: str) -> Domain:
    """Return the domain with this name: first among loaded, then among installed ones.

    Raises:
        DomainError: No domain has the name, several domains have it, or the record is invalid.
    """
    loaded = {id(domain): (ref, domain) for ref, domain in _loaded.items() if domain.name == name}
    # Variants with other rules read the same exports.
    if len({_builders(domain) for _, domain in loaded.values()}) > 1:
        raise _duplicate_error(name, (reference for reference, _ in loaded.values()))
    installed = installed_domains()
    if len(loaded) > 1 and name in installed and installed[name].domain is not None:
        return installed[name].require()
    for _, domain in loaded.values():
        return domain
    if name in installed:
        return installed[name].require()
    provided = [
        found.name for found in installed.values() if found.distribution == f"flambeau-{name}"
    ]
    if provided:
        raise DomainError(
            f"Unknown domain {name!r}. The package flambeau-{name} provides {', '.join(provided)}."
        )
    raise DomainError(
        f"Unknown domain {name!r}. {did_you_mean(name, installed)} `flambeau domains` lists the "
        "installed domains. To use another domain, install the package that provides it."
    )


def domain_of(data: Data) -> Domain:
    """Return the domain of a data object, from ``domain = "package.module:DOMAIN"`` in its class.

    Raises:
        DomainError: The class names no domain, or the record is invalid.
    """
    reference: object = getattr(data, "domain", None)
    if not isinstance(reference, str):
        raise DomainError(
            f"{type(data).__name__}.domain is {reference!r}, but must be the reference of the "
            'domain\'s record. Write in the class: domain = "package.module:DOMAIN".'
        )
    return load_domain(reference)


def recognise_domain(path: str | Path, options: Mapping[str, str] | None = None) -> Domain:
    """Return the only domain that is sure to read ``path``, else the only one that may read it.

    Args:
        path: A file or folder.
        options: Options of the command line by name, as text.

    Raises:
        DomainError: The path does not exist, no domain recognises it, or several domains are
            equally certain; the message then gives the reason of each domain, and the option that
            selects it.
    """
    check_path(path, "path")
    path = Path(path)
    if not path.exists():
        raise DomainError(f"{path} does not exist. Give the file or folder that contains the data.")
    valid = {name: entry.domain for name, entry in installed_domains().items() if entry.domain}
    found = {
        name: recognition
        for name, domain in valid.items()
        if (recognition := _ask(domain, path, options or {})) is not None
    }
    sure = [name for name, recognition in found.items() if recognition.certainty == "sure"]
    refused = [name for name, each in found.items() if each.certainty == "no"]
    candidates = sure or [name for name in found if name not in refused]
    if len(candidates) == 1:
        return valid[candidates[0]]
    if candidates:
        reasons = "".join(f"\n  {name}: {found[name].reason}" for name in candidates)
        choices = " or ".join(f"--domain {name}" for name in candidates)
        raise DomainError(
            f"{len(candidates)} domains can read {path}:{reasons}\nChoose one: {choices}. In "
            "Python, use the data class of that domain."
        )
    reading = ", ".join(domains_that_read_paths())
    invalid = [
        f"{name}: {entry.error}" for name, entry in installed_domains().items() if entry.error
    ]
    raise DomainError(
        f"No installed domain recognises {path}. Domains that read paths: {reading or 'none'}. "
        "Choose one with --domain NAME, or build the data in Python with a data class."
        + "".join(f"\n  {name}: {found[name].reason}" for name in refused)
        + (f" Domains that cannot be loaded: {'; '.join(invalid)}" if invalid else "")
    )


def domains_that_read_paths() -> list[str]:
    """Return the names of the installed domains whose data can be built from a path."""
    found = ((name, entry.domain) for name, entry in installed_domains().items())
    return [name for name, domain in found if domain is not None and path_class(domain) is not None]


def path_class(domain: Domain) -> type[FromPath] | None:
    """Return the domain's data class that is built from a path; None if it reads no paths."""
    first: Any = next(iter(domain.data_classes.values()), None)
    return cast("type[FromPath]", first) if isinstance(first, FromPath) else None


def _ask(domain: Domain, path: Path, options: Mapping[str, str]) -> Recognition | None:
    found = domain.recognise(path, options)
    if found is None:
        return None
    # Domains are written by others, perhaps without a type checker.
    certainty: object = getattr(found, "certainty", None)
    if certainty not in ("sure", "possible", "no"):
        raise DomainError(
            f"recognise of the domain {domain.name!r} returned {found!r:.80}. It must return "
            'Recognition("sure", "possible" or "no", reason), or None.'
        )
    return found


# ---------------------------------------------------------------- loading

# Records by reference. A domain under development can be used without being installed.
_loaded: dict[str, Domain] = {}


def load_domain(reference: str) -> Domain:
    """Return the record at ``"package.module:DOMAIN"``, validated when it is new.

    If a notebook defines the record again, the new record replaces the old one.

    Raises:
        DomainError: The module cannot be imported, or the record is invalid.
    """
    module, _, attribute = reference.partition(":")
    known = _loaded.get(reference)
    if known is None or getattr(sys.modules.get(module), attribute, known) is not known:
        known = _loaded[reference] = _import_record(reference)
    return known


def _import_record(reference: str) -> Domain:
    module, colon, attribute = reference.partition(":")
    if not (module and colon and attribute):
        raise DomainError(
            f"{reference!r} is not a reference to a domain's record. Write 'package.module:DOMAIN'."
        )
    try:
        record: object = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a foreign package may raise anything; the message must name it
        raise DomainError(
            f"Cannot load the domain {reference}: {type_and_first_line(error)}. Reinstall or fix "
            "the package, or uninstall it."
        ) from error
    check_record(record, reference)
    return cast(Domain, record)


def is_variant(domain: Domain, of: Domain) -> bool:
    """Return whether two records differ only in what exports do not contain, such as rules."""
    return domain.name == of.name and _builders(domain) == _builders(of)


def _builders(domain: Domain) -> tuple[frozenset[tuple[str, object]], ...]:
    """Return the constructors by name in each field to which exports refer."""
    fields = (domain.models, domain.tasks, domain.losses, domain.metrics, domain.preprocessors)
    return tuple(frozenset(field.items()) for field in fields)


def _duplicate_error(name: str, owners: Iterable[str]) -> DomainError:
    return DomainError(
        f"More than one domain has the name {name!r}: {', '.join(sorted(owners))}. Uninstall or "
        "rename all but one of them."
    )


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"


def _examine(name: str, entries: list[tuple[str, str, str]]) -> InstalledDomain:
    """Return the domain that the entries, (name, reference, distribution) each, register."""
    _, reference, owner = entries[0]
    if len(entries) > 1:
        owners = ", ".join(owner for _, _, owner in entries)
        error = _duplicate_error(name, (f"{owner} ({ref})" for _, ref, owner in entries))
        return InstalledDomain(name, reference, owners, error=error)
    try:
        domain = load_domain(reference)
    except DomainError as error:
        return InstalledDomain(name, reference, owner, error=error)
    if domain.name != name:
        error = DomainError(
            f"{owner} registers {reference} as {name!r}, but the record's name is "
            f"{domain.name!r}. Use the same name in both."
        )
        return InstalledDomain(name, reference, owner, error=error)
    return InstalledDomain(name, reference, owner, domain=domain)
