"""DNA for flambeau: ``flambeau fit genes.dna``, where a line is a label, a tab and a sequence."""

from .data import DnaData

__all__ = ["DnaData"]
