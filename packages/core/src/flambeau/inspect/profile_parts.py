"""``parts_of``: divide the time of a step among its parts, from figures measured elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flambeau.inspect.code_times import CodeTimes
from flambeau.inspect.profile_result import PartName, ProfilePart
from flambeau.wording import count_of, format_bytes, format_seconds, name_some

_NO_CODE = CodeTimes()


@dataclass(frozen=True)
class Loading:
    """How the batches are loaded.

    Attributes:
        wait_s: Seconds per step in which the loop waits for its batches.
        code: Where this process spends the time if it reads the batches itself.
        in_memory: Whether rows of tensors in memory are gathered.
        workers: Worker processes that read ahead.
        read_s: Seconds in which this process alone reads the batches of a step.
        read_cpu_s: Seconds of processor time in ``read_s``.
    """

    wait_s: float
    code: CodeTimes = _NO_CODE
    in_memory: bool = False
    workers: int = 0
    read_s: float = 0.0
    read_cpu_s: float = 0.0


@dataclass(frozen=True)
class Accelerator:
    """Figures per step of a device that computes while the host continues.

    Attributes:
        host_s: Seconds in which the host makes the step, its waits included.
        busy_s: Seconds in which a kernel or a copy runs.
        copy_s: Seconds in which only copies between host and device run.
        wait_s: Seconds in which the host waits for the device.
        exchange_s: Seconds in which only an exchange with other processes runs.
    """

    host_s: float
    busy_s: float
    copy_s: float = 0.0
    wait_s: float = 0.0
    exchange_s: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What was measured of a step; seconds are per step.

    Attributes:
        loading: How the batches are loaded.
        step_s: Seconds of the step without loading and evaluation.
        samples: Samples per step.
        code: Where this process spends the time of the step.
        operators: Number of operators.
        operator_s: Seconds to call one operator on one value.
        weight_bytes: Bytes of weights, gradients and optimizer state that are read and written.
        bytes_per_s: Speed of the memory.
        reads: Reads of values by the host, by place in the code.
        read_wait_s: Seconds that the host spends in these reads.
        blocked_s: Seconds of the step in which this process used no core.
        fixed_s: Seconds of the step that do not depend on the batch size; None if not measured.
        evaluation_s: Seconds of an evaluation, divided by the steps between two evaluations.
        steps_per_evaluation: Steps between two evaluations.
        accelerator: Figures of the device; None where the step runs on the CPU.
        communication_s: Seconds in which the step exchanges gradients with other processes, or
            waits for them, and computes nothing.
        n_ranks: Number of processes that train together.
    """

    loading: Loading
    step_s: float
    samples: float
    code: CodeTimes = _NO_CODE
    operators: float = 0.0
    operator_s: float = 0.0
    weight_bytes: float = 0.0
    bytes_per_s: float = 1e10
    reads: Mapping[str, float] = field(default_factory=dict[str, float])
    read_wait_s: float = 0.0
    blocked_s: float = 0.0
    fixed_s: float | None = None
    evaluation_s: float = 0.0
    steps_per_evaluation: int = 0
    accelerator: Accelerator | None = None
    communication_s: float = 0.0
    n_ranks: int = 1

    @property
    def whole_s(self) -> float:
        """Seconds per step with loading and evaluation."""
        return self.loading.wait_s + self.step_s + self.evaluation_s


def parts_of(measured: Measured) -> tuple[ProfilePart, ...]:
    """Return the parts of the step's time, the largest first; their shares add up to 100 percent.

    On the CPU the parts follow each other. The fixed cost of the step (the time that a smaller
    batch takes, too) is divided between "memory" and "launch" in proportion to two estimates:
    bytes moved by the speed of the memory, and operators by the cost of calling one.

    On an accelerator the device computes while the host launches. Time in which the device is busy
    counts as transfer, memory and compute. Time in which it is idle counts as what the host does
    then: loading, Python and launch, in proportion; or, as far as the device would not be idle if
    the host did not wait for it, as synchronisation.
    """
    loading = _loading_seconds(measured.loading)
    if measured.accelerator is None:
        found = loading | _on_cpu(measured)
        python = loading["Python"] + found["Python"]
    else:
        found = _on_accelerator(measured, measured.accelerator, loading)
        python = found["Python"]
    found["Python"], found["evaluation"] = python, measured.evaluation_s
    if measured.n_ranks == 1:
        del found["communication"]
    whole_s = sum(found.values()) or 1.0
    evidence = _evidence(measured, found["launch"] + found["memory"])
    parts = [
        ProfilePart(name, seconds, 100 * seconds / whole_s, evidence.get(name, ""))
        for name, seconds in found.items()
    ]
    return tuple(sorted(parts, key=lambda part: -part.seconds))


Seconds = dict[PartName, float]


def _loading_seconds(loading: Loading) -> Seconds:
    """Divide the time of loading into reading, decoding and Python."""
    python_s = loading.wait_s * loading.code.python
    rest_s = loading.wait_s - python_s
    reading_s = rest_s if loading.in_memory else loading.wait_s * loading.code.files
    return {"reading": reading_s, "decoding": max(0.0, rest_s - reading_s), "Python": python_s}


