"""``TrainingOptions``: the declared places where training can be changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flambeau.data.transform import Transform
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.training.optim.averaging import EMA, SWA
from flambeau.training.optim.controller import Controller
from flambeau.training.optim.optimizer import OptimizerFactory
from flambeau.training.step import TrainStep, train_step

_NONFINITE = ("off", "raise", "skip")


@dataclass(frozen=True)
class TrainingOptions:
    """How a step is computed, beyond what the plan decides.

    Attributes:
        train_step: Computes gradients and updates; replace it for GAN, SAM, distillation.
        optimizer: Makes the named optimizers; None builds the one that the plan names.
        transforms: Device transforms after augmentation and normalisation (mixup).
        controllers: Set named values after each evaluation (plateau, adaptive teacher forcing).
        average: Keeps averaged weights, evaluates and ends on them.
        accumulate: Micro-batches in an optimizer step; the step equals one large batch.
        clip_norm: Largest norm of all gradients together; None leaves them alone.
        nonfinite: A step with a loss or gradient that is not finite changes no weight;
            "raise" ends the run and names the layer, "skip" counts and goes on, "off" looks away.
        keep_best: History column by which the best epoch is restored at the end; None keeps the
            last.
        doctor: Whether the doctor's quick checks look at the set-up before a learner's first fit,
            for a second or 2% of the run at most, and warn of what they find.
    """

    train_step: TrainStep = train_step
    optimizer: OptimizerFactory | None = None
    transforms: tuple[Transform, ...] = ()
    controllers: tuple[Controller, ...] = ()
    average: EMA | SWA | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    nonfinite: Literal["raise", "skip", "off"] = "raise"
    keep_best: str | None = None
    doctor: bool = True

    def __post_init__(self) -> None:
        if type(self.accumulate) is not int or self.accumulate < 1:
            raise InputError(
                f"accumulate must be a whole number of micro-batches, at least 1, not "
                f"{self.accumulate!r}."
            )
        if self.nonfinite not in _NONFINITE:
            raise ArgumentError(
                f"nonfinite is {self.nonfinite!r}. {did_you_mean(str(self.nonfinite), _NONFINITE)}"
            )
        for name in ("transforms", "controllers"):
            value: object = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise ArgumentError(
                    f"{name} is {value!r:.60}; give a tuple of them: ({name[:-1]},)."
                )
        for name in ("train_step", "optimizer"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise ArgumentError(
                    f"{name} is a {type(value).__name__}; give a function that is called with the "
                    "model (see TrainStep and OptimizerFactory)."
                )
        if self.average is not None and not hasattr(self.average, "running"):
            raise ArgumentError(f"average is {self.average!r}; give EMA(), SWA() or None.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"clip_norm must be a positive norm or None, not {self.clip_norm}.")
