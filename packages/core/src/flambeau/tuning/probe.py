"""Which way of computing a step is fastest here: tried on the real step, where that pays.

``choose`` decides from what it is handed: how long steps take (``time_steps``), whether a precision
gives the same training (``agree``) and how many steps there will be. It reads no clock itself, so
that its tests need none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal

from flambeau.tuning.trial import PrecisionAgreement, StepSetting

KEYS = ("precision", "memory_format", "num_threads", "compile")
"""What is tried, in this order: each later one on top of what the earlier ones gave."""

MIN_SPEED_UP = 1.05
"""A step must be faster by this factor to be chosen. Two timings of the same step differed by up to
3 % here (interleaved medians, 2-core EPYC with other work on it)."""

FIRST_STEPS = 3
ROUNDS, STEPS = 3, 4
"""A pair is timed in this many rounds of so many steps a side, in the order A B B A."""

SHORTEST_RUN_S = 30.0
EXPECTED_SAVING = 0.06
"""Part of a run that a probe is expected to save, so that it may cost half of that. The rules have
taken what is known (bf16, channels_last) already: with 0.2 it cost a ninth of a run of 50 s and
found nothing (4-convolution net, Fashion-MNIST, 2-core Xeon)."""

COMPILE_S: Mapping[str, float] = {"cpu": 120.0, "cuda": 60.0}
COMPILE_SAVING: Mapping[str, float] = {"cpu": 0.02, "cuda": 0.25}
"""What the first compiled steps take, at worst, and what compiling saves of a step: on CPU
0.97–1.02× after 30 s (2-core EPYC); on an A100 +43 % over 163 networks (PyTorch 2.0)."""


@dataclass(frozen=True)
class AlternativeResult:
    """One alternative.

    Attributes:
        key: What was changed.
        value: To what.
        speed_up: Of a step, against the best setting until then; None where it was not timed.
        chosen: Whether it was taken.
        why: In words.
    """

    key: str
    value: Any
    speed_up: float | None
    chosen: bool
    why: str


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        state: "measured", "cached" (found earlier on this machine), or "skipped".
        setting: The best.
        tried: Each alternative.
        step_s: Seconds of a step as it was planned; of a run, ``run_s``.
        run_s: What the run would take with it.
        reason: In words.
    """

    state: Literal["measured", "cached", "skipped"]
    setting: StepSetting
    tried: tuple[AlternativeResult, ...] = ()
    step_s: float = 0.0
    run_s: float = 0.0
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the cache."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ProbeResult:
        """What ``as_json`` gave.

        Raises:
            TypeError: Fields are missing or unknown.
            KeyError: Likewise.
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
    """The fastest setting, or the planned one where finding out does not pay.

    Args:
        base: As planned.
        alternatives: Other values by key of ``KEYS``; those that the user fixed are not in it.
        run_steps: Steps of the run.
        device: "cpu", "cuda" …
        time_steps: Seconds of each of so many steps in a setting.
        agree: How a precision compares with fp32.
        cached: What an earlier probe of the same step found on this machine.
        always: Try even where the run is short.
    """
    if not any(alternatives.values()):
        return ProbeResult(
            "skipped", base, reason="There is nothing to choose between on this device."
        )
    step_s = median(time_steps(base, FIRST_STEPS))
    run_s = step_s * run_steps
    count = sum(len(values) for key, values in alternatives.items() if key != "compile")
    cost_s = count * 2 * ROUNDS * (STEPS + 2) * step_s
    takes = f"A step takes {_seconds(step_s)}, so the run takes about {_seconds(run_s)}"
    pays = run_s >= SHORTEST_RUN_S and run_s * EXPECTED_SAVING >= 2 * cost_s
    if not pays and not always:
        return ProbeResult(
            "skipped",
            base,
            step_s=step_s,
            run_s=run_s,
            reason=f"{takes}; trying {count} other ways would take about {_seconds(cost_s)}, which "
            "it would not repay.",
        )
    found = cached()
    if found is not None:
        return replace(found, reason=f"{takes}. {found.reason} (found earlier on this machine)")
    setting, tried = base, list[AlternativeResult]()
    for key in KEYS:
        for value in alternatives.get(key, ()):
            other = replace(setting, **{key: value})
            each = _not_worth_compiling(value, run_s, device) if key == "compile" else None
            each = each or _try(key, value, setting, other, time_steps, agree)
            tried.append(each)
            if each.chosen:
                setting = other
    gained = [f"{each.key}={each.value} ({each.speed_up:.2f}×)" for each in tried if each.chosen]
    words = f"{takes}. Of {len(tried)} other ways tried, "
    words += f"faster: {', '.join(gained)}." if gained else "none was faster."
    return ProbeResult("measured", setting, tuple(tried), step_s, run_s, words)


def _try(
    key: str,
    value: Any,
    setting: StepSetting,
    other: StepSetting,
    time_steps: Callable[[StepSetting, int], list[float]],
    agree: Callable[[StepSetting], PrecisionAgreement],
) -> AlternativeResult:
    if key == "precision" and value != "fp32":
        agreement = agree(other)
        if not agreement.is_close:
            return AlternativeResult(
                key,
                value,
                None,
                False,
                f"The loss is off by {agreement.loss_error:.1%} and the gradient turned (cosine "
                f"{agreement.cosine:.4f}) against fp32, so it was not timed.",
            )
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS):
        # A B, B A, A B …: what drifts (heat, other work) falls on both.
        pair = [(setting, mine), (other, theirs)]
        for each, seconds in pair if number % 2 == 0 else reversed(pair):
            seconds.extend(time_steps(each, STEPS))
    speed_up = median(mine) / median(theirs)
    words = (
        f"{_seconds(median(theirs))} a step instead of {_seconds(median(mine))} ({speed_up:.2f}×)"
    )
    chosen = speed_up >= MIN_SPEED_UP
    return AlternativeResult(
        key, value, round(speed_up, 3), chosen, f"{words}." if chosen else f"{words}: no gain."
    )


def _not_worth_compiling(value: str, run_s: float, device: str) -> AlternativeResult | None:
    cost_s, gain = COMPILE_S.get(device, 120.0), COMPILE_SAVING.get(device, 0.02)
    if run_s * gain >= 2 * cost_s:
        return None
    return AlternativeResult(
        "compile",
        value,
        None,
        False,
        f"Of a run of {_seconds(run_s)} it may save {_seconds(run_s * gain)} on {device}, and "
        f"takes up to {_seconds(cost_s)}: not tried.",
    )


def _seconds(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1e3:.1f} ms"
