"""``tokenizer_from_json``: rebuilds a tokenizer from JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.errors import ArtefactError, did_you_mean
from flambeau_text.tokenization.backward import BackwardTokenizer
from flambeau_text.tokenization.characters import CharacterTokenizer
from flambeau_text.tokenization.custom import CustomTokenizer
from flambeau_text.tokenization.encoder_tokenizer import EncoderTokenizer
from flambeau_text.tokenization.pretrained import HFTokenizer
from flambeau_text.tokenization.sentence_pieces import SentencePieceTokenizer
from flambeau_text.tokenization.subwords import SubwordTokenizer
from flambeau_text.tokenization.tokenizer import Tokenizer
from flambeau_text.tokenization.words import WordTokenizer

_KINDS: Mapping[str, Any] = {
    each.kind: each
    for each in (
        BackwardTokenizer,
        CharacterTokenizer,
        CustomTokenizer,
        EncoderTokenizer,
        HFTokenizer,
        SentencePieceTokenizer,
        SubwordTokenizer,
        WordTokenizer,
    )
}


def tokenizer_from_json(values: Mapping[str, Any]) -> Tokenizer:
    """Rebuild a tokenizer from the values of ``Tokenizer.as_json``.

    Raises:
        ArtefactError: The kind is unknown, or a user-defined tokenizer is not registered.
        MissingDependencyError: The package of the tokenizer is not installed.
    """
    kind = str(values.get("kind"))
    if kind not in _KINDS:
        raise ArtefactError(f"Unknown tokenizer {kind!r}. {did_you_mean(kind, _KINDS)}")
    arguments = {name: value for name, value in values.items() if name != "kind"}
    if kind == BackwardTokenizer.kind:
        return BackwardTokenizer(tokenizer_from_json(arguments["inner"]))
    return _KINDS[kind](**arguments)
