"""``MODELS``: the builders of the models by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from flambeau_tabular.models.collab import collab_dot, collab_net
from flambeau_tabular.models.mlp import mlp
from flambeau_tabular.models.tabm import tabm

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "tabm": tabm,
    "collab_dot": collab_dot,
    "collab_net": collab_net,
}
"""Builders by the name that exports contain; each takes JSON values as keyword arguments."""
