"""Processes by turns: never two at once, workers included; the clock leaves out the waiting."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flambeau.errors import TrainingError
from flambeau_bench.case import Size
from flambeau_bench.fresh import FreshRun, measure_in_fresh_processes
from flambeau_bench.turns import (
    STOPPED_FILE,
    StoppedTime,
    Turn,
    can_take_turns,
    running_s,
    take_turns,
)

pytestmark = pytest.mark.skipif(
    not can_take_turns(), reason="processes are stopped by signals of POSIX"
)

SLEEP = [sys.executable, "-S", "-c", "import sys, time; time.sleep(float(sys.argv[1]))"]

# Writes its name every few milliseconds, as does a worker that it starts.
WRITER = """
import subprocess, sys, time
name, path, times, is_worker = sys.argv[1:]
worker = None
if is_worker == "no":
    worker = subprocess.Popen([sys.executable, "-S", __file__, name, path, times, "yes"])
for _ in range(int(times)):
    with open(path, "a") as file:
        file.write(name)
    time.sleep(0.005)
if worker is not None:
    worker.wait()
"""


def starts(tmp_path: Path, *commands: list[str]) -> tuple[list[Callable[[], Turn]], list[Turn]]:
    """What starts each command, and the list of what was started."""
    started: list[Turn] = []

    def starting(number: int, command: list[str]) -> Callable[[], Turn]:
        def start() -> Turn:
            (folder := tmp_path / str(number)).mkdir()
            started.append(Turn(command, folder))
            return started[-1]

        return start

    return [starting(number, command) for number, command in enumerate(commands)], started


def writers(tmp_path: Path, times: int) -> tuple[list[Callable[[], Turn]], list[Turn]]:
    script, out = tmp_path / "writer.py", tmp_path / "out"
    script.write_text(WRITER)
    command = [sys.executable, "-S", str(script)]
    return starts(tmp_path, *([*command, name, str(out), str(times), "no"] for name in "ab"))


def test_one_runs_while_the_other_and_its_worker_are_stopped(tmp_path: Path) -> None:
    starting, _ = writers(tmp_path, 60)
    assert take_turns(starting, seconds=0.1) == [0, 0]
    written = (tmp_path / "out").read_text()
    assert sorted(written) == ["a"] * 120 + ["b"] * 120
    stretches = [len(list(group)) for _, group in itertools.groupby(written)]
    # Side by side they would change places at nearly every letter.
    assert 3 <= len(stretches) <= 60


def test_the_time_in_which_the_other_ran_is_told(tmp_path: Path) -> None:
    starting, turns = writers(tmp_path, 40)
    began = time.perf_counter()
    take_turns(starting, seconds=0.1)
    passed = time.perf_counter() - began
    waited = [turn.stopped.seconds() for turn in turns]
    # Each has had at least one turn of the other's, and no more than all the time there was.
    assert min(waited) > 0.1
    assert max(waited) < passed


def test_nothing_is_left_behind_at_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Turn, seconds: float | None) -> None:
        raise KeyboardInterrupt

    starting, turns = writers(tmp_path, 10_000)
    monkeypatch.setattr(Turn, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take_turns(starting)
    assert [turn.process.returncode for turn in turns] == [-signal.SIGKILL] * 2


def test_nothing_is_left_behind_where_one_cannot_be_started(tmp_path: Path) -> None:
    starting, turns = starts(tmp_path, [*SLEEP, "20"], [str(tmp_path / "no-such-program")])
    with pytest.raises(FileNotFoundError):
        take_turns(starting)
    assert [turn.process.returncode for turn in turns] == [-signal.SIGKILL]


def test_one_that_fails_ends_its_workers_and_the_other(tmp_path: Path) -> None:
    # Its worker's number is the only thing that it says.
    fails = "import os, subprocess, sys; p = subprocess.Popen(sys.argv[1:]); "
    fails += "open('worker', 'w').write(str(p.pid)); os._exit(3)"
    failing = [sys.executable, "-S", "-c", fails, *SLEEP, "20"]
    starting, turns = starts(tmp_path, failing, [*SLEEP, "20"])
    began = time.monotonic()
    assert take_turns(starting, seconds=5.0) == [3, None]
    assert time.monotonic() - began < 15.0
    assert turns[1].process.returncode == -signal.SIGKILL
    worker = int((tmp_path / "0" / "worker").read_text())
    if Path("/proc").is_dir():
        wait_until(lambda: state(worker) in ("", "Z"))


DRIVER = """
import sys
from pathlib import Path
from flambeau_bench.turns import Turn, take_turns
command = [sys.executable, "-S", "-c", "import time; time.sleep(20)"]
def start(folder):
    turn = Turn(command, Path(folder))
    print(turn.process.pid, flush=True)
    return turn
take_turns([lambda: start(sys.argv[1]), lambda: start(sys.argv[2])], seconds=10.0)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a process's state is read from /proc")
def test_nothing_stays_stopped_where_whoever_stops_it_is_killed(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    command = [sys.executable, "-c", DRIVER, *map(str, folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        first, second = (int(driver.stdout.readline()) for _ in range(2))
        try:
            wait_until(lambda: (state(first), state(second)) == ("S", "T"))
            driver.kill()
            wait_until(lambda: state(second) in ("", "Z"))
        finally:
            for number in (first, second):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)


def state(process: int) -> str:
    """The letter that stands for it: S sleeps, T is stopped, Z is over; empty where it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_on_its_own_has_all_wall_time() -> None:
    before = time.perf_counter()
    assert before <= running_s() <= time.perf_counter()


def test_a_process_that_takes_turns_finds_its_stopped_time(tmp_path: Path) -> None:
    path = tmp_path / "stopped"
    StoppedTime(path).add(1e6)
    asks = "from time import perf_counter; from flambeau_bench.turns import running_s"
    command = [sys.executable, "-c", f"{asks}; print(running_s() - perf_counter())"]
    environment = {**os.environ, STOPPED_FILE: str(path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(-1e6, abs=1.0)


def test_two_readings_of_the_clock_with_a_stop_between_them_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = StoppedTime(tmp_path / "stopped")
    same_file = StoppedTime(tmp_path / "stopped")
    nows = iter([10.0, 110.0])

    def stopped_once() -> float:
        now = next(nows)
        if now == 10.0:
            same_file.add(100.0)
        return now

    monkeypatch.setattr(time, "perf_counter", stopped_once)
    assert stopped.running_s() == 10.0


def test_a_failed_process_says_what_it_said() -> None:
    run = FreshRun("no-such-case", "", "ours", Size("quick", {}), 0)
    with pytest.raises(TrainingError, match=r"(?s)'ours' of no-such-case.*KeyError"):
        measure_in_fresh_processes([run])


def test_a_killed_process_is_told_with_what_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    kills_itself = [sys.executable, "-S", "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr("flambeau_bench.fresh._command", lambda *asked: kills_itself)
    for device in ("cpu", "cuda"):
        run = FreshRun("a-case", "", "ours", Size("quick", {}, device=device), 0)
        with pytest.raises(TrainingError, match=r"'ours' of a-case.*with -9: it said nothing"):
            measure_in_fresh_processes([run])


def test_on_an_accelerator_one_follows_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is queued on a device goes on while its process is stopped.
    monkeypatch.setattr("flambeau_bench.fresh.take_turns", None)
    run = FreshRun("no-such-case", "", "ours", Size("quick", {}, device="cuda"), 0)
    with pytest.raises(TrainingError, match="KeyError"):
        measure_in_fresh_processes([run])
