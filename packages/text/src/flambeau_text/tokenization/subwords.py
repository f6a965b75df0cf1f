"""``SubwordTokenizer``: encodes a frequent word as one token, a rare word as several."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from flambeau.errors import ArgumentError, InputError, explains_arguments
from flambeau_text.tokenization.normalization import LINE_BREAKS
from flambeau_text.tokenization.tokenizer import Tokenizer
from flambeau_text.vocab import SPECIALS, UNKNOWN

SubwordKind = Literal["bpe", "unigram"]

_SPACE_MARK = "\u2581"  # replaces the space before a word, as in sentencepiece


@explains_arguments()
class SubwordTokenizer(Tokenizer):
    """A subword tokenizer of the ``tokenizers`` library, stored in its ``tokenizer.json`` format.

    A text is normalised (and lower-cased if requested) and split into words at spaces and around
    punctuation; then each word is split into subwords. The space before a word is part of its first
    subword, so joining tokens restores the spaces.

    Args:
        model: The content of ``tokenizer.json``.

    Example:
        >>> subwords = SubwordTokenizer.train(["a dog runs", "a dog ran"] * 5, vocab_size=24)
        >>> subwords.decode(subwords.encode("a dog ran"))
        'a dog ran'

    Source:
        Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units"
        (arXiv 1508.07909); Kudo, "Subword Regularization" (arXiv 1804.10959) for unigram.
    """

    kind: ClassVar[str] = "subword"

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = dict(model)

    @classmethod
    def train(
        cls,
        texts: Collection[str],
        *,
        kind: SubwordKind = "bpe",
        vocab_size: int = 8_000,
        lowercase: bool = False,
        normalization: str = "nfc",
        min_freq: int = 2,
    ) -> SubwordTokenizer:
        """Learn the subwords from texts.

        Args:
            texts: Train texts; for a joint vocabulary those of both sides.
            kind: "bpe" merges the most frequent pairs (byte-pair encoding); "unigram" removes the
                subwords that reduce the likelihood least.
            vocab_size: Size of the vocabulary, special tokens included; smaller if the texts do not
                have that many subwords.
            lowercase: Whether texts are lower-cased first.
            normalization: The Unicode form of texts: "nfc", "nfkc" or "none".
            min_freq: Minimum frequency of a pair to be merged ("bpe").

        Raises:
            ArgumentError: The kind is unknown.
            InputError: All texts are empty, or ``vocab_size`` leaves no room for subwords.
        """
        import tokenizers

        if kind not in ("bpe", "unigram"):
            raise ArgumentError(f"kind is {kind!r}; it must be 'bpe' or 'unigram'.")
        if vocab_size <= len(SPECIALS):
            raise InputError(
                f"vocab_size is {vocab_size}, which leaves no room for subwords beside the "
                f"{len(SPECIALS)} special tokens. Give a larger vocab_size."
            )
        if not any(map(str.strip, texts)):
            raise InputError(
                "No subwords can be learned, because every text is empty. Give texts with words."
            )
        tokenizer = _untrained(kind, lowercase, normalization)
        shared: dict[str, Any] = {
            "vocab_size": vocab_size,
            "special_tokens": list(SPECIALS),
            "show_progress": False,
        }
        trainer: Any = (
            tokenizers.trainers.BpeTrainer(min_frequency=min_freq, **shared)
            if kind == "bpe"
            else tokenizers.trainers.UnigramTrainer(unk_token=UNKNOWN, **shared)
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(json.loads(tokenizer.to_str()))

    @cached_property
    def _tokenizer(self) -> Any:
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(self._model))
        # "<eos>" written in a text is text, not the end token.
        tokenizer.encode_special_tokens = True
        return tokenizer

    @cached_property
    def merges(self) -> Mapping[tuple[str, str], int]:
        """The rank of each merge of two pieces, lowest first; empty for the kind "unigram"."""
        listed = self._model["model"].get("merges") or ()
        pairs = (each.split(" ") if isinstance(each, str) else each for each in listed)
        return {(one, other): rank for rank, (one, other) in enumerate(pairs)}

    @cached_property
    def piece_ids(self) -> Mapping[str, int]:
        """The id of each piece, without the special tokens."""
        ids: dict[str, int] = self._tokenizer.get_vocab()
        return {piece: i for piece, i in ids.items() if piece not in SPECIALS}

    def words(self, text: str) -> list[str]:
        """Return what is split into pieces: words and punctuation, with marks for spaces."""
        words = self._tokenizer.pre_tokenizer.pre_tokenize_str(self.normalize(text))
        return [word for word, _ in words]

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._encodings(texts)]

    def _encodings(self, texts: Sequence[str]) -> list[Any]:
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=False)

    def normalize(self, text: str) -> str:
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def tokenize(self, text: str) -> list[str]:
        (found,) = self._encodings([text])
        return [
            text[slice(*offsets)] if token == UNKNOWN else token
            for token, offsets in zip(found.tokens, found.offsets, strict=True)
        ]

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._tokenizer.id_to_token(token_id) for token_id in ids]

    def join(self, tokens: Sequence[str]) -> str:
        return "".join(tokens).replace(_SPACE_MARK, " ").strip()

    def arguments(self) -> Mapping[str, Any]:
        return {"model": self._model}


def _untrained(kind: SubwordKind, lowercase: bool, normalization: str) -> Any:
    """Return a tokenizer of the ``tokenizers`` library without a vocabulary."""
    import tokenizers

    model: Any = (
        tokenizers.models.BPE(unk_token=UNKNOWN, fuse_unk=True)
        if kind == "bpe"
        else tokenizers.models.Unigram()
    )
    tokenizer: Any = tokenizers.Tokenizer(model)  # its stubs do not have the setters
    normalizers: Any = tokenizers.normalizers
    forms: dict[str, list[Any]] = {
        "nfc": [normalizers.NFC()],
        "nfkc": [normalizers.NFKC()],
        "none": [],
    }
    breaks = normalizers.Replace(tokenizers.Regex(LINE_BREAKS), " ")
    steps: list[Any] = [*forms[normalization], normalizers.Replace("\ufeff", ""), breaks]
    if lowercase:
        steps.append(normalizers.Lowercase())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Metaspace(replacement=_SPACE_MARK),
            tokenizers.pre_tokenizers.Punctuation(),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.Metaspace(replacement=_SPACE_MARK)
    return tokenizer
