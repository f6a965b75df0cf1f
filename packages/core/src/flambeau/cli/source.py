"""From a path and options on the command line to a domain and its data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flambeau import domain as domains
from flambeau.artefact.checkpoint import latest_checkpoint
from flambeau.data.data import Data
from flambeau.domain import Domain
from flambeau.errors import ArgumentError, InputError, nearest


def open_data(
    path: Path,
    domain_name: str | None,
    extra: Sequence[str],
    options: Mapping[str, Any] | None = None,
) -> tuple[Domain, Data]:
    """The domain that recognises ``path``, and its data.

    Args:
        path: What the user named. Where the command line began with an option instead, it is that
            option, and another one whose key is "path" says what is to be read.
        domain_name: The kind of data where it should not be recognised.
        extra: Words of the command line that are options of the domain.
        options: Options by key, besides these.
    """
    if str(path).startswith("--"):
        path, extra, domain_name = _named_path([str(path), *extra], domain_name)
    if not path.exists():
        raise InputError(f"There is nothing at {path} (looked from {Path.cwd()}). Check the path.")
    if path.is_dir() and not any(file.is_file() for file in path.rglob("*")):
        raise InputError(f"{path} holds no files. Name the folder that your data are in.")
    domain = domains.get(domain_name) if domain_name else domains.recognise(path)
    data_class: Any = next(iter(domain.data_classes.values()))
    return domain, data_class.from_path(path, {**parse_options(domain, extra), **(options or {})})


def _named_path(words: list[str], domain_name: str | None) -> tuple[Path, Sequence[str], str]:
    """PATH where an option gives it, the words without that option, and the domain that has it.

    Raises:
        ArgumentError: No option among the words stands for PATH.
    """
    names = [word.removeprefix("--").partition("=")[0] for word in words]
    found = discover_options(domain_name)
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
        f"The command begins with {words[0]!r}, but PATH comes first: the file or folder of your "
        f"data. (Options that may stand for it: {known}.)"
    )


def discover_options(domain_name: str | None) -> list[tuple[str, str]]:
    """Options that may stand for PATH, each with its domain's name; of one domain, or of all."""
    if domain_name is not None:
        installed = [domains.get(domain_name)]
    else:
        installed = [found.domain for found in domains.discover().values() if found.domain]
    return [
        (option.name, domain.name)
        for domain in installed
        for option in domain.cli_options
        if option.key == "path"
    ]


def parse_options(domain: Domain, arguments: Sequence[str]) -> dict[str, Any]:
    """``--name value`` and ``--name=value`` pairs that the domain declares, by their key.

    An option that is true or false may stand alone: it is true then.

    Raises:
        ArgumentError: An option is unknown, has no value, or a value of the wrong type.
    """
    known = {option.name: option for option in domain.cli_options}
    values: dict[str, Any] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in known:
            raise ArgumentError(
                f"{word!r} is no option for {domain.name} data. "
                f"{nearest(f'--{name}', [f'--{option}' for option in known])} "
                f"`flambeau domains {domain.name}` lists them."
            )
        option = known[name]
        if not equals:
            stands_alone = not words or words[0].startswith("--")
            if stands_alone and option.type is bool:
                text = "true"
            elif not words:
                raise ArgumentError(f"The option {word} needs a value: {option.help}")
            else:
                text = words.pop(0)
        try:
            values[option.key] = _truth(text) if option.type is bool else option.type(text)
        except ValueError as error:
            raise ArgumentError(
                f"{text!r} is no value for {word}: {option.help} ({error})"
            ) from error
    return values


def _truth(text: str) -> bool:
    # bool("false") is True.
    if text.lower() not in ("true", "false"):
        raise ValueError("it is true or false")
    return text.lower() == "true"


def parse_choices(settings: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs as plan choices; a value is JSON where it can be, else text."""
    choices: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ArgumentError(
                f"--set {setting!r} needs the form key=value, for example --set batch_size=64."
            )
        choices[key] = _value(text)
    return choices


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def check_model(domain: Domain, model: str | None) -> None:
    """Refuses a name that is none of the domain's architectures, before anything is planned."""
    if model is not None and model not in domain.models:
        raise ArgumentError(
            f"--model {model} is no architecture for {domain.name} data. "
            f"{nearest(model, domain.models)}"
        )


def make_run_folder(folder: Path) -> None:
    """Makes the folder of a new run.

    Raises:
        ArgumentError: It holds a run already, which would be written over.
        InputError: It cannot be made.
    """
    if (folder / "plan.json").exists():
        raise ArgumentError(
            f"{folder} holds a run already, and this one would be written over it. Name another "
            f"folder with --out, remove that one, or go on with it: --resume {folder}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The run's folder {folder.absolute()} cannot be made ({error.strerror}). Name one "
            "that can be written to: --out FOLDER."
        ) from error


def clear_unused(folder: Path) -> None:
    """Takes away what a run wrote that failed before its first epoch and left no checkpoint."""
    history = folder / "history.csv"
    trained = history.exists() and history.stat().st_size > 0
    if trained or latest_checkpoint(folder) is not None:
        return
    for file in (history, folder / "plan.json"):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # other things may lie in it, or it may not be there
        folder.rmdir()


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are not None."""
    return {key: value for key, value in values.items() if value is not None}
