"""Check that a network computes what the loss in chunks and packed rows assume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from flambeau.errors import InputError

if TYPE_CHECKING:
    from flambeau_text.huggingface.causal_lm import CausalLM

_TOKENS = ((1, 2, 3, 4), (5, 4, 3))
_TOLERANCE = 1e-3  # of the largest logit; half precision has 1e-3


def window_of(config: Any) -> int | None:
    """Return the number of tokens that a token attends to, where a layer limits it; else None."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window)


@torch.no_grad()
def check_network(model: CausalLM) -> None:
    """Check that the output layer gives the logits, and packed texts the same as single ones.

    Networks that change logits after the output layer, or that do not obey a mask of attention,
    would be trained wrongly without an error.

    Raises:
        InputError: The network computes otherwise.
    """
    parameter = next(model.parameters())
    if parameter.is_meta:
        return
    training = model.training
    model.eval()
    try:
        first, second = (torch.tensor([each], device=parameter.device) for each in _TOKENS)
        wanted = [model.causal(input_ids=each).logits for each in (first, second)]
        scale = max(float(each.abs().max()) for each in wanted)
        alone = model.output(model.features(first).features)
        _compare(alone, wanted[0], scale, model, "changes its logits after the output layer")
        documents = torch.tensor([[1] * first.shape[1] + [2] * second.shape[1]])
        packed = model.packed_features(
            torch.cat([first, second], 1), documents.to(parameter.device)
        )
        logits = model.output(packed.features)
        both = torch.cat(wanted, 1)
        _compare(logits, both, scale, model, "does not obey a mask of attention")
    finally:
        model.train(training)


def _compare(
    found: torch.Tensor, wanted: torch.Tensor, scale: float, model: CausalLM, reason: str
) -> None:
    if float((found - wanted).abs().max()) > _TOLERANCE * max(scale, 1e-6):
        raise InputError(
            f"{type(model.causal).__name__} is not supported: it {reason}, so it would be trained "
            "wrongly. Llama, Qwen, Mistral, SmolLM, GPT-2 and similar decoders are."
        )
