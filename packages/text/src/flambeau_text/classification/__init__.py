"""Text classification: predict labels or numbers from texts."""

from flambeau_text.classification.data import TextData
from flambeau_text.classification.options import TextOptions

__all__ = ["TextData", "TextOptions"]
