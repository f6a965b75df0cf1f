"""Language models: predict each token from those before it, and continue texts."""

from flambeau_text.language.data import LanguageModelData
from flambeau_text.language.kneser_ney import KneserNey
from flambeau_text.language.options import LanguageOptions
from flambeau_text.language.task import Continuation, LanguageModelTask

__all__ = [
    "Continuation",
    "KneserNey",
    "LanguageModelData",
    "LanguageModelTask",
    "LanguageOptions",
]
