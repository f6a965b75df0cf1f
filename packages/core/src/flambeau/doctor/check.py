"""``Check``: one thing that the doctor looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Subject
from flambeau.errors import ArgumentError

Reads = Literal["facts", "data", "optimizers", "batch", "answer", "gradients"]
Runs = Literal["first fit", "asked", "full"]

READS: tuple[Reads, ...] = get_args(Reads)
"""What a check may read, from what is there already to what costs a backward pass."""


@dataclass(frozen=True)
class Check:
    """Looks at a subject and says what it finds; a domain contributes its own in ``checks``.

    Attributes:
        code: Its name in reports, and that of its findings ("class-not-in-train").
        looks_for: In a few words, what it finds.
        run: ``run(subject)`` gives a Finding, several, or None where all is well. It reads and
            changes nothing.
        reads: The dearest thing it reads, for before a fit the cheapest checks come first:
            "facts" (measured already), "data" (samples), "optimizers", "batch", "answer" (a
            forward pass), "gradients" (a backward pass).
        runs: "first fit": by itself before a learner's first fit, within its budget; for what
            is quick and never wrong. "asked": when ``learner.doctor()`` is called. "full": only
            with ``full=True``.
        page: Where the documentation tells the whole story; findings without one of their own
            show it.

    Raises:
        ArgumentError: ``reads`` or ``runs`` is none of these.

    Example:
        >>> from flambeau.doctor import Check, Finding
        >>> def few_rows(subject):
        ...     n = len(subject.data.split.train)
        ...     if n < 10:
        ...         mend = "Collect more, or take rows from valid."
        ...         return Finding("few-rows", f"Train has {n} rows.", {"n_train": n}, mend)
        >>> check = Check("few-rows", "a train part that is too small", few_rows, reads="facts")
    """

    code: str
    looks_for: str
    run: Callable[[Subject], Finding | Sequence[Finding] | None]
    reads: Reads = "answer"
    runs: Runs = "asked"
    page: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("reads", READS), ("runs", get_args(Runs))):
            value = getattr(self, name)
            if value not in known:
                raise ArgumentError(
                    f"{self.code}: {name} is {value!r}, but it must be one of {', '.join(known)}."
                )
