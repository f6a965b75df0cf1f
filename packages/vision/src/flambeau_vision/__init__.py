"""Image support for flambeau: data sets, augmentation and models."""

from flambeau_vision.augment import Augment, Augmentation
from flambeau_vision.data import ImageData
from flambeau_vision.decode import decode
from flambeau_vision.demo import glyphs
from flambeau_vision.models import backbone, small_cnn
from flambeau_vision.options import ImageOptions
from flambeau_vision.preprocess import ImagePreprocessor

__all__ = [
    "Augment",
    "Augmentation",
    "ImageData",
    "ImageOptions",
    "ImagePreprocessor",
    "__version__",
    "backbone",
    "decode",
    "glyphs",
    "small_cnn",
]

__version__ = "0.1.0"
