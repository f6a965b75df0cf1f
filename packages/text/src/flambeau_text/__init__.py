"""Text for flambeau: translation with attention and dynamic teacher forcing."""

from flambeau_text.decoding import Average, Beam, Gnmt, Greedy, Sampling
from flambeau_text.forcing import (
    AdaptiveForcing,
    Constant,
    Exponential,
    InverseSigmoid,
    Linear,
    TeacherForcing,
)
from flambeau_text.models import Seq2Seq, rnn, transformer
from flambeau_text.tokenization import CharacterTokenizer, SubwordTokenizer, WordTokenizer
from flambeau_text.translation.answers import Translation
from flambeau_text.translation.data import TranslationData
from flambeau_text.translation.heatmap import plot_attention
from flambeau_text.translation.minimum_risk import MinimumRisk
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.review import Review, review
from flambeau_text.translation.scores import Score, corpus_score, corpus_scores
from flambeau_text.translation.task import TranslationTask
from flambeau_text.translation.translate import DetailedTranslation, translate
from flambeau_text.vocab import Vocab, build_vocab_from_iterator

__all__ = [
    "AdaptiveForcing",
    "Average",
    "Beam",
    "CharacterTokenizer",
    "Constant",
    "DetailedTranslation",
    "Exponential",
    "Gnmt",
    "Greedy",
    "InverseSigmoid",
    "Linear",
    "MinimumRisk",
    "Review",
    "Sampling",
    "Score",
    "Seq2Seq",
    "SubwordTokenizer",
    "TeacherForcing",
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
    "plot_attention",
    "review",
    "rnn",
    "transformer",
    "translate",
]

__version__ = "0.1.0"
