"""The variants of ``translation``: the model, its precision, and the padded loop's forward pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TranslationVariant:
    """The model that both sides train, and the forward pass of the padded loop.

    Attributes:
        architecture: Name of a model of flambeau_text.
        precision: "fp32" or "bf16".
        plain: Whether the padded loop's forward pass is written in plain PyTorch; if not, the loop
            calls flambeau's.
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
