"""The learning rate of an optimizer factory that does not use the one of the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from flambeau.training.optim.optimizer import OptimizerFactory


@dataclass(frozen=True)
class OwnRate:
    """The learning rates that an optimizer factory sets without reading ``values["lr"]``.

    Attributes:
        lr: That of the first param group, which the plan shows; the others keep their ratio to it.
        by_name: The rate of the first param group of each optimizer.
    """

    lr: float
    by_name: Mapping[str, float]


class _RecordedValues(Mapping[str, Any]):
    """The plan's values, with a record of whether "lr" was read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.lr_was_read = False

    def __getitem__(self, key: str) -> Any:
        self.lr_was_read |= key == "lr"
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def own_rate(
    factory: OptimizerFactory, model: nn.Module, values: Mapping[str, Any]
) -> OwnRate | None:
    """Return the rates that a factory sets itself; None if it uses the plan's learning rate.

    The factory is called once more than the runs need it, before anything is measured.

    Args:
        factory: Builds the optimizers by name.
        model: The model that is trained.
        values: The values of the plan by key.
    """
    recorded = _RecordedValues(values)
    made = cast("object", factory(model, recorded))
    if recorded.lr_was_read or not isinstance(made, Mapping):
        return None
    rates: dict[str, float] = {}
    for name, optimizer in cast("Mapping[str, object]", made).items():
        if isinstance(optimizer, Optimizer) and optimizer.param_groups[0].get("lr") is not None:
            rates[name] = float(optimizer.param_groups[0]["lr"])  # host read: before the run
    first = next(iter(rates.values()), 0.0)
    return OwnRate(first, rates) if first > 0 else None
