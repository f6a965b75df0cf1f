"""``profile``: name the bottleneck of training steps, and try what would help."""

from __future__ import annotations

from pathlib import Path

from flambeau.atomic_write import check_writable
from flambeau.device import num_threads
from flambeau.errors import FlambeauError
from flambeau.inspect.profile_changes import changes_for
from flambeau.inspect.profile_parts import parts_of
from flambeau.inspect.profile_promises import ADVICE
from flambeau.inspect.profile_result import Profile
from flambeau.inspect.profile_steps import Found, Profiled, measure_steps
from flambeau.wording import count_of, first_line


def profile(
    profiled: Profiled, steps: int, *, try_changes: bool = True, trace: Path | None = None
) -> Profile:
    """Return the parts of a step's time, and what would make it shorter.

    Afterwards weights, buffers, optimizers, generators and the state of user-defined objects are
    as before.

    Args:
        profiled: The run.
        steps: Largest number of timed steps; fewer are timed if they take long.
        try_changes: Whether the changes are tried.
        trace: File for the trace of torch.profiler; None writes none.

    Raises:
        InputError: The train loader returned no batch.
        StorageError: ``trace`` cannot be written; checked before the measurement.
    """
    if trace is not None:
        check_writable(trace)
    with num_threads(profiled.plan.values["num_threads"]):
        found = measure_steps(profiled, steps, traced=trace is not None)
        parts = parts_of(found.measured)
        changes = changes_for(profiled, found, parts, try_changes=try_changes)
    if trace is not None and not _is_written(trace, found):
        trace = None
    return Profile(
        parts=parts,
        advice=ADVICE[parts[0].name],
        changes=tuple(changes),
        step_s=found.measured.whole_s,
        steps=len(found.recorded.step_s),
        samples=found.measured.samples,
        setting=_describe(profiled),
        notes=tuple(found.notes),
        trace=trace,
    )


def _is_written(trace: Path, found: Found) -> bool:
    """Write the trace; a note says why it could not be written, as the profile is still of use."""
    if found.timer is None:
        return False
    try:
        found.timer.write(trace)
    except (FlambeauError, RuntimeError) as error:
        found.notes.append(f"The trace is not written: {first_line(error)}")
        return False
    return True


def _describe(profiled: Profiled) -> str:
    values = profiled.plan.values
    on_cpu = profiled.device.type == "cpu"
    threads = f" with {count_of(values['num_threads'], 'thread')}" if on_cpu else ""
    return f"{profiled.device}{threads}, {values['precision']}"
