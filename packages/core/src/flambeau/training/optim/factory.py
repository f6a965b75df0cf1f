"""``default_factory``: the optimizers of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from flambeau.training.optim.optimizer import OPTIMIZERS, make_optimizer


def default_factory(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
    """Return the optimizers from the plan's values "optimizer", "lr" and "weight_decay".

    This is the default ``OptimizerFactory``. It also uses "betas", "eps", "momentum", "nesterov"
    and "alpha" if the optimizer has these settings. There is one optimizer, "main"; for "muon"
    there is a second one, see ``make_muon``.
    """
    name = values["optimizer"]
    known = OPTIMIZERS[name].options if name in OPTIMIZERS else ()
    options = {key: _setting(values[key]) for key in known if key in values}
    lr, weight_decay = values["lr"], values.get("weight_decay", 0.0)
    if name == "muon":
        from flambeau.training.optim.muon import make_muon

        return make_muon(model, lr=lr, weight_decay=weight_decay, options=options)
    return {"main": make_optimizer(name, model, lr=lr, weight_decay=weight_decay, options=options)}


def _setting(value: Any) -> Any:
    # The plan stores betas as a list.
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value
