"""All errors that flambeau raises deliberately.

    FlambeauError
    ├─ InputError (ValueError)          data or an argument value is invalid
    ├─ ArgumentError (TypeError)        an argument has a wrong type or an unknown name
    ├─ SplitError (ValueError)          train, valid and test cannot be formed, or overlap
    ├─ PlanError (ValueError)           a choice is unknown, impossible or missing
    ├─ DomainError (LookupError)        a domain is missing, invalid, or registered twice
    ├─ TrainingError (RuntimeError)     the run cannot continue
    │  └─ NonFiniteError                loss or gradients are not finite
    ├─ OutOfMemoryError (MemoryError, RuntimeError)     a step or a prediction needs more memory
    ├─ ResumeError (RuntimeError)       a checkpoint does not fit the run that would continue it
    ├─ ArtefactError (ValueError)       a checkpoint or an export is damaged, unsafe or invalid
    ├─ StorageError (OSError)           a file or folder cannot be written
    ├─ ConformanceError (AssertionError)    a domain violates its contract with core
    └─ MissingDependencyError (ImportError)   an optional package is not installed

A message says what happened, why, and what to do, with the value, file or row concerned.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast


class FlambeauError(Exception):
    """The base class: ``except FlambeauError`` catches every error that flambeau raises itself."""


class InputError(FlambeauError, ValueError):
    """Data or an argument value is invalid."""

    names_source_row = False
    """Whether the message has the number of a row in the source, not in a part that was read."""


class ArgumentError(FlambeauError, TypeError):
    """An argument has a wrong type, or an unknown name."""


class SplitError(FlambeauError, ValueError):
    """The train, validation and test parts cannot be formed, or they overlap."""


class PlanError(FlambeauError, ValueError):
    """A choice is unknown, impossible or missing."""


class DomainError(FlambeauError, LookupError):
    """A domain is missing, invalid, or registered twice."""


class TrainingError(FlambeauError, RuntimeError):
    """The run cannot continue."""


class NonFiniteError(TrainingError):
    """Loss or gradients are not finite."""


class OutOfMemoryError(FlambeauError, MemoryError, RuntimeError):
    """A step or a prediction needs more memory than available; the message says what to change."""


class ResumeError(FlambeauError, RuntimeError):
    """A checkpoint does not fit the run that should continue from it."""


class ArtefactError(FlambeauError, ValueError):
    """A checkpoint or an export is damaged or unsafe, or flambeau did not write it."""


class StorageError(FlambeauError, OSError):
    """A file or folder cannot be written: full disk, read-only folder."""


class ConformanceError(FlambeauError, AssertionError):
    """A domain violates the contract that ``flambeau.testing`` checks."""


class MissingDependencyError(FlambeauError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""


class FlambeauWarning(UserWarning):
    """Something works, but is very likely not intended."""


_OTHER_NAMES = {
    "arch": "model",
    "architecture": "model",
    "backbone": "model",
    "bs": "batch_size",
    "cbs": "callbacks",
    "criterion": "loss",
    "dtype": "precision",
    "label": "target",
    "labels": "target",
    "learning_rate": "lr",
    "max_epochs": "epochs",
    "max_steps": "steps",
    "model": "architecture",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "wd": "weight_decay",
    "workers": "num_workers",
}
"""What other libraries call the settings of flambeau."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest known name, or all known names.

    >>> did_you_mean("on_step_finish", ["on_step_end", "on_fit_end"])
    "Did you mean 'on_step_end'?"
    """
    names = sorted(known)
    same = _OTHER_NAMES.get(name.replace("-", "_"))
    if same in names:
        return f"Did you mean {same!r}?"
    close = [each for each in names if each.lower() == name.lower()]
    close = close or difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return "Known names: " + (", ".join(names) if names else "none") + "."


def check_signature(function: Callable[..., object], what: str, *names: str) -> None:
    """Check that a user-defined function can be called with the arguments that it will get.

    Args:
        function: The function; one whose signature Python does not know is not checked.
        what: What it is in the message: "The metric 'recall'".
        names: Names of the arguments, which are passed by position.

    Raises:
        ArgumentError: It takes more or fewer arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*names)
    except TypeError:
        raise ArgumentError(
            f"{what} is called with ({', '.join(names)}), but it takes {signature}. Define it with "
            f"{len(names)} argument{'' if len(names) == 1 else 's'}."
        ) from None


