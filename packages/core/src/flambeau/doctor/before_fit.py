"""The checks that run automatically before a learner's first fit, within a time budget."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from flambeau.distributed import processes
from flambeau.doctor.check import READS, Check
from flambeau.doctor.core_checks import checks_for
from flambeau.doctor.diagnosis import findings_of
from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import FitSettings, TrainingSetup
from flambeau.errors import FlambeauWarning
from flambeau.phases.phase import Phase
from flambeau.training.optim.factory import default_factory
from flambeau.training.options import TrainingOptions
from flambeau.training.run import Run
from flambeau.training.step import train_step

BUDGET_S = 1.0
"""No further check starts after this many seconds."""

_SHARE = 0.02  # of the run's cost that the doctor's own passes may add
_PASSES = 4.0  # cost of the doctor's two forward passes and one backward pass, in forward passes
_STEP_PASSES = 3.0  # cost of a training step, in forward passes
_TRIED = 2  # samples on which the cost of a pass is measured if the run is short
_FEWEST = 8  # a pass over fewer samples is not worth running: most checks need more

_RUN_THE_MODEL = ("outputs", "gradients")


def make_fit_settings(
    options: TrainingOptions,
    phases: Sequence[Phase],
    run: Run | None = None,
) -> FitSettings:
    """Return the next fit's settings that checks may read.

    Args:
        options: The learner's options.
        phases: The phases of the next fit, used if there is no run yet.
        run: The next fit with its phases and optimizers; None builds the optimizers in the same
            way as the fit would.
    """
    phases = phases if run is None else run.state.phases
    rates = [phase.schedules["lr"].peak for phase in phases if "lr" in phase.schedules]
    return FitSettings(
        optimizers=lambda model, values: (
            (options.factory or default_factory)(model, values) if run is None else run.optimizers
        ),
        custom_optimizers=options.optimizer is not None,
        custom_step=options.train_step is not train_step,
        epochs=sum(phase.epochs or 0 for phase in phases),
        steps=sum(phase.steps or 0 for phase in phases),
        lr=max(rates, default=None),
        bn=tuple(phase.bn for phase in phases),
        trainable=tuple(phase.trainable for phase in phases),
        accumulate=options.accumulate,
    )


def warn_before_fit(setup: TrainingSetup, domain_checks: Iterable[Check]) -> None:
    """Run the checks for the first fit and issue a FlambeauWarning for each finding.

    Args:
        setup: The training setup.
        domain_checks: Checks of the domain, which run in addition to core's.
    """
    one_process = processes.current() is None  # a model may wait for the other processes
    checks = checks_for(domain_checks)
    for finding in check_before_fit(setup, checks, may_run_model=one_process):
        page = f" See {finding.page}" if finding.page else ""
        warnings.warn(
            f"[{finding.code}] {finding.what} {finding.fix}{page}",
            FlambeauWarning,
            stacklevel=_level_of_caller(),
        )


def check_before_fit(
    setup: TrainingSetup,
    checks: Iterable[Check],
    *,
    budget_s: float = BUDGET_S,
    may_run_model: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Finding]:
    """Run the checks for the first fit, cheapest first, and return their findings.

    The cost is limited to ``budget_s`` seconds or 2% of the run, whichever is more; a check that
    has started is allowed to finish. The model runs on up to 64 samples, twice forward and once
    backward. If that would cost more than 2% of a short run, two samples are timed first, and the
    model then runs on as many samples as the remaining time allows, or not at all. A check that
    raises an error is skipped, because the fit itself reports the cause more precisely.

    Args:
        setup: The training setup.
        checks: Checks of core and of the domain; only checks with ``runs="first fit"`` run.
        budget_s: Time limit in seconds.
        may_run_model: Whether the model may run; False if several processes train it.
        clock: Returns the current time in seconds.
    """
    quick = sorted(
        (check for check in checks if check.runs == "first fit"),
        key=lambda check: READS.index(check.reads),
    )
    end = clock() + budget_s
    # Compiling for another batch shape takes longer than all checks together.
    may_run: bool | None = None if may_run_model and not _is_compiled(setup) else False
    found: list[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the model's own warnings appear in the fit that follows
        for check in quick:
            if clock() > end:
                break
            try:
                if check.reads in _RUN_THE_MODEL:
                    if may_run is None:
                        may_run = False  # stays False if the trial raises an error
                        may_run = _affordable(setup, end, clock)
                    if not may_run:
                        break
                found += findings_of(check, setup)
            except Exception:  # noqa: BLE001 - the fit that follows reports the cause
                continue
    known = setup.data.issued_warnings
    return [finding for finding in found if finding.code not in known]


def _affordable(setup: TrainingSetup, end: float, clock: Callable[[], float]) -> bool:
    """Return whether the model can run within the budget; sets ``setup.max_samples``."""
    n = len(setup.batch)
    run = setup.n_steps * setup.fit_settings.accumulate * len(setup.full_batch)
    if _PASSES * n <= _SHARE * _STEP_PASSES * run:
        return True
    setup.max_samples = min(n, _TRIED)
    started = clock()
    try:
        _ = setup.forward_pass
    finally:
        vars(setup).pop("forward_pass", None)
        each_s = (clock() - started) / min(n, _TRIED)
        setup.max_samples = min(n, int((end - clock()) / max(_PASSES * each_s, 1e-9)))
    return setup.max_samples >= min(n, _FEWEST)


def _level_of_caller() -> int:
    """Return the stack level, above ``warn_before_fit``, of the first frame outside flambeau."""
    level, frame = 1, inspect.currentframe()
    frame = frame and frame.f_back
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("flambeau."):
        level, frame = level + 1, frame.f_back
    return level


def _is_compiled(setup: TrainingSetup) -> bool:
    return any(
        type(m).__name__ == "OptimizedModule"
        for m in cast("Iterable[object]", setup.model.modules())
    )
