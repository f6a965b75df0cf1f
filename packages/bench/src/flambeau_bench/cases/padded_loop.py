"""A hand-written translation program, the baseline of ``translation``.

It uses a shuffling ``DataLoader`` over pairs of token ids, batches of a fixed number of sentences
padded to the longest, and ``F.cross_entropy``, which ignores padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from flambeau_bench.cases import by_hand
from flambeau_text.tokenization.tokenizer import PADDING_ID

TokenPair = tuple[Tensor, Tensor]
"""Token ids of a source and its target: int64 ``(tokens,)``, for a batch ``(batch, longest)``."""

MAX_NORM = 1.0


def padded(pairs: Sequence[TokenPair]) -> TokenPair:
    """Return a batch: sources ``(batch, longest source)``, targets ``(batch, longest target)``."""
    sources, targets = zip(*pairs, strict=True)
    return (
        pad_sequence(list(sources), batch_first=True, padding_value=PADDING_ID),
        pad_sequence(list(targets), batch_first=True, padding_value=PADDING_ID),
    )


def shuffled(pairs: Sequence[TokenPair], batch_size: int) -> DataLoader[TokenPair]:
    """Return one epoch over ``pairs`` in a random order that is the same in every run."""
    order = torch.Generator().manual_seed(0)
    data = cast("Any", pairs)  # a DataLoader accepts a list
    return DataLoader(data, batch_size, shuffle=True, collate_fn=padded, generator=order)


def train(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[TokenPair],
    steps: int,
    precision: str,
    device: torch.device,
) -> list[Tensor]:
    """Train one step per batch, over one cycle of the learning rate.

    Args:
        model: Returns logits ``(batch, target, vocabulary)`` for sources, their mask and the
            previous target tokens.
        optimizer: Optimizer of the model's parameters.
        batches: Batches made by ``padded``.
        steps: Number of batches.
        precision: "fp32" or "bf16".
        device: Device of the model.

    Returns:
        The loss of each step, a mean over its target tokens, on the device.
    """
    losses: list[Tensor] = []
    parameters = list(model.parameters())
    reduced = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    model.train()
    for step, (source, target) in enumerate(moved(batches, device)):
        lr = by_hand.one_cycle_lr(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with reduced:
            logits = model(source, source != PADDING_ID, target[:, :-1])
            loss = F.cross_entropy(
                logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PADDING_ID
            )
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[TokenPair], device: torch.device) -> float:
    """Return the mean loss per target token, computed in the weights' dtype without dropout."""
    model.eval()
    total, count = 0.0, 0
    for source, target in moved(batches, device):
        logits = model(source, source != PADDING_ID, target[:, :-1])
        references = target[:, 1:].flatten()
        total += float(
            F.cross_entropy(
                logits.flatten(0, 1), references, ignore_index=PADDING_ID, reduction="sum"
            )
        )
        count += int((references != PADDING_ID).sum())
    return total / count


def moved(batches: Iterable[TokenPair], device: torch.device) -> Iterator[TokenPair]:
    """Yield the batches on the device."""
    for source, target in batches:
        yield source.to(device, non_blocking=True), target.to(device, non_blocking=True)
