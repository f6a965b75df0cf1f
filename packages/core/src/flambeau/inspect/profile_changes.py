"""``changes_for``: the changes for a bottleneck; each is tried after its gain was promised."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from statistics import median
from typing import Any

from flambeau.data.worker_loader import WorkerLoader
from flambeau.errors import FlambeauError
from flambeau.inspect import profile_promises as promises
from flambeau.inspect.profile_result import ProfileChange, ProfilePart
from flambeau.inspect.profile_steps import (
    Found,
    Profiled,
    read_s,
    samples_per_s,
    step_times,
    workers_of,
)
from flambeau.tuning.memory import fit_line
from flambeau.tuning.probe import compare
from flambeau.tuning.step_settings import alternatives_of, free_bytes_of
from flambeau.tuning.trial import Trial
from flambeau.wording import count_of, first_line, format_bytes

_TRIED_STEPS = 16  # timed steps with a changed loader, and as many without the change
_ROUNDS = 5  # most rounds of both: other processes change the time of a single round
_TRY_LIMIT_S = 10.0  # no further round starts after this time


def changes_for(
    profiled: Profiled, found: Found, parts: Sequence[ProfilePart], *, try_changes: bool
) -> list[ProfileChange]:
    """Return the changes for the part with the largest share.

    Args:
        profiled: The run.
        found: What was measured; notes are added.
        parts: The largest part first.
        try_changes: Whether to try them.
    """
    work = _Changes(profiled, found, parts, try_changes)
    part = parts[0]
    if part.name in ("reading", "decoding", "Python"):
        in_loading = part.name != "Python" or _is_in_loading(found)
        changes = work.workers() if in_loading else []
        return changes + ([promises.code_change(found.measured, part)] * (part.name == "Python"))
    if part.name in ("launch", "memory"):
        compiled = work.settings(("compile",)) if part.name == "launch" else []
        return work.batch_size() + compiled
    if part.name == "compute":
        return work.settings(("precision", "memory_format", "compile")) + work.threads()
    if part.name == "transfer":
        return work.data_device()
    if part.name == "communication":
        accumulate = profiled.settings.options.accumulate
        return [promises.with_accumulation(found.measured, accumulate, 4)]
    if part.name == "evaluation":
        return [promises.fewer_evaluations(found.measured)]
    return [promises.code_change(found.measured, part)]


def _is_in_loading(found: Found) -> bool:
    loading, measured = found.measured.loading, found.measured
    return loading.wait_s * loading.code.python > measured.step_s * measured.code.python


class _Changes:
    def __init__(
        self, profiled: Profiled, found: Found, parts: Sequence[ProfilePart], try_changes: bool
    ) -> None:
        self.profiled, self.found, self.parts = profiled, found, parts
        self.measured, self.tries = found.measured, try_changes

    def workers(self) -> list[ProfileChange]:
        """Return the change to more workers that read ahead."""
        loader, cores = self.profiled.components.train, self.profiled.cores
        threads = self.profiled.plan.values["num_threads"]
        if not isinstance(loader, WorkerLoader) or self.profiled.changed_loader is None:
            self.found.notes.append(
                "The loader has no worker processes that flambeau could add. If it is your "
                "DataLoader, raise its num_workers."
            )
            return []
        count = promises.workers_for(self.measured, cores)
        if count <= workers_of(loader):
            self.found.notes.append(
                f"{count_of(workers_of(loader), 'worker')} already use the "
                f"{count_of(cores, 'core')} of this process; more may help if reading waits for a "
                "network."
            )
            return []
        change = promises.with_workers(self.measured, count, cores, threads)
        return [self._with_loader(change, {"num_workers": count})]

    def data_device(self) -> list[ProfileChange]:
        """Return the change to data that stay on the device."""
        if self.profiled.plan["data_device"].value != "cpu" or not self.measured.loading.in_memory:
            return self.workers()
        kind = self.profiled.device.type
        change = ProfileChange(
            f"data_device {kind}",
            promises.without(self.measured, self.parts[0].seconds),
            choices={"data_device": kind},
        )
        return [self._with_loader(change, {"keep_on_device": True})]

    def batch_size(self) -> list[ProfileChange]:
        """Return the change to larger batches; a note says why there is none."""
        try:
            return self._larger_batches()
        except (FlambeauError, RuntimeError) as error:  # such as too little memory
            self.found.notes.append(f"Larger batches are not tried: {first_line(error)}")
            return []

    def _larger_batches(self) -> list[ProfileChange]:
        """Return the change to larger batches, as far as memory and train samples allow."""
        trial, options = self.profiled.trial, self.profiled.settings.options
        size, n_ranks = self.profiled.batch_size, self.profiled.n_ranks
        if trial is None or self.profiled.changed_loader is None or options.accumulate > 1:
            self.found.notes.append(
                "Larger batches are not tried: "
                + (self.profiled.why_no_trial or "the step accumulates micro-batches.")
            )
            return []
        most = min(self.profiled.train_samples // n_ranks, self._fitting(trial, size))
        larger = next((size * f for f in (8, 4, 2) if size * f <= most), 0)
        if not larger:
            self.found.notes.append(f"A batch larger than {size} does not fit into memory or data.")
            return []
        sizes = [s for s in (size, 2 * size, 4 * size) if s < larger] or [size]
        sizes = sizes if len(sizes) > 1 else [max(1, size // 2), size]
        times = step_times(self.profiled, trial, sizes)
        _, per_sample_s = promises.line_through(times)
        # On a machine with other load all steps are longer than the shortest trial.
        per_sample_s *= self.measured.step_s / times[size]
        reading_s = self._read_per_sample_s(size)
        expected = promises.with_batch_size(self.measured, size, larger, per_sample_s, reading_s)
        change = ProfileChange(
            f"batch_size {size * n_ranks} → {larger * n_ranks}",
            expected,
            note="fewer, larger steps per epoch: choose lr again",
            choices={"batch_size": larger * n_ranks},
        )
        return [self._with_loader(change, {"batch_size": larger * n_ranks, "drop_last": True})]

    def _read_per_sample_s(self, size: int) -> float:
        """Return the seconds that a further sample adds to the time of loading a batch."""
        changed, loading = self.profiled.changed_loader, self.measured.loading
        if changed is None or not loading.in_memory:
            return loading.wait_s / size
        times = {
            each: read_s(
                self.profiled,
                changed({"batch_size": each * self.profiled.n_ranks, "drop_last": True}),
            )
            for each in (size, 2 * size)
        }
        _, per_sample_s = promises.line_through(times)
        return per_sample_s

    def _fitting(self, trial: Trial, size: int) -> int:
        """Return the largest batch size that fits into memory."""
        device = self.profiled.device
        free = free_bytes_of(device)
        setting = replace(self.profiled.setting, compile="off")
        sizes = (size, 2 * size)
        use = fit_line({each: trial.peak_bytes(setting, each) for each in sizes})
        self.found.notes.append(
            f"A step with {size} samples takes about {format_bytes(use.of(size))} of "
            f"{format_bytes(free)} free memory."
        )
        return use.max_samples(free, device.type)

    def settings(self, keys: Sequence[str]) -> list[ProfileChange]:
        """Return the changes of settings that are faster on the device, if a gain is known."""
        device, model = self.profiled.device, self.profiled.components.model
        others = alternatives_of(self.profiled.plan, model, device)
        wanted = ("bf16", "channels_last", "regions", "whole")
        changes: list[ProfileChange] = []
        for key in keys:
            for value in others.get(key, ()):
                if value in wanted:
                    change = promises.of_setting(self.measured, self.parts, key, value, device.type)
                    changes += [] if change is None else [self._with_setting(change, key, value)]
        return changes

    def threads(self) -> list[ProfileChange]:
        """Return the change to as many threads as this process may use."""
        now: int = self.profiled.setting.num_threads
        cores = self.profiled.cores
        if self.profiled.device.type != "cpu" or cores <= now:
            return []
        change = promises.with_threads(self.measured, self.parts, now, cores)
        return [self._with_setting(change, "num_threads", cores)]

    # Trying a change

    def _promised(self, change: ProfileChange) -> None:
        self.profiled.log(f"Trying {change.what}: {change.expected:.2f}× expected.")

    def _with_loader(self, change: ProfileChange, options: dict[str, Any]) -> ProfileChange:
        """Time steps with another loader, next to as many with the present one."""
        changed = self.profiled.changed_loader
        if not self.tries or changed is None:
            return change
        self._promised(change)
        loader = changed(options)
        try:
            with warnings.catch_warnings():
                # The note says why there may be more workers than cores.
                warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
                measured = self._speed_up(self.profiled.with_loader(loader))
        except (FlambeauError, RuntimeError, OSError) as error:
            return promises.tried(change, None, f"not possible: {first_line(error)}")
        finally:
            if isinstance(loader, WorkerLoader):
                with suppress(OSError):
                    loader.close()
        return promises.tried(change, measured)

    def _speed_up(self, changed: Profiled) -> float:
        """Return the samples per second of a changed run relative to the present one.

        Rounds of both alternate, and each side counts with its median round.
        """
        evaluation_s, samples = self.measured.evaluation_s, self.measured.samples
        clock = self.profiled.clock
        started_s, before, after = clock(), list[float](), list[float]()
        while not before or (len(before) < _ROUNDS and clock() - started_s < _TRY_LIMIT_S):
            for run, found in ((self.profiled, before), (changed, after)):
                found.append(samples_per_s(run, _TRIED_STEPS, evaluation_s, samples))
        return median(after) / median(before)

    def _with_setting(self, change: ProfileChange, key: str, value: Any) -> ProfileChange:
        """Time trial steps with another setting, interleaved with those of the present one."""
        trial = self.profiled.trial
        if not self.tries:
            return change
        if trial is None:
            return promises.tried(change, None, f"not tried: {self.profiled.why_no_trial}")
        self._promised(change)
        setting = self.profiled.setting
        size = self.profiled.batch_size
        try:
            result = compare(
                key,
                value,
                setting,
                replace(setting, **{key: value}),
                lambda each, steps: trial.step_times(each, size, steps),
                lambda each: trial.agreement(each, size),
            )
        except RuntimeError as error:
            return promises.tried(change, None, f"not possible: {first_line(error)}")
        if result.speed_up is None:
            return promises.tried(change, None, result.why)
        saved_s = self.measured.step_s * (1 - 1 / result.speed_up)
        return promises.tried(change, promises.without(self.measured, saved_s))
