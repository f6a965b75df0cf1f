"""``gap_scores``: how much worse a model predicts from its own tokens than from the reference."""

from __future__ import annotations

from collections.abc import Sequence

TEACHER_FORCED, FREE_RUNNING = "teacher_forced_overlap", "free_running_overlap"
GAP, GAP_ERROR = "free_running_gap", "free_running_gap_error"


def gap_scores(overlaps: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return both mean overlaps, their relative difference and its standard error.

    The gap is ``1 - mean free-running / mean teacher-forced``. Both overlaps of a sentence rise and
    fall together, so the error is that of a ratio of paired samples, which is much smaller than
    that of two independent means.

    Args:
        overlaps: Teacher-forced and free-running overlap of each sentence, 0 to 1; at least one.

    Returns:
        The scores by name. With one sentence the error cannot be estimated, and is 1.

    Source:
        Cochran, "Sampling Techniques" (1977), section 6.3: the ratio estimator.
    """
    n = len(overlaps)
    forced, free = (sum(values) / n for values in zip(*overlaps, strict=True))
    ratio = free / forced if forced else 1.0
    error = 1.0 if n < 2 else 0.0
    if n > 1 and forced:
        squares = sum((one_free - ratio * one_forced) ** 2 for one_forced, one_free in overlaps)
        error = (squares / (n - 1) / n) ** 0.5 / forced
    return {TEACHER_FORCED: forced, FREE_RUNNING: free, GAP: 1.0 - ratio, GAP_ERROR: error}
