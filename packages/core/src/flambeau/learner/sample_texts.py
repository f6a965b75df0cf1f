"""``SampleTexts``: the raw samples of a batch as text, from the previews of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import Loader

if TYPE_CHECKING:
    from flambeau.data.preview import Preview
    from flambeau.inspect.stages import Stage

_MOST_SAMPLES = 8


class SampleTexts:
    """Describes the raw samples of a batch with the previews of the data.

    Args:
        data: Has the previews.
        loader: The train loader.
    """

    def __init__(self, data: Data, loader: Loader) -> None:
        self._data = data
        self._why_not = ""
        self._rows: frozenset[int] = frozenset()
        if getattr(loader, "is_stream", False):
            self._why_not = "a row of a stream is a part of many samples"
        elif "loader_batch_size" in data.facts():
            self._why_not = "the loader does not say which samples it returns"
        else:
            self._rows = frozenset(data.split.train.tolist())

    @property
    def why_not(self) -> str:
        """Why the rows of the batches are not samples of the split; empty if they are."""
        return self._why_not

    def contains(self, numbers: Iterable[int]) -> bool:
        """Return whether all numbers are those of train samples."""
        return self._rows.issuperset(numbers)

    def numbers(self, batch: Batch) -> tuple[list[int], str]:
        """Return the numbers of the samples of a batch; if unknown, none and the reason."""
        if self._why_not:
            return [], self._why_not
        if batch.indices is None:
            return [], "the batch does not say which samples it contains"
        numbers = list(map(int, batch.indices))
        if not self.contains(numbers):
            return [], "the batch does not number its rows as the split does"
        return numbers, ""

    def previews(self, numbers: Sequence[int]) -> list[Preview | None]:
        """Return the previews of the first eight samples."""
        return [self._data.preview(number) for number in numbers[:_MOST_SAMPLES]]

    def stage(self, batch: Batch, micro_batch: int | None) -> Stage:
        """Return the stage "samples": the first samples of a batch as text, and images if any."""
        from flambeau.inspect.stages import Stage

        numbers, why_not = self.numbers(batch)
        if why_not:
            return Stage("samples", "samples", None, f"not available: {why_not}", micro_batch)
        previews = self.previews(numbers)
        texts = [
            f"sample {number}" if each is None else f"sample {number}: {each.caption}"
            for number, each in zip(numbers, previews, strict=False)
        ]
        images = tuple(each.image for each in previews if each is not None and each.image)
        shown = len(previews)
        note = f"the first {shown} of {len(numbers)}" if shown < len(numbers) else ""
        complete = images if len(images) == shown else ()
        return Stage("samples", "samples", texts, note, micro_batch, complete)
