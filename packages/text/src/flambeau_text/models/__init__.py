"""Networks that read one sentence and write another."""

from flambeau_text.models.attention import (
    AdditiveAttention,
    Attention,
    ConcatAttention,
    DotAttention,
    GeneralAttention,
)
from flambeau_text.models.rnn import RnnSeq2Seq, rnn
from flambeau_text.models.seq2seq import Memory, Seq2Seq, select
from flambeau_text.models.transformer import TransformerSeq2Seq, transformer

__all__ = [
    "AdditiveAttention",
    "Attention",
    "ConcatAttention",
    "DotAttention",
    "GeneralAttention",
    "Memory",
    "RnnSeq2Seq",
    "Seq2Seq",
    "TransformerSeq2Seq",
    "rnn",
    "select",
    "transformer",
]
