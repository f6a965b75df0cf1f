"""A comparison of runs as text and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flambeau.report.text_table import text_table
from flambeau.runs.list_table import run_json
from flambeau.runs.run_groups import RunGroup
from flambeau.runs.saved_run import numbers_of
from flambeau.wording import duration_text, name_some

if TYPE_CHECKING:
    from flambeau.runs.comparison import Comparison, PairResult, ScoreResult

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24  # characters of a curve


def comparison_text(found: Comparison, width: int | None) -> str:
    """Return runs, differences, curves and tests, in this order.

    Args:
        found: The comparison.
        width: Characters per line of the tables; None does not wrap.
    """
    parts = ["\n".join(run_lines(found))]
    parts.append("Choices that differ\n" + _differences(found, width))
    parts.append(_curves(found, width))
    parts += [f"{pair_title(each)}\n{_pair(each, width)}" for each in found.pairs]
    return "\n\n".join(filter(None, parts))


def run_lines(found: Comparison) -> list[str]:
    """Return a line for each group, and one for each thing to know about its runs."""
    lines: list[str] = []
    for group in found.groups:
        run = group.first
        facts = [run.status, str(run.values.get("architecture", ""))]
        facts += [f"data {run.data_digest}"] if run.data_digest else []
        facts += [duration_text(run.seconds)] if run.seconds is not None else []
        lines.append(f"{group.title} ({', '.join(filter(None, facts))})")
        for repeated in group.repeated:
            lines.append(f"   {repeated.folder} is left out: it has the same plan and seed.")
        for each in group.runs:
            if each.status in ("running", "interrupted", "failed"):
                lines.append(f"   {each.folder} is {each.status}: its scores are those so far.")
            if each.plan is None:
                lines.append(f"   The plan of {each.folder} is not known.")
            lines += [f"   note: {problem}." for problem in each.problems]
    return lines


def difference_rows(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of the differing choices, each with the reason of each group."""
    headers = ["choice"]
    for group in found.groups:
        headers += [group.label, f"why {group.label}"]
    rows = [
        [each.key, *(cell for pair in zip(each.values, each.reasons, strict=True) for cell in pair)]
        for each in found.differences
    ]
    return headers, rows


def no_differences(found: Comparison) -> str:
    """Return why no choice is listed: the plans are equal, or one is not known."""
    unknown = [group.label for group in found.groups if group.first.plan is None]
    if unknown:
        return f"Not known, because the plan of {name_some(unknown)} is not known."
    return "Nothing: the plans choose the same values."


def _differences(found: Comparison, width: int | None) -> str:
    if not found.differences:
        return no_differences(found)
    headers, rows = difference_rows(found)
    return text_table(headers, rows, width=width)


# ---------------------------------------------------------------- curves


def curve_columns(found: Comparison) -> list[str]:
    """Return the columns of the histories that are drawn: losses, then metrics of two runs."""
    names = ["valid_loss", "train_loss"]
    modes: dict[str, str] = {}
    for group in found.groups:
        modes |= dict(group.first.modes)
    names += [name for name in modes if name not in names]
    counts = {name: sum(name in g.first.history.names for g in found.groups) for name in names}
    return [name for name in names if counts[name] and (counts[name] > 1 or "loss" in name)]


def _curves(found: Comparison, width: int | None) -> str:
    blocks: list[str] = []
    for name in curve_columns(found):
        curves = [(group, numbers_of(group.first.history, name)) for group in found.groups]
        shown = [(group, values) for group, values in curves if values]
        every = [v for _, values in shown for v in values if math.isfinite(v)]
        if not every:
            continue
        low, high = min(every), max(every)
        rows = [_curve_row(group, name, values, low, high) for group, values in shown]
        blocks.append(text_table([name, "", "first", "best", "last", "epochs"], rows, width=width))
    return "Curves\n" + "\n\n".join(blocks) if blocks else ""


