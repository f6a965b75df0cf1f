"""``profile``: name the bottleneck of training steps, and try what would help."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from flambeau.atomic_write import check_writable
from flambeau.device import num_threads
from flambeau.distributed.processes import run_on_main
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

    With several processes all ranks call it and get the profile of the slowest one; changes are
    not tried.

    Raises:
        InputError: The train loader returned no batch.
        StorageError: ``trace`` cannot be written; checked before the measurement.
    """
    group = profiled.group
    if trace is not None:
        run_on_main(partial(check_writable, trace))
    with num_threads(profiled.plan.values["num_threads"]):
        found = measure_steps(profiled, steps, traced=trace is not None)
        if group is None:
            made = _profile_of(profiled, found, try_changes=try_changes)
        else:
            from flambeau.inspect.ranked_profile import profile_ranks

            of_rank = partial(_profile_of, profiled, found, try_changes=False)
            made = profile_ranks(group, found.measured, of_rank)
    return made if trace is None else run_on_main(partial(_with_trace, made, trace, found))


def _profile_of(profiled: Profiled, found: Found, *, try_changes: bool) -> Profile:
    """Return the profile of this process."""
    parts = parts_of(found.measured)
    changes = changes_for(profiled, found, parts, try_changes=try_changes)
    return Profile(
        parts=parts,
        advice=ADVICE[parts[0].name],
        changes=tuple(changes),
        step_s=found.measured.whole_s,
        steps=len(found.recorded.step_s),
        samples=found.measured.samples,
        setting=_describe(profiled),
        notes=tuple(found.notes),
    )


def _with_trace(made: Profile, trace: Path, found: Found) -> Profile:
    """Write the trace; a note says why it could not be written, as the profile is still of use."""
    if found.timer is None:
        return made
    try:
        found.timer.write(trace)
    except (FlambeauError, RuntimeError) as error:
        note = f"The trace is not written: {first_line(error)}"
        return replace(made, notes=(*made.notes, note))
    return replace(made, trace=trace)


def _describe(profiled: Profiled) -> str:
    values = profiled.plan.values
    on_cpu = profiled.device.type == "cpu"
    threads = f" with {count_of(values['num_threads'], 'thread')}" if on_cpu else ""
    return f"{profiled.device}{threads}, {values['precision']}"
