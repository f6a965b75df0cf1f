"""``BpeDropout``: another segmentation of the same text each time, in training."""

from __future__ import annotations

import random
from itertools import pairwise

from flambeau.errors import ArgumentError
from flambeau_text.tokenization.subwords import SubwordTokenizer
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID, Tokenizer


class BpeDropout:
    """Byte-pair encoding in which every possible merge is left out with a probability.

    The library draws from a generator that cannot be seeded, so the merges are applied here, in
    Python: about 0.1 ms a sentence.

    Args:
        tokenizer: A subword tokenizer of the kind "bpe".
        probability: 0 gives the segmentation of ``tokenizer``, 1 single characters.

    Raises:
        ArgumentError: The tokenizer has no merges.

    Source:
        Provilkov, Emelianenko and Voita, "BPE-Dropout: Simple and Effective Subword Regularization"
        (arXiv 1910.13267), algorithm 1; the best merge that is not left out is applied first, as in
        ``tokenizers``.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float) -> None:
        if not isinstance(tokenizer, SubwordTokenizer) or not tokenizer.merges:
            raise ArgumentError(
                "bpe_dropout needs tokenizers of byte-pair encoding with merges. Choose "
                'tokenizer="bpe", or bpe_dropout=0.'
            )
        self.tokenizer, self.probability = tokenizer, probability

    def encode(self, text: str, draws: random.Random) -> list[int]:
        """Return token ids of a text, with merges left out by ``draws``."""
        find = self.tokenizer.piece_ids.get
        found: list[int] = []
        for word in self.tokenizer.words(text):
            before = None
            for piece in self._pieces(word, draws):
                token_id = find(piece, UNKNOWN_ID)
                if token_id != UNKNOWN_ID or before != UNKNOWN_ID:  # one for neighbours
                    found.append(token_id)
                before = token_id
        return found

    def _pieces(self, word: str, draws: random.Random) -> list[str]:
        pieces, ranks = list(word), self.tokenizer.merges
        while True:
            pairs = enumerate(pairwise(pieces))
            merges = sorted((ranks[pair], at) for at, pair in pairs if pair in ranks)
            kept = (at for _, at in merges if draws.random() >= self.probability)
            at = next(kept, None)
            if at is None:
                return pieces
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
