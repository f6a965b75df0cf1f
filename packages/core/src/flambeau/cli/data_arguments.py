"""The command-line arguments that name the data: PATH, ``--domain`` and options of the domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from flambeau.artefact.export_format import ExportRecord, export_folder
from flambeau.data.data import Data
from flambeau.domain import (
    Domain,
    domains_that_read_paths,
    get_domain,
    installed_domains,
    path_class,
    recognise_domain,
    rules_of,
)
from flambeau.errors import ArgumentError, InputError, did_you_mean

DataPath = Annotated[Path, typer.Argument(help="Your data: a folder of images, a file, …")]
"""The argument PATH."""

DomainName = Annotated[
    str | None, typer.Option(help="Domain that reads the data; by default recognised from PATH.")
]
"""The option ``--domain``."""

TaskName = Annotated[
    str | None, typer.Option("--task", help="Name of the task; by default chosen from the targets.")
]
"""The option ``--task``: the choice "task" of the plan, which decides how targets are read."""

TargetName = Annotated[
    str | None, typer.Option("--target", help="Column (or file) of the targets.")
]
"""The option ``--target``."""

LikeExport = Annotated[
    Path | None,
    typer.Option(
        "--like", help="Read the data like the training data of the export in this folder."
    ),
]
"""The option ``--like``: an export whose reading options, classes and preprocessor are kept."""


READING_OPTIONS = ("--target", "--task", "--domain", "--like")
"""Options of all commands that say how the data are read, as all options of a domain do."""


def open_data(
    command: str,
    path: Path,
    domain_name: str | None,
    extra: Sequence[str],
    options: Mapping[str, Any] | None = None,
) -> tuple[Domain, Data]:
    """Return the domain that recognises ``path``, and the data.

    Args:
        command: Name of the command, which decides the options.
        path: The argument PATH. If the command line starts with an option instead, ``path`` is
            that option, and an option whose key is "path" names the data.
        domain_name: Name of the domain. None uses the domain of the export in the option "like"
            or, without this option, the domain that recognises the data.
        extra: Words of the command line that are options of the domain.
        options: Further options by key; those that are None are left out.

    Raises:
        InputError: The path does not exist or is a folder without files.
        ArgumentError: PATH is missing, an option is invalid, or the data cannot be read like an
            export.
        DomainError: No domain recognises the path.
    """
    if str(path).startswith("--"):
        path, extra, domain_name = _path_from_option(command, [str(path), *extra], domain_name)
    if not path.exists():
        raise InputError(f"{path} does not exist (current folder: {Path.cwd()}). Check the path.")
    if path.is_dir() and not any(file.is_file() for file in path.rglob("*")):
        raise InputError(f"{path} contains no files. Give the folder that contains your data.")
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if domain_name is None and "like" in given:
        domain_name = domain_of_export(given["like"])
    if domain_name:
        domain = get_domain(domain_name)
    else:
        texts = {name: value for name, value in given.items() if isinstance(value, str)}
        domain = recognise_domain(path, {**option_texts(extra), **texts})
    data_class: Any = path_class(domain)
    if data_class is None:
        others = ", ".join(domains_that_read_paths())
        raise ArgumentError(
            f"The domain {domain.name!r} cannot read {path}: create its data in Python with "
            f"{', '.join(domain.data_classes)}, and predict in Python with Predictor.load(folder)."
            + (f" Domains that read paths: {others}." if others else "")
        )
    data = data_class.from_path(path, {**parse_options(domain, command, extra), **given})
    if command != "evaluate" and "like" in given and data.like is None:
        raise ArgumentError(
            f"{type(data).__name__} cannot be read like an export, so --like {given['like']} would "
            f"have no effect. Omit it; the domain {domain.name!r} does not have this option."
        )
    return domain, data


def domain_of_export(folder: Path | None) -> str | None:
    """Return the name of the domain of the export in ``folder``; None without a folder."""
    return None if folder is None else ExportRecord.read(export_folder(folder)).domain


def option_texts(words: Sequence[str]) -> dict[str, str]:
    """Return the text of each option ``--name value`` by name; "true" for one without a value."""
    texts: dict[str, str] = {}
    for word, following in pairwise([*words, "--"]):
        if word.startswith("--"):
            name, equals, text = word.removeprefix("--").partition("=")
            texts[name] = text if equals else "true" if following.startswith("--") else following
    return texts


def _path_from_option(
    command: str, words: list[str], domain_name: str | None
) -> tuple[Path, Sequence[str], str]:
    """Return the PATH given by an option, the other arguments, and the domain of the option.

    Raises:
        ArgumentError: No option among the words can replace PATH.
    """
    names = [word.removeprefix("--").partition("=")[0] for word in words]
    found = path_options(command, domain_name)
    for option, domain in found:
        if option in names:
            at = names.index(option)
            _, equals, text = words[at].partition("=")
            if not equals and at + 1 == len(words):
                raise ArgumentError(f"The option {words[at]} needs a value: a file or folder.")
            rest = words[:at] + words[at + (1 if equals else 2) :]
            return Path(text if equals else words[at + 1]), rest, domain
    known = ", ".join(f"--{option}" for option, _ in found) or "none"
    raise ArgumentError(
        f"PATH is missing before {words[0]!r}: give the file or folder of your data first. "
        f"(Options that can replace it: {known}.)"
    )


def path_options(command: str, domain_name: str | None) -> list[tuple[str, str]]:
    """Return the options that can replace PATH and their domains, for one domain or for all."""
    if domain_name is not None:
        domains = [get_domain(domain_name)]
    else:
        domains = [found.domain for found in installed_domains().values() if found.domain]
    return [
        (option.name, domain.name)
        for domain in domains
        for option in domain.cli_options.get(command, ())
        if option.key == "path"
    ]


def parse_options(domain: Domain, command: str, words: Sequence[str]) -> dict[str, Any]:
    """Parse ``--name value`` and ``--name=value`` pairs that the domain declares for a command.

    A bool option without a value is True.

    Returns:
        Values by ``CliOption.key``.

    Raises:
        ArgumentError: An option is unknown, is given twice, has no value, or has a value of the
            wrong type.
    """
    values, others = take_options(domain, command, words)
    if others:
        raise UnknownOptionError(domain, command, others[0])
    return values


def take_options(
    domain: Domain, command: str, words: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the domain's options by ``CliOption.key``, and the other words.

    Raises:
        ArgumentError: An option is unknown, is given twice, has no value, or has a value of the
            wrong type.
    """
    known = {option.name: option for option in domain.cli_options.get(command, ())}
    values: dict[str, Any] = {}
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            others.append(word)
            continue
        name, equals, text = word.removeprefix("--").partition("=")
        if name not in known:
            raise UnknownOptionError(domain, command, word)
        option = known[name]
        if not equals:
            if option.type is bool and (not rest or rest[0].startswith("--")):
                text = "true"
            elif not rest:
                raise ArgumentError(f"The option {word} needs a value: {option.help}")
            else:
                text = rest.pop(0)
        if option.key in values:
            raise repeated_option(word.partition("=")[0])
        try:
            values[option.key] = _parse_bool(text) if option.type is bool else option.type(text)
        except ValueError as error:
            raise ArgumentError(
                f"Invalid value {text!r} for {word}: {option.help} ({error})"
            ) from error
    return values, others


