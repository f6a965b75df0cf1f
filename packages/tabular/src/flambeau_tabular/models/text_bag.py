"""``TextBag``: the mean of the learned vectors of a text's tokens."""

from __future__ import annotations

from torch import Tensor, nn

from flambeau.errors import InputError


class TextBag(nn.Module):
    """The mean of the vectors of the tokens of each text column; padding (0) does not count.

    All text columns share the vectors. A text without tokens is a vector of zeros.

    Args:
        n_text: Number of text columns.
        text_width: Tokens of each text column; column ``i`` has the positions from ``i *
            text_width`` on.
        n_tokens: Number of token codes, including 0 (padding).
        width: Width of the vectors.

    Raises:
        InputError: A number is not positive, or there is no code besides padding.

    Source:
        Joulin et al., "Bag of Tricks for Efficient Text Classification", 2016 (arXiv 1607.01759);
        as in fastText, vectors are uniform in ±1/width at first, so a rare token changes little.
    """

    def __init__(self, n_text: int, text_width: int, n_tokens: int, width: int = 32) -> None:
        super().__init__()
        if min(n_text, text_width, width) < 1 or n_tokens < 2:
            raise InputError(
                f"A bag of {n_text} text columns with text_width={text_width}, n_tokens={n_tokens} "
                f"and width {width} is impossible: the numbers must be positive, and n_tokens at "
                "least 2 (padding and one token)."
            )
        self.n_text, self.text_width, self.vector_width = n_text, text_width, width
        self.bag = nn.EmbeddingBag(n_tokens, width, mode="mean", padding_idx=0)
        nn.init.uniform_(self.bag.weight, -1 / width, 1 / width)
        self.chunks = [width] * n_text
        self.width = width * n_text

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(batch, n_text * width)`` of integer codes ``(batch, n_text * text_width)``."""
        rows = tokens.reshape(-1, self.text_width)
        return self.bag(rows).reshape(len(tokens), self.width)
