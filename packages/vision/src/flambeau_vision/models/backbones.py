"""torchvision's networks by name, with the last layer replaced by a new head.

The same rule applies to every family: the last linear layer is removed; everything before it is the
*body* and keeps torchvision's ``forward``. So the features are bitwise equal to the classifier's
input in the original network. What differs between families (the path of the first convolution,
the modules of each stage) is in the table of `layer_paths.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_vision.models.layer_paths import LAYER_PATHS, LayerPaths
from flambeau_vision.models.weights import (
    WeightsRecord,
    adapt_channels,
    load_checked,
    read_weights,
    weights_record,
)

__all__ = ["BACKBONE_NAMES", "Backbone", "backbone"]


BACKBONE_NAMES = tuple(LAYER_PATHS)


class PatchEmbedding(nn.Module):
    """ViT's patch embedding: all layers before the first block.

    In torchvision the class token and the position embedding are parameters of modules that also
    contain the blocks; here they are in a separate module, so that the stem is a layer group.

    Args:
        vit: torchvision's ``VisionTransformer``; its parameters are used, not copied.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        encoder = vit.get_submodule("encoder")
        self.projection = cast(nn.Conv2d, vit.get_submodule("conv_proj"))
        self.class_token = cast(nn.Parameter, vit.class_token)
        self.position_embedding = cast(nn.Parameter, encoder.pos_embedding)
        self.dropout = encoder.get_submodule("dropout")
        self.image_size = cast(int, vit.image_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, size, size) to tokens (batch, 1 + patches, features)."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise InputError(
                f"This vit_b_16 was built for images of {self.image_size}×{self.image_size} pixels "
                f"and got {tuple(images.shape[-2:])}. Resize the images, or build the model with "
                "their image_size."
            )
        patches = self.projection(images).flatten(2).transpose(1, 2)  # (batch, patches, features)
        token = self.class_token.expand(images.shape[0], -1, -1)  # (batch, 1, features)
        return self.dropout(torch.cat([token, patches], dim=1) + self.position_embedding)


class ViTBody(nn.Module):
    """torchvision's ViT without its head: the class token's features after the last block.

    Args:
        vit: torchvision's ``VisionTransformer``; its parameters are used, not copied.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        encoder = vit.get_submodule("encoder")
        self.embedding = PatchEmbedding(vit)
        self.blocks = nn.Sequential(*encoder.get_submodule("layers").children())
        self.norm = encoder.get_submodule("ln")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, size, size) to features (batch, n_features)."""
        return self.norm(self.blocks(self.embedding(images)))[:, 0]