def repeated_option(word: str) -> ArgumentError:
    """Return the error for an option that is given several times but takes one value."""
    return ArgumentError(
        f"The option {word} is given several times, but it takes one value. Give it once; several "
        "values, where an option takes them, are separated by commas."
    )


class UnknownOptionError(ArgumentError):
    """A word of the command line is no option of the domain, nor of the command.

    Args:
        domain: The domain that reads the data.
        command: Name of the command.
        word: The word.
        options: Names of the options that the command itself has, without dashes.
    """

    def __init__(
        self, domain: Domain, command: str, word: str, options: Sequence[str] = ()
    ) -> None:
        self.found = (domain, command, word)
        name = word.lstrip("-").partition("=")[0]
        own = [option.name for option in domain.cli_options.get(command, ())]
        hint = did_you_mean(name, [*own, *options]).replace("mean '", "mean '--")
        if not word.startswith("-"):
            hint = f"The {domain.name} data have one PATH; everything else is an option."
        elif (refused := domain.refused_options.get(name.replace("-", "_"))) is not None:
            hint = refused
        elif (key := name.replace("-", "_")) in {rule.key for rule in rules_of(domain)}:
            hint = f"Set a choice of the plan with --set {key}=VALUE."
        super().__init__(
            f"Unknown option {word!r} for {domain.name} data. {hint} `flambeau {command} --help` "
            "lists all options."
        )


def _parse_bool(text: str) -> bool:
    # bool("false") is True.
    if text.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return text.lower() == "true"
