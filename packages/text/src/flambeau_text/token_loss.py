"""Cross-entropy over target tokens with label smoothing, without storing all logits at once."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHUNK = 512
"""Tokens whose logits are in memory at once: 16 MB for a vocabulary of 8,000."""

_BLOCK = 32
"""Tokens whose logits are processed at once on a CPU: 1 MB, which stays in the cache from the first
pass to the last: 16 ms instead of 27 for 480 tokens and a vocabulary of 5,800 (bf16, two cores)."""

_STEP = 64
"""With bf16 or fp16 products, the number of tokens is padded to a multiple of this number."""


def token_loss(
    output: nn.Module,
    features: Tensor,
    targets: Tensor,
    mask: Tensor,
    *,
    smoothing: float = 0.0,
    excluded: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the training loss and the negative log-likelihood, each summed over the tokens.

    Which positions count is given by a mask, not by the id of padding: for many pretrained models
    padding and the end of a text are one token, and its loss is what teaches a model to stop.

    With smoothing ``s`` the target distribution has ``1 - s`` at the reference token and spreads
    ``s`` evenly over all tokens but the excluded one. The negative log-likelihood is without
    smoothing; perplexity is computed from it.

    Args:
        output: The output layer, which maps features to logits. The logits of a plain ``nn.Linear``
            are computed in chunks together with their gradients.
        features: ``(tokens, size)``.
        targets: int64 ``(tokens,)``; where the mask is False any number, for example -100.
        mask: bool ``(tokens,)``, False at targets that are ignored.
        smoothing: Label smoothing, at least 0 and below 1.
        excluded: Id of a token that is never predicted, such as padding, and so gets no share of
            the smoothing; None for none.

    Returns:
        Two 0-d sums, in float32 or wider; the second has no gradient.

    Source:
        Szegedy et al., "Rethinking the Inception Architecture" (arXiv 1512.00567), section 7.
        ``F.cross_entropy`` is the same with ``excluded=None``.
    """
    # A subclass that overrides forward may compute its logits in another way.
    if isinstance(output, nn.Linear) and type(output).forward is nn.Linear.forward:
        layer = output.weight, output.bias
        return linear_token_loss(
            layer, features, targets, mask, smoothing=smoothing, excluded=excluded
        )
    targets = targets.masked_fill(~mask, 0)
    logits = output(features)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    counts = mask.to(logits.dtype)
    normaliser = logits.logsumexp(-1)
    reference = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    likelihood = (normaliser - reference) * counts
    if smoothing == 0.0:
        return likelihood.sum(), likelihood.detach().sum()
    others = logits.sum(1)
    if excluded is not None:
        others = others - logits[:, excluded]
    others = others / (logits.shape[1] - (excluded is not None))
    smoothed = (normaliser - (1.0 - smoothing) * reference - smoothing * others) * counts
    return smoothed.sum(), likelihood.detach().sum()


