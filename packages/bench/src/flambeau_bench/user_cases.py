"""Cases from other packages (entry points) and from files of a user."""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from flambeau.errors import ArgumentError, InputError
from flambeau_bench.case import Case

ENTRY_POINTS = "flambeau.bench_cases"
"""Entry-point group of cases from other packages; each value is a ``Case``."""


def with_user_cases(cases: Mapping[str, Case], names: Sequence[str]) -> dict[str, Case]:
    """Return ``cases`` with those of installed packages, and those of the files among ``names``.

    The case of a file is found under the name of the file without ``.py``.

    Args:
        cases: The cases of this package.
        names: What the command line names; those that end in ``.py`` are read.

    Raises:
        ArgumentError: Two cases have the same name.
        InputError: A file does not exist or has no ``CASE``.
    """
    found = dict(cases)
    for entry in entry_points(group=ENTRY_POINTS):
        case: Case = entry.load()
        if case.name in found:
            raise ArgumentError(
                f"{entry.value} and another package define the case {case.name!r}. Rename or "
                "uninstall one of them."
            )
        found[case.name] = case
    for name in names:
        if name.endswith(".py"):
            found[Path(name).stem] = case_of_file(Path(name))
    return found


def case_of_file(path: Path) -> Case:
    """Return the ``CASE`` of a Python file.

    Raises:
        InputError: The file does not exist or has no ``CASE``.
    """
    if not path.is_file():
        raise InputError(f"The file {path} of a case does not exist.")
    case = runpy.run_path(str(path), run_name=path.stem).get("CASE")
    if not isinstance(case, Case):
        raise InputError(f"{path} defines no CASE of class flambeau_bench.case.Case.")
    if case.fresh:
        raise InputError(
            f"The case in {path} sets fresh, but a new process finds cases of installed packages "
            f"only. Offer it as an entry point of the group {ENTRY_POINTS!r}, or set fresh = False."
        )
    return case
