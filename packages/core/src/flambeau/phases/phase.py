"""``Phase``: consecutive epochs or steps with the same trainable groups and schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, cast

from flambeau.checked_arguments import checked_count, checked_number
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.phases.bn_policy import BATCH_NORM_POLICIES, BatchNormPolicy
from flambeau.phases.schedule import Schedule, checked_schedules


@dataclass(frozen=True)
class Phase:
    """One phase of training. Each training method of the Learner makes a list of phases.

    Attributes:
        epochs: Passes over the train set; None if the phase is measured in steps.
        schedules: Schedules by the name of the value: "lr", "weight_decay", "momentum",
            "dropout_factor" (a factor on the probabilities of the model's dropout layers), or any
            value that the task declares.
        trainable: Names of the parameter groups that train; None for all groups.
        lr_scales: Factor on "lr" by group name (discriminative learning rates); 1 if not listed.
        bn: What norm layers with running statistics do. "train": normalise with batch statistics
            and update the running ones; scale and shift train, in frozen groups too. "adapt":
            compute the running statistics from the train data once, then keep them; scale and
            shift train, in frozen groups too. "eval": keep the running statistics; a frozen group
            is completely frozen. "auto": the policy in the learner's plan, which is measured if
            that is "auto", too.
        name: Shown in history and progress bar.
        steps: Optimizer steps, in place of epochs. The next phase continues with the batch after
            the last one, also inside an epoch.
        evaluate_every: Optimizer steps between two evaluations, counted from the start of the
            phase, which also ends with one. None evaluates once per epoch.
    """

    epochs: int | None = None
    schedules: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    trainable: tuple[str, ...] | None = None
    lr_scales: Mapping[str, float] = field(default_factory=dict[str, float])
    bn: BatchNormPolicy = "auto"
    name: str = "fit"
    steps: int | None = None
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ArgumentError(
                f"The phase {self.name!r} has epochs={self.epochs!r} and steps={self.steps!r}. "
                "Give exactly one of them: Phase(3) for epochs, Phase(steps=10_000) for steps."
            )
        for key in ("epochs", "steps", "evaluate_every"):
            value: object = getattr(self, key)
            if value is not None:
                object.__setattr__(self, key, checked_count(value, f"{key} of a phase"))
        scales = {
            name: checked_number(value, f"The lr scale of {name!r}", at_least=0)
            for name, value in self.lr_scales.items()
        }
        object.__setattr__(self, "lr_scales", scales)
        if self.bn not in BATCH_NORM_POLICIES:
            raise ArgumentError(
                f"Unknown batch norm policy {self.bn!r}. "
                f"{did_you_mean(str(self.bn), BATCH_NORM_POLICIES)}"
            )
        checked_schedules(self.schedules)
        if self.trainable is not None and not self.trainable:
            raise InputError(
                f"trainable of the phase {self.name!r} is empty: give at least one parameter "
                "group, or None for all."
            )

    def as_json(self) -> dict[str, Any]:
        """Return JSON values for a checkpoint; schedules are saved by name."""
        return {
            **asdict(self),
            "schedules": {name: value.as_json() for name, value in self.schedules.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the phase that ``as_json`` converted."""
        trainable = values["trainable"]
        return cls(
            epochs=values["epochs"],
            schedules={k: Schedule.from_json(v) for k, v in values["schedules"].items()},
            trainable=None if trainable is None else tuple(trainable),
            lr_scales=values["lr_scales"],
            bn=values["bn"],
            name=values["name"],
            # Earlier releases did not write these two.
            steps=values.get("steps"),
            evaluate_every=values.get("evaluate_every"),
        )


def as_phases(phases: object) -> tuple[Phase, ...]:
    """Return a list of phases as a tuple.

    Raises:
        ArgumentError: It is one phase, empty, or contains something else.
    """
    found: tuple[object, ...] = (
        tuple(cast("Iterable[object]", phases)) if isinstance(phases, Iterable) else (phases,)
    )
    wrong = next((each for each in found if not isinstance(each, Phase)), None)
    if isinstance(phases, Iterable) and found and wrong is None:
        return cast("tuple[Phase, ...]", found)
    shown = "one Phase" if isinstance(phases, Phase) else f"{phases!r:.60}"
    raise ArgumentError(
        f'phases is {shown}; give a list: [Phase(3, {{"lr": Schedule("cosine", peak=0.1)}})].'
    )


def with_evaluations(phases: Iterable[Phase], every: int | None) -> list[Phase]:
    """Return the phases; those without ``evaluate_every`` get the value ``every``."""
    return [
        phase if every is None or phase.evaluate_every else replace(phase, evaluate_every=every)
        for phase in phases
    ]


def divides_epochs(phases: Iterable[Phase]) -> bool:
    """Return whether a phase has a length or an evaluation interval in steps."""
    return any(phase.steps is not None or phase.evaluate_every is not None for phase in phases)


def not_savable_reason(phases: Iterable[Phase]) -> str:
    """Return why a checkpoint cannot contain the phases, and the fix; an empty text if it can."""
    for phase in phases:
        for name, schedule in phase.schedules.items():
            if not isinstance(schedule.shape, str):
                return (
                    f"the schedule of {name!r} is a function, which cannot be saved. Use the name "
                    "of a schedule in flambeau.phases.SHAPES."
                )
    return ""