class Backbone(nn.Module):
    """A torchvision network with a new head: body → pooled features → linear head.

    Args:
        body: Images (batch, channels, height, width) → features (batch, n_features).
        n_features: Width of the features.
        n_outputs: Width of the outputs.
        paths: Module paths of the body's layer groups.
        record: Preprocessing of the pretrained weights; None from scratch.
        dropout: Dropout probability of the features before the head.

    Attributes:
        body: The network up to its pooled features.
        head: The new linear layer.
        record: The argument ``record``.
    """

    def __init__(
        self,
        *,
        body: nn.Module,
        n_features: int,
        n_outputs: int,
        paths: LayerPaths,
        record: WeightsRecord | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(n_features, n_outputs)
        # Small weights: the initial loss is that of a uniform prediction for features of any scale.
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.record = record
        self._paths = paths

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, height, width) to outputs (batch, n_outputs)."""
        features = self.body(images)
        return self.head(features if self.dropout is None else self.dropout(features))

    def layer_groups(self) -> dict[str, list[nn.Module]]:
        """Return the modules from stem to head; every parameter is in exactly one group."""
        groups = {
            name: [self.body.get_submodule(path) for path in paths]
            for name, paths in self._paths.groups
        }
        return {**groups, "head": [self.head]}


def backbone(
    *,
    name: str,
    in_channels: int,
    n_outputs: int,
    image_size: int | Sequence[int] | None = None,
    weights: str | None = None,
    dropout: float = 0.0,
) -> Backbone:
    """Return torchvision's network ``name`` with ``in_channels`` inputs and ``n_outputs`` outputs.

    All arguments are plain values, from which an exported model is rebuilt (with
    ``weights=None``, because the export contains the tensors).

    Args:
        name: One of `BACKBONE_NAMES`.
        in_channels: Channels of the images; for other than 3 the stem is adapted
            (see `adapt_channels`).
        n_outputs: Number of classes or regression targets.
        image_size: Side of the images in pixels, or height and width. Only ``vit_b_16`` needs it:
            one side, a multiple of 16.
        weights: None from scratch; a torchvision name (``"DEFAULT"``, ``"IMAGENET1K_V1"``); or
            the path of a ``.pth`` or ``.safetensors`` file, of torchvision's network or of a
            `Backbone`. The head in the file is not used.
        dropout: Dropout probability of the features before the head.

    Raises:
        ArgumentError: The name is unknown.
        InputError: The size is invalid for the network, or the weights cannot be read, downloaded
            or loaded.

    Example:
        >>> model = backbone(name="resnet18", in_channels=1, n_outputs=10, image_size=64)
        >>> model(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """
    if name not in LAYER_PATHS:
        raise ArgumentError(f"Unknown backbone {name!r}. {did_you_mean(name, BACKBONE_NAMES)}")
    paths = LAYER_PATHS[name]
    # Read before building, so that a wrong path fails before a large network is initialised.
    state = None if weights is None else read_weights(name, weights)
    network = _torchvision_model(name, image_size)
    is_backbone_file = state is not None and all(
        key.startswith(("body.", "head.")) for key in state
    )
    if state is not None and not is_backbone_file:
        _load_published(network, state, head=paths.head, source=f"{weights}")
    head = cast(nn.Linear, network.get_submodule(paths.head))
    network.set_submodule(paths.head, nn.Identity())
    body = ViTBody(network) if name == "vit_b_16" else network
    if state is not None and is_backbone_file:
        _load_backbone_file(body, state, stem=paths.stem, source=f"{weights}")
    _adapt_stem(body, paths.stem, in_channels)
    return Backbone(
        body=body,
        n_features=head.in_features,
        n_outputs=n_outputs,
        paths=paths,
        record=weights_record(name, weights),
        dropout=dropout,
    )


def _torchvision_model(name: str, image_size: int | Sequence[int] | None) -> nn.Module:
    """Return torchvision's network with random weights, for images of ``image_size``."""
    from torchvision import models  # its import takes 1.5 s, so only when a network is built

    if name != "vit_b_16":
        return models.get_model(name, weights=None)
    if not isinstance(image_size, int) or image_size % 16 or image_size <= 0:
        raise InputError(
            f"vit_b_16 divides square images into patches of 16 pixels, so image_size has to be "
            f"one number, a multiple of 16; got {image_size}. Use for example image_size=224."
        )
    return models.get_model(name, weights=None, image_size=image_size)


def _load_published(
    network: nn.Module, state: dict[str, torch.Tensor], *, head: str, source: str
) -> None:
    """Load a torchvision state_dict into the whole network; the file's head is not used."""
    prefix = f"{head}."
    own_head = {key: value for key, value in network.state_dict().items() if key.startswith(prefix)}
    state = {key: value for key, value in state.items() if not key.startswith(prefix)}
    positions = state.get("encoder.pos_embedding")
    image_size = getattr(network, "image_size", None)
    if positions is not None and positions.ndim == 3 and image_size is not None:
        from torchvision.models.vision_transformer import interpolate_embeddings

        # A ViT trained at another size: its position embedding is interpolated to the new grid.
        state = dict(interpolate_embeddings(image_size, 16, state))  # pyright: ignore[reportArgumentType]
    load_checked(network, {**state, **own_head}, source=source)


def _load_backbone_file(
    body: nn.Module, state: dict[str, torch.Tensor], *, stem: str, source: str
) -> None:
    """Load the state_dict of a `Backbone`; its head is not used, its channels are kept."""
    state = {k.removeprefix("body."): v for k, v in state.items() if k.startswith("body.")}
    first = state.get(f"{stem}.weight")
    if first is not None and first.ndim == 4:
        _adapt_stem(body, stem, first.shape[1])
    load_checked(body, state, source=source)


def _adapt_stem(body: nn.Module, path: str, in_channels: int) -> None:
    """Replace the first convolution by one for ``in_channels``, with adapted weights."""
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
