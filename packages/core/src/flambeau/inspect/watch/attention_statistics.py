"""Statistics of attention weights: their entropy, and the share of the most attended position."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ATTENTION_COLUMNS = ("entropy", "one_position")
"""Names of the values of ``attention_row``; see there."""

LEAST_POSITIONS = 4
"""Queries that may attend to fewer positions are left out: they cannot spread their weights."""

_SAMPLES, _QUERIES = 4, 64


def attention_row(weights: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return entropy and share of the most attended position, float32 ``(2,)``.

    - entropy: mean entropy of a query's weights, divided by that of equal weights: 1 if a query
      attends equally to all positions, 0 if to one;
    - one_position: the share of all weights of a head that the position has which most queries
      attend to, mean over samples; of the head in which it is lowest. Near 1 if all heads attend to
      one position whatever the query.

    Queries that may attend to fewer than ``LEAST_POSITIONS`` positions are left out. If there are
    no others, entropy is NaN, and one_position is that of all queries: a wrong mask may leave the
    same position to all of them.

    Args:
        weights: ``(batch, heads, queries, positions)``, rows that sum to 1.
        allowed: Whether a query may attend to a position, broadcast to the weights; None for all.
    """
    weights = weights.float()
    count = torch.full_like(weights[..., 0], weights.shape[-1])
    if allowed is not None:
        count = allowed.expand_as(weights).sum(-1).float()
    valid = (count >= LEAST_POSITIONS).float()
    # 0 · log 0 is 0.
    entropy = -torch.xlogy(weights, weights).sum(-1) / count.clamp(min=2.0).log()
    total = valid.sum()
    counted = torch.where(total > 0, valid, 1.0)
    of_positions = (weights * counted.unsqueeze(-1)).sum(2) / counted.sum(2, keepdim=True)
    # A sample without a valid query gives NaN and is left out.
    of_heads = of_positions.amax(-1).nanmean(0)
    return torch.stack([(entropy * valid).sum() / total, of_heads.amin()])


def of_products(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor | None:
    """Return ``attention_row`` of weights computed anew as ``softmax(query keyᵀ · scale)``.

    Args:
        query: ``(batch, heads, queries, size)``, as for ``scaled_dot_product_attention``.
        key: ``(batch, heads, positions, size)``; fewer heads are repeated.
        mask: bool (True: attend), or numbers that are added; broadcast to the weights.
        is_causal: Whether a query attends to no position after its own.
        scale: Factor of the products; None takes ``1 / sqrt(size)``.

    Returns:
        None if the shapes are others.
    """
    if query.ndim == 3 and key.ndim == 3:
        query, key = query.unsqueeze(1), key.unsqueeze(1)
        mask = mask.unsqueeze(1) if mask is not None and mask.ndim == 3 else mask
    if query.ndim != 4 or key.ndim != 4 or key.shape[2] < LEAST_POSITIONS or not query.numel():
        return None
    shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    chosen = slice(0, None, max(1, math.ceil(shape[2] / _QUERIES)))
    query, key = query[:_SAMPLES, :, chosen].float(), key[:_SAMPLES].float()
    if key.shape[1] != query.shape[1]:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scale is None else scale)
    allowed = None
    if mask is not None:
        mask = mask.detach().expand(shape)[:_SAMPLES, :, chosen]
        # -1e4 is added in place of -inf by models that were written for fp16.
        allowed = mask if mask.dtype == torch.bool else mask > -9e3
        scores = scores if mask.dtype == torch.bool else scores + mask.float()
    if is_causal:
        causal = torch.ones(shape[2:], dtype=torch.bool, device=query.device).tril()[chosen]
        allowed = causal if allowed is None else allowed & causal
    if allowed is not None:
        scores = torch.where(allowed, scores, torch.finfo(torch.float32).min)
    return attention_row(scores.softmax(-1), allowed)


def of_weights(weights: Tensor) -> Tensor | None:
    """Return ``attention_row`` of given weights ``(…, queries, positions)``, None of other shapes.

    Which positions a mask hides is unknown, so a query may attend to all of them.
    """
    if weights.ndim not in (3, 4) or weights.shape[-1] < LEAST_POSITIONS or not weights.numel():
        return None
    weights = weights.detach().unsqueeze(1) if weights.ndim == 3 else weights.detach()
    chosen = slice(0, None, max(1, math.ceil(weights.shape[2] / _QUERIES)))
    return attention_row(weights[:_SAMPLES, :, chosen])


def of_sdpa(arguments: Sequence[Any], named: Mapping[str, Any]) -> Tensor | None:
    """Return ``attention_row`` for the arguments of ``F.scaled_dot_product_attention``.

    Args:
        arguments: By position: query ``(batch, heads, queries, size)``, key and value
            ``(batch, heads, positions, size)``, or all without heads; then the mask and others.
        named: The arguments by name.

    Returns:
        float32 ``(2,)``; None if the shapes are others.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, arguments, strict=False)), **named}
    return of_products(
        given["query"].detach(),
        given["key"].detach(),
        given.get("attn_mask"),
        is_causal=bool(given.get("is_causal", False)),
        scale=given.get("scale"),
    )


def of_multi_head(arguments: Sequence[Any], named: Mapping[str, Any]) -> Tensor | None:
    """Return ``attention_row`` for the arguments of ``F.multi_head_attention_forward``.

    Args:
        arguments: By position: query ``(queries, batch, size)``, key and value
            ``(positions, batch, size)``, then the sizes, weights and others.
        named: The arguments by name.

    Returns:
        float32 ``(2,)``; None without the dimension of the batch, or if the shapes are others.
    """
    given = _multi_head_signature().bind(*arguments, **named).arguments
    query, key, heads = given["query"].detach(), given["key"].detach(), given["num_heads"]
    if query.ndim != 3:  # without a batch
        return None
    size = query.shape[2]
    if given.get("use_separate_proj_weight"):
        weights = given["q_proj_weight"], given["k_proj_weight"]
    else:
        weights = given["in_proj_weight"].chunk(3)[:2]
    bias = given.get("in_proj_bias")
    biases = (None, None) if bias is None else bias.chunk(3)[:2]
    projected: list[Tensor] = []
    for values, weight, each in zip((query, key), weights, biases, strict=True):
        found = F.linear(values[:, :_SAMPLES].float(), weight.detach().float(), _float(each))
        # (positions, batch, size): the module has transposed them.
        length, batch, _ = found.shape
        projected.append(found.view(length, batch, heads, size // heads).permute(1, 2, 0, 3))
    return of_products(projected[0], projected[1], _multi_head_mask(given, heads))


def _multi_head_mask(given: Mapping[str, Any], heads: int) -> Tensor | None:
    """Return the mask of the module as bool, True where a query may attend."""
    found: Tensor | None = None
    mask, padding = given.get("attn_mask"), given.get("key_padding_mask")
    if mask is not None:
        found = _may_attend(mask)
        if found.ndim == 3:
            found = found.view(-1, heads, *found.shape[1:])[:_SAMPLES]
    if padding is not None:
        keys = _may_attend(padding)[:_SAMPLES, None, None, :]
        found = keys if found is None else found & keys
    return found


def _may_attend(mask: Tensor) -> Tensor:
    # nn.MultiheadAttention: True in a bool mask hides the position.
    return ~mask if mask.dtype == torch.bool else mask > -9e3


def _float(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().float()


@cache
def _multi_head_signature() -> inspect.Signature:
    return inspect.signature(F.multi_head_attention_forward)
