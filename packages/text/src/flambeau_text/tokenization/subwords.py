"""``SubwordTokenizer``: frequent words whole, rare ones in pieces; nothing is unknown for long."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from flambeau.errors import ArgumentError, InputError
from flambeau_text.tokenization.tokenizer import Tokenizer
from flambeau_text.vocab import SPECIALS, UNKNOWN

SubwordKind = Literal["bpe", "unigram"]

_MARK = "\u2581"  # stands for the space before a word, as in sentencepiece


class SubwordTokenizer(Tokenizer):
    """Pieces of words by the ``tokenizers`` library, kept as its ``tokenizer.json``.

    A text is brought to NFC (and lower case where asked), cut at spaces and around punctuation, and
    each word into pieces. The space before a word is part of its first piece, so the way back to
    the text needs no rules.

    Args:
        model: What ``tokenizer.json`` holds, as JSON values.

    Example:
        >>> pieces = SubwordTokenizer.train(["a dog runs", "a dog ran"] * 5, vocab_size=24)
        >>> pieces.decode(pieces.encode("a dog ran"))
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
        texts: Sequence[str],
        *,
        kind: SubwordKind = "bpe",
        vocab_size: int = 8_000,
        lowercase: bool = False,
        min_freq: int = 2,
    ) -> SubwordTokenizer:
        """Learns the pieces from texts.

        Args:
            texts: Of train; of both sides for a joint vocabulary.
            kind: "bpe" merges the most frequent pairs, "unigram" drops what helps least.
            vocab_size: Pieces, specials included; fewer where the texts do not give as many.
            lowercase: Whether texts are lower-cased first.
            min_freq: How often a pair must be seen to be merged ("bpe").

        Raises:
            ArgumentError: No such kind.
            InputError: There are no texts, or fewer pieces than specials.
        """
        import tokenizers

        if kind not in ("bpe", "unigram"):
            raise ArgumentError(f"kind is {kind!r}; it must be 'bpe' or 'unigram'.")
        if vocab_size <= len(SPECIALS):
            raise InputError(f"vocab_size is {vocab_size}: the {len(SPECIALS)} specials fill it.")
        if not any(map(str.strip, texts)):
            raise InputError("There are no words to learn pieces from: every text is empty.")
        empty: Any = (
            tokenizers.models.BPE(unk_token=UNKNOWN, fuse_unk=True)
            if kind == "bpe"
            else tokenizers.models.Unigram()
        )
        made: Any = tokenizers.Tokenizer(empty)  # its stubs leave the setters out
        steps: list[Any] = [tokenizers.normalizers.NFC()]
        if lowercase:
            steps.append(tokenizers.normalizers.Lowercase())
        made.normalizer = tokenizers.normalizers.Sequence(steps)
        made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [
                tokenizers.pre_tokenizers.Metaspace(replacement=_MARK),
                tokenizers.pre_tokenizers.Punctuation(),
            ]
        )
        made.decoder = tokenizers.decoders.Metaspace(replacement=_MARK)
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
        made.train_from_iterator(texts, trainer)
        return cls(json.loads(made.to_str()))

    @cached_property
    def _tokenizer(self) -> Any:
        import tokenizers

        made = tokenizers.Tokenizer.from_str(json.dumps(self._model))
        # "<eos>" in a text is text: else a sentence could end, or pad, itself.
        made.encode_special_tokens = True
        return made

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._encoded(texts)]

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=False)

    def split(self, text: str) -> list[str]:
        (found,) = self._encoded([text])
        # What is unknown is told as it stands in the text.
        return [
            text[slice(*offsets)] if token == UNKNOWN else token
            for token, offsets in zip(found.tokens, found.offsets, strict=True)
        ]

    def tokens(self, numbers: Iterable[int]) -> list[str]:
        return [self._tokenizer.id_to_token(number) for number in numbers]

    def join(self, tokens: Sequence[str]) -> str:
        return "".join(tokens).replace(_MARK, " ").strip()

    def arguments(self) -> Mapping[str, Any]:
        return {"model": self._model}
