"""Language models: the n-gram model with which networks are compared."""

from flambeau_text.language.kneser_ney import KneserNey

__all__ = ["KneserNey"]
