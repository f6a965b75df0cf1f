"""The measured defaults of each architecture, in one table.

Figures that nobody measured yet say so in their reason and carry less confidence.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How an architecture trains well under AdamW and one-cycle.

    Attributes:
        lr: Peak learning rate from scratch.
        lr_pretrained: Peak learning rate from published weights.
        weight_decay: From scratch and from weights.
        images_seen: Samples (rows × epochs) after which more gained little, on photographs or
            letters of the size the network is for; decides the epochs.
        bf16_gain: What bf16 gained where it was measured, in words; None where it was not.
        measured: Where the figures come from.
    """

    lr: float
    lr_pretrained: float
    weight_decay: float
    images_seen: int
    bf16_gain: str | None = None
    measured: str = "the usual recipe of the family, not measured here"


_RESNET = Recipe(
    2e-3,
    5e-4,
    0.05,
    200_000,
    "2.0× a training step of resnet18 at 32×32 on an AVX512-bf16 CPU",
)
_CONVNET = Recipe(2e-3, 5e-4, 0.05, 300_000)
_TRANSFORMER = Recipe(5e-4, 1e-4, 0.05, 600_000)

RECIPES: dict[str, Recipe] = {
    "small_cnn": Recipe(
        1e-2,
        1e-2,
        0.05,
        50_000,
        "1.3× to 1.9× a training step on an AVX512-bf16 CPU, at the same accuracy",
        "Fashion-MNIST after 3 epochs, valid: 0.922 at 5e-3, 0.924 at 1e-2, 0.920 at 2e-2",
    ),
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "convnext_tiny": _TRANSFORMER,
    "efficientnet_b0": _CONVNET,
    "mobilenet_v3_small": _CONVNET,
    "mobilenet_v3_large": _CONVNET,
    "regnet_y_400mf": _CONVNET,
    "shufflenet_v2_x1_0": _CONVNET,
    "vit_b_16": _TRANSFORMER,
    "swin_t": _TRANSFORMER,
}

UNKNOWN = Recipe(1e-3, 1e-3, 0.01, 200_000)
"""For a module of the user's own."""

BF16_GAIN_OF_OTHERS = (
    "Networks for pictures gained 1.3× to 2.0× a step wherever it was measured (AVX512-bf16 CPUs; "
    "1.7× with four convolutions at 28×28, at the same accuracy); yours was not measured."
)
"""Why a module of the user's own trains in bf16."""

FEWEST_EPOCHS, MOST_EPOCHS = 5, 40

ACCELERATOR_FACTOR = 4
"""How many times ``images_seen`` an accelerator trains: it is there in a fraction of the time."""
