"""Supervised fine-tuning: a pretrained model learns to answer prompts and conversations."""

from flambeau_text.instructions.data import InstructionData
from flambeau_text.instructions.options import InstructionOptions
from flambeau_text.instructions.preprocess import InstructionPreprocessor

__all__ = ["InstructionData", "InstructionOptions", "InstructionPreprocessor"]
