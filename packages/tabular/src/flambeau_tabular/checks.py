"""The doctor's checks of tables, in addition to the checks of flambeau itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from flambeau.doctor import Check, Finding, TrainingSetup
from flambeau.doctor.batch_checks import constant_input
from flambeau.doctor.check import Reads, Runs
from flambeau.doctor.leak_checks import duplicates_across_parts
from flambeau_tabular.data import TabularData

_PAGE = "docs/tables_doctor.md#"

Run = Callable[[TrainingSetup], Finding | Sequence[Finding] | None]


def check_duplicates(setup: TrainingSetup) -> list[Finding]:
    """Return a finding if rows of a held-out part have the same inputs as a train row."""
    found = duplicates_across_parts(setup)
    if not isinstance(setup.data, TabularData):
        return found
    fix = (
        "Drop the copies before you build the data: frame.drop_duplicates(). Or keep equal rows in "
        "one part: group=…, on the command line --group, with a column that equal rows share. "
        "Columns that are not inputs, such as IDs, do not make rows different."
    )
    return [replace(finding, fix=fix) for finding in found]


def check_constant_input(setup: TrainingSetup) -> list[Finding]:
    """Return findings if all inputs are constant in the first batch.

    The rare categories or flags of a table may all be absent from a batch by chance; columns that
    are constant in train are not inputs.
    """
    found = constant_input(setup)
    all_constant = len(found) == len(setup.batch.inputs)
    return found if all_constant or not isinstance(setup.data, TabularData) else []


def _lazy(module: str, name: str) -> Run:
    """Return a check that is imported when it runs, because it needs pyarrow."""

    def run(setup: TrainingSetup) -> Finding | Sequence[Finding] | None:
        from flambeau_tabular.columns.memory import release_memory

        function: Run = getattr(importlib.import_module(f"flambeau_tabular.leaks.{module}"), name)
        found = function(setup)
        release_memory(len(setup.data.frame) if isinstance(setup.data, TabularData) else 0)
        return found

    return run


def _setups_of_targets(setup: TrainingSetup) -> list[TrainingSetup]:
    """Return a setup for each of several targets, with the rows that have it; else the setup."""
    data = setup.data
    if not isinstance(data, TabularData) or not data.several_targets:
        return [setup]
    return [
        TrainingSetup(data.of_target(name), setup.values, lambda: setup.built)
        for name in data.several_targets
    ]


def _of_each_target(module: str, name: str) -> Run:
    """Return a check that runs for each of several targets alone, on the rows that have it."""
    single = _lazy(module, name)

    def run(setup: TrainingSetup) -> Finding | Sequence[Finding] | None:
        found: list[Finding] = []
        for each in setup.cached(_setups_of_targets):
            own = single(each) or ()
            found += [own] if isinstance(own, Finding) else own
        # A check may find the same for each target.
        return [each for at, each in enumerate(found) if each not in found[:at]]

    return run


def _check(
    code: str, looks_for: str, run: Run, reads: Reads = "data", runs: Runs = "first fit"
) -> Check:
    return Check(code, looks_for, run, reads, runs, f"{_PAGE}{code}")


CHECKS: tuple[Check, ...] = (
    _check("duplicates-across-parts", "train rows in valid or test", check_duplicates),
    _check(
        "leaking-column",
        "an input that is the target in another form or predicts it alone",
        _of_each_target("target_leaks", "leaking_column"),
    ),
    _check(
        "time-across-parts",
        "dated rows that are not split by time",
        _lazy("time_leaks", "time_across_parts"),
    ),
    _check(
        "groups-across-parts",
        "persons or other groups in both train and valid",
        _lazy("group_leaks", "groups_across_parts"),
    ),
    _check(
        "missing-in-part",
        "columns that are missing in another part than in train",
        _lazy("column_faults", "missing_in_part"),
    ),
    _check("id-like-column", "inputs that number single rows", _lazy("column_faults", "id_like")),
    Check(
        "constant-input",
        "inputs with the same value in all samples",
        check_constant_input,
        "batch",
        "first fit",
        "docs/doctor.md#constant-input",
    ),
    # A matter of judgement
    _check(
        "named-like-target",
        "inputs with the name of the target",
        _of_each_target("target_leaks", "named_like_target"),
        runs="on request",
    ),
    _check(
        "missing-tells-target",
        "inputs whose missing cells are all of one class",
        _of_each_target("target_leaks", "missing_tells_target"),
        runs="on request",
    ),
    _check(
        "possible-groups",
        "keys whose rows have similar targets",
        _of_each_target("group_leaks", "possible_groups"),
        runs="on request",
    ),
    _check(
        "moves-with-time",
        "inputs that tell early from late rows",
        _of_each_target("time_leaks", "moves_with_time"),
        runs="on request",
    ),
    _check(
        "nearly-empty",
        "inputs that are nearly always missing",
        _lazy("column_faults", "nearly_empty"),
        runs="on request",
    ),
    _check(
        "few-rows-of-class",
        "classes with few train rows",
        _of_each_target("column_faults", "few_rows_of_class"),
        "facts",
        "on request",
    ),
)
"""The checks of this package; a check here replaces flambeau's check of the same code."""
