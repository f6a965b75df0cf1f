"""The search for copies of rows reads some rows at a time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from flambeau.data.memory_loader import MemoryDataset
from flambeau.doctor import leak_checks

_MEMORY = Path("/proc/self/status")


def _peak_and_now() -> tuple[int, int]:
    text = _MEMORY.read_text(encoding="utf-8")
    peak, now = (re.search(rf"{key}:\s+(\d+) kB", text) for key in ("VmHWM", "VmRSS"))
    assert peak is not None
    assert now is not None
    return int(peak[1]) * 1024, int(now[1]) * 1024


@pytest.mark.skipif(not _MEMORY.exists(), reason="reads the memory of the process from Linux")
def test_the_search_for_copies_needs_little_memory() -> None:
    # In float64 all values of 100,000 rows have 51 MB, and their indices as much: 102 MB were seen
    # for all rows at once, 41 to 46 MB in parts.
    draws = torch.Generator().manual_seed(0)
    train = torch.randn(100_000, 64, generator=draws)
    other = train[:2_000].clone()
    other[100:] += 1.0
    parts = [MemoryDataset({"x": each}) for each in (train, other)]
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before = _peak_and_now()[1]
    pairs, compared = leak_checks._copies(*parts)
    assert (len(pairs), compared) == (100, 2_000)
    assert all(here == there for here, there in pairs)
    assert _peak_and_now()[0] - before < 75e6
