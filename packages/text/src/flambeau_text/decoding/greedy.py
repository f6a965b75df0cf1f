"""``greedy_search``: the most probable word, again and again."""

from __future__ import annotations

from torch import Tensor

from flambeau_text.decoding.decoded import Decoded
from flambeau_text.decoding.word_by_word import word_by_word
from flambeau_text.models.seq2seq import Memory, Seq2Seq


def greedy_search(model: Seq2Seq, memory: Memory, limit: Tensor, min_words: int = 0) -> Decoded:
    """One sentence a source, word by word; of equal words the one with the lower number.

    Args:
        model: In eval mode.
        memory: Of the sources.
        limit: Words that each may have before its end, int64 ``(batch,)``.
        min_words: Words that each must have before its end.
    """
    return word_by_word(model, memory, limit, min_words, lambda found, place: found.argmax(1))
