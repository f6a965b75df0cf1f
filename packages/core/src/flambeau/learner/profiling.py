"""Build the run whose steps ``Learner.profile`` times."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flambeau.callbacks import ProgressBar
from flambeau.distributed import processes
from flambeau.errors import ArgumentError
from flambeau.learner.setup import Setup
from flambeau.learner.single_steps import step_inputs, warn_if_moved

if TYPE_CHECKING:
    from flambeau.inspect.profile_result import Profile


def profile(
    setup: Setup,
    trainable: tuple[str, ...] | None,
    steps: int,
    *,
    try_changes: bool,
    trace: str | Path | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Return where the time of the training steps goes that ``fit()`` would make.

    Args:
        setup: The learner's setup.
        trainable: Names of the parameter groups that train; None for all.
        steps: As in ``Learner.profile``.
        try_changes: As in ``Learner.profile``.
        trace: As in ``Learner.profile``.
        clock: Returns seconds from any starting point.

    Raises:
        ArgumentError: ``steps`` is not positive.
        InputError: The train loader returned no batch.

    Warns:
        FlambeauWarning: [loader-moved] The position of the train loader cannot be restored.
    """
    from flambeau.inspect.profile import profile as measure
    from flambeau.inspect.profile_steps import Profiled
    from flambeau.tuning.step_settings import why_no_trial
    from flambeau.tuning.trial import Trial

    if steps < 1:
        raise ArgumentError(f"steps is {steps}, but must be at least 1.")
    group = processes.initialize()
    inputs = step_inputs(setup, trainable)
    plan, components, settings = inputs.plan, inputs.components, inputs.settings
    warn_if_moved(components.train, "profile")
    built, facts = setup.built(plan), setup.data.facts()
    why_not = why_no_trial(components, settings.options, facts)
    trial = Trial(components, settings.options, inputs.phases[0], built.sample_batch, clock)
    profiled = Profiled(
        components=components,
        settings=settings,
        position=setup.position,
        plan=plan,
        changed_loader=None if "loader_batch_size" in facts else built.changed_loader,
        trial=None if why_not else trial,
        why_no_trial=why_not,
        train_samples=len(setup.data.split.train),
        log=(lambda line: None) if setup.quiet else ProgressBar.write_line,
        clock=clock,
        group=group,
    )
    path = None if trace is None else Path(trace)
    return measure(profiled, steps, try_changes=try_changes, trace=path)