def linear_token_loss(
    layer: tuple[Tensor, Tensor | None],
    features: Tensor,
    targets: Tensor,
    mask: Tensor,
    *,
    smoothing: float = 0.0,
    excluded: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the two sums of `token_loss` for the weight and bias of a linear output layer.

    Args:
        layer: Weight ``(vocabulary, size)``, and bias ``(vocabulary,)`` or None.
        features: As for `token_loss`, as are the other arguments.
        targets: int64 ``(tokens,)``.
        mask: bool ``(tokens,)``.
        smoothing: Label smoothing.
        excluded: Id of a token that is never predicted.
    """
    targets = targets.masked_fill(~mask, 0)
    weight, bias = layer
    if not torch.is_grad_enabled():
        # Within the function gradients are disabled, and parameters require one at any time.
        features, weight = features.detach(), weight.detach()
        bias = None if bias is None else bias.detach()
    found = cast("Any", _LinearLoss).apply(
        features, weight, bias, targets, mask, smoothing, excluded
    )
    return found[0], found[1]


class _LinearLoss(torch.autograd.Function):
    """Output layer and loss, computed chunk by chunk; the forward pass also computes the gradients.

    For 3,000 tokens and a vocabulary of 8,000 the logits take 96 MB, and log-softmax, its gradient
    and the casts of bf16 would write and read them six times. Here each block of logits is replaced
    by its gradient while it is in the cache. Terms that are constant in a row (normaliser, weight
    of the token) or over the vocabulary (smoothing) are not written into the logits; they are
    applied to the features, or added to the products.
    """

    @staticmethod
    def forward(  # type: ignore[override]  # torch's takes any arguments
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        mask: Tensor,
        smoothing: float,
        excluded: int | None,
    ) -> tuple[Tensor, Tensor]:
        device = features.device.type
        reduced = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if reduced else features.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        learns = [each is not None and each.requires_grad for each in (features, weight, bias)]
        n = len(features)
        with torch.autocast(device, enabled=False):
            # Padded, because each new shape of a bf16 product takes a millisecond to prepare.
            spare = -n % _STEP if dtype != wide else 0
            ready = F.pad(features.detach().to(dtype), (0, 0, 0, spare))
            targets, mask = F.pad(targets, (0, spare)), F.pad(mask, (0, spare))
            matrix = weight.detach().to(dtype)
            shift = None if bias is None else bias.detach().to(wide)
            to_bias = None if shift is None or not learns[2] else torch.zeros_like(shift)
            to_weight: Tensor | None = None
            of_features: list[Tensor] = []
            of_rows: list[tuple[Tensor, Tensor, Tensor]] = []
            # One piece of memory for all chunks: new memory takes as long as the product.
            memory = ready.new_empty(min(_CHUNK, len(ready)), len(matrix))
            # At least once: a process may have no sentence of a batch.
            for begin in range(0, max(1, len(ready)), _CHUNK):
                part = slice(begin, begin + _CHUNK)
                scores = torch.mm(ready[part], matrix.t(), out=memory[: len(ready[part])])
                wanted = targets[part], mask[part]
                rows = _into_gradients(scores, shift, wanted, smoothing, to_bias, any(learns))
                of_rows.append(rows)
                scale = rows[2].unsqueeze(1)
                if learns[0]:
                    of_features.append((scores @ matrix).to(wide).mul_(scale))
                if learns[1]:
                    found = scores.t() @ (ready[part] * scale).to(dtype)
                    to_weight = found.to(wide) if to_weight is None else to_weight.add_(found)
            to_features = torch.cat(of_features) if of_features else None
            normalisers, reference, _ = (torch.cat(each) for each in zip(*of_rows, strict=True))
            counts = mask.to(wide)
            likelihood = ((normalisers - reference) * counts).sum()
            total = likelihood
            if smoothing:
                gradients = to_features, to_weight, to_bias
                known = ready.to(wide)
                total = total + _add_smoothing(
                    smoothing, excluded, (matrix, shift), known, counts, reference, gradients
                )
        found = (None if to_features is None else to_features[:n], to_weight, to_bias)
        ctx.save_for_backward(*found)
        ctx.dtypes = (features.dtype, weight.dtype, None if bias is None else bias.dtype)
        total, plain = total.clone(), likelihood.clone()
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
        return (*found, None, None, None, None)


def _into_gradients(
    scores: Tensor,
    shift: Tensor | None,
    wanted: tuple[Tensor, Tensor],
    smoothing: float,
    to_bias: Tensor | None,
    needed: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Replace logits by the gradient of each row's loss, in place.

    The loss is ``logsumexp - (1 - smoothing) * reference logit``. Its gradient is stored multiplied
    by the row's sum of exponentials. So the gradient at the reference token, which may be close to
    0, is a difference of two float32 numbers before rounding, and no pass over the vocabulary is
    needed to divide.

    Args:
        scores: Logits without the bias, ``(tokens, vocabulary)``.
        shift: The bias, or None.
        wanted: Targets, int64 ``(tokens,)``, and their mask.
        smoothing: As for `token_loss`.
        to_bias: Tensor to which the gradient of the bias is added; None if no bias is trained.
        needed: Whether gradients are needed; else the logits are lost.

    Returns:
        For each row the logsumexp, the logit of its target, and the factor by which the caller must
        multiply the row's gradient, 0 for an ignored target.
    """
    targets, mask = wanted
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    normalisers, reference, scale = (
        torch.empty(len(scores), 1, dtype=wide, device=scores.device) for _ in range(3)
    )
    step = _BLOCK if scores.device.type == "cpu" else max(1, len(scores))
    for begin in range(0, len(scores), step):
        block = slice(begin, begin + step)
        columns = targets[block].unsqueeze(1)
        logits = scores[block].to(wide)  # the same memory if that is their dtype
        if shift is not None:
            logits += shift
        reference[block] = logits.gather(1, columns)
        highest = logits.amax(1, keepdim=True)
        sums = logits.sub_(highest).exp_().sum(1, keepdim=True)
        normalisers[block] = sums.log() + highest
        scale[block] = mask[block].unsqueeze(1) / sums
        if not needed:
            continue
        logits.scatter_add_(1, columns, (smoothing - 1.0) * sums)
        if to_bias is not None:
            to_bias.addmv_(logits.t(), scale[block].squeeze(1))
        if logits.dtype != scores.dtype:
            scores[block] = logits
    return normalisers.squeeze(1), reference.squeeze(1), scale.squeeze(1)


def _add_smoothing(
    smoothing: float,
    excluded: int | None,
    layer: tuple[Tensor, Tensor | None],
    known: Tensor,
    counts: Tensor,
    reference: Tensor,
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> Tensor:
    """Return the loss's smoothing term, and add its gradient to the existing gradients.

    Every token but the excluded one gets the same share, so only the sum of all logits matters.

    Args:
        smoothing: As for `token_loss`.
        excluded: As for `token_loss`.
        layer: Weight ``(vocabulary, size)`` and bias of the output layer.
        known: Features, ``(tokens, size)``, in float32 or wider.
        counts: 1 for each token, 0 for an ignored one.
        reference: The logit of each target.
        gradients: Gradients of features, weight and bias; None for a tensor that is not trained.
    """
    matrix, shift = layer
    spread = smoothing / (len(matrix) - (excluded is not None))
    columns = matrix.sum(0, dtype=known.dtype)
    if excluded is not None:
        columns = columns - matrix[excluded]
    others = known @ columns
    if shift is not None:
        others += shift.sum() if excluded is None else shift.sum() - shift[excluded]
    to_features, to_weight, to_bias = gradients
    if to_features is not None:
        to_features.addr_(counts, columns, alpha=-spread)
    for gradient, each in ((to_weight, counts @ known), (to_bias, counts.sum())):
        if gradient is not None:
            gradient.sub_(spread * each)
            if excluded is not None:
                gradient[excluded] += spread * each
    return ((smoothing * reference - spread * others) * counts).sum()
