"""kill -9 at any moment, resume in a new process: bit for bit the run that nobody killed."""

from __future__ import annotations

import queue
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flambeau.artefact.checkpoint_files import load_checkpoint, load_latest_checkpoint

STEPS, MICRO_BATCHES = 32, 60  # 4 epochs of 15 batches of 10 (one ragged), 2 batches a step
EVENTS = ("on_step_start", "on_gradients_ready", "on_step_end", "on_eval_step_end", "on_epoch_end")
SIGKILLED = -signal.SIGKILL


def new_job(folder: Path, loader: str, precision: str, every: int = 5) -> dict[str, Any]:
    return {
        "kind": "run",
        "folder": str(folder),
        "loader": loader,
        "precision": precision,
        "every": every,
        "number": 0,
    }


class Outcome:
    """What a finished run has left in its folder."""

    def __init__(self, folder: Path) -> None:
        self.end = load_checkpoint(folder / "end" / "checkpoints" / "step-00000000")
        newest = load_latest_checkpoint(folder)
        assert newest is not None
        self.newest = newest[1]
        self.orders = [
            (folder / name).read_text().splitlines()
            for name in sorted(path.name for path in folder.glob("order-*.txt"))
        ]


def run_through(server: Any, job: dict[str, Any], kills: list[dict[str, Any]], after: Any) -> None:
    """The run, killed as often as there are ``kills``, each time resumed in a new process."""
    for number, kill in enumerate([*kills, None]):
        outside = None
        job = job | {"number": number, "kill": kill}
        if kill is not None and "lines" in kill:
            outside = after(kill["lines"], signal.SIGKILL)
            job["kill"] = None
        code = server.run(job, outside)
        error = Path(job["folder"], f"error-{number}.txt")
        assert not error.exists(), error.read_text()
        assert code == (0 if kill is None else SIGKILLED), (job, code)


def check(whole: Outcome, broken: Outcome, difference: Any) -> None:
    """The same weights, optimizer, averages, history, generators, and order of the data."""
    assert difference(whole.end, broken.end) is None
    assert difference(whole.newest, broken.newest) is None
    [order] = whole.orders
    assert len(order) == MICRO_BATCHES
    first, *later = broken.orders
    assert first == order[: len(first)]  # before the first kill
    for resumed in later:
        start = next(i for i in range(len(order)) if order[i : i + len(resumed)] == resumed)
        # A resumed run begins at a step border, not later than where the earlier one was killed.
        assert start % 15 % 2 == 0
    assert later[-1] == order[-len(later[-1]) :]


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    here: Any, after: Any, difference: Any, tmp_path: Path
) -> None:
    run_through(here, new_job(tmp_path / "whole", "gather", "fp32"), [], after)
    whole = Outcome(tmp_path / "whole")
    # In the first phase before any epoch ended, then in the second phase, inside a step.
    kills = [{"event": "on_step_end", "step": 6}, {"event": "on_gradients_ready", "step": 21}]
    run_through(here, new_job(tmp_path / "broken", "gather", "fp32"), kills, after)
    check(whole, Outcome(tmp_path / "broken"), difference)


def draw_kills(draws: random.Random) -> list[dict[str, Any]]:
    """One or two kills, the first one after a first checkpoint."""
    first = draws.randrange(5, STEPS)
    kills = [{"event": draws.choice(EVENTS), "step": first}]
    if draws.random() < 0.3:
        # At no step in particular: wherever the process is when the signal comes.
        kills = [{"lines": draws.randrange(11, MICRO_BATCHES - 4)}]
    elif first < STEPS - 10 and draws.random() < 0.4:
        kills.append({"event": draws.choice(EVENTS), "step": draws.randrange(first + 6, STEPS)})
    return kills


@pytest.mark.slow
def test_thirty_kills(
    servers: Callable[[int], list[Any]], after: Any, difference: Any, tmp_path: Path
) -> None:
    """30 runs, half of them with worker processes, two thirds in bf16, some killed twice."""
    draws = random.Random(30)
    kinds = [(loader, precision) for loader in ("gather", "workers") for precision in PRECISIONS]
    free: queue.Queue[Any] = queue.Queue()
    for server in servers(2):
        free.put(server)

    def run(entry: tuple[Path, str, str, list[dict[str, Any]]]) -> None:
        folder, loader, precision, kills = entry
        server = free.get()
        try:
            run_through(server, new_job(folder, loader, precision), kills, after)
        finally:
            free.put(server)

    wholes = [(tmp_path / f"whole-{a}-{b}", a, b, []) for a, b in kinds]
    runs = []
    for index in range(30):
        loader, precision = ("gather", "workers")[index % 2], "bf16" if index % 3 else "fp32"
        runs.append((tmp_path / f"run-{index}", loader, precision, draw_kills(draws)))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, [*wholes, *runs]))
    outcomes = {(a, b): Outcome(folder) for folder, a, b, _ in wholes}
    assert len({str(o.orders) for o in outcomes.values()}) == 2  # one order a loader's data
    for folder, loader, precision, _ in runs:
        check(outcomes[loader, precision], Outcome(folder), difference)
    no_process_is_left(tmp_path)


PRECISIONS = ("fp32", "bf16")


def no_process_is_left(root: Path) -> None:
    """The worker processes of killed runs end by themselves: they look every 5 seconds."""
    if not Path("/proc/self/stat").exists():
        return
    groups = {int(path.read_text()) for path in root.glob("run-*/pid-*")}
    deadline = time.monotonic() + 30
    while (left := groups & set(living_groups())) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


def living_groups() -> Iterator[int]:
    """The process groups of all processes that are not zombies."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            yield int(fields[2])
