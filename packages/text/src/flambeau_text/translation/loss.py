"""Cross-entropy of words: smoothed as asked, without padding, and never all logits at once."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau_text.tokenization.tokenizer import PADDING_ID

_CHUNK = 512
"""Words whose logits are there at once: 16 MB for a vocabulary of 8,000, near the caches."""

_BLOCK = 32
"""Words whose logits are worked on at once on a CPU: 1 MB, which stays in the cache from the first
pass to the last: 16 ms instead of 27 for 480 words and a vocabulary of 5,800 (bf16, two cores)."""

_STEP = 64
"""Words of a chunk are filled up to a multiple of this where products are in bf16 or fp16."""


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
    and the casts of bf16 would write and read six times. Here each block of them is turned into
    its gradient while it is in the cache. What is the same for a whole row (the normaliser, the
    weight of the word) or for the whole vocabulary (smoothing) is not written into the logits: it
    multiplies the features, or is added to the products.
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
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        learns = [each is not None and each.requires_grad for each in (features, weight, bias)]
        n = len(features)
        with torch.autocast(device, enabled=False):
            # Whole steps of rows: bf16 products of a new shape are prepared anew, at a millisecond.
            spare = -n % _STEP if dtype != wide else 0
            ready = F.pad(features.detach().to(dtype), (0, 0, 0, spare))
            targets = F.pad(targets, (0, spare), value=PADDING_ID)
            matrix = weight.detach().to(dtype)
            shift = None if bias is None else bias.detach().to(wide)
            to_bias = None if shift is None or not learns[2] else torch.zeros_like(shift)
            to_weight: Tensor | None = None
            of_features: list[Tensor] = []
            of_rows: list[tuple[Tensor, Tensor, Tensor]] = []
            # Once for no words, too: a process may have no sentence of a batch.
            for begin in range(0, max(1, len(ready)), _CHUNK):
                part = slice(begin, begin + _CHUNK)
                scores = F.linear(ready[part], matrix)
                rows = _into_gradients(scores, shift, targets[part], smoothing, wide, to_bias)
                of_rows.append(rows)
                scale = rows[2].unsqueeze(1)
                if learns[0]:
                    of_features.append((scores @ matrix).to(wide).mul_(scale))
                if learns[1]:
                    found = scores.t() @ (ready[part] * scale).to(dtype)
                    to_weight = found.to(wide) if to_weight is None else to_weight.add_(found)
            to_features = torch.cat(of_features) if of_features else None
            normalisers, true, _ = (torch.cat(each) for each in zip(*of_rows, strict=True))
            counts = (targets != PADDING_ID).to(wide)
            likelihood = ((normalisers - true) * counts).sum()
            total = likelihood
            if smoothing:
                gradients = to_features, to_weight, to_bias
                known = ready.to(wide)
                total = total + _spread(smoothing, matrix, shift, known, counts, true, gradients)
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
        return (*found, None, None)


def _into_gradients(
    scores: Tensor,
    shift: Tensor | None,
    targets: Tensor,
    smoothing: float,
    wide: torch.dtype,
    to_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Turns products of features and words into the gradient of each row's loss, in place.

    The loss is ``logsumexp - (1 - smoothing) * true``. Its gradient is written times the sum of
    the row's exponentials: so the true word's own, which may be near 0, is the difference of two
    float32 before it is rounded, and no pass over all words divides them.

    Args:
        scores: Logits without the bias, ``(words, vocabulary)``.
        shift: The bias.
        targets: int64 ``(words,)``.
        smoothing: As for `token_loss`.
        wide: float32, or float64 where ``scores`` are.
        to_bias: Gets the bias's gradient added, where it learns.

    Returns:
        Of each row the logsumexp, the logit of its target, and what its gradient is still to be
        multiplied with, 0 for padding.
    """
    normalisers, true, scale = (
        torch.empty(len(scores), 1, dtype=wide, device=scores.device) for _ in range(3)
    )
    step = _BLOCK if scores.device.type == "cpu" else max(1, len(scores))
    for begin in range(0, len(scores), step):
        block = slice(begin, begin + step)
        places = targets[block].unsqueeze(1)
        logits = scores[block].to(wide)  # the same memory where that is its dtype
        if shift is not None:
            logits += shift
        true[block] = logits.gather(1, places)
        highest = logits.amax(1, keepdim=True)
        sums = logits.sub_(highest).exp_().sum(1, keepdim=True)
        normalisers[block] = sums.log() + highest
        scale[block] = (places != PADDING_ID) / sums
        logits.scatter_add_(1, places, (smoothing - 1.0) * sums)
        if to_bias is not None:
            to_bias.addmv_(logits.t(), scale[block].squeeze(1))
        if logits.dtype != scores.dtype:
            scores[block] = logits
    return normalisers.squeeze(1), true.squeeze(1), scale.squeeze(1)


def _spread(
    smoothing: float,
    matrix: Tensor,
    shift: Tensor | None,
    known: Tensor,
    counts: Tensor,
    true: Tensor,
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> Tensor:
    """What smoothing adds to the loss, its gradient added to those that are there already.

    Beside the share that the true word gives away, each word but padding gets the same, so only the
    sum of all their logits counts.

    Args:
        smoothing: As for `token_loss`.
        matrix: Of the last layer, ``(vocabulary, size)``.
        shift: Its bias.
        known: Features, ``(words, size)``, in float32 or wider.
        counts: 1 for each word that counts, else 0.
        true: The logit of each target.
        gradients: Of features, matrix and bias, where they learn.
    """
    spread = smoothing / (len(matrix) - 1)
    columns = matrix.sum(0, dtype=known.dtype) - matrix[PADDING_ID]
    others = known @ columns
    if shift is not None:
        others += shift.sum() - shift[PADDING_ID]
    to_features, to_weight, to_bias = gradients
    if to_features is not None:
        to_features.addr_(counts, columns, alpha=-spread)
    for gradient, each in ((to_weight, counts @ known), (to_bias, counts.sum())):
        if gradient is not None:
            gradient.sub_(spread * each)
            gradient[PADDING_ID] += spread * each
    return ((smoothing * true - spread * others) * counts).sum()
