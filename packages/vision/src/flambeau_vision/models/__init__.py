"""Models for images: a small network of flambeau, and networks of torchvision."""

from __future__ import annotations

from flambeau_vision.models.backbones import BACKBONE_NAMES, Backbone, backbone
from flambeau_vision.models.small_cnn import SmallCNN, small_cnn
from flambeau_vision.models.weights import WeightsRecord, weights_record

__all__ = [
    "BACKBONE_NAMES",
    "Backbone",
    "SmallCNN",
    "WeightsRecord",
    "backbone",
    "small_cnn",
    "weights_record",
]
