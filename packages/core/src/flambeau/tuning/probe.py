"""Search for the fastest settings of a training step if the run is long enough to gain time.

``choose`` decides from measured step times (``time_steps``), the agreement of a precision with fp32
(``agree``) and the number of steps. It does not measure time itself, so its tests need no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal

from flambeau.tuning.trial import PrecisionAgreement, StepSetting
from flambeau.wording import format_seconds

KEYS = ("precision", "memory_format", "num_threads", "compile")
"""The settings in the order in which they are tried, each together with the best ones so far."""

MIN_SPEED_UP = 1.05
"""Smallest speed-up for which a setting is chosen. Repeated timings of the same step differed by up
to 3 % (interleaved medians, 2-core EPYC with other load)."""

FIRST_STEPS = 3
ROUNDS, STEPS = 3, 4
"""Number of rounds, in the order A B B A, in which settings A and B are compared, and number of
steps per round."""

SHORTEST_RUN_S = 30.0
EXPECTED_SAVING = 0.06
"""Share of the run that probing is expected to save; probing may take half of that time. It is
small, because the rules already use known gains (bf16, channels_last): with 0.2, probing took a
ninth of a 50 s run without a gain (4-layer CNN, Fashion-MNIST, 2-core Xeon)."""

COMPILE_S: Mapping[str, float] = {"cpu": 120.0, "cuda": 60.0}
COMPILE_SAVING: Mapping[str, float] = {"cpu": 0.02, "cuda": 0.25}
"""Largest compile time in seconds, and share of the step time that compiling is expected to save.
Measured speed-ups: 0.97–1.02× on CPU after compiling for 30 s (2-core EPYC); 1.43× on an A100, the
mean of 163 networks (PyTorch 2.0)."""


@dataclass(frozen=True)
class AlternativeResult:
    """The measured result for one alternative setting.

    Attributes:
        key: The setting that was changed.
        value: Value of the setting.
        speed_up: Speed-up of a step relative to the best setting so far; None if not timed.
        chosen: Whether it was chosen.
        why: The reason why it was chosen or not.
    """

    key: str
    value: Any
    speed_up: float | None
    chosen: bool
    why: str


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe (a comparison of step settings).

    Attributes:
        state: "measured", "cached" (measured earlier on this machine), or "skipped".
        setting: The best setting.
        tried: The result for each alternative.
        step_s: Seconds per step with the planned setting.
        run_s: Estimated seconds of the run with the planned setting.
        reason: Why this setting is the best one, or why nothing was timed.
    """

    state: Literal["measured", "cached", "skipped"]
    setting: StepSetting
    tried: tuple[AlternativeResult, ...] = ()
    step_s: float = 0.0
    run_s: float = 0.0
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values, for the cache."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ProbeResult:
        """Return the result from the JSON values of ``as_json``.

        Raises:
            TypeError: Fields are missing or unknown.
            KeyError: Fields are missing.
        """
        setting, tried = content["setting"], content["tried"]
        arguments: dict[str, Any] = {
            **content,
            "setting": StepSetting(**setting),
            "tried": tuple(AlternativeResult(**each) for each in tried),
            "state": "cached",
        }
        return cls(**arguments)


