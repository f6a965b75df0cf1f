"""Training recipes: the default hyperparameters of each architecture, in one table.

If a figure was not measured, the plan's reason says so and its confidence is lower.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of an architecture with AdamW and the one-cycle schedule.

    Attributes:
        lr: Peak learning rate from scratch.
        lr_pretrained: Peak learning rate from pretrained weights.
        weight_decay: Weight decay, both from scratch and from pretrained weights.
        n_samples: Training samples (rows × epochs) after which further training improved the result
            little; it determines the number of epochs. Measured on photographs or letters of the
            usual size.
        bf16_gain: The measured speed-up of bf16, for messages; None if it was not measured.
        measured: How the values were measured, for messages.
    """

    lr: float
    lr_pretrained: float
    weight_decay: float
    n_samples: int
    bf16_gain: str | None = None
    measured: str = "the usual recipe of this family, not measured here"


_RESNET = Recipe(
    2e-3,
    5e-4,
    0.05,
    200_000,
    "2.0× in a training step of resnet18 at 32×32 on an AVX512-bf16 CPU",
)
_CONVNET = Recipe(2e-3, 5e-4, 0.05, 300_000)
_TRANSFORMER = Recipe(5e-4, 1e-4, 0.05, 600_000)

RECIPES: dict[str, Recipe] = {
    "small_cnn": Recipe(
        1e-2,
        1e-2,
        0.05,
        50_000,
        "1.3× to 1.9× in a training step on an AVX512-bf16 CPU, at the same accuracy",
        "Fashion-MNIST, validation accuracy after 3 epochs: 0.922 at lr 5e-3, 0.924 at 1e-2, 0.920 "
        "at 2e-2",
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
"""The recipe for custom modules."""

BF16_GAIN_OF_CUSTOM_MODULES = (
    "Networks for images gained 1.3× to 2.0× per step in all measurements (AVX512-bf16 CPUs; 1.7× "
    "with four convolutions at 28×28, at the same accuracy); this module was not measured."
)
"""The reason given in messages for training a custom module in bf16."""

MIN_EPOCHS, MAX_EPOCHS = 5, 40

MAX_EPOCHS_IN_BUDGET = 200
"""Up to how many epochs ``fit_auto`` uses a time budget."""

LONG_RUN = 80
"""From this number of epochs a stronger augmentation is chosen."""

ACCELERATOR_FACTOR = 4
"""On an accelerator ``n_samples`` is multiplied by this factor, because steps are faster there."""
