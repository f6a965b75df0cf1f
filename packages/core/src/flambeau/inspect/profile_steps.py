"""``measure_steps``: make a few dozen training steps of a run, and measure where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

import torch

from flambeau.data.loader import Loader, StepCounts
from flambeau.data.memory_loader import MemoryLoader
from flambeau.data.worker_loader import WorkerLoader
from flambeau.device import usable_cores
from flambeau.distributed.processes import ProcessGroup
from flambeau.errors import InputError
from flambeau.global_rng import preserve_generators
from flambeau.inspect.code_times import CodeTimer
from flambeau.inspect.device_times import DeviceTimer, copy_bytes_per_s, operator_s
from flambeau.inspect.profile_parts import Accelerator, Loading, Measured
from flambeau.inspect.profiled_run import (
    Clock,
    FirstSteps,
    ProfiledRun,
    Recorded,
    Segment,
    typical,
)
from flambeau.plan import Plan
from flambeau.task.task_module import trained_module
from flambeau.training.components import Components
from flambeau.training.logged_values import collecting
from flambeau.training.loop import train_epoch
from flambeau.training.optim.optimizer_class import observed
from flambeau.training.run import Run, RunSettings
from flambeau.training.run_state.checkpoint_content import user_objects
from flambeau.training.run_state.preserve import capture_optimizer, preserve
from flambeau.training.state import Position
from flambeau.tuning.probe import KEYS
from flambeau.tuning.speed import first_batches, time_evaluation
from flambeau.tuning.trial import StepSetting, Trial
from flambeau.wording import first_line

_LIMIT_S = 20.0  # of the timed steps
_CODE_STEPS, _COUNTED_STEPS, _TRACED_STEPS = 4, 2, 4
_DIVIDED = 16  # smaller batches are enlarged to find what does not depend on their size
_READ_BATCHES = 3  # that this process reads itself if workers do it otherwise


@dataclass(frozen=True)
class Profiled:
    """The run to profile; it is not changed.

    Attributes:
        components: Objects of the run.
        settings: Its settings; callbacks are not called.
        position: Position before the first step.
        plan: The plan whose values the components have.
        changed_loader: ``changed_loader({"num_workers": 2})`` returns another train loader; None if
            the loader is the user's.
        trial: Makes trial steps on a copy of the model; None if that is impossible.
        why_no_trial: Why there is no ``trial``.
        train_samples: Number of train samples.
        log: Shows a line of text before a change is tried.
        clock: Returns seconds from any starting point.
        group: The ranks that train together, all of which profile; None for one process.
    """

    components: Components
    settings: RunSettings
    position: Position
    plan: Plan
    changed_loader: Callable[[Mapping[str, Any]], Loader] | None
    trial: Trial | None
    why_no_trial: str
    train_samples: int
    log: Callable[[str], None]
    clock: Clock
    group: ProcessGroup | None = None

    @property
    def n_ranks(self) -> int:
        """Number of processes that train together."""
        return 1 if self.group is None else self.group.world_size

    @property
    def cores(self) -> int:
        """Number of cores that this process may use, if all processes of the machine share them."""
        return max(1, usable_cores() // (1 if self.group is None else self.group.local_world_size))

    @property
    def batch_size(self) -> int:
        """Samples of a full batch in this process."""
        return max(1, self.plan.values["batch_size"] // self.n_ranks)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.components.device

    @property
    def setting(self) -> StepSetting:
        """The settings of a step that trials can change."""
        return StepSetting(**{key: self.plan.values[key] for key in KEYS})

    def with_loader(self, loader: Loader) -> Profiled:
        """Return the same run with another train loader."""
        return replace(self, components=replace(self.components, train=loader))


@dataclass
class Found:
    """What was measured.

    Attributes:
        recorded: What the steps recorded.
        measured: Figures per step.
        timer: The trace of torch.profiler, if there is one.
        notes: What was not measured.
    """

    recorded: Recorded
    measured: Measured
    timer: DeviceTimer | None = None
    notes: list[str] = field(default_factory=list[str])


def samples_per_s(profiled: Profiled, steps: int, evaluation_s: float, samples: float) -> float:
    """Return the samples per second of timed steps, with the evaluations between them.

    Args:
        profiled: The run.
        steps: Number of timed steps.
        evaluation_s: Seconds of evaluation per step.
        samples: Samples after which ``evaluation_s`` is due.

    Raises:
        InputError: The train loader returned no batch.
    """
    with _steps(profiled, _timed(profiled.components.train, steps)) as run:
        pass
    found = run.recorded
    if not found.step_s:
        raise InputError(_NO_BATCH)
    each = mean(found.samples)
    step_s = _load_s(profiled.components.train, found) + _step_s(profiled, found)
    return each / (step_s + evaluation_s * each / samples)


_NO_BATCH = "The train loader returned no batch, so there is no step to profile."


def measure_steps(profiled: Profiled, steps: int, *, traced: bool) -> Found:
    """Return the figures of a step; afterwards everything is as before.

    Args:
        profiled: The run.
        steps: Largest number of timed steps.
        traced: Whether torch.profiler records some further steps; on a GPU it does in any case.

    Raises:
        InputError: The train loader returned no batch.
    """
    components, settings = profiled.components, profiled.settings
    loader, device = components.train, components.device
    segments = [
        *_timed(loader, steps),
        Segment("code", _CODE_STEPS),
        Segment("operators", _COUNTED_STEPS),
    ]
    if traced or device.type == "cuda":
        segments.append(Segment("device", _TRACED_STEPS))
    with _steps(profiled, segments) as run:
        evaluation_s = time_evaluation(run, components.valid, profiled.clock)
    recorded = run.recorded
    if not recorded.step_s:
        raise InputError(_NO_BATCH)
    counts = StepCounts.of_loader(loader, settings.options.accumulate)
    every = profiled.plan.values.get("evaluate_every") or counts.of(profiled.position.epoch)
    every = every if evaluation_s else 0
    operators, counted = recorded.operators, max(1, recorded.counted)
    measured = Measured(
        loading=_loading(profiled, recorded),
        step_s=_step_s(profiled, recorded),
        samples=mean(recorded.samples),
        code=recorded.stepping,
        operators=0.0 if operators is None else operators.operators / counted,
        operator_s=operator_s(device),
        weight_bytes=_weight_bytes(run),
        bytes_per_s=copy_bytes_per_s(device, sum(v.nbytes for v in run.trained.parameters())),
        reads={} if operators is None else {k: n / counted for k, n in operators.reads.items()},
        read_wait_s=0.0 if operators is None else operators.wait_s / counted,
        blocked_s=typical(recorded.step_blocked_s, recorded.step_switches),
        evaluation_s=evaluation_s / every if every else 0.0,
        steps_per_evaluation=every,
        accelerator=_accelerator(run),
        n_ranks=profiled.n_ranks,
    )
    if measured.accelerator is not None:
        measured = replace(measured, communication_s=measured.accelerator.exchange_s)
    found = Found(recorded, measured, run.timer)
    _measure_fixed(profiled, found)
    return found


@contextmanager
def _steps(profiled: Profiled, segments: Sequence[Segment]) -> Generator[ProfiledRun]:
    """Make the steps of the segments; in the block the run can still evaluate."""
    components, settings = profiled.components, profiled.settings
    options, task = settings.options, components.task
    # Fresh statistics are part of few evaluations, so they are not part of the measured one.
    values = {**components.values, "bn_statistics": "off"}
    components = replace(components, values=values, valid=first_batches(components.valid))
    trained = trained_module(components.model, task)
    objects = user_objects(components, options).values()
    with preserve(trained, task, *objects, weights=True) as after:
        factory = observed(options.factory, lambda each: after.callback(capture_optimizer(each)))
        # A step that is not finite is reported by the fit, with its number.
        nonfinite = "skip" if options.nonfinite == "raise" else options.nonfinite
        options = replace(
            options, optimizer=factory, nonfinite=nonfinite, controllers=(), keep_best=None
        )
        settings = replace(settings, options=options)
        run = _new_run(profiled, components, settings, segments)
        try:
            with run.propagate_errors():
                run.start_phase()
                with collecting(run.state.task, run.logged), torch.enable_grad():
                    train_epoch(run)
                run.close()
                yield run
        finally:
            run.close()
            run.release()


def _new_run(
    profiled: Profiled,
    components: Components,
    settings: RunSettings,
    segments: Sequence[Segment],
) -> ProfiledRun:
    position = replace(profiled.position)
    if profiled.group is None:
        return ProfiledRun(components, settings, position, segments, profiled.clock)
    from flambeau.inspect.ranked_profile import RankedProfiledRun

    return RankedProfiledRun(
        components, settings, position, segments, profiled.clock, profiled.group
    )


def workers_of(loader: Loader) -> int:
    """Return the number of worker processes of a loader."""
    return loader.options.num_workers if isinstance(loader, WorkerLoader) else 0


def _load_s(loader: Loader, recorded: Recorded) -> float:
    """Return the seconds per step that the loop waits for its batches.

    With workers the batches arrive in groups, so there the mean is needed.
    """
    if workers_of(loader):
        return mean(recorded.load_s)
    return typical(recorded.load_s, recorded.load_switches)


def _step_s(profiled: Profiled, recorded: Recorded) -> float:
    """Return the seconds of a step without its batches."""
    if profiled.device.type != "cpu":
        return mean(recorded.step_s)
    return typical(recorded.step_s, recorded.step_switches)


def _timed(loader: Loader, steps: int) -> list[Segment]:
    """Return the segments of timed steps, after those that start workers and select kernels."""
    workers = workers_of(loader)
    # DataLoader prefetches two batches per worker: they must be used before the pace is steady.
    return [
        Segment("warm-up", 2 + 2 * workers, limit_s=_LIMIT_S),
        Segment("timed", steps, limit_s=_LIMIT_S, least=3),
    ]


def _loading(profiled: Profiled, recorded: Recorded) -> Loading:
    loader = profiled.components.train
    accumulate, workers = profiled.settings.options.accumulate, workers_of(loader)
    wait_s = _load_s(loader, recorded)
    found = Loading(
        wait_s=wait_s,
        code=recorded.loading,
        in_memory=isinstance(loader, MemoryLoader),
        workers=workers,
        read_s=wait_s,
        read_cpu_s=min(recorded.load_cpu_s),
    )
    if not workers or profiled.changed_loader is None:
        return found
    # What the workers do is seen only where this process does it.
    own = profiled.changed_loader({"num_workers": 0})
    timer, seconds, cpu_seconds = CodeTimer(), list[float](), list[float]()
    with preserve_generators():
        batches = FirstSteps(own, 2 * _READ_BATCHES, profiled.position.epoch).batches(0)
        for number in range(2 * _READ_BATCHES):
            if number % 2:
                with timer.timed():
                    next(batches, None)
                continue
            started_s, cpu_s = profiled.clock(), time.process_time()
            if next(batches, None) is not None:
                seconds.append(profiled.clock() - started_s)
                cpu_seconds.append(time.process_time() - cpu_s)
    return replace(
        found,
        code=timer.times(),
        read_s=accumulate * min(seconds),
        read_cpu_s=accumulate * min(cpu_seconds),
    )


def _accelerator(run: ProfiledRun) -> Accelerator | None:
    """Return the figures of the device; None on the CPU or if torch.profiler recorded nothing."""
    timer, found = run.timer, run.recorded
    if run.components.device.type != "cuda" or timer is None or not found.traced:
        return None
    times = timer.times()
    if not times.kernels:
        return None
    seconds = times.busy_s, times.copy_s, times.wait_s, times.exchange_s
    return Accelerator(found.host_s, *(value / found.traced for value in seconds))


def _weight_bytes(run: Run) -> float:
    """Return the bytes of weights, gradients and optimizer state that a step reads and writes.

    Weights are read in the forward and the backward pass, gradients are written, checked and read,
    weights and optimizer state are read and written by the update.
    """
    trained = [value for value in run.trained.parameters() if value.requires_grad]
    state = 0
    for optimizer in run.optimizers.values():
        for values in optimizer.state.values():
            state += sum(v.nbytes for v in values.values() if isinstance(v, torch.Tensor))
    frozen = sum(value.nbytes for value in run.trained.parameters() if not value.requires_grad)
    return 7 * sum(value.nbytes for value in trained) + 2 * state + 2 * frozen


def _measure_fixed(profiled: Profiled, found: Found) -> None:
    """Measure the seconds of a step that do not depend on the batch size, from two sizes.

    What a step of several processes takes longer than a trial step of this one is communication.
    """
    if profiled.trial is None:
        _note_estimates(profiled, found, profiled.why_no_trial)
        return
    size = profiled.batch_size
    # Not one sample: products of matrices with a single row have kernels of their own.
    sizes = (size, size // 4) if size >= _DIVIDED else (4 * size, size)
    try:
        times = step_times(profiled, profiled.trial, sizes)
    except Exception as error:  # noqa: BLE001 - a fit reports it, with step and samples
        _note_estimates(profiled, found, first_line(error))
        return
    slope = (times[sizes[0]] - times[sizes[1]]) / (sizes[0] - sizes[1])
    smaller_s = times[sizes[1]]
    fixed_s = min(smaller_s, max(0.0, smaller_s - slope * sizes[1]))
    measured = found.measured
    if profiled.n_ranks > 1 and measured.accelerator is None:
        communication_s = max(0.0, measured.step_s - times[size])
        measured = replace(measured, communication_s=communication_s)
    # As a share: on a machine with other load all steps are longer than the shortest trial.
    fixed_s *= (measured.step_s - measured.communication_s) / times[size]
    found.measured = replace(measured, fixed_s=fixed_s)


def _note_estimates(profiled: Profiled, found: Found, why: str) -> None:
    found.notes.append(f"launch, memory and compute are estimated: {why}")
    if profiled.n_ranks > 1 and found.measured.accelerator is None:
        found.notes.append("compute includes communication with the other processes.")


def step_times(profiled: Profiled, trial: Trial, sizes: Sequence[int]) -> dict[int, float]:
    """Return the seconds of a step for each batch size, from interleaved trial steps.

    They are the shortest of twelve: everything that other processes do makes a step longer.
    """
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(3):
        # A B, B A, A B: drift (temperature, other load) affects all sizes equally.
        for size in sizes if number % 2 == 0 else reversed(sizes):
            seconds[size] += trial.step_times(profiled.setting, size, 4)
    return {size: min(found) for size, found in seconds.items()}


def read_s(profiled: Profiled, loader: Loader, batches: int = 8) -> float:
    """Return the shortest time in seconds in which this process reads a batch, without a step."""
    seconds: list[float] = []
    with preserve_generators():
        found = FirstSteps(loader, batches, profiled.position.epoch).batches(0)
        for _ in range(batches):
            started_s = profiled.clock()
            if next(found, None) is None:
                break
            seconds.append(profiled.clock() - started_s)
    return min(seconds, default=0.0)
