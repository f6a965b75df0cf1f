"""What a file of texts is, by its ending: a table, JSON lines, or plain text."""

from __future__ import annotations

from pathlib import Path

TABLE_SUFFIXES = (".csv", ".tsv")
JSON_SUFFIXES = (".jsonl", ".ndjson")
CONLL_SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio")
"""Endings of files in a format of CoNLL: words with tags."""


def suffix_of(path: Path) -> str:
    """Return the ending of a file in lower case, without that of its compression."""
    name = path.name.lower()
    for ending in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(ending)
    return Path(name).suffix
