"""Tokenizers, which convert text to token ids and back: words, characters or subwords."""

from flambeau_text.tokenization.characters import CharacterTokenizer
from flambeau_text.tokenization.custom import (
    CustomTokenizer,
    TokenizerLike,
    register_tokenizer,
)
from flambeau_text.tokenization.from_json import tokenizer_from_json
from flambeau_text.tokenization.pretrained import HFTokenizer
from flambeau_text.tokenization.sentence_pieces import SentencePieceTokenizer
from flambeau_text.tokenization.subwords import SubwordTokenizer
from flambeau_text.tokenization.tokenizer import Tokenizer
from flambeau_text.tokenization.words import WordTokenizer

__all__ = [
    "CharacterTokenizer",
    "CustomTokenizer",
    "HFTokenizer",
    "SentencePieceTokenizer",
    "SubwordTokenizer",
    "Tokenizer",
    "TokenizerLike",
    "WordTokenizer",
    "register_tokenizer",
    "tokenizer_from_json",
]
