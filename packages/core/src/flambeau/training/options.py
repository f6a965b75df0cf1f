"""``TrainingOptions``: settings and functions that change how a model is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch.optim import Optimizer

from flambeau.checked_arguments import checked_count, checked_flag, checked_number
from flambeau.data.transform import Transform
from flambeau.errors import (
    ArgumentError,
    check_signature,
    did_you_mean,
    explains_arguments,
)
from flambeau.training.optim.averaging import AverageSpec
from flambeau.training.optim.controller import Controller
from flambeau.training.optim.optimizer import OptimizerFactory
from flambeau.training.step import TrainStep, train_step

_NONFINITE = ("off", "raise", "skip")


@explains_arguments()
@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained, in addition to the choices of the plan.

    Attributes:
        train_step: Computes gradients and updates the weights; replace it for a GAN, SAM or
            distillation.
        optimizer: A function that returns optimizers by name, ``factory(model, values) -> {"main":
            …}``, an optimizer class, or a mapping with a class for each submodule of the model,
            ``{"critic": Adam}``; None builds the optimizer of the plan. If the factory does not
            read ``values["lr"]``, the learning rate that it sets becomes the plan's "lr".
        transforms: Transforms of training batches on the device, after augmentation and
            normalisation (mixup).
        controllers: Objects that set named values after each evaluation (plateau, adaptive teacher
            forcing).
        average: ``EMA(…)``, ``SWA(…)`` or ``TriggeredAverage(…)``: evaluation and the final model
            use averaged weights; None does not average.
        accumulate: Micro-batches per optimizer step; the step equals one with a single large batch.
        clip_norm: Largest norm of all gradients together; None does not clip.
        nonfinite: A step with a loss or gradient that is not finite changes no weight;
            "raise" ends the run and names the layer, "skip" drops the step and counts it, "off"
            disables the check.
        keep_best: History column that selects the epoch whose weights the model has at the end;
            None keeps the weights of the last epoch.
        doctor: Whether the quick checks of the doctor run before the first fit of a learner and
            warn of problems; they take at most a second or 2% of the run.
    """

    train_step: TrainStep = train_step
    optimizer: (
        OptimizerFactory | Callable[..., Optimizer] | Mapping[str, Callable[..., Optimizer]] | None
    ) = None
    transforms: tuple[Transform, ...] = ()
    controllers: tuple[Controller, ...] = ()
    average: AverageSpec | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    nonfinite: Literal["raise", "skip", "off"] = "raise"
    keep_best: str | None = None
    doctor: bool = True

    def __post_init__(self) -> None:
        count = checked_count(self.accumulate, "accumulate", unit="micro-batches")
        object.__setattr__(self, "accumulate", count)
        object.__setattr__(self, "doctor", checked_flag(self.doctor, "doctor"))
        if self.nonfinite not in _NONFINITE:
            raise ArgumentError(
                f"Unknown value {self.nonfinite!r} of nonfinite. "
                f"{did_you_mean(str(self.nonfinite), _NONFINITE)}"
            )
        for name in ("transforms", "controllers"):
            value: object = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise ArgumentError(
                    f"{name} is {value!r:.60}; give a tuple: {name}=({name[:-1]},)."
                )
        for controller in self.controllers:
            if not callable(getattr(controller, "update", None)):
                raise ArgumentError(
                    f"The controller {controller!r:.60} has no method update(history, progress). "
                    "In place of torch's ReduceLROnPlateau use ReduceOnPlateau(monitor=…)."
                )
        if not callable(self.train_step):
            raise ArgumentError(
                f"train_step is a {type(self.train_step).__name__}; give a function "
                "train_step(model, micro_batches, task, step)."
            )
        self._check_functions()
        self._check_optimizer()
        if not (self.keep_best is None or isinstance(cast(object, self.keep_best), str)):
            raise ArgumentError(
                f"keep_best is {self.keep_best!r}; give the column of the history that selects the "
                'best epoch, keep_best="valid_loss", or None.'
            )
        if self.average is not None and not hasattr(self.average, "running"):
            raise ArgumentError(
                f"average is {self.average!r}; give EMA(), SWA(), TriggeredAverage() or None."
            )
        if self.clip_norm is not None:
            clip_norm = checked_number(self.clip_norm, "clip_norm (None does not clip)", above=0)
            object.__setattr__(self, "clip_norm", clip_norm)

    def _check_functions(self) -> None:
        names = ("model", "micro_batches", "task", "step")
        check_signature(self.train_step, "train_step", *names)
        for transform in self.transforms:
            check_signature(transform, f"The transform {transform!r:.60}", "batch", "seed")
        for controller in self.controllers:
            owner = type(controller).__name__
            check_signature(controller.update, f"{owner}.update", "history", "progress")

    @property
    def factory(self) -> OptimizerFactory | None:
        """The optimizer factory; a class is converted to a factory."""
        return cast("OptimizerFactory | None", self.optimizer)

    def _check_optimizer(self) -> None:
        given: Any = self.optimizer
        if given is None:
            return
        from flambeau.training.optim.optimizer_class import class_factory

        factory = class_factory(given)
        if factory is not None:
            object.__setattr__(self, "optimizer", factory)
            return
        if callable(given) and not isinstance(given, Optimizer):
            check_signature(given, "The optimizer factory", "model", "values")
            return
        example = type(given).__name__ if isinstance(given, Optimizer) else "SGD"
        raise ArgumentError(
            f"optimizer is a {type(given).__name__}; give a class (torch.optim.{example}), or a "
            f"function that builds optimizers by name: "
            f'lambda model, values: {{"main": torch.optim.{example}(model.parameters(), '
            'lr=values["lr"])}. For an optimizer of the plan, use choices={"optimizer": "sgd"}.'
        )
