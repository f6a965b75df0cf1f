"""Text classification: predict labels or numbers from texts."""

from flambeau_text.classification.data import TextData
from flambeau_text.classification.options import TextOptions
from flambeau_text.classification.report.attribution import (
    TokenAttributions,
    token_attributions,
)

__all__ = ["TextData", "TextOptions", "TokenAttributions", "token_attributions"]
