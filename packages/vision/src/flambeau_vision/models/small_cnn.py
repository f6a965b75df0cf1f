"""A small, fast convolutional network for training on small images from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from flambeau.errors import InputError

__all__ = ["SmallCNN", "small_cnn"]

# Up to this side a stem of stride 2 outputs at most 32 x 32; above it the stem has stride 4.
STRIDE_2_UP_TO = 64

_HEAD_SCALE = 0.1  # of torch's default initial weights of a linear layer


class ConvNorm(nn.Module):
    """Convolution, batch norm and ReLU; optionally halves the resolution.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Side of the kernel; odd.
        stride: 2 halves height and width by skipping positions.
        pool: True halves height and width by 2 x 2 max pooling (rounded up).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        pool: bool = False,
    ) -> None:
        super().__init__()
        # No bias: the following norm would subtract it.
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False
        )
        # Before the norm, so that norm and ReLU process a quarter of the positions. Rounding up
        # supports images of any size, down to one pixel.
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if pool else nn.Identity()
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, …, …)."""
        return F.relu(self.norm(self.pool(self.conv(images))))


class Residual(nn.Module):
    """Residual block of two convolutions; keeps the shape.

    Args:
        channels: Input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        return images + self.second(self.first(images))


class SmallCNN(nn.Module):
    """A network for small images: stem → three stages → pooled features → linear head.

    A ResNet-9 narrow enough to train in seconds per epoch on two CPU cores: the strided stem
    removes three quarters of the positions, each stage except the first halves the resolution and
    doubles the channels, and each ends with a residual block. With the default width it has 272
    thousand parameters for one channel and ten classes.

    Args:
        in_channels: Channels of the images.
        n_outputs: Number of classes or regression targets.
        width: Channels after the stem; the features are four times as wide.
        stem_stride: 2 for small images, 4 for photographs (see `small_cnn`).
        dropout: Dropout probability of the features before the head.

    Attributes:
        n_features: Width of the features before the head.

    Source:
        The ResNet-9 of D. Page, "How to train your ResNet" (https://github.com/davidcpage/
        cifar10-fast), and the pooling before the norm of K. Jordan, "94% on CIFAR-10 in 3.29
        seconds" (https://arxiv.org/abs/2404.00498). This one has a strided stem and a third
        residual block, and is 24 channels wide rather than 64.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        n_outputs: int,
        width: int = 24,
        stem_stride: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if stem_stride not in (2, 4):
            raise InputError(f"stem_stride has to be 2 or 4, got {stem_stride}.")
        stem = [ConvNorm(in_channels, width, kernel_size=5, stride=2)]
        if stem_stride == 4:
            stem.append(ConvNorm(width, width, pool=True))
        self.stem = nn.Sequential(*stem)
        self.stage1 = Residual(width)
        self.stage2 = nn.Sequential(ConvNorm(width, 2 * width, pool=True), Residual(2 * width))
        self.stage3 = nn.Sequential(ConvNorm(2 * width, 4 * width, pool=True), Residual(4 * width))
        self.n_features = 4 * width
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.head = nn.Linear(self.n_features, n_outputs)
        # The pooled activations are far above 1: with torch's default weights the initial loss is
        # 3.9 for 12 classes, where a uniform prediction has ln 12 = 2.48.
        with torch.no_grad():
            self.head.weight.mul_(_HEAD_SCALE)
            self.head.bias.zero_()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return (batch, n_features): the maximum activation of each channel."""
        maps = self.stage3(self.stage2(self.stage1(self.stem(images))))
        # (batch, n_features, height / 8, width / 8) -> (batch, n_features)
        return F.adaptive_max_pool2d(maps, 1).flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return outputs (batch, n_outputs) of images (batch, in_channels, height, width)."""
        features = self.features(images)
        return self.head(features if self.dropout is None else self.dropout(features))

    def layer_groups(self) -> dict[str, list[nn.Module]]:
        """Return the modules from stem to head; every parameter is in exactly one group."""
        names = ("stem", "stage1", "stage2", "stage3", "head")
        return {name: [self.get_submodule(name)] for name in names}


def small_cnn(
    *,
    in_channels: int,
    n_outputs: int,
    image_size: int | Sequence[int],
    width: int = 24,
    dropout: float = 0.0,
) -> SmallCNN:
    """Return a `SmallCNN` with a stem for images of ``image_size``.

    All arguments are plain numbers, from which an exported model is rebuilt. The network also
    accepts other sizes than ``image_size``, which only determines the stem's stride.

    Args:
        in_channels: Channels of the images.
        n_outputs: Number of classes or regression targets.
        image_size: Side of the images in pixels, or height and width. Above 64 the stem has stride
            4, so that an image of 128 pixels costs as much as one of 64.
        width: Channels after the stem.
        dropout: Dropout probability of the features before the head.
        dropout: Share of the features left out while training, before the head.

    Example:
        >>> model = small_cnn(in_channels=1, n_outputs=10, image_size=28)
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    longer = image_size if isinstance(image_size, int) else max(image_size)
    stem_stride = 2 if longer <= STRIDE_2_UP_TO else 4
    return SmallCNN(
        in_channels=in_channels,
        n_outputs=n_outputs,
        width=width,
        stem_stride=stem_stride,
        dropout=dropout,
    )
