"""Module paths in torchvision's networks: the first convolution, the stages, the head."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LAYER_PATHS", "LayerPaths"]


@dataclass(frozen=True)
class LayerPaths:
    """Dotted module paths in one family of torchvision's networks.

    Attributes:
        stem: The first convolution.
        head: The last linear layer.
        groups: (name, paths) from stem to the last stage; together they contain every parameter
            except the head's.
    """

    stem: str
    head: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]


def _resnet() -> LayerPaths:
    stages = tuple((f"layer{number}", (f"layer{number}",)) for number in range(1, 5))
    return LayerPaths("conv1", "fc", (("stem", ("conv1", "bn1")), *stages))


def _features(stem: str, head: str, *stages: range, last: tuple[str, ...] = ()) -> LayerPaths:
    """Return the paths in a family that has all blocks in one list called ``features``.

    Args:
        stem: Path of the first convolution, in ``features.0``.
        head: Path of the last linear layer.
        stages: Positions of the blocks of each stage; a stage ends before the resolution is halved.
        last: Modules between the features and the head; they belong to the last stage.
    """
    groups: list[tuple[str, tuple[str, ...]]] = [("stem", ("features.0",))]
    for number, blocks in enumerate(stages, start=1):
        paths = tuple(f"features.{block}" for block in blocks)
        groups.append((f"stage{number}", paths + (last if number == len(stages) else ())))
    return LayerPaths(stem, head, tuple(groups))


LAYER_PATHS: dict[str, LayerPaths] = {
    "resnet18": _resnet(),
    "resnet34": _resnet(),
    "resnet50": _resnet(),
    "convnext_tiny": _features(
        "features.0.0",
        "classifier.2",
        *(range(1, 2), range(2, 4), range(4, 6), range(6, 8)),
        last=("classifier.0",),
    ),
    "efficientnet_b0": _features(
        "features.0.0",
        "classifier.1",
        *(range(1, 2), range(2, 3), range(3, 4), range(4, 6), range(6, 9)),
    ),
    "mobilenet_v3_small": _features(
        "features.0.0",
        "classifier.3",
        *(range(1, 2), range(2, 4), range(4, 9), range(9, 13)),
        last=("classifier.0",),
    ),
    "mobilenet_v3_large": _features(
        "features.0.0",
        "classifier.3",
        *(range(1, 2), range(2, 4), range(4, 7), range(7, 13), range(13, 17)),
        last=("classifier.0",),
    ),
    "vit_b_16": LayerPaths(
        "embedding.projection",
        "heads.head",
        (
            ("stem", ("embedding",)),
            *(
                (f"blocks{first + 1}to{first + 3}", tuple(f"blocks.{first + i}" for i in range(3)))
                for first in (0, 3, 6)
            ),
            ("blocks10to12", ("blocks.9", "blocks.10", "blocks.11", "norm")),
        ),
    ),
    "swin_t": _features(
        "features.0.0",
        "head",
        *(range(1, 2), range(2, 4), range(4, 6), range(6, 8)),
        last=("norm",),
    ),
    "regnet_y_400mf": LayerPaths(
        "stem.0",
        "fc",
        (("stem", ("stem",)), *((f"block{n}", (f"trunk_output.block{n}",)) for n in range(1, 5))),
    ),
    "shufflenet_v2_x1_0": LayerPaths(
        "conv1.0",
        "fc",
        (
            ("stem", ("conv1",)),
            ("stage2", ("stage2",)),
            ("stage3", ("stage3",)),
            ("stage4", ("stage4", "conv5")),
        ),
    ),
}
