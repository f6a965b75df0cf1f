"""``progress``: a progress bar for work that takes seconds before training."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def progress(total: int, title: str, unit: str) -> Generator[Callable[[int], object]]:
    """Show a progress bar inside the block; work of less than a second shows none.

    Args:
        total: The amount of work.
        title: What is done, for example "decoding train".
        unit: What the amount counts, in the singular.

    Yields:
        A function to call with the amount that was done since the last call.
    """
    from tqdm.auto import tqdm

    # delay: no bar for short work; mininterval: few lines in log files.
    with tqdm(
        total=total, desc=title, unit=unit, unit_scale=total >= 100_000, delay=1.0, mininterval=0.5
    ) as bar:
        yield bar.update
