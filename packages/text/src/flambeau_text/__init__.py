"""Text for flambeau: classification, translation with attention, and language models."""

from flambeau_text.classification import TextData, TextOptions, token_attributions
from flambeau_text.decoding import AverageLengthPenalty, Beam, GnmtLengthPenalty, Greedy, Sampling
from flambeau_text.forcing import (
    AdaptiveForcing,
    Constant,
    Exponential,
    InverseSigmoid,
    Linear,
    TeacherForcing,
)
from flambeau_text.huggingface import CausalLM, LoRA
from flambeau_text.instructions import InstructionData, InstructionOptions
from flambeau_text.language import (
    Continuation,
    KneserNey,
    LanguageModelData,
    LanguageModelTask,
    LanguageOptions,
)
from flambeau_text.language.scoring import TokenScores, embed_texts, score_texts
from flambeau_text.models import AwdLstm, LanguageModel, Seq2Seq, rnn, transformer
from flambeau_text.tagging import TagData, TagOptions
from flambeau_text.tokenization import (
    CharacterTokenizer,
    HFTokenizer,
    SubwordTokenizer,
    WordTokenizer,
)
from flambeau_text.translation.attention_plot import plot_attention
from flambeau_text.translation.data import TranslationData
from flambeau_text.translation.minimum_risk import MinimumRisk
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.predictions import DetailedTranslation, Translation
from flambeau_text.translation.scores import Score, corpus_score, corpus_scores
from flambeau_text.translation.task import TranslationTask
from flambeau_text.translation.translate import translate
from flambeau_text.vocab import Vocab, build_vocab_from_iterator

__all__ = [
    "AdaptiveForcing",
    "AverageLengthPenalty",
    "AwdLstm",
    "Beam",
    "CausalLM",
    "CharacterTokenizer",
    "Constant",
    "Continuation",
    "DetailedTranslation",
    "Exponential",
    "GnmtLengthPenalty",
    "Greedy",
    "HFTokenizer",
    "InstructionData",
    "InstructionOptions",
    "InverseSigmoid",
    "KneserNey",
    "LanguageModel",
    "LanguageModelData",
    "LanguageModelTask",
    "LanguageOptions",
    "Linear",
    "LoRA",
    "MinimumRisk",
    "Sampling",
    "Score",
    "Seq2Seq",
    "SubwordTokenizer",
    "TagData",
    "TagOptions",
    "TeacherForcing",
    "TextData",
    "TextOptions",
    "TokenScores",
    "Translation",
    "TranslationData",
    "TranslationOptions",
    "TranslationTask",
    "Vocab",
    "WordTokenizer",
    "__version__",
    "build_vocab_from_iterator",
    "corpus_score",
    "corpus_scores",
    "embed_texts",
    "plot_attention",
    "rnn",
    "score_texts",
    "token_attributions",
    "transformer",
    "translate",
]

__version__ = "0.1.0"
