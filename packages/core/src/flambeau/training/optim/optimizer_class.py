"""Optimizer factories from one optimizer class, or from one class for each submodule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.phases.setting_names import OPTIMIZER_SETTINGS
from flambeau.training.optim.factory import default_factory
from flambeau.training.optim.optimizer import (
    OPTIMIZERS,
    OptimizerFactory,
    lr_factors,
    split_by_decay,
)

OPTIMIZER_KEYS = sorted({key for keys in OPTIMIZER_SETTINGS.values() for key in keys})


@dataclass(frozen=True)
class ClassFactory:
    """The factory of ``TrainingOptions(optimizer=torch.optim.NAdam)``.

    The optimizer gets the plan's "lr" and, if it has weight decay, the plan's "weight_decay", which
    does not apply to norm layers and biases.

    Attributes:
        kind: The optimizer class.
        settings: Keyword arguments of a ``functools.partial``; they take precedence over the plan.
    """

    kind: type[Optimizer]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """The value of the plan's "optimizer": the known name of the class, or its ``__name__``."""
        known = (name for name, each in OPTIMIZERS.items() if each.build is self.kind)
        return next(known, self.kind.__name__)

    def __call__(self, model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        """Return ``{"main": optimizer}``.

        Raises:
            ArgumentError: The plan has weight decay, but the class does not support it.
        """
        if self.name in OPTIMIZERS and not self.settings:
            return default_factory(model, {**values, "optimizer": self.name})
        accepted = inspect.signature(self.kind).parameters
        settings = dict(self.settings)
        if "lr" in accepted and "lr" not in settings:
            settings["lr"] = values["lr"]
        for key in OPTIMIZER_KEYS:
            if key in accepted and key not in settings and values.get(key) is not None:
                settings[key] = values[key]
        build = cast("Any", self.kind)
        decay = values.get("weight_decay", 0.0)
        if decay and "weight_decay" not in accepted:
            raise ArgumentError(
                f"weight_decay is {decay:g}, but {self.kind.__name__} has no weight decay. Set "
                'choices={"weight_decay": 0}.'
            )
        decays = bool(decay) and "weight_decay" not in settings
        has_factors = "lr" in settings and bool(lr_factors(model))
        if not decays and not has_factors:
            return {"main": build(model.parameters(), **settings)}
        lr = settings["lr"] if "lr" in settings else values["lr"]  # read only where used
        groups = split_by_decay(model, lr=lr, weight_decay=decay)
        if decays:
            settings["weight_decay"] = decay
        else:  # the setting applies to all parameters, or there is none
            for group in groups:
                del group["weight_decay"], group["decay"]
        return {"main": build(groups, **settings)}


@dataclass(frozen=True)
class SubmoduleFactory:
    """The factory of ``TrainingOptions(optimizer={"critic": Adam, "generator": Adam})``.

    Attributes:
        by_name: The factory of each submodule, by the name of the submodule in the model
            (``"encoder.head"``), which is also the name of the optimizer.
    """

    by_name: Mapping[str, ClassFactory]

    def __call__(self, model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        """Return one optimizer for each submodule, with the parameters of that submodule.

        Raises:
            ArgumentError: The model has no submodule of one of the names, or a trainable parameter
                is in none or in several of the submodules.
        """
        modules = dict(cast("Iterator[tuple[str, nn.Module]]", model.named_modules()))
        for name in self.by_name:
            if not name or name not in modules:
                raise ArgumentError(
                    f"The model has no submodule {name!r}, which optimizer={{…}} names. "
                    f"{did_you_mean(name, list(dict(model.named_children())))}"
                )
        for name, parameter in model.named_parameters():
            owners = [each for each in self.by_name if name.startswith(f"{each}.")]
            if len(owners) != 1 and parameter.requires_grad:
                have = f"several optimizers ({', '.join(owners)})" if owners else "no optimizer"
                raise ArgumentError(
                    f"The parameter {name} has {have}. Name its submodule once in optimizer={{…}}, "
                    "or call requires_grad_(False) on it."
                )
        return {
            name: factory(modules[name], values)["main"] for name, factory in self.by_name.items()
        }


def class_factory(optimizer: object) -> ClassFactory | SubmoduleFactory | None:
    """Return the factory of an optimizer class or a partial of one, or of a mapping of these.

    The mapping has one for each submodule. For any other object, such as a function, it returns
    None.

    Raises:
        ArgumentError: A mapping is empty, or a value in it is not an optimizer class.
    """
    if isinstance(optimizer, Mapping):
        return _submodule_factory(cast("Mapping[object, object]", optimizer))
    return _one_class(optimizer)


def observed(
    factory: OptimizerFactory | None, seen: Callable[[Optimizer], object]
) -> OptimizerFactory | None:
    """Return the factory, with ``seen`` called with each optimizer before a run changes it.

    A function may return the same optimizers at each call, so a trial must restore them. The plan
    (None) and a class create new ones, and are returned unchanged.
    """
    if factory is None or isinstance(factory, ClassFactory):
        return factory

    def make(model: nn.Module, values: Mapping[str, Any]) -> Any:
        made = factory(model, values)
        found = cast("object", made)
        if isinstance(found, Mapping):  # otherwise the run raises an error
            for optimizer in cast("Mapping[str, object]", found).values():
                if isinstance(optimizer, Optimizer):
                    seen(optimizer)
        return made

    return make


def _submodule_factory(optimizers: Mapping[object, object]) -> SubmoduleFactory:
    by_name: dict[str, ClassFactory] = {}
    for name, optimizer in optimizers.items():
        factory = _one_class(optimizer)
        if factory is None or not isinstance(name, str):
            raise ArgumentError(
                f"optimizer has {name!r}: {optimizer!r:.60}. A mapping has an optimizer class for "
                'each submodule of the model: {"generator": torch.optim.Adam}.'
            )
        by_name[name] = factory
    if not by_name:
        raise ArgumentError("optimizer is an empty mapping. Omit it, or name a submodule.")
    return SubmoduleFactory(by_name)


def _one_class(optimizer: object) -> ClassFactory | None:
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        return ClassFactory(optimizer)
    if isinstance(optimizer, partial):
        bound = cast("partial[Any]", optimizer)
        kind = cast("object", bound.func)
        if isinstance(kind, type) and issubclass(kind, Optimizer):
            if bound.args or "params" in bound.keywords:
                raise ArgumentError(
                    f"optimizer is a functools.partial of {kind.__name__} with parameters, but it "
                    "gets those of the model that is trained. Bind settings by name only: "
                    f"functools.partial(torch.optim.{kind.__name__}, eps=1e-6)."
                )
            return ClassFactory(kind, bound.keywords)
    return None
