"""The list of runs as a text table and as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flambeau.plan.table import value_text
from flambeau.report.text_table import text_table
from flambeau.runs.saved_run import SavedRun
from flambeau.wording import count_of, duration_text, name_some

if TYPE_CHECKING:
    from flambeau.runs.find_runs import RunList

_HEADERS = ("run", "status", "model", "lr", "batch", "epochs", "chosen by you", "data", "scores")
_MORE = ("time", "started", "git", "machine")
_SHOWN = ("architecture", "lr", "batch_size", "epochs")
_MOST_NAMED = 20


def list_text(found: RunList, width: int | None, last: int | None = None) -> str:
    """Return the runs as a table, then what is not a run or could not be read.

    Args:
        found: The runs.
        width: Characters per line; None does not wrap.
        last: Number of runs that are shown, the last ones; None shows all.
    """
    lines: list[str] = []
    shown = found.runs[-last:] if last else found.runs
    if shown:
        lines.append(
            text_table([*_HEADERS, *_MORE], [_row(found, run) for run in shown], width=width)
        )
    earlier = len(found.runs) - len(shown)
    more = f"; {earlier:,} earlier ones are not shown" if earlier else ""
    lines.append(f"{count_of(len(found.runs), 'run')} in {found.folder}{more}.")
    for run in shown:
        if run.status == "failed" and run.reason:
            lines.append(f"{run.folder} failed: {run.reason}")
        lines += [f"note: {problem}." for problem in run.problems]
    lines += [f"note: {each} cannot be read." for each in found.unreadable]
    if found.not_runs:
        names = name_some((path.name for path in found.not_runs), _MOST_NAMED)
        lines.append(f"Not runs ({count_of(len(found.not_runs), 'folder')}): {names}.")
    return "\n".join(lines)


def _row(found: RunList, run: SavedRun) -> list[object]:
    values = run.values
    place = run.folder.relative_to(found.folder) if run.folder != found.folder else run.folder
    architecture = values.get("architecture")
    model = run.model.get("class") if architecture in (None, "module") else architecture
    lr, batch = values.get("lr"), values.get("batch_size")
    return [
        str(place),
        run.status,
        f"{count_of(run.members, 'model')} of folds" if run.members else str(model or ""),
        "" if lr is None else value_text(lr),
        "" if batch is None else value_text(batch),
        _epochs(run),
        ", ".join(f"{key} {value_text(value)}" for key, value in user_choices(run).items()),
        run.data_digest or "",
        _scores(run),
        "" if run.seconds is None else duration_text(run.seconds),
        (run.started or "")[:16].replace("T", " "),
        git_text(run),
        _machine(run),
    ]


def user_choices(run: SavedRun) -> dict[str, Any]:
    """Return the values that the user chose, beyond those with a column of their own."""
    if run.plan is None:
        return dict(run.options)
    keys = [key for key in run.plan if run.plan[key].source == "user" and key not in _SHOWN]
    found = {key: run.plan[key].value for key in keys}
    return {**found, **{k: v for k, v in run.options.items() if k not in found}}


def _scores(run: SavedRun) -> str:
    text = ", ".join(f"{name} {value:.4g}" for name, value in run.scores.items())
    return f"{text} (means over the folds)" if run.members and text else text


def _epochs(run: SavedRun) -> str:
    """Return the epochs that were trained, and of how many if the run did not reach them."""
    if run.members:
        return ""
    rows = run.history.rows
    done = rows[-1].get("epoch", len(rows)) if rows else 0
    text = f"{done:.4g}" if isinstance(done, int | float) else str(done)
    planned = run.values.get("epochs")
    is_short = run.status != "finished" and isinstance(planned, int) and planned != done
    return f"{text} of {planned}" if is_short else text


def git_text(run: SavedRun) -> str:
    """Return the start of the commit, and how many files were changed; empty if unknown."""
    commit = run.git.get("commit")
    if not commit:
        return ""
    changed = run.git.get("changed_files")
    if not isinstance(changed, int) or not changed:  # not known, or edited by hand
        return str(commit)[:7]
    return f"{str(commit)[:7]} + {count_of(changed, 'changed file')}"


def _machine(run: SavedRun) -> str:
    host, device = run.machine.get("host"), run.machine.get("device")
    return ", ".join(str(each) for each in (host, device) if each)


def list_json(found: RunList) -> dict[str, Any]:
    """Return the runs as JSON values, with the whole plan of each."""
    return {
        "folder": str(found.folder),
        "runs": [run_json(run) for run in found.runs],
        "not_runs": [str(path) for path in found.not_runs],
        "unreadable": list(found.unreadable),
    }


def run_json(run: SavedRun) -> dict[str, Any]:
    """Return one run as JSON values."""
    return {
        "folder": str(run.folder),
        "status": run.status,
        "reason": run.reason,
        "started": run.started,
        "seconds": run.seconds,
        "seed": run.seed,
        "scores": run.scores,
        "epochs": len(run.history.rows),
        "models": run.members or 1,
        "plan": dict(run.values),
        "chosen_by_user": user_choices(run),
        "options": dict(run.options),
        "data": dict(run.data),
        "data_digest": run.data_digest,
        "model": dict(run.model),
        "machine": dict(run.machine),
        "git": dict(run.git),
        "problems": list(run.problems),
    }
