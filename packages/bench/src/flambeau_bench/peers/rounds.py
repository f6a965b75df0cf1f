"""Rounds: plain PyTorch twice, flambeau and a peer, all running, measured in changing order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from flambeau_bench.case import Comparison, Size
from flambeau_bench.invalid_pairs import invalid_reasons
from flambeau_bench.measurement import Measurement
from flambeau_bench.pairing import MeasuredPairs, Pair
from flambeau_bench.peers.peer import FLAMBEAU, PLAIN, Peer
from flambeau_bench.peers.peer_case import (
    PeerCase,
    Row,
    against_comparison,
    overhead_comparison,
)
from flambeau_bench.progress import Progress

PLAIN_AGAIN = "plain again"
"""The same program as plain PyTorch, in a second process: the noise floor."""

Log = Callable[[str], None]


def measure_row(
    case: PeerCase, row: Row, size: Size, peer: Peer, others: Mapping[str, Peer], log: Log
) -> list[MeasuredPairs]:
    """Measure a peer beside plain PyTorch and flambeau in one row.

    Args:
        case: The case.
        row: The row.
        size: ``size.pairs`` is the number of rounds.
        peer: The peer; may be flambeau itself.
        others: The peers "plain" and "flambeau".
        log: Receives lines of progress.

    Returns:
        The peer over plain PyTorch with the noise floor, if the row has that, and, unless the peer
        is flambeau, flambeau against the peer, in the same rounds.

    Raises:
        SideError: A side failed.
    """
    sides = {FLAMBEAU: others[FLAMBEAU], peer.name: peer}
    if row.overhead:
        sides[PLAIN] = others[PLAIN]
    if size.floor_pairs and PLAIN in sides:
        sides[PLAIN_AGAIN] = others[PLAIN]
    rounds: list[dict[str, Measurement]] = []
    count = case.rounds(row, size)
    progress = Progress(log, count)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = {}
        if row.live:
            for name, side in sides.items():
                started = case.start(side, row, size, folder / name.replace(" ", "_"))
                running[name] = stack.enter_context(started)
        for number in range(count):
            found: dict[str, Measurement] = {}
            for name in order_of_round(tuple(sides), number):
                found[name] = (
                    case.measurement(running[name], row, size, number)
                    if row.live
                    else case.measure_anew(sides[name], row, size, number)
                )
            rounds.append(found)
            progress.pair_done()
    names = tuple(sides)
    floor = _pairs(rounds, names, PLAIN, PLAIN_AGAIN, {}) if PLAIN_AGAIN in sides else ()
    measured: list[MeasuredPairs] = []
    if row.overhead:
        overhead = overhead_comparison(row, peer.name)
        pairs = _compared(rounds, names, overhead)
        measured.append(MeasuredPairs(overhead, floor, pairs, has_noise=bool(floor)))
    if peer.name != FLAMBEAU:
        against = against_comparison(row, peer.name)
        noise = () if row.overhead else floor
        pairs = _compared(rounds, names, against)
        measured.append(MeasuredPairs(against, noise, pairs, has_noise=bool(noise)))
    return measured


def order_of_round(names: Sequence[str], number: int) -> list[str]:
    """Return the order of the sides in a round: rotated each time, and reversed every other time.

    Each side so comes first, last and between equally often, in both directions.
    """
    turn = number // 2 % len(names)
    rotated = [*names[turn:], *names[:turn]]
    return rotated if number % 2 == 0 else rotated[::-1]


def _compared(
    rounds: Sequence[Mapping[str, Measurement]], names: Sequence[str], comparison: Comparison
) -> tuple[Pair, ...]:
    sides = comparison.baseline, comparison.candidate
    return _pairs(rounds, names, *sides, comparison.may_differ)


def _pairs(
    rounds: Sequence[Mapping[str, Measurement]],
    names: Sequence[str],
    baseline: str,
    candidate: str,
    may_differ: Mapping[str, str],
) -> tuple[Pair, ...]:
    found: list[Pair] = []
    for number, measured in enumerate(rounds):
        order = order_of_round(names, number)
        text = "AB" if order.index(baseline) < order.index(candidate) else "BA"
        sides = measured[baseline], measured[candidate]
        found.append(Pair(number, text, *sides, invalid_reasons(*sides, may_differ)))
    return tuple(found)
