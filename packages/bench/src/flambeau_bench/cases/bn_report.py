"""The tables and the plot of ``bn-finetune``, generated only from its records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flambeau.report import bootstrap
from flambeau.report.intervals import Interval
from flambeau_bench.cases.bn_policies import BATCHES, POLICIES, SHIFTS, TRAINED
from flambeau_bench.verdict_table import markdown_table

FIGURES = ("bn-finetune.svg", "bn-finetune.png")
COLOURS = {
    "A": "#b5141c",
    "B": "#d98c3f",
    "C": "#8a8a8a",
    "D": "#2f6db5",
    "E": "#7fb08a",
    "E+": "#2b8a4b",
    "auto": "#1f1f1f",
}


@dataclass
class CellResults:
    """The results of all seeds for one combination of settings (a cell).

    Attributes:
        errors: Error in percent by policy and seed.
        gaps: Loss in eval mode divided by that in training mode, by policy and seed.
        warnings: 1 if [train-eval-gap] was raised, by policy and seed.
        decisions: The choice of policy auto, as text, by seed.
    """

    errors: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    gaps: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    warnings: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    decisions: dict[int, str] = field(default_factory=dict)

    def of(self, policy: str) -> Tensor:
        """Return the errors in percent, float64 ``(seeds,)``."""
        found = self.errors[policy]
        return torch.tensor([found[seed] for seed in sorted(found)], dtype=torch.float64)

    def best(self) -> str:
        """Return the policy other than "auto" with the lowest mean error."""
        return min((p for p in self.errors if p != "auto"), key=lambda p: float(self.of(p).mean()))


def read_cells(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int, str], CellResults]:
    """Return the results by trained part, batch size and shift; the last run of a seed counts."""
    found: dict[tuple[str, int, str], CellResults] = {}
    for record in records:
        if record["case"] != "bn-finetune" or record["kind"] != "run" or not record["figures"]:
            continue
        trained, batch, shift = record["settings"]["cell"].split(", ")
        cell = found.setdefault((trained, int(batch.split()[1]), shift), CellResults())
        policy, seed, figures = record["side"], record["pair"], record["figures"]
        cell.errors[policy][seed] = figures["error_pct"]
        cell.gaps[policy][seed] = figures["gap"]
        cell.warnings[policy][seed] = figures["warned"]
        if policy == "auto":
            cell.decisions[seed] = record["notes"]
    return found


def section(records: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Return the section of a report about the experiment, and write its plot to ``folder``."""
    cells = read_cells(records)
    if not cells:
        return ""
    for name in FIGURES:
        draw(cells, folder / name)
    seeds = max(len(cell.of(cell.best())) for cell in cells.values())
    legend = markdown_table(
        ("policy", "description"), [[key, text] for key, text in POLICIES.items()]
    )
    return "\n\n".join(
        [
            "## Batch norm in fine-tuning",
            f"Error in percent on images of the new classes: mean over {seeds} seeds with its "
            "bootstrap 95% interval; the lowest error is in bold.",
            legend,
            f"![Error by policy]({FIGURES[0]})",
            errors_table(cells),
            "Ratios of mean errors, and the error of auto minus that of the best policy in "
            "percentage points, paired by seed, with bootstrap 95% intervals. The gap is the loss "
            "on the same train batches in eval mode, divided by the loss with batch statistics: "
            "median over the seeds.",
            ratios_table(cells),
            "What policy auto measured and chose, and how many runs raised the warning "
            "[train-eval-gap].",
            decisions_table(cells),
        ]
    )


def errors_table(cells: Mapping[tuple[str, int, str], CellResults]) -> str:
    """Return a table of mean errors: a row per combination of settings, a column per policy."""
    rows: list[list[str]] = []
    for key, cell in cells.items():
        row = [_name(key)]
        for policy in POLICIES:
            if policy not in cell.errors:
                row.append("as E")
                continue
            interval = _mean(cell.of(policy))
            text = f"{interval.value:.1f} ({interval.low:.1f}–{interval.high:.1f})"
            row.append(f"**{text}**" if policy == cell.best() else text)
        rows.append(row)
    return markdown_table(("trained, batch, shift", *POLICIES), rows)