def _curve_row(
    group: RunGroup, name: str, values: Sequence[float], low: float, high: float
) -> list[object]:
    mode = group.first.modes.get(name)
    finite = [value for value in values if math.isfinite(value)]
    best = None
    if mode is not None and finite:
        best = min(finite) if mode == "min" else max(finite)
    return [group.label, sparkline(values, low, high), values[0], best, values[-1], len(values)]


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Return values as bars, at most 24; "×" marks values that are not finite.

    Args:
        values: The values in order.
        low: Value of the lowest bar.
        high: Value of the highest bar.
    """
    step = max(1.0, len(values) / _WIDTH)
    count = min(len(values), _WIDTH)
    picked = [values[min(len(values) - 1, int((at + 1) * step) - 1)] for at in range(count)]
    span = (high - low) or 1.0
    return "".join(
        _BARS[round((value - low) / span * (len(_BARS) - 1))] if math.isfinite(value) else "×"
        for value in picked
    )


# ---------------------------------------------------------------- tests


def pair_title(pair: PairResult) -> str:
    """Return the question and the answer in one line."""
    return f"Is {pair.second} better than {pair.first}? {answer(pair)}"


def answer(pair: PairResult) -> str:
    """Return the verdict as a sentence."""
    by = f", by {pair.decisive}" if pair.decisive else ""
    texts = {
        "better": f"Yes{by}: the gain is more than noise.",
        "worse": f"No{by}: it is worse, by more than noise.",
        "tie": f"It is a tie{by}: the values are the same.",
        "no difference shown": f"Not shown{by}: the difference may be noise.",
        "larger": f"{pair.decisive} is larger, by more than noise; which is better is not known.",
        "smaller": f"{pair.decisive} is smaller, by more than noise; which is better is not known.",
        "incomparable": "The runs cannot be compared.",
    }
    return texts.get(pair.verdict, "Not known.")


def score_rows(pair: PairResult) -> tuple[list[str], list[list[object]]]:
    """Return headers and rows of the scores of a pair."""
    last = {"samples": "interval", "seeds": "p"}.get(pair.method or "")
    # The verdict first: on a phone the columns on the right are out of sight.
    headers = ["score", "verdict", f"{pair.second} - {pair.first}", *([last] if last else [])]
    rows: list[list[object]] = []
    for each in pair.scores:
        row: list[object] = [each.name, verdict_text(each, pair.second), f"{each.difference:+.3g}"]
        if last == "interval":
            row.append("" if each.low is None else f"{each.low:+.3g} to {each.high:+.3g}")
        elif last:
            row.append("" if each.p is None else f"{each.p:.2g}")
        rows.append([*row, group_text(each.first), group_text(each.second)])
    return [*headers, pair.first, pair.second], rows


def group_text(values: Sequence[float]) -> str:
    """Return the mean of the runs, and the range if there are several."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.4g}"
    return f"{mean:.4g} ({min(values):.4g} to {max(values):.4g})"


def verdict_text(score: ScoreResult, label: str) -> str:
    """Return the verdict on one score in a few words."""
    is_said = score.verdict in ("better", "worse", "larger", "smaller")
    return f"{label} {score.verdict}" if is_said else score.verdict


def _pair(pair: PairResult, width: int | None) -> str:
    lines = [pair.why]
    if pair.scores:
        lines.append(text_table(*score_rows(pair), width=width))
    return "\n".join([*lines, *pair.notes])


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    return {
        "part": found.part,
        "groups": [
            {
                "label": group.label,
                "runs": [run_json(run) for run in group.runs],
                "repeated": [str(run.folder) for run in group.repeated],
            }
            for group in found.groups
        ],
        "differences": [asdict(each) for each in found.differences],
        "pairs": [
            {**asdict(pair), "scores": [_score_json(each) for each in pair.scores]}
            for pair in found.pairs
        ],
    }


def _score_json(score: ScoreResult) -> dict[str, Any]:
    return {**asdict(score), "difference": score.difference}
