"""Sides in processes of their own: the protocol, their errors, imports and CPU time."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from flambeau_bench.peers import live_side
from flambeau_bench.peers.environment import python_of
from flambeau_bench.peers.live_side import LiveSide, SideError, environment_of
from flambeau_bench.peers.peer import Peer
from flambeau_bench.side.protocol import Job

ABSENT = """
from flambeau_bench.side.protocol import AbsentError, ImportTimer, serve

with ImportTimer() as imports:
    import json


class Task:
    def __init__(self, job, request):
        raise AbsentError("it has no optimizers of users")


print("on the terminal, not in the protocol")
serve(lambda task: None, Task, imports)
"""


def start(tmp_path: Path, text: str) -> LiveSide:
    program = tmp_path / "mine.py"
    program.write_text(text)
    mine = Peer("mine", tmp_path, program)
    return LiveSide(mine, program, Job("peers-overhead", "user optimizer"), tmp_path)


def test_a_side_says_what_it_cannot_do(tmp_path: Path) -> None:
    with start(tmp_path, ABSENT) as side:
        assert side.ready["versions"].keys() == {"python"}
        with pytest.raises(SideError, match="mine cannot do this: it has no optimizers of users"):
            side.run({"steps": 1})


def test_a_side_that_ends_reports_its_error(tmp_path: Path) -> None:
    with pytest.raises(SideError, match=r"(?s)exit code 1.*ZeroDivisionError"):
        start(tmp_path, "1 / 0")


def test_the_error_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drain = live_side._drain

    def late(master: int, log: Path) -> None:
        time.sleep(0.3)
        drain(master, log)

    monkeypatch.setattr(live_side, "_drain", late)
    with pytest.raises(SideError, match="ZeroDivisionError"):
        start(tmp_path, "1 / 0")


def test_what_a_side_imports_is_compiled_before(tmp_path: Path) -> None:
    """Else a cold start of a peer would compile what flambeau finds compiled."""
    (tmp_path / "pyproject.toml").write_text("")
    mine = Peer("mine", tmp_path)
    python = Path(python_of(mine))
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    folder = Path(environment_of(mine, Job("peers-overhead", "any"), tmp_path)["PYTHONPATH"])
    sources = list(folder.rglob("*.py"))
    assert len(sources) > 10
    assert [path for path in sources if not Path(cache_from_source(str(path))).is_file()] == []


WORKER = r"""
import subprocess, sys
from types import SimpleNamespace
from flambeau_bench.side import protocol

BUSY = "import time\nwhile time.process_time() < 0.3: pass"
fit = lambda: subprocess.run([sys.executable, "-c", BUSY], check=True)
task = SimpleNamespace(facts=lambda: protocol.Facts(0, 0, "", "", "", "", 0, 0, {}))
print(protocol._measured(lambda task: fit, task)["fit_cpu_s"])
"""


def test_the_cpu_time_has_that_of_worker_processes() -> None:
    """In a new process, which has no other children."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) >= 0.3


def test_side_modules_need_no_flambeau(tmp_path: Path) -> None:
    """They run in interpreters that have neither flambeau nor, for the protocol, torch."""
    blocked = "import sys\nsys.modules['flambeau'] = sys.modules['torch'] = None\n"
    with start(tmp_path, blocked + ABSENT) as side:
        assert side.ready["event"] == "ready"
