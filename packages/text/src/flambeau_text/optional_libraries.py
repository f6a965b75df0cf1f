"""Import transformers and peft when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from flambeau.errors import MissingDependencyError


def transformers() -> Any:
    """Return the module ``transformers``.

    Raises:
        MissingDependencyError: It is not installed.
    """
    return _library("transformers")


def peft() -> Any:
    """Return the module ``peft``.

    Raises:
        MissingDependencyError: It is not installed.
    """
    return _library("peft")


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"Hugging Face models need the package {name}, which cannot be imported ({error}): "
            'pip install "flambeau-text[hf]".'
        ) from error
