"""The examples in the docstrings of the text package run and print what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import flambeau_tabular


def test_docstring_examples_run() -> None:
    attempted = 0
    for module in pkgutil.walk_packages(flambeau_tabular.__path__, "flambeau_tabular."):
        found = doctest.testmod(importlib.import_module(module.name))
        assert not found.failed, module.name
        attempted += found.attempted
    assert attempted > 10
