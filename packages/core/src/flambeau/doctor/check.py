"""``Check``: one thing that the doctor looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Subject


@dataclass(frozen=True)
class Check:
    """Looks at a subject and says what it finds; a domain contributes its own in ``checks``.

    Attributes:
        code: Its name in reports, and that of its findings ("class-not-in-train").
        looks_for: In a few words, what it finds.
        run: ``run(subject)`` gives a Finding, several, or None where all is well. It reads and
            changes nothing.

    Example:
        >>> from flambeau.doctor import Check, Finding
        >>> def few_rows(subject):
        ...     n = len(subject.data.split.train)
        ...     if n < 10:
        ...         mend = "Collect more, or take rows from valid."
        ...         return Finding("few-rows", f"Train has {n} rows.", {"n_train": n}, mend)
        >>> check = Check("few-rows", "a train part that is too small", few_rows)
    """

    code: str
    looks_for: str
    run: Callable[[Subject], Finding | Sequence[Finding] | None]
