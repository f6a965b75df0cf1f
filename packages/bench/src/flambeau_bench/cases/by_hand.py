"""Hand-written training loops, the baselines of ``loop-overhead``: one function per variant.

Each function keeps the loss of every step on the device and sets the one-cycle learning rate, as
flambeau does. It is written out in full, without branches for other variants, so that it is fast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import get_swa_multi_avg_fn

from flambeau_bench.cases.tiny_training import PEAK_LR, WEIGHT_DECAY, BatchSource
from flambeau_bench.side.user_optimizer import ForLoopAdam

ACCUMULATE = 4
MAX_NORM = 0.5
EMA_DECAY = 0.999


def optimizer_for(name: str, model: nn.Module) -> Optimizer:
    """Return a fused optimizer with weight decay on the weight matrices only."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return SGD(groups, lr=PEAK_LR, fused=True)
    return AdamW(groups, lr=PEAK_LR, fused=True)


def user_optimizer(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
    """Return a ``ForLoopAdam``: this optimizer factory ignores ``values``."""
    return {"main": ForLoopAdam(model.parameters(), lr=PEAK_LR)}


def one_cycle_lr(step: int, steps: int) -> float:
    """Return the one-cycle learning rate of a step.

    It rises from peak / 25 to the peak in the first quarter of the steps and falls to
    peak / 100,000 in the other steps, both as half cosines.
    """
    progress = step / max(1, steps - 1)
    if progress < 0.25:
        start, end, fraction = 1.0 / 25.0, 1.0, progress / 0.25
    else:
        start, end, fraction = 1.0, 1.0 / 1e5, (progress - 0.25) / (1.0 - 0.25)
    weight = 0.5 * (1.0 + math.cos(math.pi * fraction))
    return PEAK_LR * (end + (start - end) * weight)


def plain(model: nn.Module, optimizer: Optimizer, source: BatchSource) -> list[Tensor]:
    """Train with forward pass, backward pass and optimizer step."""
    losses: list[Tensor] = []
    steps = source.steps_per_epoch
    model.train()
    for step, (x, y) in enumerate(source.pairs()):
        lr = one_cycle_lr(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


def moved(model: nn.Module, optimizer: Optimizer, source: BatchSource) -> list[Tensor]:
    """Train on batches that the loop moves to the device of the model."""
    losses: list[Tensor] = []
    steps = source.steps_per_epoch
    device = next(model.parameters()).device
    model.train()
    for step, (x, y) in enumerate(source.pairs()):
        lr = one_cycle_lr(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = F.mse_loss(model(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


def clipped(model: nn.Module, optimizer: Optimizer, source: BatchSource) -> list[Tensor]:
    """Train with torch's ``clip_grad_norm_``."""
    losses: list[Tensor] = []
    steps = source.steps_per_epoch
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()
    for step, (x, y) in enumerate(source.pairs()):
        lr = one_cycle_lr(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = F.mse_loss(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


def accumulated(model: nn.Module, optimizer: Optimizer, source: BatchSource) -> list[Tensor]:
    """Train with an update after every four micro-batches."""
    losses: list[Tensor] = []
    steps = source.steps_per_epoch // ACCUMULATE
    model.train()
    for step, micro_batches in enumerate(_fours(source.pairs())):
        lr = one_cycle_lr(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        total: Tensor | None = None
        for x, y in micro_batches:
            loss = F.mse_loss(model(x), y) / ACCUMULATE
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        if total is not None:
            losses.append(total)
    return losses


def averaged(model: nn.Module, optimizer: Optimizer, source: BatchSource) -> list[Tensor]:
    """Train with a moving average of the weights (multi-tensor lerp), and keep the average."""
    losses: list[Tensor] = []
    steps = source.steps_per_epoch
    weights = list(model.parameters())
    average = [weight.detach().clone() for weight in weights]
    move = cast("Any", get_swa_multi_avg_fn())  # average += (weights - average) / (n + 1)
    model.train()
    for step, (x, y) in enumerate(source.pairs()):
        lr = one_cycle_lr(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        decay = min(EMA_DECAY, (1.0 + step) / (10.0 + step))
        move(average, weights, decay / (1.0 - decay))
    with torch.no_grad():
        for weight, value in zip(weights, average, strict=True):
            weight.copy_(value)
    return losses


@torch.no_grad()
def evaluate(model: nn.Module, source: BatchSource) -> float:
    """Return the mean loss over the batches."""
    model.eval()
    losses = [F.mse_loss(model(x), y) for x, y in source.pairs()]
    return float(torch.stack(losses).mean())


def _fours(pairs: Iterable[Sequence[Tensor]]) -> Iterator[list[Sequence[Tensor]]]:
    group: list[Sequence[Tensor]] = []
    for pair in pairs:
        group.append(pair)
        if len(group) == ACCUMULATE:
            yield group
            group = []
