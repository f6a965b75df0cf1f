"""``copied_as_nothing``: a hook that a copy of its module does not have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any


def copied_as_nothing(function: Callable[..., None]) -> Callable[..., None]:
    """Return a hook that is replaced by one that does nothing if its module is copied or pickled.

    A copy of the model that is made in a watched step (for weight averaging, or a file) would have
    its own copy of the watch otherwise, which nothing removes.
    """
    return _StepHook(function)


class _StepHook:
    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> None:
        self._function(*arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, str]]:
        # A function of the standard library that does nothing and takes any arguments, so that a
        # file with the model is read without flambeau.
        return getattr, (nullcontext(), "__exit__")
