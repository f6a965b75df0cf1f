"""Processes in time slices: never two at once, with workers; the clock excludes stops."""

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
from flambeau_bench.fresh_process import FreshRun, measure_in_fresh_processes
from flambeau_bench.time_slices import (
    STOPPED_TIME_FILE,
    SlicedProcess,
    StoppedTime,
    can_stop_processes,
    run_in_slices,
    running_s,
)

pytestmark = pytest.mark.skipif(not can_stop_processes(), reason="needs POSIX signals")

SLEEP = [sys.executable, "-S", "-c", "import sys, time; time.sleep(float(sys.argv[1]))"]

# The process and a worker that it starts write their name every few milliseconds.
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


def starts(
    tmp_path: Path, *commands: list[str]
) -> tuple[list[Callable[[], SlicedProcess]], list[SlicedProcess]]:
    """Return functions that start each command, and the list of started processes."""
    started: list[SlicedProcess] = []

    def starting(number: int, command: list[str]) -> Callable[[], SlicedProcess]:
        def start() -> SlicedProcess:
            (folder := tmp_path / str(number)).mkdir()
            started.append(SlicedProcess(command, folder))
            return started[-1]

        return start

    return [starting(number, command) for number, command in enumerate(commands)], started


def writers(
    tmp_path: Path, times: int
) -> tuple[list[Callable[[], SlicedProcess]], list[SlicedProcess]]:
    script, out = tmp_path / "writer.py", tmp_path / "out"
    script.write_text(WRITER)
    command = [sys.executable, "-S", str(script)]
    return starts(tmp_path, *([*command, name, str(out), str(times), "no"] for name in "ab"))


def test_only_one_process_and_its_worker_run_at_a_time(tmp_path: Path) -> None:
    starting, _ = writers(tmp_path, 60)
    assert run_in_slices(starting, seconds=0.1) == [0, 0]
    written = (tmp_path / "out").read_text()
    assert sorted(written) == ["a"] * 120 + ["b"] * 120
    slices = [len(list(group)) for _, group in itertools.groupby(written)]
    # Running at the same time they would alternate at nearly every letter.
    assert 3 <= len(slices) <= 60


def test_stopped_time_is_recorded(tmp_path: Path) -> None:
    starting, processes = writers(tmp_path, 40)
    started = time.perf_counter()
    run_in_slices(starting, seconds=0.1)
    elapsed = time.perf_counter() - started
    stopped = [each.stopped.seconds() for each in processes]
    # Each was stopped for at least one slice of the other, and for less than the whole time.
    assert min(stopped) > 0.1
    assert max(stopped) < elapsed


def test_all_processes_are_killed_on_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: SlicedProcess, seconds: float | None) -> None:
        raise KeyboardInterrupt

    starting, processes = writers(tmp_path, 10_000)
    monkeypatch.setattr(SlicedProcess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in_slices(starting)
    assert [each.process.returncode for each in processes] == [-signal.SIGKILL] * 2


def test_processes_are_killed_if_one_cannot_start(tmp_path: Path) -> None:
    starting, processes = starts(tmp_path, [*SLEEP, "20"], [str(tmp_path / "no-such-program")])
    with pytest.raises(FileNotFoundError):
        run_in_slices(starting)
    assert [each.process.returncode for each in processes] == [-signal.SIGKILL]


def test_a_failure_ends_its_workers_and_the_other_process(tmp_path: Path) -> None:
    # It writes the process id of its worker and fails.
    fails = "import os, subprocess, sys; p = subprocess.Popen(sys.argv[1:]); "
    fails += "open('worker', 'w').write(str(p.pid)); os._exit(3)"
    failing = [sys.executable, "-S", "-c", fails, *SLEEP, "20"]
    starting, processes = starts(tmp_path, failing, [*SLEEP, "20"])
    started = time.monotonic()
    assert run_in_slices(starting, seconds=5.0) == [3, None]
    assert time.monotonic() - started < 15.0
    assert processes[1].process.returncode == -signal.SIGKILL
    worker = int((tmp_path / "0" / "worker").read_text())
    if Path("/proc").is_dir():
        wait_until(lambda: state(worker) in ("", "Z"))


DRIVER = """
import sys
from pathlib import Path
from flambeau_bench.time_slices import SlicedProcess, run_in_slices
command = [sys.executable, "-S", "-c", "import time; time.sleep(20)"]
def start(folder):
    process = SlicedProcess(command, Path(folder))
    print(process.process.pid, flush=True)
    return process
run_in_slices([lambda: start(sys.argv[1]), lambda: start(sys.argv[2])], seconds=10.0)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to read the state of a process")
def test_no_process_stays_stopped_if_its_parent_is_killed(tmp_path: Path) -> None:
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
    """Return the state: S sleeps, T is stopped, Z is a zombie; empty if there is no process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_without_slices_has_all_wall_time() -> None:
    before = time.perf_counter()
    assert before <= running_s() <= time.perf_counter()


def test_a_sliced_process_subtracts_its_stopped_time(tmp_path: Path) -> None:
    path = tmp_path / "stopped"
    StoppedTime(path).add(1e6)
    imports = "from time import perf_counter; from flambeau_bench.time_slices import running_s"
    command = [sys.executable, "-c", f"{imports}; print(running_s() - perf_counter())"]
    environment = {**os.environ, STOPPED_TIME_FILE: str(path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(-1e6, abs=1.0)


def test_a_stop_between_two_clock_readings_is_detected(
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


@pytest.mark.slow
def test_the_error_of_a_failed_process_has_its_stderr() -> None:
    run = FreshRun("no-such-case", "", "candidate", Size("quick", {}), 0)
    with pytest.raises(TrainingError, match=r"(?s)'candidate' in no-such-case.*KeyError"):
        measure_in_fresh_processes([run])


def test_the_error_of_a_killed_process_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-S", "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr("flambeau_bench.fresh_process._command", lambda *arguments: command)
    for device in ("cpu", "cuda"):
        run = FreshRun("a-case", "", "candidate", Size("quick", {}, device=device), 0)
        with pytest.raises(
            TrainingError, match=r"'candidate' in a-case.*code -9: its stderr is empty"
        ):
            measure_in_fresh_processes([run])


@pytest.mark.slow
def test_on_an_accelerator_processes_run_in_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    # A device continues with queued work while its process is stopped.
    monkeypatch.setattr("flambeau_bench.fresh_process.run_in_slices", None)
    run = FreshRun("no-such-case", "", "candidate", Size("quick", {}, device="cuda"), 0)
    with pytest.raises(TrainingError, match="KeyError"):
        measure_in_fresh_processes([run])
