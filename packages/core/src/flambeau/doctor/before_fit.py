"""The quick checks by themselves before a learner's first fit, within a bounded cost."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from flambeau.distributed import processes
from flambeau.doctor.check import READS, Check
from flambeau.doctor.checks import checks_for
from flambeau.doctor.diagnosis import findings_of
from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Course, Subject
from flambeau.errors import FlambeauWarning
from flambeau.phases.phase import Phase
from flambeau.training.optim.optimizer import default_factory
from flambeau.training.options import TrainingOptions
from flambeau.training.run import Run
from flambeau.training.step import train_step

BUDGET_S = 1.0
"""After so many seconds no further check is asked."""

_SHARE = 0.02  # of the run's samples, that the passes of the doctor may cost in the place of a time
_PASSES = 4.0  # forward passes that its own forward pass, its second one and a backward pass cost
_STEP_PASSES = 3.0  # and those of a training step
_TRIED = 2  # samples from which the cost of a pass is read where the run is short
_FEWEST = 8  # with fewer samples a pass shows too little

_RUN_THE_MODEL = ("answer", "gradients")


def course_of(
    options: TrainingOptions,
    phases: Sequence[Phase],
    run: Run | None = None,
) -> Course:
    """What the phases of a run tell the checks.

    Args:
        options: Of the learner.
        phases: Those of the coming fit, where there is no run yet.
        run: The coming fit, with its phases and optimizers; None makes optimizers as it would.
    """
    phases = phases if run is None else run.state.phases
    rates = [phase.schedules["lr"].peak for phase in phases if "lr" in phase.schedules]
    return Course(
        optimizers=lambda model, values: (
            (options.optimizer or default_factory)(model, values) if run is None else run.optimizers
        ),
        own_optimizers=options.optimizer is not None,
        own_step=options.train_step is not train_step,
        epochs=sum(phase.epochs for phase in phases),
        lr=max(rates, default=None),
        bn=tuple(phase.bn for phase in phases),
        trainable=tuple(phase.trainable for phase in phases),
        accumulate=options.accumulate,
    )


def warn_before_fit(subject: Subject, own: Iterable[Check]) -> None:
    """A FlambeauWarning for everything that the quick checks find, core's and a domain's own."""
    alone = processes.current() is None  # a model may wait for the other processes
    for finding in look_before_fit(subject, checks_for(own), runs_model=alone):
        more = f" More: {finding.page}" if finding.page else ""
        warnings.warn(
            f"[{finding.code}] {finding.what} {finding.mend}{more}",
            FlambeauWarning,
            stacklevel=_level_of_caller(),
        )


def look_before_fit(
    subject: Subject,
    checks: Iterable[Check],
    *,
    budget_s: float = BUDGET_S,
    runs_model: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Finding]:
    """What the checks find that run before a first fit, the cheapest ones first.

    They cost at most ``budget_s`` or 2% of the run, whichever is more, and one check: none is
    asked once the time is spent. The model is run on up to 64 samples, twice forward and once
    backward. Where that is more than 2% of the samples of a short run, two samples are tried, and
    the model is run on as many as the time left allows, or not at all. A check that fails is
    passed over, for the run itself says better what is wrong.

    Args:
        subject: The set-up.
        checks: Core's and the domain's; those for the first fit are taken.
        budget_s: Seconds.
        runs_model: Whether the model may be run (not by one process of several).
        clock: Tells the time in seconds.
    """
    quick = sorted(
        (check for check in checks if check.runs == "first fit"),
        key=lambda check: READS.index(check.reads),
    )
    end = clock() + budget_s
    # Compiling for another batch shape takes longer than all checks together.
    may_run: bool | None = None if runs_model and not _is_compiled(subject) else False
    found: list[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the model warns of is to be heard in the run
        for check in quick:
            if clock() > end:
                break
            try:
                if check.reads in _RUN_THE_MODEL:
                    if may_run is None:
                        may_run = False  # also where trying fails
                        may_run = _affordable(subject, end, clock)
                    if not may_run:
                        break
                found += findings_of(check, subject)
            except Exception:  # noqa: BLE001 - the run that follows says it with its place
                continue
    known = subject.data.warned
    return [finding for finding in found if finding.code not in known]


def _affordable(subject: Subject, end: float, clock: Callable[[], float]) -> bool:
    """Whether the model can be run within the cost; ``subject.most_samples`` says on how many."""
    n = len(subject.batch)
    run = subject.n_steps * subject.course.accumulate * len(subject.whole_batch)
    if _PASSES * n <= _SHARE * _STEP_PASSES * run:
        return True
    subject.most_samples = min(n, _TRIED)
    started = clock()
    try:
        _ = subject.look
    finally:
        vars(subject).pop("look", None)
        each_s = (clock() - started) / min(n, _TRIED)
        subject.most_samples = min(n, int((end - clock()) / max(_PASSES * each_s, 1e-9)))
    return subject.most_samples >= min(n, _FEWEST)


def _level_of_caller() -> int:
    """How far above ``warn_before_fit`` the first line is that is not flambeau's."""
    level, frame = 1, inspect.currentframe()
    frame = frame and frame.f_back
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("flambeau."):
        level, frame = level + 1, frame.f_back
    return level


def _is_compiled(subject: Subject) -> bool:
    return any(
        type(m).__name__ == "OptimizedModule"
        for m in cast("Iterable[object]", subject.model.modules())
    )
