"""Tokenizers, which convert text to token ids and back: words, characters or subwords."""

from flambeau_text.tokenization.characters import CharacterTokenizer
from flambeau_text.tokenization.from_json import tokenizer_from_json
from flambeau_text.tokenization.subwords import SubwordTokenizer
from flambeau_text.tokenization.tokenizer import Tokenizer
from flambeau_text.tokenization.words import WordTokenizer

__all__ = [
    "CharacterTokenizer",
    "SubwordTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "tokenizer_from_json",
]
