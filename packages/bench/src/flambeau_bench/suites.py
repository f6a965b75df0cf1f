"""Run the cases of a suite one after another; write each record as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_bench.case import SIZES, Case, Size
from flambeau_bench.pairing import measure_pairs
from flambeau_bench.peers.peer_case import PeerCase
from flambeau_bench.peers.peer_run import (
    ALL_PEERS,
    PeerOptions,
    run_peer_case,
    variant_names,
)
from flambeau_bench.records import Record, append, comparison_records, header, skipped_record
from flambeau_bench.verdict import judge

Log = Callable[[str], None]


def select_cases(
    target: str, cases: dict[str, Case], size: str | None = None, only: Sequence[str] = ()
) -> list[tuple[Case, Size]]:
    """Return the cases that a name on the command line selects, with their sizes.

    Args:
        target: A case, or a suite ("quick", "cpu", "gpu"): all cases that have this size, but those
            with peers only if ``only`` names them.
        cases: All cases by name.
        size: Size of a single case; "cpu" by default. A suite determines the size itself.
        only: Cases to run at the size of the suite ``target``; all if empty.

    Raises:
        ArgumentError: The case, suite or size is unknown, or ``only`` is given with a case.
    """
    if only:
        if target not in SIZES:
            raise ArgumentError(
                f"--case chooses from a suite ({', '.join(SIZES)}), and {target!r} is a case. "
                f"Run flambeau bench run cpu --case {only[0]}."
            )
        return [select_cases(name, cases, target)[0] for name in only]
    if target in SIZES:
        if size is not None and size != target:
            raise ArgumentError(
                f"The suite {target!r} runs at size {target!r}, not {size!r}. Name a case to "
                "choose another size."
            )
        return [
            (case, case.sizes[target])
            for case in cases.values()
            if target in case.sizes and not (isinstance(case, PeerCase) and case.on_request)
        ]
    if target not in cases:
        raise ArgumentError(
            f"Unknown case or suite {target!r}. {did_you_mean(target, [*cases, *SIZES])}"
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
    peers: PeerOptions = ALL_PEERS,
    log: Log = lambda line: None,
) -> list[Record]:
    """Measure the cases and append all records to one file in ``folder``.

    Args:
        chosen: Cases with their sizes.
        folder: Folder of the results; created if it is missing.
        pairs: Number of pairs, also for the noise floor; it replaces the number in ``Size``, except
            for cases that only count.
        variants: Variants to run; all if empty.
        peers: Which peers take part in cases with peers.
        log: Receives a line before each comparison, and its progress if it takes long.

    Raises:
        InputError: ``pairs`` is not positive.
        ArgumentError: None of the cases has one of ``variants``, a name of a peer is unknown, or
            peers are named and none of the cases is compared with peers.
        StorageError: The results cannot be written.
    """
    if pairs is not None and pairs < 1:
        raise InputError(f"--pairs must be at least 1, not {pairs}.")
    _check_names(chosen, variants, peers)
    run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    found: list[Record] = []
    for case, planned in chosen:
        size = planned
        if pairs is not None and planned.floor_pairs:
            size = replace(planned, pairs=pairs, floor_pairs=pairs)
        head = header(run_id, case, size)
        if reason := case.skip_reason(size):
            log(f"{case.name}: skipped, {reason}")
            records = [skipped_record(head, reason)]
            append(folder, run_id, records)
            found += records
            continue
        if isinstance(case, PeerCase):
            found += run_peer_case(case, size, head, folder, peers, variants=variants, log=log)
            continue
        for comparison in case.comparisons(size):
            if variants and comparison.variant not in variants:
                continue
            log(f"{case.name} ({comparison.variant}): {size.pairs} pairs …")
            measured = measure_pairs(case, comparison, size, log)
            records = comparison_records(head, measured, judge(case, measured))
            append(folder, run_id, records)
            found += records
    return found


def _check_names(
    chosen: Sequence[tuple[Case, Size]], variants: Sequence[str], peers: PeerOptions
) -> None:
    if peers.names and not any(isinstance(case, PeerCase) for case, _ in chosen):
        raise ArgumentError(
            f"--peers {','.join(peers.names)} has no effect: none of the cases is compared with "
            "peers. Name one that is: flambeau bench run cpu --case peers-overhead."
        )
    known: list[str] = []
    for case, size in chosen:
        if isinstance(case, PeerCase):
            known += variant_names(case, size, peers)
        else:
            known += [comparison.variant for comparison in case.comparisons(size)]
    for variant in variants:
        if variant not in known:
            raise ArgumentError(f"Unknown variant {variant!r}. {did_you_mean(variant, known)}")
