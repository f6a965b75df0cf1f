"""The variants of ``translation``: which model, in which precision, and what the loop calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TranslationVariant:
    """The model that both sides train, and the forward pass of the padded loop.

    Attributes:
        architecture: Name of a model of flambeau_text.
        precision: "fp32" or "bf16".
        plain: Whether the loop's forward pass is written in plain PyTorch; if not, it calls
            flambeau's.
    """

    architecture: str
    precision: str
    plain: bool = True


VARIANTS = {
    f"{architecture} {precision}{label}": TranslationVariant(architecture, precision, plain)
    for architecture, label, plain in (
        ("rnn", "", True),
        ("rnn", ", flambeau forward", False),
        # flambeau's Transformer is plain PyTorch.
        ("transformer", "", True),
    )
    for precision in ("fp32", "bf16")
}
"""The variants by name on the command line."""
