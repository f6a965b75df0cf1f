"""Cross-entropy of words: smoothed as asked, without padding, and never all logits at once."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau_text.tokenization.tokenizer import PADDING_ID

_CHUNK = 512
"""Words whose logits are there at once: 16 MB for a vocabulary of 8,000, near the caches."""

_STEP = 128


def token_loss(
    output: nn.Module, features: Tensor, targets: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The summed losses of words: what is trained, and the likelihood without smoothing.

    With smoothing ``s`` the wanted distribution gives the true word ``1 - s`` and spreads ``s``
    evenly over all words but padding, which is never an answer. The second sum is of the plain
    negative log-likelihood: perplexity is its exponential, whatever the smoothing.

    Args:
        output: The last layer, features to logits.
        features: ``(words, size)``.
        targets: int64 ``(words,)``; padding (``PADDING_ID``) counts nothing.
        smoothing: Share that is spread, 0 to below 1.

    Returns:
        Two 0-d sums, in float32 or wider; the second has no gradient.

    Source:
        Szegedy et al., "Rethinking the Inception Architecture" (arXiv 1512.00567), section 7, with
        the even distribution over the words that can be answered. ``F.cross_entropy`` spreads over
        padding too, and so asks a little for it.
    """
    if isinstance(output, nn.Linear):
        found = cast("Any", _LinearLoss).apply(
            features, output.weight, output.bias, targets, smoothing
        )
        return found[0], found[1]
    logits = output(features)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    counts = (targets != PADDING_ID).to(logits.dtype)
    normaliser = logits.logsumexp(-1)
    true = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    likelihood = (normaliser - true) * counts
    if smoothing == 0.0:
        return likelihood.sum(), likelihood.detach().sum()
    others = (logits.sum(1) - logits[:, PADDING_ID]) / (logits.shape[1] - 1)
    smoothed = (normaliser - (1.0 - smoothing) * true - smoothing * others) * counts
    return smoothed.sum(), likelihood.detach().sum()


class _LinearLoss(torch.autograd.Function):
    """Last layer and loss in one, chunk by chunk, the gradients made on the way.

    For 3,000 words and a vocabulary of 8,000 the logits are 96 MB, which log-softmax, its gradient
    and the casts of bf16 would write and read six times.
    """

    @staticmethod
    def forward(  # type: ignore[override]  # torch's takes any arguments
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        device = features.device.type
        reduced = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if reduced else features.dtype
        total_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        learns = [each is not None and each.requires_grad for each in (features, weight, bias)]
        with torch.autocast(device, enabled=False):
            # Whole steps of rows: bf16 products of a new shape are prepared anew, at a millisecond.
            spare = -len(features) % _STEP
            ready = F.pad(features.detach().to(dtype), (0, 0, 0, spare))
            targets = F.pad(targets, (0, spare), value=PADDING_ID)
            matrix = weight.detach().to(dtype)
            shift = None if bias is None else bias.detach().to(total_dtype)
            sums = features.new_zeros(2, dtype=total_dtype)
            to_features = torch.zeros_like(ready) if learns[0] else None
            to_weight = torch.zeros_like(weight, dtype=total_dtype) if learns[1] else None
            to_bias = torch.zeros_like(shift) if shift is not None and learns[2] else None
            for begin in range(0, len(ready), _CHUNK):
                part = slice(begin, begin + _CHUNK)
                logits = F.linear(ready[part], matrix).to(total_dtype)
                if shift is not None:
                    logits += shift
                losses, gradient = _chunk(logits, targets[part], smoothing, any(learns))
                sums += losses
                if gradient is None:
                    continue
                if to_bias is not None:
                    to_bias += gradient.sum(0)
                gradient = gradient.to(dtype)
                if to_features is not None:
                    torch.mm(gradient, matrix, out=to_features[part])
                if to_weight is not None:
                    to_weight += gradient.t() @ ready[part]
        if to_features is not None:
            to_features = to_features[: len(features)]
        ctx.save_for_backward(to_features, to_weight, to_bias)
        ctx.dtypes = (features.dtype, weight.dtype, None if bias is None else bias.dtype)
        total, plain = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(plain)
        return total, plain

    @staticmethod
    def backward(  # type: ignore[override]  # torch's takes anything
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        scale = gradients[0]
        found = [
            None if each is None else (each * scale.to(each.dtype)).to(dtype)
            for each, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*found, None, None)


def _chunk(
    logits: Tensor, targets: Tensor, smoothing: float, learns: bool
) -> tuple[Tensor, Tensor | None]:
    """Both sums of some words, and the gradient of the first by the logits, in their memory."""
    counts = targets != PADDING_ID
    places = targets.unsqueeze(1)
    normaliser = logits.logsumexp(1)
    true = logits.gather(1, places).squeeze(1)
    likelihood = (normaliser - true).masked_fill(~counts, 0.0)
    losses = likelihood
    spread = smoothing / (logits.shape[1] - 1)
    if smoothing:
        others = logits.sum(1) - logits[:, PADDING_ID]
        losses = normaliser - (1.0 - smoothing) * true - spread * others
        losses = losses.masked_fill(~counts, 0.0)
    sums = torch.stack([losses.sum(), likelihood.sum()])
    if not learns:
        return sums, None
    gradient = logits.sub_(normaliser.unsqueeze(1)).exp_()
    if smoothing:
        gradient -= spread
        gradient[:, PADDING_ID] += spread
    gradient.scatter_add_(1, places, torch.full_like(true, smoothing - 1.0).unsqueeze(1))
    return sums, gradient.mul_(counts.unsqueeze(1))
