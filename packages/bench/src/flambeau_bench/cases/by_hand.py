"""The loops that one would write: what flambeau's loop is held against, a function a variant.

Each keeps the loss of every step (on the device) and sets the one-cycle rate by hand, as ours
does. They are written out in full, without an ``if`` for the variants, so that nothing slows them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import get_swa_multi_avg_fn

from flambeau_bench.cases.tiny import PEAK_LR, WEIGHT_DECAY, Tape

ACCUMULATE = 4
MAX_NORM = 0.5
EMA_DECAY = 0.999


def optimizer_for(name: str, model: nn.Module) -> Optimizer:
    """Fused, and with weight decay on the weights alone."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return SGD(groups, lr=PEAK_LR, fused=True)
    return AdamW(groups, lr=PEAK_LR, fused=True)


def one_cycle_lr(step: int, steps: int) -> float:
    """Up from a 25th of the peak over the first quarter, down to a 100,000th; cosine."""
    progress = step / max(1, steps - 1)
    if progress < 0.25:
        start, end, fraction = 1.0 / 25.0, 1.0, progress / 0.25
    else:
        start, end, fraction = 1.0, 1.0 / 1e5, (progress - 0.25) / (1.0 - 0.25)
    weight = 0.5 * (1.0 + math.cos(math.pi * fraction))
    return PEAK_LR * (end + (start - end) * weight)


def plain(model: nn.Module, optimizer: Optimizer, tape: Tape) -> list[Tensor]:
    """Forward, backward, step."""
    losses: list[Tensor] = []
    steps = tape.steps_per_epoch
    model.train()
    for step, (x, y) in enumerate(tape.pairs()):
        lr = one_cycle_lr(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


def clipped(model: nn.Module, optimizer: Optimizer, tape: Tape) -> list[Tensor]:
    """With torch's ``clip_grad_norm_``."""
    losses: list[Tensor] = []
    steps = tape.steps_per_epoch
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()
    for step, (x, y) in enumerate(tape.pairs()):
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


def accumulated(model: nn.Module, optimizer: Optimizer, tape: Tape) -> list[Tensor]:
    """An update after every four micro-batches."""
    losses: list[Tensor] = []
    steps = tape.steps_per_epoch // ACCUMULATE
    model.train()
    for step, micro_batches in enumerate(_fours(tape.pairs())):
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


def averaged(model: nn.Module, optimizer: Optimizer, tape: Tape) -> list[Tensor]:
    """With a running average of the weights by torch's call for many tensors; ends on it."""
    losses: list[Tensor] = []
    steps = tape.steps_per_epoch
    weights = list(model.parameters())
    average = [weight.detach().clone() for weight in weights]
    move = cast("Any", get_swa_multi_avg_fn())  # average += (weights - average) / (n + 1)
    model.train()
    for step, (x, y) in enumerate(tape.pairs()):
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
def evaluate(model: nn.Module, tape: Tape) -> float:
    """The mean loss on the tape."""
    model.eval()
    losses = [F.mse_loss(model(x), y) for x, y in tape.pairs()]
    return float(torch.stack(losses).mean())


def _fours(pairs: Iterator[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    group: list[tuple[Tensor, Tensor]] = []
    for pair in pairs:
        group.append(pair)
        if len(group) == ACCUMULATE:
            yield group
            group = []
