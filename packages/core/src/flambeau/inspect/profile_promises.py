"""Changes that make a step faster, each with the gain to expect. Nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flambeau.inspect.profile_parts import Measured
from flambeau.inspect.profile_result import PartName, ProfileChange, ProfilePart

MOST_WORKERS = 16
_MOST_PER_CORE, _MOST_WAITING_PER_CORE = 2, 4
_WAITING = 0.02  # largest share of processor time of functions that only wait

KNOWN_GAINS: Mapping[tuple[str, str], float] = {
    ("precision", "cpu"): 1.9,
    ("precision", "cuda"): 2.0,
    ("memory_format", "cpu"): 1.3,
    ("memory_format", "cuda"): 1.25,
    ("compile", "cuda"): 1.43,
}
"""How many times as fast the arithmetic of a step was with another setting, by key of the plan and
device: bf16 1.7–2.2× on CPUs with AVX512-bf16 and 1.6–2.6× on an A100 over TF32; channels_last
1.26–1.76× on a Xeon and 1.0–1.47× on a consumer GPU; compile 1.43× on an A100, the mean of 163
networks. It does not help on CPUs (0.97–1.02×)."""

_EVALUATION_SHARE = 0.1  # of the time, after the change that evaluates less often

ADVICE: Mapping[PartName, str] = {
    "reading": "The loop waits for data. Read ahead in worker processes, or store the data in "
    "fewer, larger files or in memory.",
    "decoding": "The loop waits for decoded samples. Decode in more worker processes, make the "
    "named function faster, or store the decoded samples.",
    "transfer": "The device waits for copies. Keep the data on the device, or read ahead in worker "
    "processes, which use pinned memory.",
    "launch": "Calling operators takes longer than their arithmetic, because each has little to "
    "do. Use larger batches.",
    "compute": "The arithmetic of the model limits the speed, so the rest is hidden or small. A "
    "lower precision, another memory format or a smaller model make it faster.",
    "memory": "Moving weights, gradients and optimizer state takes longer than the arithmetic. "
    "More samples per step share that cost: use larger batches.",
    "synchronisation": "The host waits for a value from the device, so it cannot prepare the next "
    "operators meanwhile. Keep the value on the device (task.log takes tensors), or read it "
    "rarely.",
    "communication": "The processes exchange gradients for longer than anything else, or wait for "
    "a slower one. More samples per step share that cost: accumulate gradients, or use larger "
    "batches.",
    "Python": "A user-defined Python function limits the speed. Replace its loop by operations on "
    "whole tensors.",
    "evaluation": "Evaluations take longer than the training between them. Evaluate less often, or "
    "on fewer validation samples.",
}
"""What to do about each bottleneck."""


def gain(measured: Measured, changed_s: float, samples: float | None = None) -> float:
    """Return how many times as many samples per second there are after a change.

    Args:
        measured: The step before the change.
        changed_s: Seconds per step after the change, without the evaluation.
        samples: Samples per step after the change; None if the same.
    """
    factor = 1.0 if samples is None else samples / measured.samples
    evaluation_s = measured.evaluation_s * factor  # after as many samples as before
    return factor * measured.whole_s / max(1e-12, changed_s + evaluation_s)


def without(measured: Measured, seconds: float) -> float:
    """Return the gain if ``seconds`` of each step are saved."""
    return gain(measured, measured.loading.wait_s + measured.step_s - seconds)


def with_accumulation(measured: Measured, accumulate: int, factor: int) -> ProfileChange:
    """Return the change to ``factor`` times as many micro-batches per exchange of gradients."""
    once_s = measured.loading.wait_s + measured.step_s - measured.communication_s
    changed_s = factor * once_s + measured.communication_s
    return ProfileChange(
        f"accumulate {accumulate} → {factor * accumulate}",
        gain(measured, changed_s, factor * measured.samples),
        note="fewer, larger steps per epoch: choose lr again",
        choices={"accumulate": factor * accumulate},
    )


def workers_for(measured: Measured, cores: int) -> int:
    """Return a number of worker processes that reads as fast as the step needs its batches.

    Functions that compute need a core each; those that wait (for a disk, a network) share one. Two
    share it if they compute in between: of more, each waits for the others when it wakes up (eight
    workers on two cores were 5 to 7 times as fast as none, where the promise was 8).
    """
    loading = measured.loading
    busy = loading.read_cpu_s / loading.read_s if loading.read_s else 1.0
    per_core = _MOST_WAITING_PER_CORE if busy < _WAITING else _MOST_PER_CORE
    by_cores = min(per_core * cores, int(cores / max(busy, 1 / MOST_WORKERS)))
    most = min(MOST_WORKERS, max(cores, by_cores))
    wanted = math.ceil(loading.read_s / max(measured.step_s, 1e-9))
    return min(most, max(wanted, loading.workers + 1))


def with_workers(measured: Measured, workers: int, cores: int, threads: int) -> ProfileChange:
    """Return the change to a number of workers.

    The step then takes as long as the slowest of three: the loop's own work; reading, divided
    among the workers; and all processor time, divided among the cores.
    """
    loading = measured.loading
    cpu_s = (loading.read_cpu_s + measured.step_s * min(threads, cores)) / cores
    changed_s = max(measured.step_s, loading.read_s / max(1, workers), cpu_s)
    note = "reading mostly waits, so workers can share a core" if workers > cores else ""
    return ProfileChange(
        f"num_workers {loading.workers} → {workers}",
        gain(measured, changed_s),
        note=note,
        choices={"num_workers": workers},
    )


def line_through(times: Mapping[int, float]) -> tuple[float, float]:
    """Return ``(fixed seconds, seconds per sample)`` of the least-squares line, neither negative.

    >>> line_through({10: 2.0, 20: 3.0, 40: 5.0})
    (1.0, 0.1)
    """
    n = len(times)
    mean_x, mean_y = sum(times) / n, sum(times.values()) / n
    spread = sum((x - mean_x) ** 2 for x in times)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in times.items()) / spread
    slope = min(max(0.0, slope), mean_y / mean_x)
    return mean_y - slope * mean_x, slope


def with_batch_size(
    measured: Measured, size: int, larger: int, per_sample_s: float, read_per_sample_s: float
) -> float:
    """Return the expected gain of a larger batch.

    Args:
        measured: The step with batches of ``size`` samples.
        size: Samples per batch now.
        larger: Samples per batch after the change.
        per_sample_s: Seconds that a further sample adds to the step.
        read_per_sample_s: Seconds that it adds to loading.
    """
    more_s = (larger - size) * (per_sample_s + read_per_sample_s)
    changed_s = measured.loading.wait_s + measured.step_s + more_s
    return gain(measured, changed_s, measured.samples * larger / size)


def of_setting(
    measured: Measured, parts: Sequence[ProfilePart], key: str, value: object, device: str
) -> ProfileChange | None:
    """Return the change of a setting of the step, if a gain is known for it on the device."""
    known = KNOWN_GAINS.get((key, device))
    if known is None:
        return None
    faster = ("compute", "launch") if key == "compile" else ("compute",)
    seconds = sum(part.seconds for part in parts if part.name in faster)
    expected = without(measured, seconds * (1 - 1 / known))
    return ProfileChange(f"{key} {value}", expected, choices={key: value})


def with_threads(
    measured: Measured, parts: Sequence[ProfilePart], now: int, threads: int
) -> ProfileChange:
    """Return the change to more threads, which share four fifths of the arithmetic."""
    compute_s = next(part.seconds for part in parts if part.name == "compute")
    saved_s = 0.8 * compute_s * (1 - now / threads)
    choices = {"num_threads": threads}
    return ProfileChange(
        f"num_threads {now} → {threads}", without(measured, saved_s), choices=choices
    )


def fewer_evaluations(measured: Measured) -> ProfileChange:
    """Return the change to so few evaluations that they take a tenth of the time."""
    training_s = measured.loading.wait_s + measured.step_s
    each_s = measured.evaluation_s * measured.steps_per_evaluation
    steps = math.ceil(each_s * (1 - _EVALUATION_SHARE) / (_EVALUATION_SHARE * training_s))
    expected = measured.whole_s / (training_s + each_s / steps)
    return ProfileChange(
        f"evaluate_every {measured.steps_per_evaluation} → {steps}",
        expected,
        note="follows from the two measured times",
        choices={"evaluate_every": steps},
    )


def code_change(measured: Measured, part: ProfilePart) -> ProfileChange:
    """Return the change of user-defined code that saves all seconds of a part."""
    what = "read no value in the step" if part.name == "synchronisation" else "whole tensors"
    return ProfileChange(
        what,
        without(measured, part.seconds),
        note="a change of your code; at most this gain",
    )


def tried(change: ProfileChange, measured: float | None, note: str = "") -> ProfileChange:
    """Return the change with its measured gain, or with the reason why there is none."""
    return replace(change, measured=measured, note=note or change.note)
