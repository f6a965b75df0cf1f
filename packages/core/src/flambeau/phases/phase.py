"""``Phase``: a stretch of training with its own trainable groups and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.phases.bn_policy import BATCH_NORM_POLICIES, BatchNormPolicy
from flambeau.phases.schedule import Schedule


@dataclass(frozen=True)
class Phase:
    """Every verb of the Learner compiles to a list of these; the loop runs them in order.

    Attributes:
        epochs: Passes over the train set.
        schedules: Value by name over the phase's progress 0..1: "lr", "weight_decay",
            "momentum", or any value that the task declares.
        trainable: Parameter groups that learn, by name; None for all.
        lr_scales: Factor on "lr" by group name (discriminative rates); 1 where not named.
        bn: What norm layers that keep statistics do. "train": they learn, in frozen groups too:
            batch statistics, stored ones updated, scale and shift trained. "adapt": their
            statistics are taken from the train data once, then stay; scale and shift learn, in
            frozen groups too. "eval": their statistics stay as they are, and a frozen group is
            frozen whole. "auto": what the learner's plan says, which measures where it says
            "auto" too.
        name: Shown in history and progress.
    """

    epochs: int
    schedules: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    trainable: tuple[str, ...] | None = None
    lr_scales: Mapping[str, float] = field(default_factory=dict[str, float])
    bn: BatchNormPolicy = "auto"
    name: str = "fit"

    def __post_init__(self) -> None:
        if type(self.epochs) is not int or self.epochs < 1:
            raise InputError(
                f"A phase needs a whole number of epochs, at least 1, not {self.epochs!r}."
            )
        if self.bn not in BATCH_NORM_POLICIES:
            raise ArgumentError(
                f"There is no batch norm policy {self.bn!r}. "
                f"{did_you_mean(str(self.bn), BATCH_NORM_POLICIES)}"
            )
        if self.trainable is not None and not self.trainable:
            raise InputError(
                f"Phase {self.name!r} trains no parameter group: name at least one in trainable."
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint; schedules by the name of their shape."""
        return {
            **asdict(self),
            "schedules": {name: value.as_json() for name, value in self.schedules.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``."""
        trainable = values["trainable"]
        return cls(
            epochs=values["epochs"],
            schedules={k: Schedule.from_json(v) for k, v in values["schedules"].items()},
            trainable=None if trainable is None else tuple(trainable),
            lr_scales=values["lr_scales"],
            bn=values["bn"],
            name=values["name"],
        )
