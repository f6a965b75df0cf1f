"""Pretrained causal language models of Hugging Face: needs the extra ``flambeau-text[hf]``."""

from flambeau_text.huggingface.adapters import LoRA
from flambeau_text.huggingface.causal_lm import CausalLM

__all__ = ["CausalLM", "LoRA"]
