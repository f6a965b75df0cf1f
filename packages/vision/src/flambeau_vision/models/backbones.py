"""torchvision's networks by name, cut before their last layer and given a head of our own.

The cut is one rule for every family: the last linear layer goes, all before it is the *body* and
keeps torchvision's own ``forward``. So the features are, to the bit, what the uncut network hands
to its classifier. What differs between families (where the first convolution sits, which modules
make a stage) is the table in `layouts.py`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_vision.models.layouts import LAYOUTS, Layout
from flambeau_vision.models.weights import (
    WeightsRecord,
    adapt_channels,
    load_checked,
    read_weights,
    weights_record,
)

__all__ = ["BACKBONE_NAMES", "Backbone", "backbone"]


BACKBONE_NAMES = tuple(LAYOUTS)


class PatchTokens(nn.Module):
    """Turn a picture into ViT's tokens; holds all that comes before the first block.

    torchvision keeps the class token and the positions as bare parameters of modules that also
    hold the blocks; here they have a module of their own, so that the stem is a group like others.

    Args:
        vit: torchvision's ``VisionTransformer``, whose parameters are taken over.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        encoder = vit.get_submodule("encoder")
        self.patches = cast(nn.Conv2d, vit.get_submodule("conv_proj"))
        self.class_token = cast(nn.Parameter, vit.class_token)
        self.positions = cast(nn.Parameter, encoder.pos_embedding)
        self.dropout = encoder.get_submodule("dropout")
        self.image_size = cast(int, vit.image_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return tokens (batch, 1 + patches, features) of images (batch, channels, size, size)."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise InputError(
                f"This vit_b_16 was built for square pictures of {self.image_size} pixels and got "
                f"{tuple(images.shape[-2:])}. Resize them, or build it with their image_size."
            )
        patches = self.patches(images).flatten(2).transpose(1, 2)  # (batch, patches, features)
        token = self.class_token.expand(images.shape[0], -1, -1)  # (batch, 1, features)
        return self.dropout(torch.cat([token, patches], dim=1) + self.positions)


class ViTBody(nn.Module):
    """Give the class token's features after the last block of torchvision's ViT.

    Args:
        vit: torchvision's ``VisionTransformer``, whose parameters are taken over.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        encoder = vit.get_submodule("encoder")
        self.tokens = PatchTokens(vit)
        self.blocks = nn.Sequential(*encoder.get_submodule("layers").children())
        self.norm = encoder.get_submodule("ln")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (batch, n_features) of images (batch, channels, size, size)."""
        return self.norm(self.blocks(self.tokens(images)))[:, 0]


