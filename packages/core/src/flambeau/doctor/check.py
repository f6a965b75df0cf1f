"""``Check``: a function that searches a training setup for one kind of mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.errors import ArgumentError

Reads = Literal["facts", "data", "optimizers", "batch", "outputs", "gradients"]
Runs = Literal["first fit", "on request", "full"]

READS: tuple[Reads, ...] = get_args(Reads)
"""What a check reads, from the cheapest (known already) to the most expensive."""


@dataclass(frozen=True)
class Check:
    """A check of a training setup. A domain adds further checks in ``Domain.checks``.

    Attributes:
        code: Name of the check and of its findings ("class-not-in-train").
        looks_for: What the check finds, in a few words.
        run: ``run(setup)`` returns a Finding, a list of findings, or None without a problem. It
            must not change anything that it reads.
        reads: The most expensive thing that the check reads; before a fit the cheapest checks run
            first. "facts" (already measured), "data" (samples), "optimizers", "batch", "outputs"
            (a forward pass), "gradients" (a backward pass).
        runs: When the check runs. "first fit": automatically before a learner's first fit, within
            a time budget; for checks that are fast and have no false alarms. "on request": when
            ``learner.doctor()`` is called. "full": only with ``full=True``.
        page: Documentation page that is shown with findings that name no page themselves.

    Raises:
        ArgumentError: ``reads`` or ``runs`` is not one of these values.

    Example:
        >>> from flambeau.doctor import Check, Finding
        >>> def few_rows(setup):
        ...     n = len(setup.data.split.train)
        ...     if n < 10:
        ...         fix = "Collect more rows, or move rows from valid to train."
        ...         return Finding("few-rows", f"Train has {n} rows.", {"n_train": n}, fix)
        >>> check = Check("few-rows", "a train part that is too small", few_rows, reads="facts")
    """

    code: str
    looks_for: str
    run: Callable[[TrainingSetup], Finding | Sequence[Finding] | None]
    reads: Reads = "outputs"
    runs: Runs = "on request"
    page: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("reads", READS), ("runs", get_args(Runs))):
            value = getattr(self, name)
            if value not in known:
                raise ArgumentError(
                    f"{self.code}: {name} is {value!r}, but it must be one of {', '.join(known)}."
                )
