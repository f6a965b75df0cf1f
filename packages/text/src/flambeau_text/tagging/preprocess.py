"""``TagPreprocessor``: converts words to tokens, with the position of each word's first token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.data.tables import to_list
from flambeau.errors import InputError
from flambeau_text.checked_text import checked_text
from flambeau_text.classification.dataset import LENGTHS, TOKENS
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.tagging.task import WORDS
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.encoder_tokenizer import EncoderTokenizer
from flambeau_text.tokenization.fast_tokenizer import FastTokenizer
from flambeau_text.tokenization.tokenization_record import record_of, warn_if_changed
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID

STARTS = "starts"
"""Name in every batch of the position of each word's first token."""


class TagPreprocessor(Preprocessor):
    """The tokenizer of a tagger: each word is tokenized alone, and its first token has its tag.

    A word without tokens (an empty one) is an unknown token, so that every word has a tag. A
    sentence has an end token on each side, or the special tokens of a pretrained encoder.

    Args:
        tokenizer: The tokenizer, or its JSON values.
        max_length: Most tokens that the model reads, special tokens included; None without a limit.
        tokenization: The record that an export has from ``record_of``; None makes a new record.

    Attributes:
        tokenizer: The tokenizer.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | Mapping[str, Any],
        max_length: int | None = None,
        tokenization: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = (
            tokenizer_from_json(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
        )
        self.max_length = max_length
        if tokenization is not None:
            warn_if_changed(tokenization, [self.tokenizer])
        self._tokenization = dict(tokenization or record_of([self.tokenizer]))

    @property
    def builder(self) -> str:
        return "tag_preprocessor"

    def align(
        self, sentences: Sequence[Sequence[str]], locations: Sequence[str] | None = None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Return the tokens of each sentence, and the position of each word's first token.

        Args:
            sentences: The words of each sentence.
            locations: Where each was found, for messages.

        Raises:
            InputError: A sentence has more tokens than the model reads, so that its last words
                would have no tag.
        """
        tokenizer = self.tokenizer
        before, after = (tokenizer.special.start,), (tokenizer.special.end,)
        unknown, encode = UNKNOWN_ID, tokenizer.encode_batch
        if isinstance(tokenizer, FastTokenizer):
            unknown = tokenizer.special.end
        if isinstance(tokenizer, EncoderTokenizer):
            before, after = tokenizer.frame(1).tokens
            unknown = unknown if tokenizer.unknown is None else tokenizer.unknown
            encode = tokenizer.encode_words
        distinct = list(dict.fromkeys(word for words in sentences for word in words))
        ids_of = dict(zip(distinct, encode(distinct), strict=True))
        tokens: list[list[int]] = []
        starts: list[list[int]] = []
        for index, words in enumerate(sentences):
            row, at = list(before), list[int]()
            for word in words:
                at.append(len(row))
                row += ids_of[word] or [unknown]
            row += after
            if self.max_length is not None and len(row) > self.max_length:
                where = f"Item {index}" if locations is None else locations[index]
                raise InputError(
                    f"{where}: {len(words):,} words have {len(row):,} tokens, but the model reads "
                    f"at most {self.max_length:,}. Divide them into several sentences."
                )
            tokens.append(row)
            starts.append(at)
        return tokens, starts

    def encode(self, items: Sequence[Any]) -> Batch:
        """Encode sentences: lists of words, or texts, which are divided at white space.

        Raises:
            InputError: An item is neither; the message has its index.
        """
        sentences = [words_of(item, f"Item {index}") for index, item in enumerate(items)]
        tokens, starts = (RaggedRows(each) for each in self.align(sentences))
        rows = torch.arange(len(sentences))
        words = float(sum(map(len, sentences)))
        inputs, mask = tag_inputs(tokens, starts, rows)
        return Batch(inputs, masks={WORDS: mask}, weight=words)

    def expand(self, item: Any) -> None:
        """Refuse an argument of ``predict`` that may be the words of one sentence.

        Raises:
            InputError: It is a list of several texts of one word each.
        """
        if isinstance(item, list | tuple):
            refuse_single_words(cast("Sequence[Any]", item))

    def vocabulary_digest(self) -> str:
        """Return a hash of the tokenizer; weights are valid only with an equal tokenizer."""
        content = json.dumps(self.tokenizer.as_json(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def arguments(self) -> Mapping[str, Any]:
        return {
            "tokenizer": self.tokenizer.as_json(),
            "max_length": self.max_length,
            "tokenization": self._tokenization,
        }


def tag_inputs(
    tokens: RaggedRows, starts: RaggedRows, rows: Tensor, widths: Sequence[int] | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the inputs of a tagger for some rows, and the mask of their words.

    Args:
        tokens: Token ids of each sentence.
        starts: Position of each word's first token.
        rows: Indices of the sentences, int64 ``(n,)``.
        widths: Padded number of tokens; None uses the longest sentence.
    """
    ids, _ = tokens.padded(rows, None if widths is None else widths[0])
    at, mask = starts.padded(rows)
    inputs = {TOKENS: ids, LENGTHS: tokens.lengths[rows], STARTS: at.masked_fill(~mask, 0)}
    return inputs, mask


def refuse_single_words(texts: Sequence[Any]) -> None:
    """Refuse several texts of one word each: they may be several sentences, or one.

    Raises:
        InputError: All are texts of one word, and there is more than one.
    """
    if len(texts) < 2 or not all(
        isinstance(text, str) and len(text.split()) == 1 for text in texts
    ):
        return
    shown = [str(text) for text in texts[:3]]
    words = ", ".join(map(repr, shown))
    raise InputError(
        f"The {len(texts):,} texts are single words ({words}, …), which may be one sentence or "
        f"several. Give one sentence as a list of its words in a list, [[{words}, …]], or several "
        f"sentences as [[{shown[0]!r}], [{shown[1]!r}], …]; in a file, write each on one line."
    )


def words_of(item: Any, where: str) -> list[str]:
    """Return the words of a sentence.

    Raises:
        InputError: The item is neither a text nor a list of words, or has no words.
    """
    if isinstance(item, str):
        words = checked_text(item, where).split()
    elif isinstance(item, Sequence) or hasattr(item, "tolist"):
        values: list[Any] = to_list(item)
        words = [checked_text(word, f"{where}, word {at}") for at, word in enumerate(values)]
    else:
        raise InputError(
            f"{where}: {item!r:.60} is of type {type(item).__name__}. Give a list of words, or a "
            "text, which is divided at white space."
        )
    if not words:
        raise InputError(f"{where}: there are no words. Give at least one.")
    return words
