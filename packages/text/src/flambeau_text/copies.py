"""``copies_across_parts``: held-out texts that are also in train."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from flambeau.data.split import HELD_OUT, Split
from flambeau.doctor import Finding

CODE = "duplicates-across-parts"
_LEAST_COPIES, _LEAST_SHARE = 2, 0.01


def copies_across_parts(
    texts: Sequence[Hashable],
    labels: Sequence[Any],
    locations: Sequence[str],
    split: Split,
    what: str = "texts",
) -> list[Finding]:
    """Return a finding for each held-out part of which at least 1% is also in train.

    Args:
        texts: What is compared, one per row.
        labels: The label of each row.
        locations: Where each row was found, for the message.
        split: The rows of the parts.
        what: Word for the rows, in plural.
    """
    label_of: dict[Any, Any] = {}
    for row in split.train.tolist():
        label_of.setdefault(texts[row], labels[row])
    found: list[Finding] = []
    for part in HELD_OUT:
        rows = split.part(part).tolist()
        copies = [row for row in rows if texts[row] in label_of]
        if len(copies) < max(_LEAST_COPIES, _LEAST_SHARE * len(rows)):
            continue
        differ = sum(label_of[texts[row]] != labels[row] for row in copies)
        found.append(
            Finding(
                CODE,
                f"{len(copies):,} of {len(rows):,} {part} {what} are also in train (the first is "
                f"{locations[copies[0]]}), {differ:,} of them with another label, so the scores "
                "are too high.",
                {"copies": len(copies), "compared": len(rows), "with another label": differ},
                "Drop the copies, or let flambeau draw the parts (valid=0.2), which keeps all "
                "copies in one part.",
                severity="error" if len(copies) > len(rows) / 2 else "warning",
            )
        )
    return found
