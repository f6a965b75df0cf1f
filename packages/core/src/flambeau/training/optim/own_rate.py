"""Find the learning rate that an optimizer factory sets instead of using the plan's "lr"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.training.optim.fused_step import with_inner
from flambeau.training.optim.optimizer import OptimizerFactory, base_lr


@dataclass(frozen=True)
class OwnRate:
    """The plan's keys that an optimizer factory does not read, and the learning rate that it sets.

    Attributes:
        unread: Keys of the plan that the factory did not read.
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
    made = cast("object", factory(model, recorded))
    unread = frozenset(values.keys() - recorded.read)
    if "lr" in recorded.read or not isinstance(made, Mapping):
        return OwnRate(unread, 0.0, {})
    rates: dict[str, float] = {}
    for name, optimizer in cast("Mapping[str, object]", made).items():
        every = with_inner(optimizer) if isinstance(optimizer, Optimizer) else ()
        found = [base_lr(each.param_groups[0]) for each in every]
        rate = next((lr for lr in found if lr is not None), None)
        if rate is not None:
            rates[name] = float(rate)  # host read: before the run
    return OwnRate(unread, next(iter(rates.values()), 0.0), rates)
