"""``EncodedTags``: sentences as token ids in memory, with the tags of their words."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.facts import IGNORED
from flambeau.data.loader import Loader, LoaderOptions
from flambeau_text.classification.dataset import TARGET, TextLoader
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.tagging.preprocess import tag_inputs
from flambeau_text.tagging.task import WORDS


class EncodedTags:
    """The sentences of a part as token ids, with the tags of their words.

    Args:
        tokens: Token ids of each sentence.
        starts: Position of each word's first token.
        tags: Class number of each word.
        ids: Sample ids, int64 ``(n,)``.
    """

    def __init__(
        self, tokens: RaggedRows, starts: RaggedRows, tags: RaggedRows, ids: Tensor
    ) -> None:
        self.texts: tuple[RaggedRows, ...] = (tokens,)
        self.lengths = tokens.lengths
        self.starts, self.tags, self.ids = starts, tags, ids

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Tensor, epoch: int = 0, widths: Sequence[int] | None = None) -> Batch:
        """Return the sentences at ``rows`` as a padded batch, whose weight is its words."""
        inputs, mask = tag_inputs(self.texts[0], self.starts, rows, widths)
        tags, _ = self.tags.padded(rows)
        return Batch(
            inputs,
            {TARGET: tags.masked_fill(~mask, IGNORED)},
            {WORDS: mask},
            weight=float(self.tags.lengths[rows].sum()),
            indices=self.ids[rows],
            epoch=epoch,
        )

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a loader of batches of similar lengths."""
        return TextLoader(self, options)
