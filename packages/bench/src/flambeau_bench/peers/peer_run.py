"""Run a case with peers: prepare each, measure its rows, write its records, keep finished ones."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambeau_bench.case import Size
from flambeau_bench.peers.environment import prepare
from flambeau_bench.peers.live_side import SideError
from flambeau_bench.peers.peer import (
    FLAMBEAU,
    PLAIN,
    Peer,
    choose_peers,
    known_peers,
    no_checkout_reason,
)
from flambeau_bench.peers.peer_case import PeerCase, Row, against_comparison, overhead_comparison
from flambeau_bench.peers.rounds import measure_row
from flambeau_bench.records import (
    Record,
    append,
    comparison_records,
    read_if_any,
    skipped_record,
)
from flambeau_bench.timing import frozen_heap
from flambeau_bench.verdict import judge

Log = Callable[[str], None]


@dataclass(frozen=True)
class PeerOptions:
    """Which peers take part.

    Attributes:
        names: Names or paths; all known peers if empty.
        again: Whether to measure anew what the folder of results already has.
    """

    names: tuple[str, ...] = ()
    again: bool = False


ALL_PEERS = PeerOptions()
"""All known peers, keeping finished results."""


def run_peer_case(
    case: PeerCase,
    size: Size,
    head: Mapping[str, Any],
    folder: Path,
    options: PeerOptions,
    *,
    variants: Sequence[str] = (),
    log: Log = lambda line: None,
) -> list[Record]:
    """Measure a case and append its records, peer by peer, so that an interrupted run continues.

    A row of a peer that ``folder`` already has from the same commit, programs, size and machine is
    kept. A peer that cannot be installed or that fails is reported as absent with the reason.
    flambeau and plain PyTorch are in every row, so a failure of theirs ends the run.

    Args:
        case: The case.
        size: Its size.
        head: The fields that all records have.
        folder: Folder of the results.
        options: Which peers, and whether to measure again.
        variants: Rows to run, by ``ROW`` or ``ROW: PEER``; all if empty.
        log: Receives a line per row, and its progress.

    Raises:
        ArgumentError: A name of a peer is unknown.
        SideError: flambeau or plain PyTorch failed.
    """
    run_id, found = str(head["run_id"]), []
    earlier = [] if options.again else read_if_any(folder)

    def keep(records: Sequence[Record]) -> None:
        append(folder, run_id, records)
        found.extend(records)

    known = known_peers()
    reason = no_checkout_reason()
    chosen = [] if reason else choose_peers(options.names, case.name)
    reason = reason or prepare(known[PLAIN], log)
    if reason:
        log(f"{case.name}: skipped, {reason}")
        keep([skipped_record(head, reason)])
        return found
    for peer in [known[FLAMBEAU], known[PLAIN], *chosen]:
        head = {**head, "programs": programs_hash(case, peer)}
        rows = [row for row in case.rows(size) if _selected(row, peer, variants)]
        for row in rows:
            done = _finished(earlier, head, row, peer)
            if done:
                log(f"{case.name} ({row.name}: {peer.name}): kept from {done[0]['written']}")
                found.extend(done)
                continue
            reason = prepare(peer, log)
            if not reason:
                log(f"{case.name} ({row.name}: {peer.name}): {case.rounds(row, size)} rounds …")
                try:
                    keep(_row_records(case, row, size, head, peer, known, log))
                    continue
                except SideError as error:
                    if error.side in {FLAMBEAU, PLAIN}:
                        raise SideError(f"{error.side} failed: {error}", error.side) from error
                    reason = str(error)
            log(f"{case.name} ({row.name}: {peer.name}): absent, {reason}")
            variant = _variants(row, peer)[0]
            keep([{**skipped_record(head, f"{peer.name} is absent: {reason}"), "variant": variant}])
    return found


def variant_names(case: PeerCase, size: Size, options: PeerOptions) -> list[str]:
    """Return what ``variants`` may name: the rows, and "ROW: PEER" of each peer that takes part.

    Raises:
        ArgumentError: A name of a peer is unknown.
        InputError: A path of a peer does not exist.
    """
    rows = case.rows(size)
    if no_checkout_reason():
        return [row.name for row in rows]
    known = known_peers()
    peers = [known[FLAMBEAU], known[PLAIN], *choose_peers(options.names, case.name)]
    of_peers = [
        f"{row.name}: {peer.name}" for row in rows for peer in peers if _selected(row, peer, ())
    ]
    return [*(row.name for row in rows), *of_peers]


def programs_hash(case: PeerCase, peer: Peer) -> str:
    """Return a hash of the files of a case and of a peer, which may be outside of the repository.

    A commit does not determine such files, so a finished row is kept only if they are the same.
    """
    functions = filter(inspect.isfunction, vars(type(case)).values())
    paths = {Path(function.__code__.co_filename) for function in functions}
    digest = hashlib.sha256()
    for path in [*sorted(paths), *peer.files()]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _row_records(
    case: PeerCase,
    row: Row,
    size: Size,
    head: Mapping[str, Any],
    peer: Peer,
    known: Mapping[str, Peer],
    log: Log,
) -> list[Record]:
    with frozen_heap():
        measured = measure_row(case, row, size, peer, known, log)
    records: list[Record] = []
    for pairs in measured:
        records += comparison_records(head, pairs, judge(case, pairs))
    return records


def _selected(row: Row, peer: Peer, variants: Sequence[str]) -> bool:
    # Plain PyTorch takes part in each round of a row with overheads; elsewhere it is a peer.
    if peer.name == (PLAIN if row.overhead else FLAMBEAU):
        return False
    return not variants or row.name in variants or f"{row.name}: {peer.name}" in variants


def _variants(row: Row, peer: Peer) -> list[str]:
    """Return the variants that a row of a peer gives."""
    against = against_comparison(row, peer.name).variant
    return [overhead_comparison(row, peer.name).variant, against] if row.overhead else [against]


_SAME = ("case", "size", "git_sha", "torch", "programs")


def _finished(
    records: Sequence[Record], head: Mapping[str, Any], row: Row, peer: Peer
) -> list[Record]:
    """Return the records of a row of a peer from an earlier run that is comparable, the latest."""
    if head["dirty"] is not False:
        return []  # the code may have changed since
    names = _variants(row, peer)
    same = [
        record
        for record in records
        if record.get("variant") in names
        and record["kind"] != "skipped"
        and record["dirty"] is False
        and all(record.get(key) == head[key] for key in _SAME)
        and record["host"]["cpu"] == head["host"]["cpu"]
    ]
    if not any(record["kind"] == "result" for record in same):
        return []
    last = max(record["run_id"] for record in same)
    return [record for record in same if record["run_id"] == last]
