"""Muon: orthogonalised updates for the hidden matrices of a model, AdamW for all the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from flambeau.errors import InputError
from flambeau.training.optim.groups import parameter_groups
from flambeau.training.optim.optimizer import (
    OPTIMIZERS,
    ParamGroup,
    build_from_groups,
    no_decay_ids,
    split_by_decay,
)


def hidden_matrices(model: nn.Module) -> set[int]:
    """Return the ``id`` of every parameter that Muon trains.

    These are the 2-d weights between the embeddings and the output: not those of embeddings, of
    norm layers, of the last layer group (the head), no biases, and no weight that is tied to one of
    these. Weights of convolutions have more than two dimensions and are not among them.
    """
    excluded = no_decay_ids(model)
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            excluded |= {id(parameter) for parameter in module.parameters(recurse=False)}
    groups = parameter_groups(model)
    if groups:
        excluded |= {id(parameter) for parameter in groups[next(reversed(groups))]}
    return {id(p) for p in model.parameters() if p.ndim == 2} - excluded


def make_muon(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Optimizer]:
    """Return ``{"main": AdamW, "muon": Muon}``, which together have all parameters of the model.

    The updates of Muon are scaled to the size of AdamW's (``adjust_lr_fn="match_rms_adamw"``), so
    that both have the same learning rate and weight decay.

    Args:
        model: On the device where it will be trained.
        lr: Learning rate of both; the loop sets it again before each step.
        weight_decay: Decoupled weight decay of both, not for norm layers and biases.
        options: "betas" of AdamW, "momentum" and "nesterov" of Muon; None selects torch's default.

    Raises:
        InputError: The model has no hidden matrices, or a value is out of range.

    Source:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the scale
        is that of Liu et al., "Muon is Scalable for LLM Training" (arXiv 2502.16982).
    """
    hidden = hidden_matrices(model)
    if not hidden:
        raise InputError(
            f"{type(model).__name__} has no hidden matrices, the only weights that Muon trains: "
            "2-d weights outside embeddings and the last layer group. Use another optimizer: "
            'choices={"optimizer": "adamw"}.'
        )
    groups = split_by_decay(model, lr=lr, weight_decay=weight_decay)
    given = {key: value for key, value in (options or {}).items() if value is not None}
    of_both = {"lr": lr, "weight_decay": weight_decay}
    of_adamw = {key: given[key] for key in given if key in OPTIMIZERS["adamw"].options}
    of_muon = {key: given[key] for key in given if key not in of_adamw}
    return {
        "main": build_from_groups("adamw", _part(groups, hidden, False), of_both | of_adamw),
        "muon": build_from_groups(
            "muon",
            _part(groups, hidden, True),
            of_both | of_muon | {"adjust_lr_fn": "match_rms_adamw"},
        ),
    }


def _part(groups: list[ParamGroup], hidden: set[int], is_hidden: bool) -> list[ParamGroup]:
    """Return the param groups with only the hidden matrices, or without them; none is empty."""
    chosen = [
        {**group, "params": [p for p in group["params"] if (id(p) in hidden) is is_hidden]}
        for group in groups
    ]
    return [group for group in chosen if group["params"]]
