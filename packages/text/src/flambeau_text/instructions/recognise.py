"""Recognise files of prompts with completions, and of conversations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

from flambeau.data.reading import Reading
from flambeau_text.file_kinds import JSON_SUFFIXES, suffix_of
from flambeau_text.instructions.options import FIELDS
from flambeau_text.text_lines import READ_ERRORS, open_bytes

_LINES = 20
_OF_TEXTS = ("text", "document", "target")


def reads_instructions(path: Path, options: Mapping[str, Any]) -> bool:
    """Return whether a path is read as instruction data rather than as running text.

    It is if a field of such data is named, or if the records have their usual fields and no option
    of running text is given.

    Args:
        path: The argument PATH of the command line.
        options: The options that are given, by key.
    """
    given = {name for name, value in options.items() if value is not None}
    if given & {*FIELDS, "form"}:
        return True
    return not given & set(_OF_TEXTS) and instruction_reading(path) is not None


def instruction_reading(path: Path) -> Reading | None:
    """Return how the records of a file were understood; None if they are not instruction data."""
    if not (path.is_file() and suffix_of(path) in JSON_SUFFIXES):
        return None
    try:
        with open_bytes(path) as file:
            head = [line.decode("utf-8-sig") for line in islice(file, _LINES)]
        records = [json.loads(line) for line in head if line.strip()]
    except (*READ_ERRORS, ValueError):  # raised again when the file is read as a whole
        return None
    found = [fields for record in records if (fields := _fields_of(record)) is not None]
    if not found or len(found) < len(records):
        return None
    kinds = " or ".join(dict.fromkeys(found))
    return Reading(
        "task",
        f"The first {len(found):,} records of {path.name} have {kinds}, so the answers are learned "
        "and not the prompts.",
        {"records": len(found), "fields": kinds},
        ("running text",),
        0.9,
        'To learn a field as running text: LanguageModelData and LanguageOptions(text="…"), on the '
        "command line --text FIELD.",
    )


def _fields_of(record: Any) -> str | None:
    """Return which usual fields a record has; None if it has neither."""
    if not isinstance(record, Mapping):
        return None
    fields = cast("Mapping[str, Any]", record)
    messages: Any = fields.get("messages")
    if isinstance(messages, list) and messages:
        each: list[Any] = cast("list[Any]", messages)
        return "messages" if all(isinstance(m, Mapping) and "role" in m for m in each) else None
    pair = ("prompt", "completion")
    return " and ".join(pair) if all(isinstance(fields.get(name), str) for name in pair) else None
