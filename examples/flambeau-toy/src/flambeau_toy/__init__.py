"""A flambeau domain for DNA sequences: ``flambeau fit genes.dna``."""

from .data import DnaData

__all__ = ["DnaData"]