class Backbone(nn.Module):
    """Classify or regress with a torchvision network: body → pooled features → linear head.

    Args:
        body: Images (batch, channels, height, width) → features (batch, n_features).
        n_features: Width of the features.
        n_outputs: Width of the outputs.
        layout: Where the body's groups are.
        record: What the starting weights say about their pictures; None from scratch.
        dropout: Share of the features left out while training, before the head.

    Attributes:
        body: The network up to its pooled features.
        head: The new linear layer.
        record: As given.
    """

    def __init__(
        self,
        *,
        body: nn.Module,
        n_features: int,
        n_outputs: int,
        layout: Layout,
        record: WeightsRecord | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(n_features, n_outputs)
        # Small and centred: the first loss is that of a uniform guess, whatever the features' size.
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.record = record
        self._layout = layout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return outputs (batch, n_outputs) of images (batch, channels, height, width)."""
        features = self.body(images)
        return self.head(features if self.dropout is None else self.dropout(features))

    def layer_groups(self) -> dict[str, list[nn.Module]]:
        """Return the modules from stem to head; every parameter is in exactly one group."""
        groups = {
            name: [self.body.get_submodule(path) for path in paths]
            for name, paths in self._layout.groups
        }
        return {**groups, "head": [self.head]}


def backbone(
    *,
    name: str,
    in_channels: int,
    n_outputs: int,
    image_size: int | None = None,
    weights: str | None = None,
    dropout: float = 0.0,
) -> Backbone:
    """Return torchvision's network ``name`` with ``in_channels`` inputs and ``n_outputs`` outputs.

    All arguments are plain values, so an exported model is rebuilt from them; whoever does so
    passes ``weights=None``, since the export brings its own tensors.

    Args:
        name: One of `BACKBONE_NAMES`.
        in_channels: Channels of the pictures; with other than 3 the stem is adapted
            (see `adapt_channels`).
        n_outputs: Classes, or numbers to predict.
        image_size: Side of the pictures in pixels. Only ``vit_b_16`` needs it (a multiple of 16).
        weights: None from scratch; a torchvision name (``"DEFAULT"``, ``"IMAGENET1K_V1"``); or
            the path of a ``.pth`` or ``.safetensors`` file, torchvision's or one of ours. The head
            in the file is not used.
        dropout: Share of the features left out while training, before the head.

    Raises:
        ArgumentError: There is no backbone of that name.
        InputError: The size does not suit the network, or the weights cannot be had or do not fit.

    Example:
        >>> model = backbone(name="resnet18", in_channels=1, n_outputs=10, image_size=64)
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """
    if name not in LAYOUTS:
        raise ArgumentError(f"There is no backbone {name!r}. {nearest(name, BACKBONE_NAMES)}")
    layout = LAYOUTS[name]
    # Read before building: a wrong path is told at once, not after a large network was set up.
    state = None if weights is None else read_weights(name, weights)
    network = _uncut(name, image_size)
    is_ours = state is not None and all(key.startswith(("body.", "head.")) for key in state)
    if state is not None and not is_ours:
        _load_published(network, state, head=layout.head, source=f"{weights}")
    head = cast(nn.Linear, network.get_submodule(layout.head))
    network.set_submodule(layout.head, nn.Identity())
    body = ViTBody(network) if name == "vit_b_16" else network
    if state is not None and is_ours:
        _load_ours(body, state, stem=layout.stem, source=f"{weights}")
    _adapt_stem(body, layout.stem, in_channels)
    return Backbone(
        body=body,
        n_features=head.in_features,
        n_outputs=n_outputs,
        layout=layout,
        record=weights_record(name, weights),
        dropout=dropout,
    )


def _uncut(name: str, image_size: int | None) -> nn.Module:
    """Return torchvision's network with random weights, for pictures of ``image_size``."""
    from torchvision import models  # imports in 1.5 s, so only where a network is built

    if name != "vit_b_16":
        return models.get_model(name, weights=None)
    if image_size is None or image_size % 16 or image_size <= 0:
        raise InputError(
            f"vit_b_16 cuts pictures into patches of 16 pixels, so image_size has to be a multiple "
            f"of 16; got {image_size}. Give e.g. image_size=224."
        )
    return models.get_model(name, weights=None, image_size=image_size)


def _load_published(
    network: nn.Module, state: dict[str, torch.Tensor], *, head: str, source: str
) -> None:
    """Load a file in torchvision's layout into the uncut network; the file's head is left out."""
    prefix = f"{head}."
    own_head = {key: value for key, value in network.state_dict().items() if key.startswith(prefix)}
    state = {key: value for key, value in state.items() if not key.startswith(prefix)}
    positions = state.get("encoder.pos_embedding")
    image_size = getattr(network, "image_size", None)
    if positions is not None and positions.ndim == 3 and image_size is not None:
        from torchvision.models.vision_transformer import interpolate_embeddings

        # A ViT trained at another size: its positions are stretched to the new grid.
        state = dict(interpolate_embeddings(image_size, 16, state))  # pyright: ignore[reportArgumentType]
    load_checked(network, {**state, **own_head}, source=source)


def _load_ours(body: nn.Module, state: dict[str, torch.Tensor], *, stem: str, source: str) -> None:
    """Load a file that a `Backbone` wrote; its head is left out, its channels are kept."""
    state = {k.removeprefix("body."): v for k, v in state.items() if k.startswith("body.")}
    first = state.get(f"{stem}.weight")
    if first is not None and first.ndim == 4:
        _adapt_stem(body, stem, first.shape[1])
    load_checked(body, state, source=source)


def _adapt_stem(body: nn.Module, path: str, in_channels: int) -> None:
    """Put a first convolution for ``in_channels`` in place, its weight adapted from the old one."""
    old = cast(nn.Conv2d, body.get_submodule(path))
    if old.in_channels == in_channels:
        return
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        cast(tuple[int, int], old.kernel_size),
        stride=cast(tuple[int, int], old.stride),
        padding=cast(tuple[int, int], old.padding),
        bias=old.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(adapt_channels(old.weight, in_channels))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    body.set_submodule(path, new)
