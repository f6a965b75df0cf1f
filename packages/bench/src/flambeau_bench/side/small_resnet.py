"""``SmallResNet``: the network of the cases on Fashion-MNIST."""

from __future__ import annotations

from torch import Tensor, nn

CLASSES = 10


class SmallResNet(nn.Module):
    """Four convolutions, the last two with a residual connection around them, and a linear head.

    Args:
        width: Channels of the first convolution; the others have twice as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        wide = 2 * width
        self.stem = nn.Sequential(
            *_convolution(1, width), nn.MaxPool2d(2), *_convolution(width, wide), nn.MaxPool2d(2)
        )
        self.block = nn.Sequential(*_convolution(wide, wide), *_convolution(wide, wide))
        self.head = nn.Linear(wide, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(batch, 10)`` for images ``(batch, 1, 28, 28)``."""
        x = self.stem(x)
        x = x + self.block(x)
        return self.head(x.mean(dim=(2, 3)))


def _convolution(n_in: int, n_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    ]
