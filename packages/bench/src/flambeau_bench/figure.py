"""Plots of verdicts, drawn by matplotlib from the records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flambeau_bench.verdict_table import number

_CANDIDATE, _FLOOR, _LIMIT = "#b5541c", "#c8c8c8", "#1f1f1f"


def drawable(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the verdicts that have an interval and a limit, by unit; each unit gets one panel."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["kind"] != "result" or record["interval"] is None:
            continue
        if record["criterion"]["limit"] is not None:
            found.setdefault(record["criterion"]["unit"], []).append(record)
    return found


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Plot median and 95% interval of each verdict that has a limit, one panel per unit.

    The grey band is the noise floor, the black line the limit.

    Args:
        records: Records of one or several runs.
        path: File of the plot; its suffix determines the format (.svg, .png).

    Returns:
        ``path``, or None if there is nothing to draw.
    """
    panels = drawable(records)
    if not panels:
        return None
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [len(lines) for lines in panels.values()]
    figure = Figure(figsize=(8, 0.9 * len(panels) + 0.42 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (unit, lines) in zip(axes, panels.items(), strict=True):
        _panel(axis, unit, lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a date and random ids, the same records give the same file.
    with mpl.rc_context({"svg.hashsalt": "flambeau-bench", "svg.fonttype": "none"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=metadata)
    return path


def _panel(axis: Any, unit: str, lines: Sequence[Mapping[str, Any]]) -> None:
    for position, record in enumerate(lines):
        interval, floor = record["interval"], record["noise_floor"]
        if floor is not None:
            axis.barh(
                position, floor["high"] - floor["low"], left=floor["low"], height=0.7, color=_FLOOR
            )
        below = interval["median"] - interval["low"]
        above = interval["high"] - interval["median"]
        axis.errorbar(
            interval["median"],
            position,
            xerr=[[below], [above]],
            fmt="o",
            color=_CANDIDATE,
            capsize=4,
        )
        axis.annotate(
            number(interval["median"]),
            (interval["median"], position),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
            fontsize=8,
        )
        limit = record["criterion"]["limit"]
        axis.plot([limit, limit], [position - 0.4, position + 0.4], color=_LIMIT, linewidth=2)
    axis.set_yticks(range(len(lines)), [f"{line['case']}: {line['variant']}" for line in lines])
    axis.set_ylim(len(lines) - 0.4, -0.6)
    axis.set_xlabel(unit)
    axis.spines[["top", "right"]].set_visible(False)
