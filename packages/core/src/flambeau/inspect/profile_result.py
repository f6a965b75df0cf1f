"""``Profile``: where the time of a training step goes, and what would make it shorter."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flambeau.inspect.inspect_tables import html_table, text_rows
from flambeau.wording import format_seconds

PartName = Literal[
    "reading",
    "decoding",
    "transfer",
    "launch",
    "compute",
    "memory",
    "synchronisation",
    "communication",
    "Python",
    "evaluation",
]
"""What a part of a step's time is spent on; see ``ProfilePart``."""


@dataclass(frozen=True)
class ProfilePart:
    """A part of the time of a step.

    Attributes:
        name: "reading" (files, or rows of tensors in memory), "decoding" (from file content to
            tensors, in compiled code), "transfer" (copies to the device that nothing hides),
            "launch" (fixed cost of calling operators, whatever their size), "compute" (arithmetic,
            grows with the batch), "memory" (weights, gradients and optimizer state that move
            through memory in each step, whatever the batch), "synchronisation" (the device waits
            because the host reads a value), "communication" (exchange of gradients with other
            processes, and waiting for them), "Python" (user-defined functions), "evaluation" (its
            share of each training step).
        seconds: Seconds per step.
        share: Percent of the step's time; all parts together have 100.
        evidence: What was measured.
    """

    name: PartName
    seconds: float
    share: float
    evidence: str = ""


@dataclass(frozen=True)
class ProfileChange:
    """A change that makes training faster.

    Attributes:
        what: The change in words.
        expected: How many times as many samples per second are expected, computed before the change
            was tried.
        measured: How many times as many were measured; None if the change was not tried.
        note: Why it was not tried, or what else changes with it.
        choices: Values of the plan that make the change; empty if the plan cannot make it.
    """

    what: str
    expected: float
    measured: float | None = None
    note: str = ""
    choices: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Profile:
    """The parts of a step's time and the changes to make; ``print`` shows them as tables.

    Attributes:
        parts: The largest share first.
        advice: What to do about the bottleneck.
        changes: Changes for the bottleneck, in the order in which to consider them.
        step_s: Seconds per training step, with its share of the evaluation.
        steps: Number of steps that were timed.
        samples: Samples per step.
        setting: Device, threads and precision of the step.
        notes: What was not measured, and why.
        trace: File with the trace of torch.profiler, if one was written.
    """

    parts: tuple[ProfilePart, ...]
    advice: str
    changes: tuple[ProfileChange, ...]
    step_s: float
    steps: int
    samples: float
    setting: str
    notes: tuple[str, ...] = ()
    trace: Path | None = None

    @property
    def bottleneck(self) -> PartName:
        """The part with the largest share."""
        return self.parts[0].name

    def part(self, name: PartName) -> ProfilePart:
        """Return the part with this name."""
        return next(part for part in self.parts if part.name == name)

    def __str__(self) -> str:
        lines = [self._heading(), "", *text_rows(_PARTS, self._part_rows(), _RIGHT), ""]
        lines.append(f"Bottleneck: {self.bottleneck}. {self.advice}")
        if self.changes:
            lines += ["", *text_rows(_CHANGES, self._change_rows(), _RIGHT)]
        return "\n".join([*lines, *(["", *self._end()] if self._end() else [])])

    def _repr_html_(self) -> str:
        found = [
            f"<p>{html.escape(self._heading())}</p>",
            html_table(_PARTS, self._part_rows(), _RIGHT),
            f"<p><b>Bottleneck: {html.escape(self.bottleneck)}.</b> {html.escape(self.advice)}</p>",
        ]
        if self.changes:
            found.append(html_table(_CHANGES, self._change_rows(), _RIGHT))
        return "".join([*found, *(f"<p>{html.escape(line)}</p>" for line in self._end())])

    def _heading(self) -> str:
        speed = self.samples / self.step_s if self.step_s else 0.0
        return (
            f"A training step of {self.samples:,.0f} samples takes {format_seconds(self.step_s)} "
            f"({speed:,.0f} samples/s) on {self.setting}; {self.steps} steps timed."
        )

    def _part_rows(self) -> Sequence[Sequence[str]]:
        return [
            (part.name, f"{part.share:.0f} %", format_seconds(part.seconds), part.evidence)
            for part in self.parts
        ]

    def _change_rows(self) -> Sequence[Sequence[str]]:
        return [
            (
                change.what,
                f"{change.expected:.2f}×",
                "not tried" if change.measured is None else f"{change.measured:.2f}×",
                change.note,
            )
            for change in self.changes
        ]

    def _end(self) -> list[str]:
        trace = [] if self.trace is None else [f"The trace of torch.profiler is in {self.trace}."]
        return [*self.notes, *trace]


_PARTS = ("part", "share", "per step", "evidence")
_CHANGES = ("change", "expected", "measured", "note")
_RIGHT = ("share", "per step", "expected", "measured")