def check_path(value: object, name: str) -> None:
    """Check that an argument is a path; `explains_arguments` does so for the methods of a class.

    Args:
        value: The argument.
        name: Its name, for the message.

    Raises:
        ArgumentError: It is neither text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise ArgumentError(f"{name} must be a path (text or Path), not {value!r:.60}.")


C = TypeVar("C", bound=type)


def _no_hint(name: str) -> str:
    return ""


def explains_arguments(hint: Callable[[str], str] = _no_hint) -> Callable[[C], C]:
    """Let the constructor and the public methods of a class explain an unknown argument.

    An argument that is annotated as ``bool`` or ``bool | None`` must be one: the text "no" would be
    true.

    Args:
        hint: Returns for the name of an argument where its value is set instead; empty if unknown.

    Example:
        >>> @explains_arguments()
        ... class Model:
        ...     def fit(self, epochs): ...
        >>> Model().fit(epoch=3)
        Traceback (most recent call last):
        ...
        flambeau.errors.ArgumentError: Model.fit has no argument 'epoch'. Did you mean 'epochs'?
    """

    def decorate(cls: C) -> C:
        for name, value in list(vars(cls).items()):
            # A function that is the default of a field is a value, not a method.
            is_field = name in getattr(cls, "__dataclass_fields__", ())
            if is_field or (name.startswith("_") and name != "__init__"):
                continue
            if inspect.isfunction(value):
                setattr(cls, name, _explained(value, hint))
            elif isinstance(value, classmethod):
                function: Callable[..., Any] = cast("Any", value).__func__
                setattr(cls, name, classmethod(_explained(function, hint)))
        return cls

    return decorate


def _explained(function: Callable[..., Any], hint: Callable[[str], str]) -> Callable[..., Any]:
    code = inspect.unwrap(function).__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    known = frozenset(names)
    annotations = inspect.unwrap(function).__annotations__
    flags = {name for name in names if annotations.get(name) in _FLAGS}
    paths = {name for name in names if annotations.get(name) in _PATHS}
    needed = names[1 : code.co_argcount - len(inspect.unwrap(function).__defaults__ or ())]
    most = None if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return function

    @functools.wraps(function)
    def call(first: Any, /, *args: Any, **named: Any) -> Any:
        for name in named:
            if name not in known:
                own = did_you_mean(name, known - {"self", "cls"})
                shown = _shown(first, function)
                other = "" if _is_near(name, known) else hint(name)
                raise ArgumentError(f"{shown} has no argument {name!r}. {other or own}")
        if most is not None and len(args) >= most:
            raise ArgumentError(_too_many(_shown(first, function), names, most, len(args)))
        if twice := [name for name in names[1 : len(args) + 1] if name in named]:
            raise ArgumentError(f"{_shown(first, function)} was given {twice[0]} twice.")
        if missing := [name for name in needed[len(args) :] if name not in named]:
            raise ArgumentError(f"{_shown(first, function)} needs {' and '.join(missing)}.")
        for name in paths:
            at = names.index(name) - 1
            value = args[at] if at < len(args) else named.get(name)
            is_given = at < len(args) or name in named
            if is_given and not (value is None and annotations[name].endswith("None")):
                check_path(value, name)
        if flags:
            args = tuple(
                _checked_flag(value, name) if name in flags else value
                for name, value in itertools.zip_longest(names[1 : len(args) + 1], args)
            )
            for name in flags & named.keys():
                named[name] = _checked_flag(named[name], name)
        return function(first, *args, **named)

    return call


def _is_near(name: str, known: Iterable[str]) -> bool:
    """Return whether a name is so near to a known one that it is meant, and no other place."""
    names = list(known)
    is_other_name = _OTHER_NAMES.get(name) in names
    return is_other_name or bool(difflib.get_close_matches(name.lower(), names, 1, cutoff=0.7))


_FLAGS = ("bool", "bool | None", bool)
_PATHS = tuple(
    f"{name}{end}"
    for name in ("str | Path", "str | os.PathLike[str]", "PathLike")
    for end in ("", " | None")
)


def _shown(owner: Any, function: Callable[..., Any]) -> str:
    name = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    return name if function.__name__ == "__init__" else f"{name}.{function.__name__}"


def _too_many(shown: str, names: Sequence[str], most: int, given: int) -> str:
    own = names[1:most]
    known = (
        f"without a name it takes only {', '.join(own)}" if own else "it takes none without a name"
    )
    named = names[most:]
    others = f" Name the others: {', '.join(f'{name}=…' for name in named)}." if named else ""
    return f"{shown} was given {given} value{'s' * (given > 1)} without a name; {known}.{others}"


def _checked_flag(value: object, name: str) -> bool | None:
    """Return True, False or None, also of NumPy and torch; `checked_arguments` is a layer above."""
    if getattr(value, "ndim", 1) == 0 and hasattr(value, "item"):
        value = cast("Any", value).item()
    if value is None or isinstance(value, bool):
        return value
    raise ArgumentError(f"{name} must be True or False, not {value!r:.60}.")