def ratios_table(cells: Mapping[tuple[str, int, str], CellResults]) -> str:
    """Return a table of error ratios of policy A to others, and of error differences of auto."""
    rows: list[list[str]] = []
    for key, cell in cells.items():
        best = cell.best()
        ratios = [_ratio(cell.of("A"), cell.of(other)) for other in ("C", "D", best)]
        difference = _difference(cell.of("auto"), cell.of(best))
        gaps = [f"{_median(cell.gaps[policy]):.2g}" for policy in ("A", "auto")]
        rows.append(
            [
                _name(key),
                *(f"{r.value:.1f}× ({r.low:.1f}–{r.high:.1f})" for r in ratios),
                best,
                f"{difference.value:+.1f} ({difference.low:+.1f} to {difference.high:+.1f})",
                *gaps,
            ]
        )
    columns = ("trained, batch, shift", "A / C", "A / D", "A / best", "best", "auto - best")
    return markdown_table((*columns, "gap of A", "gap of auto"), rows)


def decisions_table(cells: Mapping[tuple[str, int, str], CellResults]) -> str:
    """Return a table of the choices of auto, its figures for seed 0, and the warnings by policy."""
    rows: list[list[str]] = []
    for key, cell in cells.items():
        chosen = Counter(text.split(":")[0].split()[-1] for text in cell.decisions.values())
        choices = ", ".join(f"{name} {count}×" for name, count in chosen.items())
        figures = next(iter(cell.decisions.values())).split(": ", 1)[1]
        counts = {policy: int(sum(seeds.values())) for policy, seeds in cell.warnings.items()}
        warned = ", ".join(f"{p} {n}" for p, n in counts.items() if n) or "none"
        rows.append([_name(key), choices, figures, warned])
    return markdown_table(("trained, batch, shift", "auto chose", "seed 0", "warned"), rows)


def draw(cells: Mapping[tuple[str, int, str], CellResults], path: Path) -> Path:
    """Plot errors by policy: a row per trained part, a column per batch size, a group per shift."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trained = [t for t in TRAINED if any(key[0] == t for key in cells)]
    batches = [b for b in BATCHES if any(key[1] == b for key in cells)]
    size = (3.4 * len(batches) + 1, 2.9 * len(trained) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(trained), len(batches), squeeze=False, sharey="row")
    for row, part in enumerate(trained):
        for column, batch in enumerate(batches):
            _panel(axes[row, column], {k[2]: c for k, c in cells.items() if k[:2] == (part, batch)})
            axes[row, column].set_title(
                f"{'head and norms' if part == 'head' else 'all layers'} trained, batch {batch}",
                fontsize=9,
            )
        axes[row, 0].set_ylabel("error, %")
        axes[row, 0].set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a date and random ids, the same records give the same file.
    with mpl.rc_context({"svg.hashsalt": "flambeau-bench", "svg.fonttype": "none"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=metadata)
    return path


def _panel(axis: Any, by_shift: Mapping[str, CellResults]) -> None:
    shifts = [shift for shift in SHIFTS if shift in by_shift]
    for index, (policy, colour) in enumerate(COLOURS.items()):
        positions = [x for x, s in enumerate(shifts) if policy in by_shift[s].errors]
        means = [_mean(by_shift[shifts[x]].of(policy)) for x in positions]
        axis.errorbar(
            [x + 0.11 * (index - 3) for x in positions],
            [m.value for m in means],
            yerr=[[m.value - m.low for m in means], [m.high - m.value for m in means]],
            fmt="D" if policy == "auto" else "o",
            markersize=5,
            color=colour,
            capsize=2,
            label=policy,
        )
    axis.set_xticks(range(len(shifts)), shifts)
    axis.set_xlim(-0.5, len(shifts) - 0.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e6e6e6")
    axis.set_axisbelow(True)


def _name(key: tuple[str, int, str]) -> str:
    return f"{key[0]}, {key[1]}, {key[2]}"


def _mean(values: Tensor) -> Interval:
    if len(values) < 2:  # the quick size has one seed
        return Interval(float(values.mean()), float(values.min()), float(values.max()))
    return bootstrap(lambda errors: errors.mean(dim=1), values)


def _ratio(one: Tensor, other: Tensor) -> Interval:
    if len(one) < 2:
        ratio = float(one.mean() / other.mean())
        return Interval(ratio, ratio, ratio)
    return bootstrap(lambda a, b: a.mean(dim=1) / b.mean(dim=1), one, other)


def _difference(auto: Tensor, best: Tensor) -> Interval:
    return _mean(auto - best)


def _median(values: Mapping[int, float]) -> float:
    return float(torch.tensor(list(values.values())).median())
