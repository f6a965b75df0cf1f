"""Running cases: which, at which size, one after another; every line written as it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_bench.case import SIZES, Case, Size
from flambeau_bench.pairing import measure_pairs
from flambeau_bench.records import Record, append, header, of_comparison, skipped
from flambeau_bench.verdict import judge

Tell = Callable[[str], None]


def cases_of(
    target: str, cases: dict[str, Case], size: str | None = None
) -> list[tuple[Case, Size]]:
    """The cases that a name on the command line means, with their sizes.

    Args:
        target: A case, or a suite ("quick", "cpu", "gpu"): every case that has that size.
        cases: All there are.
        size: Of a case that is named; "cpu" by default. A suite brings its own.

    Raises:
        ArgumentError: There is no such case, suite or size.
    """
    if target in SIZES:
        if size is not None and size != target:
            raise ArgumentError(
                f"The suite {target!r} has the size {target!r}, not {size!r}. Name a case to give "
                "it another size."
            )
        return [(case, case.sizes[target]) for case in cases.values() if target in case.sizes]
    if target not in cases:
        raise ArgumentError(
            f"There is no case and no suite {target!r}. {did_you_mean(target, [*cases, *SIZES])}"
        )
    case, wanted = cases[target], size or "cpu"
    if wanted not in case.sizes:
        raise ArgumentError(
            f"The case {target!r} has no size {wanted!r}. {did_you_mean(wanted, case.sizes)}"
        )
    return [(case, case.sizes[wanted])]


def run(
    chosen: Sequence[tuple[Case, Size]],
    folder: Path,
    *,
    pairs: int | None = None,
    variants: Sequence[str] = (),
    tell: Tell = lambda text: None,
) -> list[Record]:
    """Measures the cases and appends every line to one file of ``folder``.

    Args:
        chosen: Cases with their sizes.
        folder: For the results; made where it is missing.
        pairs: Instead of the sizes' own; the noise floor gets as many. Counts stay as they are.
        variants: Only these; all where it is empty.
        tell: Gets a line before each comparison, and how far it is where it takes long.

    Raises:
        InputError: ``pairs`` is not positive.
        ArgumentError: A variant that none of the cases has.
        StorageError: The results cannot be written.
    """
    if pairs is not None and pairs < 1:
        raise InputError(f"--pairs is a number of pairs, at least 1, not {pairs}.")
    _check_variants(chosen, variants)
    run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    found: list[Record] = []
    for case, planned in chosen:
        size = planned
        if pairs is not None and planned.floor_pairs:
            size = replace(planned, pairs=pairs, floor_pairs=pairs)
        head = header(run_id, case, size)
        if why := case.why_not(size):
            tell(f"{case.name}: skipped, {why}")
            lines = [skipped(head, why)]
            append(folder, run_id, lines)
            found += lines
            continue
        for comparison in case.comparisons(size):
            if variants and comparison.variant not in variants:
                continue
            tell(f"{case.name} ({comparison.variant}): {size.pairs} pairs …")
            measured = measure_pairs(case, comparison, size, tell)
            lines = of_comparison(head, measured, judge(case, measured))
            append(folder, run_id, lines)
            found += lines
    return found


def _check_variants(chosen: Sequence[tuple[Case, Size]], variants: Sequence[str]) -> None:
    known = [c.variant for case, size in chosen for c in case.comparisons(size)]
    for variant in variants:
        if variant not in known:
            raise ArgumentError(f"There is no variant {variant!r}. {did_you_mean(variant, known)}")
