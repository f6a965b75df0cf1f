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
from collections.abc import Iterable


class FlambeauError(Exception):
    """The base class: ``except FlambeauError`` catches every error that flambeau raises itself."""


class InputError(FlambeauError, ValueError):
    """Data or an argument value is invalid."""


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest known name, or all known names.

    >>> did_you_mean("on_step_finish", ["on_step_end", "on_fit_end"])
    "Did you mean 'on_step_end'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return "Known names: " + (", ".join(names) if names else "none") + "."
