"""Read conversations: lists of messages, or prompts with completions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from flambeau.data.tables import Table, to_list
from flambeau.errors import InputError, did_you_mean
from flambeau_text.checked_text import checked_text, refuse_names
from flambeau_text.instructions.options import InstructionOptions
from flambeau_text.language.documents import Documents
from flambeau_text.text_lines import read_lines

Message: TypeAlias = dict[str, str]
"""A message: its "role" and its "content"."""

ASSISTANT, USER = "assistant", "user"


def read_records(items: Iterable[Any], options: InstructionOptions) -> Documents:
    """Read conversations from an iterable of mappings.

    Each becomes a document whose text is the JSON of its messages.

    Raises:
        InputError: A record lacks a field, or has no answer; the message has its index.
    """
    is_record = isinstance(items, Mapping) and any(isinstance(each, str) for each in items.values())
    if isinstance(items, str | bytes) or is_record:
        raise InputError(
            "One record was given in place of several. Give a list of mappings, such as "
            '[{"prompt": "2 + 2 = ", "completion": "4"}].'
        )
    refuse_names(items, "records", "InstructionData.from_df(…)")
    found = Documents()
    for index, item in enumerate(items):
        _add(found, item, f"record {index}", options)
    return _checked(found)


def read_jsonl(path: Path, options: InstructionOptions) -> Documents:
    """Read conversations from a file with one JSON object in each line.

    Raises:
        InputError: A line is not JSON, or its record is invalid; the message has its number.
    """
    found = Documents()
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where} is not JSON: {error.msg} at character {error.pos + 1}. Each line must "
                "be one object."
            ) from None
        _add(found, value, where, options)
    return _checked(found)


def read_rows(table: Table, options: InstructionOptions) -> Documents:
    """Read conversations from the columns of a table."""
    fields = (options.messages, options.prompt, options.completion)
    names = [name for name in fields if name in table.names]
    columns = [table.column(name) for name in names]
    found = Documents()
    for row, values in enumerate(zip(*columns, strict=True) if columns else ()):
        record = {n: v for n, v in zip(names, values, strict=True) if not _is_missing(v)}
        _add(found, record, f"{table.name}, row {row}", options)
    if not names:
        _refuse(table.name, table.names, options)
    return _checked(found)


def messages_of(text: str) -> list[Message]:
    """Return the messages of a document."""
    return json.loads(text)


def checked_messages(value: Any, where: str) -> list[Message]:
    """Return a list of messages with a role and a content each.

    Raises:
        InputError: It is not such a list.
    """
    value = to_list(value) if hasattr(value, "tolist") else value  # of a Parquet file
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InputError(f"{where}: {value!r:.60} is not a list of messages.")
    found: list[Message] = []
    for each in cast("Sequence[Any]", value):
        role = each.get("role") if isinstance(each, Mapping) else None
        content = each.get("content") if isinstance(each, Mapping) else None
        if not isinstance(role, str) or not isinstance(content, str):
            raise InputError(
                f"{where}: the message {each!r:.80} needs a role and a content, both texts."
            )
        found.append({"role": role, "content": checked_text(content, where)})
    return found


def _add(found: Documents, item: Any, where: str, options: InstructionOptions) -> None:
    if not isinstance(item, Mapping):
        raise InputError(f"{where}: {item!r:.60} is not a mapping with messages or a prompt.")
    record = cast("Mapping[str, Any]", item)
    if options.messages in record:
        messages = checked_messages(record[options.messages], where)
    elif options.prompt in record and options.completion in record:
        pair = record[options.prompt], record[options.completion]
        for name, text in zip((options.prompt, options.completion), pair, strict=True):
            if not isinstance(text, str):
                raise InputError(f"{where}: {name} is {text!r:.60}, but must be a text.")
        prompt, completion = (checked_text(text, where) for text in pair)
        messages = [
            {"role": USER, "content": prompt},
            {"role": ASSISTANT, "content": completion},
        ]
    else:
        _refuse(where, [str(name) for name in record], options)
        return
    answers = [each["content"] for each in messages if each["role"] == ASSISTANT]
    if not any(each.strip() for each in answers):
        raise InputError(
            f"{where} has no answer of the {ASSISTANT}, so nothing can be learned from it. Drop it."
        )
    found.add(json.dumps(messages, ensure_ascii=False), where)


def _refuse(where: str, names: Sequence[str], options: InstructionOptions) -> None:
    wanted = [options.messages, options.prompt, options.completion]
    missing = next(name for name in (options.completion, options.prompt) if name not in names)
    raise InputError(
        f"{where} has the fields {', '.join(names) or 'none'}, but needs {wanted[0]!r}, or "
        f"{wanted[1]!r} and {wanted[2]!r}. {did_you_mean(missing, names)} Name them with "
        "InstructionOptions(prompt=…, completion=…)."
    )


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _checked(found: Documents) -> Documents:
    if not len(found):
        raise InputError("There are no records with an answer. Give at least two.")
    return found
