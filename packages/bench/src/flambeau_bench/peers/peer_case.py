"""``PeerCase``: a case whose sides are programs of other libraries in separate environments."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flambeau_bench.case import Case, Comparison, Criterion, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.peers.live_side import LiveSide, SideError
from flambeau_bench.peers.peer import FLAMBEAU, PLAIN, Peer, known_peers
from flambeau_bench.peers.peer_tables import peer_tables
from flambeau_bench.side.protocol import Job


@dataclass(frozen=True)
class Row:
    """A row of a case: one way of training that every side is asked for.

    Attributes:
        name: Name of the row in results.
        job_row: ``Job.row`` of the sides.
        setting: "default", or "fast" for the settings that a side documents for speed.
        live: Whether the sides stay running and alternate in rounds; else each measurement is a
            new process.
        overhead: Figures over those of plain PyTorch, which then takes part in each round; empty
            for rows whose sides are compared with flambeau alone.
        against: Figures of flambeau against those of the peer.
        may_differ: As in ``Comparison``.
    """

    name: str
    job_row: str
    setting: str
    live: bool
    overhead: tuple[Criterion, ...]
    against: tuple[Criterion, ...]
    may_differ: Mapping[str, str]


class PeerCase(Case):
    """The base class of cases with peers.

    Each side is a program ``CASE_NAME.py`` in the folder of its peer. It runs in the interpreter of
    the peer and speaks the protocol of ``flambeau_bench.side``. The bench measures each peer
    together with plain PyTorch and flambeau, so that all three meet the same state of the machine.

    Attributes:
        on_request: Such cases run if they are named, not as part of a suite: a suite would install
            all peers.
    """

    on_request: ClassVar[bool] = True

    @abstractmethod
    def rows(self, size: Size) -> Sequence[Row]:
        """Return the rows at this size."""

    @abstractmethod
    def measurement(self, side: LiveSide, row: Row, size: Size, number: int) -> Measurement:
        """Measure a running side once; ``number`` is that of the round and may be the seed."""

    def rounds(self, row: Row, size: Size) -> int:
        """Return the number of rounds of a row."""
        return size.pairs

    def job(self, row: Row, size: Size) -> Job:
        """Return the job of a row, the same for all sides."""
        counts = dict(size.counts)
        return Job(
            self.name, row.job_row, row.setting, counts=counts, threads=1, device=size.device
        )

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        """Return the comparison of flambeau with plain PyTorch in each row; peers add others."""
        return [
            overhead_comparison(row, FLAMBEAU) if row.overhead else against_comparison(row, PLAIN)
            for row in self.rows(size)
        ]

    def section(self, records: Sequence[Mapping[str, Any]], folder: Path) -> str:
        """Return a table per row, one line per library."""
        return peer_tables(self.name, records)

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        """Measure a known peer in a new process."""
        row = next(r for r in self.rows(size) if comparison.variant.startswith(f"{r.name}: "))
        return self.measure_anew(known_peers()[side], row, size, pair)

    def measure_anew(self, peer: Peer, row: Row, size: Size, number: int) -> Measurement:
        """Start a side, measure it once and end it."""
        with (
            tempfile.TemporaryDirectory() as folder,
            self.start(peer, row, size, Path(folder)) as side,
        ):
            return self.measurement(side, row, size, number)

    def start(self, peer: Peer, row: Row, size: Size, folder: Path) -> LiveSide:
        """Start a side in a separate folder.

        Raises:
            SideError: The peer has no program for this case, or the program failed.
        """
        program = peer.program(self.name)
        if program is None:
            raise SideError(f"{peer.name} has no program for {self.name}", peer.name)
        folder.mkdir(parents=True, exist_ok=True)
        return LiveSide(peer, program, self.job(row, size), folder)


def overhead_comparison(row: Row, peer: str) -> Comparison:
    """Return the comparison of a peer with plain PyTorch."""
    return Comparison(f"{row.name}: {peer}", PLAIN, peer, row.overhead, row.may_differ)


def against_comparison(row: Row, peer: str) -> Comparison:
    """Return the comparison of flambeau with a peer."""
    variant = f"{row.name}: {FLAMBEAU} against {peer}"
    return Comparison(variant, peer, FLAMBEAU, row.against, row.may_differ)


def work_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``Measurement`` that show what a side did in a timed run.

    Args:
        facts: Facts of that run, in which the model was observed.
    """
    return {
        "steps": facts["steps"],
        "samples": facts["samples"],
        "init_hash": facts["init_hash"],
        "order_hash": facts["order_hash"],
        "settings": {
            **facts["settings"],
            "seed": facts["seed"],
            "precision": facts["precision"],
            "final_evaluations": facts["final_evaluations"],
        },
        "quality": dict(facts["quality"]),
        "notes": facts["notes"],
    }


def observed_work(watched: Mapping[str, Any], timed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``Measurement`` for a timed run that was not observed itself.

    Args:
        watched: Facts of a run of the same length that was observed batch by batch.
        timed: Facts of the timed run. It must end with the same weights, which shows that it did
            the same.
    """
    work = work_of(watched)
    same = timed["weights_hash"] == watched["weights_hash"]
    return {
        **work,
        "init_hash": timed["init_hash"],
        "settings": {**work["settings"], "timed as observed": same},
        "quality": dict(timed["quality"]),
        "notes": timed["notes"],
    }
