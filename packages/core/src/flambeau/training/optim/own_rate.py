"""Find the learning rate that an optimizer factory sets instead of using the plan's "lr"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.training.optim.fused_step import with_inner
from flambeau.training.optim.optimizer import OPTIMIZERS, OptimizerFactory, base_lr
from flambeau.wording import type_and_first_line


@dataclass(frozen=True)
class OwnRate:
    """The plan's keys that an optimizer factory does not read, and the learning rate that it sets.

    Attributes:
        unread: Keys of the plan that the factory did not read, without "optimizer" if it made an
            optimizer of this name.
        lr: The learning rate of the first param group if the factory does not read "lr", else 0.
            The plan shows it as "lr"; the rates of other param groups keep their ratio to it.
        by_name: The learning rate of the first param group of each optimizer, by the name of the
            optimizer; empty if the factory reads "lr".
    """

    unread: frozenset[str]
    lr: float
    by_name: Mapping[str, float]


class _RecordedValues(Mapping[str, Any]):
    """The plan's values, with a record of the keys that were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        if key not in self._values:
            raise ArgumentError(
                f"The optimizer factory reads values[{key!r}], which the plan does not have. "
                f"{did_you_mean(key, self._values)}"
            )
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def own_rate(factory: OptimizerFactory, model: nn.Module, values: Mapping[str, Any]) -> OwnRate:
    """Return the learning rates that a factory sets, and the plan's keys that it does not read.

    To find out, the factory is called once, before anything is measured; the result is discarded.

    Args:
        factory: Builds the optimizers by name.
        model: The model that is trained.
        values: The values of the plan by key.
    """
    recorded = _RecordedValues(values)
    try:
        made = cast("object", factory(model, recorded))
    except (TypeError, AttributeError) as error:
        raise ArgumentError(
            f"The function of TrainingOptions(optimizer=…) failed: {type_and_first_line(error)}. "
            "It is called with the model and the values of the plan: lambda model, values: "
            "torch.optim.SGD(model.parameters(), lr=values['lr'])."
        ) from error
    optimizers = cast("Mapping[str, object]", made if isinstance(made, Mapping) else {})
    inner = {
        name: with_inner(each) if isinstance(each, Optimizer) else ()
        for name, each in optimizers.items()
    }
    unread = values.keys() - recorded.read
    if _is_named(values.get("optimizer"), chain.from_iterable(inner.values())):
        unread -= {"optimizer"}
    if "lr" in recorded.read:
        return OwnRate(frozenset(unread), 0.0, {})
    rates: dict[str, float] = {}
    for name, every in inner.items():
        found = [base_lr(each.param_groups[0]) for each in every]
        rate = next((lr for lr in found if lr is not None), None)
        if rate is not None:
            rates[name] = float(rate)  # host read: before the run
    return OwnRate(frozenset(unread), next(iter(rates.values()), 0.0), rates)


def _is_named(name: object, optimizers: Iterable[Optimizer]) -> bool:
    """Return whether a name of the plan fits optimizers; a name that is not torch's always does."""
    kind = OPTIMIZERS.get(str(name))
    found = [type(each) for each in optimizers]
    if kind is None or not found:
        return True
    # AdamW is derived from Adam, but each has a name of its own.
    others = {each.build for each in OPTIMIZERS.values()} - {kind.build}
    return any(issubclass(each, kind.build) and each not in others for each in found)