def choose(
    base: StepSetting,
    alternatives: Mapping[str, Sequence[Any]],
    *,
    run_steps: int,
    device: str,
    time_steps: Callable[[StepSetting, int], list[float]],
    agree: Callable[[StepSetting], PrecisionAgreement],
    cached: Callable[[], ProbeResult | None] = lambda: None,
    always: bool = False,
) -> ProbeResult:
    """Return the fastest setting, or the planned one if probing takes longer than it saves.

    Args:
        base: The planned setting.
        alternatives: Alternative values by key (one of ``KEYS``), without keys that the user set.
        run_steps: Steps of the run.
        device: "cpu", "cuda" …
        time_steps: ``time_steps(setting, n)`` returns the seconds of each of n steps.
        agree: Compares a setting with fp32.
        cached: Returns the result of an earlier probe of the same step on this machine.
        always: Whether to probe even if the run is short.
    """
    if not any(alternatives.values()):
        return ProbeResult("skipped", base, reason="This device has no alternative settings.")
    step_s = median(time_steps(base, FIRST_STEPS))
    run_s = step_s * run_steps
    count = sum(len(values) for key, values in alternatives.items() if key != "compile")
    cost_s = count * 2 * ROUNDS * (STEPS + 2) * step_s
    duration = (
        f"A step takes {format_seconds(step_s)}, so the run takes about {format_seconds(run_s)}"
    )
    pays = run_s >= SHORTEST_RUN_S and run_s * EXPECTED_SAVING >= 2 * cost_s
    if not pays and not always:
        return ProbeResult(
            "skipped",
            base,
            step_s=step_s,
            run_s=run_s,
            reason=f"{duration}. Timing {count} other settings would take about "
            f"{format_seconds(cost_s)}, more than it is expected to save.",
        )
    found = cached()
    if found is not None:
        return replace(
            found, reason=f"{duration}. {found.reason} (measured earlier on this machine)"
        )
    setting, tried = base, list[AlternativeResult]()
    for key in KEYS:
        for value in alternatives.get(key, ()):
            other = replace(setting, **{key: value})
            each = _not_worth_compiling(value, run_s, device) if key == "compile" else None
            each = each or compare(key, value, setting, other, time_steps, agree)
            tried.append(each)
            if each.chosen:
                setting = other
    faster = [f"{each.key}={each.value} ({each.speed_up:.2f}×)" for each in tried if each.chosen]
    words = f"{duration}. Of {len(tried)} other settings, "
    words += f"these were faster: {', '.join(faster)}." if faster else "none was faster."
    return ProbeResult("measured", setting, tuple(tried), step_s, run_s, words)


def compare(
    key: str,
    value: Any,
    setting: StepSetting,
    other: StepSetting,
    time_steps: Callable[[StepSetting, int], list[float]],
    agree: Callable[[StepSetting], PrecisionAgreement],
) -> AlternativeResult:
    """Return whether a step is faster with ``other`` than with ``setting``, from interleaved steps.

    Args:
        key: The key of the plan whose value differs.
        value: Its value in ``other``.
        setting: The best setting so far.
        other: The setting to compare with it.
        time_steps: As for ``choose``.
        agree: As for ``choose``.
    """
    if key == "precision" and value != "fp32":
        agreement = agree(other)
        if not agreement.is_close:
            return AlternativeResult(
                key,
                value,
                None,
                False,
                f"Not timed: the loss differs from fp32 by {agreement.loss_error:.1%} and "
                f"the gradients have cosine similarity {agreement.cosine:.4f}.",
            )
    current_s: list[float] = []
    other_s: list[float] = []
    for number in range(ROUNDS):
        # In the order A B, B A, A B …, drift (temperature, other load) affects both equally.
        pair = [(setting, current_s), (other, other_s)]
        for each, seconds in pair if number % 2 == 0 else reversed(pair):
            seconds.extend(time_steps(each, STEPS))
    speed_up = median(current_s) / median(other_s)
    words = (
        f"{format_seconds(median(other_s))} per step instead of "
        f"{format_seconds(median(current_s))} ({speed_up:.2f}×)"
    )
    chosen = speed_up >= MIN_SPEED_UP
    return AlternativeResult(
        key, value, round(speed_up, 3), chosen, f"{words}." if chosen else f"{words}: not faster."
    )


def _not_worth_compiling(value: str, run_s: float, device: str) -> AlternativeResult | None:
    cost_s, saving = COMPILE_S.get(device, 120.0), COMPILE_SAVING.get(device, 0.02)
    if run_s * saving >= 2 * cost_s:
        return None
    return AlternativeResult(
        "compile",
        value,
        None,
        False,
        f"Not tried: in a run of {format_seconds(run_s)} on {device} it would save about "
        f"{format_seconds(run_s * saving)}, but compiling takes up to {format_seconds(cost_s)}.",
    )
