"""``serve``: answer the bench's requests, as JSON lines, with times and with what was done.

Imports the standard library alone, so that a side can measure its own imports.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TextIO

from flambeau_bench.side.cpu_time import process_and_children_s
from flambeau_bench.time_slices import running_s

STARTED = "FLAMBEAU_BENCH_STARTED"
"""Environment variable with the wall time (``time.time()``) at which the bench started a side."""


@dataclass(frozen=True)
class Job:
    """What a side is asked to do, the same for all sides of a comparison.

    Attributes:
        case: Name of the case.
        row: Which way of training: "default callbacks", "user loader" …
        setting: "default" as the documentation of the side shows it, or "fast" with the settings
            that it documents for speed.
        seed: Determines initial weights and data.
        counts: Numbers of steps, rows, epochs … of the size.
        threads: Threads that torch may use; 0 leaves the default.
        data: Folder of real data; empty if the data are synthetic.
        device: "cpu", for which the bench hides all accelerators from the side, or "cuda".
    """

    case: str
    row: str
    setting: str = "default"
    seed: int = 0
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    threads: int = 0
    data: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class Facts:
    """What a side did in one run, as observed in its model.

    Attributes:
        steps: Batches that the model saw in training mode; optimizer steps.
        samples: Samples in these batches.
        init_hash: Hash of the weights before training, in the order and layout of torch.
        order_hash: Hash of all batches that the model saw in training, in order; only with "watch".
        weights_hash: Hash of the weights after training: equal in each run of the same program.
        precision: Types of the parameters and of the outputs in training, as "float32".
        final_evaluations: Batches that the model saw in evaluation mode after its last training
            batch; only with "watch".
        seed: The seed that was used.
        quality: The values that the quality condition compares, such as the loss of a batch that
            was not trained on, computed from the final weights after the timing.
        settings: Further values that must be equal on all sides: threads, version of torch, the
            device of the parameters …
        notes: What a reader should know.
    """

    steps: int
    samples: int
    init_hash: str
    order_hash: str
    weights_hash: str
    precision: str
    final_evaluations: int
    seed: int
    quality: Mapping[str, float | str]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: str = ""


class Task(Protocol):
    """A task prepared for one run: it makes model and data, and afterwards says what was done."""

    def facts(self) -> Facts:
        """Return what was done, after the run."""
        ...


Build = Callable[[Any], Callable[[], object]]
"""``build(task)`` builds what the library needs and returns a function that trains."""

MakeTask = Callable[[Job, Mapping[str, Any]], Task]
"""``make_task(job, request)`` returns the task of one run."""


class AbsentError(Exception):
    """A side cannot do what a job asks; its text is the reason."""


class ImportTimer:
    """Measures the imports in its ``with`` block, which are the first of the program.

    Example:
        >>> with ImportTimer() as imports:
        ...     import json
        >>> sorted(imports.figures)
        ['import_cpu_s', 'import_s', 'modules']
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._wall = self._cpu = 0.0

    def __enter__(self) -> ImportTimer:
        self._wall, self._cpu = time.perf_counter(), process_and_children_s()
        return self

    def __exit__(self, *error: object) -> None:
        self.figures = {
            "import_s": time.perf_counter() - self._wall,
            "import_cpu_s": process_and_children_s() - self._cpu,
            "modules": float(len(sys.modules)),
        }


def serve(
    build: Build, make_task: MakeTask, imports: ImportTimer, packages: Sequence[str] = ()
) -> None:
    """Answer requests from stdin until it ends.

    Args:
        build: Builds what the library needs from a task, and returns a function that trains.
        make_task: Makes the task of each request.
        imports: The measured imports.
        packages: Distributions whose versions are reported.
    """
    job = Job(**json.loads(sys.argv[1]))
    channel = _channel()
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions["python"] = platform.python_version()
    _say(channel, {"event": "ready", "versions": versions, "imports": imports.figures})
    frozen = False
    for line in sys.stdin:
        try:
            answer = _measured(build, make_task(job, json.loads(line)))
        except AbsentError as error:
            answer = {"event": "absent", "reason": str(error)}
        _say(channel, answer)
        if not frozen:
            # Later runs do not pay for collections of what the libraries have loaded.
            gc.collect()
            gc.freeze()
            frozen = True


def _measured(build: Build, task: Task) -> dict[str, Any]:
    gc.collect()  # so that garbage of an earlier run is not collected in the time of this one
    times = [_clocks()]
    fit = build(task)
    times.append(_clocks())
    fit()
    times.append(_clocks())
    (wall, cpu), (built, built_cpu), (end, end_cpu) = times
    started = os.environ.get(STARTED)
    return {
        "event": "measured",
        "build_s": built - wall,
        "build_cpu_s": built_cpu - cpu,
        "fit_s": end - built,
        "fit_cpu_s": end_cpu - built_cpu,
        "since_start_s": time.time() - float(started) if started else None,
        "since_start_cpu_s": end_cpu,
        "facts": asdict(task.facts()),
    }


def _clocks() -> tuple[float, float]:
    """Return wall seconds without pauses, and CPU seconds of all threads and ended children."""
    return running_s(), process_and_children_s()


def _channel() -> TextIO:
    """Return the stdout of the process, and send what libraries print to its stderr instead.

    The bench gives a side a terminal as its stderr, so libraries draw their progress bars as they
    do for a user.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _say(channel: TextIO, message: Mapping[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()
