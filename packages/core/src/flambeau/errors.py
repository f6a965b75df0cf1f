"""Every error that flambeau raises on purpose.

    FlambeauError
    ├─ InputError (ValueError)          the data or a value that was passed in cannot be used
    ├─ ArgumentError (TypeError)        a wrong type, or a name that does not exist
    ├─ SplitError (ValueError)          train, valid and test cannot be formed or overlap
    ├─ PlanError (ValueError)           a choice is unknown, impossible or missing
    ├─ DomainError (LookupError)        a domain is missing, doubled or broken
    ├─ TrainingError (RuntimeError)     the run cannot go on
    │  └─ NonFiniteError                loss or gradients are no longer finite
    ├─ OutOfMemoryError (MemoryError, RuntimeError)     a step or an answer needs more memory
    ├─ ResumeError (RuntimeError)       a checkpoint does not fit what it should continue
    ├─ ArtefactError (ValueError)       a checkpoint or an export is damaged, foreign or unsafe
    ├─ StorageError (OSError)           a file or folder cannot be written
    ├─ ConformanceError (AssertionError)    a domain breaks the contract
    └─ MissingDependencyError (ImportError)   an optional package is not installed

A message says what happened, why, and what to do, with the offending value, file or row.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FlambeauError(Exception):
    """The root: ``except FlambeauError`` catches whatever flambeau raises on purpose."""


class InputError(FlambeauError, ValueError):
    """The data, or a value that was passed in, cannot be used."""


class ArgumentError(FlambeauError, TypeError):
    """An argument has the wrong type, or names something that does not exist."""


class SplitError(FlambeauError, ValueError):
    """Train, valid and test cannot be formed, or they overlap."""


class PlanError(FlambeauError, ValueError):
    """A choice is unknown, impossible or missing."""


class DomainError(FlambeauError, LookupError):
    """A domain is missing, doubled or broken."""


class TrainingError(FlambeauError, RuntimeError):
    """The run cannot go on."""


class NonFiniteError(TrainingError):
    """Loss or gradients are no longer finite."""


class OutOfMemoryError(FlambeauError, MemoryError, RuntimeError):
    """A step, or an answer, needs more memory than there is; the message says what to change."""


class ResumeError(FlambeauError, RuntimeError):
    """A checkpoint does not fit what it should continue."""


class ArtefactError(FlambeauError, ValueError):
    """A checkpoint or an export is damaged, foreign or unsafe."""


class StorageError(FlambeauError, OSError):
    """A file or folder cannot be written: full disk, read-only place."""


class ConformanceError(FlambeauError, AssertionError):
    """A domain breaks the contract that ``flambeau.testing`` checks."""


class MissingDependencyError(FlambeauError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class FlambeauWarning(UserWarning):
    """Something that runs, but very likely is not what was meant."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them.

    >>> nearest("on_step_finish", ["on_step_end", "on_fit_end"])
    "Did you mean 'on_step_end'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return "Known names: " + (", ".join(names) if names else "none") + "."