def _on_cpu(measured: Measured) -> Seconds:
    own_s = measured.step_s - measured.communication_s
    # User code that waits, such as for a file, does not compute. Reads of values and exchanges
    # wait, too, and are parts of their own.
    blocked_s = measured.blocked_s - measured.read_wait_s - measured.communication_s
    if measured.n_ranks > 1 and measured.fixed_s is None:  # the time of the exchange is unknown
        blocked_s = 0.0
    python_s = min(own_s, measured.step_s * measured.code.python + max(0.0, blocked_s))
    wait_s = min(measured.read_wait_s, own_s - python_s)
    rest_s = own_s - python_s - wait_s
    launch_s, memory_s = _fixed_costs(measured)
    if measured.fixed_s is not None:
        fixed_s = min(rest_s, max(0.0, measured.fixed_s - wait_s))
        estimate_s = launch_s + memory_s or 1.0
        launch_s, memory_s = fixed_s * launch_s / estimate_s, fixed_s * memory_s / estimate_s
    scale = min(1.0, rest_s / (launch_s + memory_s or 1.0))
    launch_s, memory_s = launch_s * scale, memory_s * scale
    return {
        "transfer": 0.0,
        "launch": launch_s,
        "compute": max(0.0, rest_s - launch_s - memory_s),
        "memory": memory_s,
        "synchronisation": wait_s,
        "communication": measured.communication_s,
        "Python": python_s,
    }


def _on_accelerator(measured: Measured, device: Accelerator, loading: Seconds) -> Seconds:
    together_s = measured.loading.wait_s + measured.step_s
    busy_s = min(device.busy_s, together_s)
    idle_s = together_s - busy_s
    host_s = max(0.0, device.host_s - device.wait_s)
    working_s = measured.loading.wait_s + host_s
    sync_s = max(0.0, idle_s - max(0.0, working_s - busy_s)) if measured.reads else 0.0
    scale = (idle_s - sync_s) / working_s if working_s else 0.0
    python_s = host_s * measured.code.python
    _, memory_s = _fixed_costs(measured)
    if measured.fixed_s is not None:
        memory_s = min(memory_s, measured.fixed_s)
    copy_s = min(device.copy_s, busy_s)
    exchange_s = min(device.exchange_s, busy_s - copy_s)
    memory_s = min(memory_s, busy_s - copy_s - exchange_s)
    return {
        "reading": loading["reading"] * scale,
        "decoding": loading["decoding"] * scale,
        "transfer": copy_s,
        "launch": (host_s - python_s) * scale,
        "compute": busy_s - copy_s - exchange_s - memory_s,
        "memory": memory_s,
        "synchronisation": sync_s,
        "communication": exchange_s,
        "Python": (python_s + loading["Python"]) * scale,
    }


def _fixed_costs(measured: Measured) -> tuple[float, float]:
    """Return the estimated seconds for calling the operators, and for moving the weights."""
    moving_s = measured.weight_bytes / measured.bytes_per_s
    return measured.operators * measured.operator_s, moving_s


def _evidence(measured: Measured, fixed_s: float) -> dict[PartName, str]:
    """Return what was measured for each part.

    Args:
        measured: The figures.
        fixed_s: Seconds of launch and memory; Python and reads may be part of the fixed cost, too.
    """
    loading, code = measured.loading, measured.code
    found: dict[PartName, str] = {
        "reading": "rows of tensors in memory" if loading.in_memory else _percent_of_files(loading),
        "decoding": "" if loading.in_memory else _slowest(loading.code, "of reading a batch"),
        "launch": f"{measured.operators:,.0f} operators per step",
        "compute": "grows with the batch",
        "memory": f"{format_bytes(measured.weight_bytes)} of weights, gradients and optimizer "
        f"state are moved for {measured.samples:,.0f} samples",
        "Python": _slowest(code, "of the step") or _slowest(loading.code, "of reading a batch"),
    }
    if not loading.in_memory:
        processes = count_of(loading.workers, "worker") if loading.workers else "no workers"
        found["decoding"] = ", ".join(filter(None, [found["decoding"], processes]))
    if loading.code.python > code.python:
        found["Python"] = _slowest(loading.code, "of reading a batch")
    if measured.fixed_s is not None and 0.8 * measured.fixed_s <= fixed_s:
        found["launch"] += (
            f"; {format_seconds(measured.fixed_s)} per step do not depend on the batch size"
        )
    if measured.reads:
        places = [f"{count:g}× {place}" for place, count in measured.reads.items()]
        found["synchronisation"] = f"the host reads values: {name_some(places, most=3)}"
    if measured.n_ranks > 1:
        found["communication"] = f"gradients of {measured.n_ranks} processes"
    if measured.steps_per_evaluation:
        each_s = measured.evaluation_s * measured.steps_per_evaluation
        steps = measured.steps_per_evaluation
        found["evaluation"] = f"{format_seconds(each_s)} after every {count_of(steps, 'step')}"
    return found


def _percent_of_files(loading: Loading) -> str:
    return f"{100 * loading.code.files:.0f} % of reading a batch is in functions that read files"


def _slowest(code: CodeTimes, of: str) -> str:
    if not code.slowest:
        return ""
    return f"{code.slowest} takes {100 * code.slowest_share:.0f} % {of}"
