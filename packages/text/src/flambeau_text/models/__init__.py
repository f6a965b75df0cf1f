"""Encoder–decoder models: recurrent, Transformer, and the base class of user-defined models."""

from flambeau_text.models.attention import (
    AdditiveAttention,
    Attention,
    ConcatAttention,
    DotAttention,
    GeneralAttention,
)
from flambeau_text.models.rnn import RnnConfig, RnnSeq2Seq, rnn
from flambeau_text.models.seq2seq import Memory, PerSource, Seq2Seq, select
from flambeau_text.models.transformer import TransformerConfig, TransformerSeq2Seq, transformer

__all__ = [
    "AdditiveAttention",
    "Attention",
    "ConcatAttention",
    "DotAttention",
    "GeneralAttention",
    "Memory",
    "PerSource",
    "RnnConfig",
    "RnnSeq2Seq",
    "Seq2Seq",
    "TransformerConfig",
    "TransformerSeq2Seq",
    "rnn",
    "select",
    "transformer",
]
