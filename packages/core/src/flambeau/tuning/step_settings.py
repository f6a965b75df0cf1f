"""Choose settings of a training step by measurements before the first fit; record them.

The memory of a step determines the number of micro-batches; bf16 is compared with fp32; and if the
run is long enough, other precisions, memory formats and numbers of threads are timed. All
measurements use a copy of the model. The settings are recorded in the plan and not measured again,
so a replay is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from flambeau.data.facts import Facts
from flambeau.data.loader import is_stream
from flambeau.device import (
    available_memory_bytes,
    free_memory_bytes,
    has_fast_bf16,
    usable_cores,
)
from flambeau.distributed import processes
from flambeau.phases.phase import Phase
from flambeau.plan import Choice, Plan
from flambeau.plan.rules_machine import TO_MEASURE
from flambeau.torch_internals import is_compiled
from flambeau.training.compile import repeated_blocks
from flambeau.training.components import Components
from flambeau.training.freeze import has_running_statistics
from flambeau.training.options import TrainingOptions
from flambeau.training.step_intervals import count_steps_of
from flambeau.tuning.memory import MemoryUse, fit_line, fits_without_measuring, split_step
from flambeau.tuning.probe import KEYS, ProbeResult, choose
from flambeau.tuning.probe_cache import key_of, lookup, store
from flambeau.tuning.trial import StepSetting, Trial, why_not_testable
from flambeau.tuning.upcoming import UpcomingRun
from flambeau.wording import first_line, format_bytes

_SIZES = (4, 8)  # batch sizes of the two steps whose memory is measured
_SHORT_STEP_S = 0.02  # upper bound of a step with small inputs; short runs are not measured
_SHORT_RUN_S = 20.0


def measure_step_settings(plan: Plan, upcoming: UpcomingRun, phases: Sequence[Phase]) -> Plan:
    """Return the plan with measured settings of a step, each with its figures.

    Args:
        plan: Returned unchanged if the settings are recorded already.
        upcoming: The run that will follow; it is not changed.
        phases: Phases of that run.
    """
    wanted = plan.values.get("probe", "off")
    if wanted not in TO_MEASURE:
        return plan
    components, options = upcoming.components(plan), upcoming.options(plan)
    if is_stream(components.train):
        plan = _with_whole_batches(plan)
    reason = why_not_measured(components, options, upcoming.facts)
    if reason:
        return _with_probe(plan, "skipped", reason)
    trial = Trial(components, options, phases[0], upcoming.samples)
    work = _StepMeasurements(plan, upcoming.facts, trial, phases, always=wanted == "always")
    try:
        return work.run()
    except Exception as error:  # noqa: BLE001 the run itself reports it, with step and samples
        return _with_probe(plan, "skipped", f"A trial step failed ({first_line(error)}).")


class _StepMeasurements:
    """The measurements for one plan, in sequence."""

    def __init__(
        self,
        plan: Plan,
        facts: Facts,
        trial: Trial,
        phases: Sequence[Phase],
        *,
        always: bool,
    ) -> None:
        self.plan, self.trial, self.always = plan, trial, always
        self.model, self.device = trial.components.model, trial.components.device
        self.free = free_bytes_of(self.device)
        values = plan.values
        self.base = StepSetting(**{key: values[key] for key in KEYS})
        train = trial.components.train
        self.is_stream = is_stream(train)
        self.run_steps: int = count_steps_of(phases, train)
        self.inputs = cast("Mapping[str, Mapping[str, Any]]", facts.get("inputs", {}))
        self.fits = fits_without_measuring(self.inputs.values(), values["batch_size"], self.free)

    def run(self) -> Plan:
        """Return the plan with every result."""
        if not (self.fits and self.inputs) and not self.is_stream:
            self._memory()
        if self.plan["precision"].source == "rule" and self.base.precision == "bf16":
            self._agreement()
        if self.fits and self.inputs and not self.always:
            longest = self.run_steps * _SHORT_STEP_S
            if longest < _SHORT_RUN_S:
                return _with_probe(
                    self.plan,
                    "skipped",
                    f"{self.run_steps:,} steps with inputs this small take seconds; timing other "
                    "settings would take longer than it saves.",
                )
        outcome = self._probe()
        for key in KEYS:
            value = getattr(outcome.setting, key)
            tried = [each for each in outcome.tried if each.key == key]
            if tried and self.plan[key].source != "user":
                self.plan = self.plan.with_choice(_measured_choice(self.plan[key], value, tried))
        evidence = {"step_s": outcome.step_s, "run_s": outcome.run_s, "steps": self.run_steps}
        return _with_probe(self.plan, outcome.state, outcome.reason, evidence)

    # Memory

    def _memory(self) -> None:
        small, large = (min(size, self.plan.values["batch_size"]) for size in _SIZES)
        if small == large:
            small = max(1, large // 2)
        if small == large or not self.free:
            return
        setting = replace(self.base, compile="off")
        use = fit_line({size: self.trial.peak_bytes(setting, size) for size in (small, large)})
        self.plan = with_memory(self.plan, use, self.free, self.device.type, self._min_samples())

    def _min_samples(self) -> int:
        """Return the smallest batch size for a trial step; batch norm needs two samples."""
        return 2 if any(map(has_running_statistics, self.model.modules())) else 1

    # Precision

    def _agreement(self) -> None:
        found = self.trial.agreement(self.base, self._batch_size())
        evidence = {"loss_error": round(found.loss_error, 6), "cosine": round(found.cosine, 6)}
        choice = self.plan["precision"]
        words = (
            f"On a first batch the loss differs by {found.loss_error:.2%} from fp32, and the "
            f"gradients have cosine similarity {found.cosine:.4f}"
        )
        evidence = {**choice.evidence, **evidence}
        if found.is_close:
            choice = replace(choice, reason=f"{choice.reason} {words}.", evidence=evidence)
        else:
            choice = replace(
                choice,
                value="fp32",
                reason=(
                    f"{words}. The difference is too large for bf16, although the device computes "
                    "it fast."
                ),
                evidence=evidence,
                alternatives=("bf16",),
                override="",
            )
            self.base = replace(self.base, precision="fp32")
        self.plan = self.plan.with_choice(choice)

    # Time

    def _probe(self) -> ProbeResult:
        size = self._batch_size()
        alternatives = alternatives_of(self.plan, self.model, self.device)
        settings = {
            "base": repr(self.base),
            "alternatives": alternatives,
            "optimizer": self.plan.values["optimizer"],
            "task": type(self.trial.components.task).__qualname__,
        }
        key = key_of(self.model, self.trial.samples(size), self.device, settings)
        outcome = choose(
            self.base,
            alternatives,
            run_steps=self.run_steps,
            device=self.device.type,
            time_steps=lambda setting, steps: self.trial.step_times(setting, size, steps),
            agree=lambda setting: self.trial.agreement(setting, size),
            cached=lambda: lookup(key),
            always=self.always,
        )
        if outcome.state == "measured":
            store(key, outcome)
        return outcome

    def _batch_size(self) -> int:
        size: int = self.plan.values["batch_size"]
        return size


def with_memory(plan: Plan, use: MemoryUse, free_bytes: int, device: str, least: int = 1) -> Plan:
    """Return the plan with a step that fits into memory, if necessary in smaller micro-batches.

    Args:
        plan: Values that the user set are kept.
        use: The measured memory use.
        free_bytes: Free memory of the device.
        device: "cpu", "cuda" …
        least: Smallest size of a micro-batch.
    """
    size = plan.values["batch_size"]
    most = use.max_samples(free_bytes, device)
    evidence = {
        "batch_size": size,
        "fixed_bytes": use.fixed_bytes,
        "bytes_per_sample": round(use.bytes_per_sample),
        "free_bytes": free_bytes,
        "measured": {str(samples): peak for samples, peak in use.measured.items()},
    }
    words = (
        f"A batch of {size:,} takes about {format_bytes(use.of(size))} of "
        f"{format_bytes(free_bytes)} free, estimated from two steps of "
        f"{' and '.join(map(str, sorted(use.measured)))} samples"
    )
    accumulate = plan["accumulate"]
    if size <= most:
        if accumulate.source == "user":
            return plan
        return plan.with_choice(
            replace(
                accumulate, reason=f"{words}. It fits, so a step is one batch.", evidence=evidence
            )
        )
    part, parts = split_step(size, most, least)
    fixed = [key for key in ("batch_size", "accumulate") if plan[key].source == "user"]
    if fixed:
        if accumulate.source == "user":
            return plan
        advice = f'choices={{"batch_size": {part}, "accumulate": {parts}}} gives the same step.'
        return plan.with_choice(
            replace(
                accumulate,
                reason=f"{words}. That may not fit, but you set batch_size. {advice}",
                evidence=evidence,
                confidence=0.3,
            )
        )
    batch = replace(
        plan["batch_size"],
        value=part,
        reason=f"{plan['batch_size'].reason} {words}. It does not fit, so a step uses {parts} "
        "micro-batches.",
        evidence={**plan["batch_size"].evidence, **evidence},
        alternatives=(size,),
        override="",
    )
    accumulate = Choice(
        "accumulate",
        parts,
        f"{parts} micro-batches of {part:,} give the same step as a batch of {size:,}. Batch norm, "
        "if the model has any, uses the statistics of each micro-batch.",
        evidence=evidence,
        alternatives=(1,),
    )
    return plan.with_choice(batch).with_choice(accumulate)


def alternatives_of(plan: Plan, model: nn.Module, device: torch.device) -> dict[str, list[Any]]:
    """Return the alternative settings on this device, for keys that the user did not set."""
    values = plan.values
    dtypes = {value.dtype for value in model.parameters() if value.is_floating_point()}
    found: dict[str, list[Any]] = {key: [] for key in KEYS}
    if has_fast_bf16(device) and dtypes == {torch.float32} and values["precision"] != "fp16":
        found["precision"] = ["fp32" if values["precision"] == "bf16" else "bf16"]
    if any(value.ndim == 4 for value in model.parameters()):
        both = ("contiguous_format", "channels_last")
        found["memory_format"] = [name for name in both if name != values["memory_format"]]
    if device.type == "cpu":
        cores = usable_cores()
        found["num_threads"] = sorted({1, max(1, cores // 2), cores} - {values["num_threads"]})
    # A compiled model is compiled again for each probability of a dropout layer.
    changes = "dropout_factor" in (values.get("schedules") or {})
    if values["compile"] == "off" and not changes and not any(map(is_compiled, model.modules())):
        found["compile"] = ["regions" if repeated_blocks(model) else "whole"]
    open_keys = {key for key in KEYS if plan[key].source != "user"}
    return {key: others for key, others in found.items() if key in open_keys and others}


def _with_whole_batches(plan: Plan) -> Plan:
    """Return the plan with the reason why a step on a stream is not divided."""
    accumulate = plan["accumulate"]
    if accumulate.source == "user":
        return plan
    return plan.with_choice(
        replace(
            accumulate,
            reason="The train loader is a stream: each batch continues the one before. Therefore a "
            "step is never divided into micro-batches of fewer rows, and its memory is not "
            "measured. If it does not fit, choose a smaller batch_size or shorter sequences.",
        )
    )


def why_not_measured(components: Components, options: TrainingOptions, facts: Facts) -> str:
    """Return why no trial step is possible for these components; empty if it is."""
    if processes.current() is not None:
        return "The run has several processes, for which steps are not measured."
    return why_no_trial(components, options, facts)


def why_no_trial(components: Components, options: TrainingOptions, facts: Facts) -> str:
    """Return why this process can make no trial step of its own; empty if it can."""
    if "loader_batch_size" in facts:
        return "Trial steps would take batches from your loader."
    return why_not_testable(components, options, free_bytes_of(components.device))


def free_bytes_of(device: torch.device) -> int:
    """Return the free bytes of the memory in which a step on ``device`` runs; 0 if unknown."""
    return available_memory_bytes() if device.type == "cpu" else free_memory_bytes(device)


def _measured_choice(choice: Choice, value: Any, tried: Sequence[Any]) -> Choice:
    words = " ".join(f"{each.value}: {each.why}" for each in tried)
    others = tuple(each.value for each in tried if each.value != value)
    if value != choice.value:
        others = (choice.value, *others)
    return replace(
        choice,
        value=value,
        reason=f"Measured with real training steps. {words}",
        evidence={
            **choice.evidence,
            "tried": [{"value": each.value, "speed_up": each.speed_up} for each in tried],
        },
        alternatives=others,
        confidence=0.9,
        override="",
        source="rule",
    )


def _with_probe(
    plan: Plan, state: str, reason: str, evidence: Mapping[str, Any] | None = None
) -> Plan:
    choice = replace(
        plan["probe"], value=state, reason=reason, evidence=dict(evidence or {}), override=""
    )
    return plan.with_choice(replace(choice, alternatives=("always", "off"), source="rule"))
