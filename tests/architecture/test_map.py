"""docs/map.md names one existing file for each change of the list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "map.md"

CHANGES = [
    "optimizer",
    "a new schedule",
    "clipping",
    "precision",
    "EMA",
    "freezing",
    "a callback event",
    "a metric",
    "the export format",
    "device choice",
    "the split",
    "folds",
    "the seed",
    "accumulation",
    "DDP",
    "checkpoint content",
    "resume",
    "the learning-rate finder",
    "the out-of-memory message",
    "reading a CSV",
    "a plan rule",
    "a doctor check",
    "an architecture",
    "an augmentation",
    "a CLI option",
]


def rows(page: str) -> list[tuple[str, str]]:
    """Change and file of each row of the page's table.

    Raises:
        ValueError: The text of a row's link is not the file that it leads to from ``docs/``.
    """
    found = []
    for line in page.splitlines():
        if not line.startswith("| ") or line.startswith(("| change |", "| --- |")):
            continue
        change, cell = [part.strip() for part in line.split("|")[1:3]]
        link = re.fullmatch(r"\[([^]]+)\]\(\.\./([^)]+)\)", cell)
        if link is None or link[1] != link[2]:
            raise ValueError(f"{change!r}: {cell!r} is not a link [path](../path).")
        found.append((change, link[1]))
    return found


def missing_files(page: str) -> list[str]:
    return [f"{change}: {path}" for change, path in rows(page) if not (ROOT / path).is_file()]


def test_each_change_has_one_row() -> None:
    assert len(CHANGES) == 25
    assert [change for change, _ in rows(PAGE.read_text())] == CHANGES


def test_the_files_of_the_map_exist() -> None:
    assert not missing_files(PAGE.read_text())


def test_the_files_that_a_row_mentions_exist() -> None:
    """A mentioned file may be given by the end of its path, and with ``*``."""
    mentioned = re.findall(r"`([\w*/]+\.py)`", PAGE.read_text())
    assert len(mentioned) > 5
    sources = sorted(ROOT.glob("packages/*/src"))
    assert not [name for name in mentioned if not any(list(s.rglob(name)) for s in sources)]


def test_a_missing_file_and_a_wrong_link_are_found() -> None:
    assert missing_files("| a metric | [no/such.py](../no/such.py) | |") == ["a metric: no/such.py"]
    with pytest.raises(ValueError, match="is not a link"):
        rows("| a metric | [README.md](../CHANGELOG.md) | |")
