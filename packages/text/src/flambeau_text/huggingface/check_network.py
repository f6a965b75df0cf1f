"""Check that a network computes what the loss in chunks and packed rows assume."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flambeau.errors import FlambeauWarning, InputError

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


def check_loaded(folder: Path, network: Any, loaded: Mapping[str, Any]) -> None:
    """Check that the weights in a folder are those of the network.

    Args:
        folder: The folder.
        network: The network that was loaded from it.
        loaded: What transformers found: "missing_keys", "mismatched_keys" and "unexpected_keys".

    Raises:
        InputError: A weight is missing, so that the network has random numbers in its place.

    Warns:
        FlambeauWarning: [unused-weights] The network has no place for some of the weights.
    """
    what = type(network).__name__
    missing = [*loaded["missing_keys"], *(each[0] for each in loaded["mismatched_keys"])]
    if missing:
        raise InputError(
            f"The weights in {folder} are not those of a {what}: {len(missing):,} are missing or "
            f"have another shape, for example {min(missing)}. Give the complete folder of a "
            "language model, not that of a classifier or of an encoder alone."
        )
    if unused := sorted(loaded["unexpected_keys"]):
        warnings.warn(
            f"[unused-weights] {len(unused):,} of the weights in {folder} are not used, because a "
            f"{what} with its config.json has no place for them, for example {unused[0]}.",
            FlambeauWarning,
            stacklevel=3,
        )


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
