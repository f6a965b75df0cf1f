"""Encoder–decoder models, language models, and the base classes of user-defined ones."""

from flambeau_text.models.attention import (
    AdditiveAttention,
    Attention,
    ConcatAttention,
    DotAttention,
    GeneralAttention,
)
from flambeau_text.models.awd_lstm import AwdDropout, AwdLstm, AwdLstmConfig, awd_lstm
from flambeau_text.models.decoder import DecoderConfig, DecoderLM, decoder
from flambeau_text.models.language_model import LanguageFeatures, LanguageModel
from flambeau_text.models.rnn import RnnConfig, RnnSeq2Seq, rnn
from flambeau_text.models.seq2seq import Memory, PerSource, Seq2Seq, select
from flambeau_text.models.transformer import TransformerConfig, TransformerSeq2Seq, transformer

__all__ = [
    "AdditiveAttention",
    "Attention",
    "AwdDropout",
    "AwdLstm",
    "AwdLstmConfig",
    "ConcatAttention",
    "DecoderConfig",
    "DecoderLM",
    "DotAttention",
    "GeneralAttention",
    "LanguageFeatures",
    "LanguageModel",
    "Memory",
    "PerSource",
    "RnnConfig",
    "RnnSeq2Seq",
    "Seq2Seq",
    "TransformerConfig",
    "TransformerSeq2Seq",
    "awd_lstm",
    "decoder",
    "rnn",
    "select",
    "transformer",
]
