"""Read files, tables and iterables of sentence pairs for ``TranslationData``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from flambeau.data.part_columns import read_part_column
from flambeau.data.samples import Samples
from flambeau.data.split import Rows, Split
from flambeau.data.split_request import (
    SplitRequest,
    consecutive_rows,
    parse_part_size,
    rows_by_part,
)
from flambeau.data.tables import Table, read_table
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.languages import language_code
from flambeau_text.tokenization.normalization import normalize
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.pairs import (
    Pairs,
    filter_pairs,
    pairs_from_columns,
    pairs_from_items,
    pairs_from_lines,
    sides_of,
)
from flambeau_text.translation.table_columns import (
    Wanted,
    choose_columns,
    is_table_of_pairs,
    read_pair_table,
    with_known_columns,
)
from flambeau_text.translation.text_files import (
    language_of,
    read_parallel,
    side_of,
)

_LANGUAGES = ("source_language", "target_language")
_SETTINGS = (
    "tokenizer",
    "vocab_size",
    "lowercase",
    "normalization",
    "group_sources",
    "unusable",
    "max_words",
    "max_characters",
    "max_length_ratio",
    "like",
)

TranslationDataArguments: TypeAlias = tuple[
    Samples, Split, TranslationOptions, Mapping[str, int], tuple[str, ...]
]
"""The arguments of ``TranslationData``: samples, split, options, skipped pairs by reason, notes."""


def read_files(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    request: SplitRequest,
    options: TranslationOptions | None,
) -> TranslationDataArguments:
    """Read two parallel files, and two further files each for validation and test, if given."""
    named = [(file, language_of(file)) for file in (source, target)]
    options = _with_languages(options or TranslationOptions(), named)

    def read(files: tuple[Any, Any]) -> Pairs:
        return pairs_from_lines(*read_parallel(*files), Path(files[0]).name)

    separate = request.separate(tuple, list, pair="(source, target)")
    parts = {part: read(each) for part, each in {"train": (source, target), **separate}.items()}
    return _assemble(parts, request, options)


def read_columns(
    table: Table,
    source: str,
    target: str,
    request: SplitRequest,
    options: TranslationOptions | None,
    reason: str = "",
) -> TranslationDataArguments:
    """Read two columns of a table; a third column may name the part of each row.

    Column names that are language codes ("en") set the languages that the options do not.
    """
    named = [(column, language_code(column)) for column in (source, target)]
    options = _with_languages(options or TranslationOptions(), named)
    options = replace(options, columns=(source, target))
    pairs = pairs_from_columns(table, source, target)
    pairs.notes += [f"sides: {reason}"] if reason else []
    given = None
    if (column := request.column) is not None:
        given = rows_by_part(read_part_column(table.column(column), column, table.name))
    return _assemble({"train": pairs}, request, options, given)


def read_csv_columns(
    path: Path,
    source: str | int | None,
    target: str | int | None,
    request: SplitRequest,
    options: TranslationOptions | None,
) -> TranslationDataArguments:
    """Read two columns of a CSV file, by name, or by position if it has no header."""
    kinds = {type(each) for each in (source, target)}
    if not kinds <= {str, int, type(None)} or (int in kinds and len(kinds) > 1):
        raise ArgumentError(
            f"source is {source!r} and target {target!r}. Give two column names or, for "
            "a file without a header, two column positions."
        )
    if isinstance(source, int):
        wanted = Wanted(positions=f"{source},{target}")
    else:
        wanted = Wanted(source, cast("str | None", target), None, *_languages(options))
    table, first, second, _ = read_pair_table(path, wanted)
    return read_columns(table, first, second, request, options)


def read_frame(
    frame: Any,
    source: str | int | None,
    target: str | int | None,
    request: SplitRequest,
    options: TranslationOptions | None,
) -> TranslationDataArguments:
    """Read two columns of a data frame; those of a frame without a header are numbers."""
    table = read_table(frame)
    named = [None if each is None else str(each) for each in (source, target)]
    if None in named:
        wanted = Wanted(named[0], named[1], None, *_languages(options))
        named = choose_columns(table.names, wanted, None)
    return read_columns(table, str(named[0]), str(named[1]), request, options)


def _languages(options: TranslationOptions | None) -> tuple[str | None, str | None]:
    return (options.source_language, options.target_language) if options else (None, None)


def read_items(
    pairs: Iterable[Any],
    request: SplitRequest,
    options: TranslationOptions | None,
    names: tuple[str | None, str | None] = (None, None),
) -> TranslationDataArguments:
    """Read an iterable of pairs, and a further one each for validation and test, if given.

    Args:
        pairs: The pairs, tuples or mappings.
        request: The split.
        options: Options, whose languages are the keys of mappings, unless ``names`` has the keys.
        names: Keys of source and target in mappings.
    """
    options = options or TranslationOptions()
    first, pairs = _first_of(pairs)
    source, target = names
    languages = tuple(getattr(options, name) for name in _LANGUAGES)
    sides = sides_of(first, source or languages[0], target or languages[1])
    parts = {"train": pairs_from_items(pairs, sides=sides)}
    for part, items in request.separate(object).items():
        if isinstance(items, str | bytes):
            raise InputError(
                f"{part} is {items!r:.60}. Give a fraction such as 0.1, a number of pairs, or the "
                "pairs themselves."
            )
        parts[part] = pairs_from_items(items, f"{part} pair", sides)
    if sides is not None:
        named = [(name, language_code(name)) for name in (sides.source, sides.target)]
        options = _with_languages(options, named)
        parts["train"].notes += [sides.note] if sides.note else []
    return _assemble(parts, request, options)


def _first_of(items: Any) -> tuple[Any, Any]:
    """Return the first item, None if there is none, and all items."""
    if not isinstance(items, Iterator):
        is_iterable = hasattr(items, "__iter__") and not isinstance(items, str | bytes)
        return next(iter(items), None) if is_iterable else None, items
    iterator = cast("Iterator[Any]", items)
    first = list(islice(iterator, 1))
    return next(iter(first), None), chain(first, iterator)


def _with_languages(
    options: TranslationOptions, named: Sequence[tuple[Any, str | None]]
) -> TranslationOptions:
    """Return the options; languages that they do not set are taken from ``named``.

    Args:
        options: The options, which take precedence.
        named: The file, column or key of the source and of the target, each with the language code
            in its name, or None.

    Raises:
        InputError: The names have the two languages of the options in exchanged order, or they
            have languages other than those of the export ``options.like``.
    """
    found = tuple(language for _, language in named)
    wanted = tuple(
        None if (name := getattr(options, each)) is None else language_code(name) or name
        for each in _LANGUAGES
    )
    for option, chosen, (name, language) in zip(_LANGUAGES, wanted, named, strict=True):
        if options.like is not None and chosen and language and chosen != language:
            raise InputError(
                f"{os.fspath(name)} is in the language {language!r}, but in the export "
                f"{os.fspath(options.like)}, which determines how the data are read, {option} is "
                f"{chosen!r}. Are the two sides swapped? Give data in the languages of the export, "
                "or omit like= (--like) if you gave it."
            )
    if None not in wanted and found == wanted[::-1] and found != wanted:
        raise InputError(
            f"By their names the source is in {found[0]!r} and the target in {found[1]!r}, but the "
            f"options have the source language {wanted[0]!r} and the target language "
            f"{wanted[1]!r}. Exchange the two sides, or the languages."
        )
    pairs = zip(_LANGUAGES, found, strict=True)
    return options.with_given({name: getattr(options, name) or each for name, each in pairs})


def read_path(path: Path, options: Mapping[str, Any]) -> TranslationDataArguments:
    """Read the path and the options of the command line.

    Args:
        path: The source file, if the option ``target`` is the target file; a CSV or TSV file; or a
            folder with two files that differ only in their ending (``train.en`` and ``train.de``).
        options: ``target``, a file or, for a table, the name of the target column; also for a
            table, ``source_column`` and ``split``, names of columns, and ``columns``, the positions
            of both sides in a table without a header ("0,1"); ``valid`` and ``test``, each a
            fraction or two files separated by a comma; ``seed`` and the options of
            ``TranslationOptions``; ``evaluate``, the name of the scored part, if the pairs are only
            scored (by default all pairs are then kept).

    Raises:
        ArgumentError: An option is unknown.
        InputError: The path has no sentence pairs.
    """
    given = {name: value for name, value in options.items() if value is not None}
    given.pop("classes", None)  # an option of other kinds of data
    scored = given.pop("evaluate", None)
    if scored is not None:
        given.setdefault("unusable", "keep")  # no pair may be left out of a score
    task = given.pop("task", "translation")
    if task != "translation":
        raise ArgumentError(
            f"--task {task} does not apply to sentence pairs. Use --task translation, or omit it."
        )
    chosen = {name: given.pop(name) for name in (*_LANGUAGES, *_SETTINGS) if name in given}
    settings = TranslationOptions(**chosen)
    target = given.pop("target", None)
    source_column, target_column = given.pop("source_column", None), None
    positions = given.pop("columns", None)
    is_table = is_table_of_pairs(path)
    if is_table:
        target, target_column = None, target
    request = SplitRequest(
        _parse_size("valid", given.pop("valid", 0.1)),
        _parse_size("test", given.pop("test", 0.0)),
        given.pop("split", None),
        given.pop("seed", 0),
        scored=scored,
        default_valid=0.1,
    )
    if given:
        name = next(iter(given))
        known = ["target", "valid", "test", "tokenizer", "vocab_size"]
        raise ArgumentError(
            f"Unknown option {name!r} for sentence pairs. {did_you_mean(name, known)}"
        )
    if target is not None:
        return read_files(path, target, replace(request, split=None), settings)
    if path.is_dir():
        return _read_folder(path, request, settings)
    if is_table:
        if isinstance(request.valid, tuple) or isinstance(request.test, tuple):
            raise ArgumentError(
                f"{path} is a table, so valid and test must be fractions of its rows. To assign "
                "each row to a part, name the column with --split NAME."
            )
        languages = settings.source_language, settings.target_language
        wanted = Wanted(source_column, target_column, positions, *languages)
        wanted = with_known_columns(wanted, settings.columns_of_like, path)
        table, first, second, reason = read_pair_table(path, wanted)
        return read_columns(table, first, second, request, settings, reason)
    raise InputError(
        f"{path} has only one side of the sentence pairs. Give the file with the other side: "
        "--target FILE, with the same number of lines."
    )


def _parse_size(name: str, value: Any) -> Any:
    """Parse a command-line value: a fraction, a number of pairs, or two files."""
    if not isinstance(value, str):
        return value
    try:
        return parse_part_size(value)
    except ValueError:
        pass
    files = tuple(part.strip() for part in value.split(","))
    if len(files) != 2 or not all(files):
        raise ArgumentError(
            f"{name} is {value!r}; give a fraction such as 0.1, a number of pairs, or two files "
            f"separated by a comma: --{name} SOURCE,TARGET."
        )
    return files


def _read_folder(
    folder: Path, request: SplitRequest, options: TranslationOptions
) -> TranslationDataArguments:
    """Read ``train.*`` of two languages, and ``valid.*`` (or ``val.*``) and ``test*`` if present.

    The source is the language set in the options, else the first in alphabetical order.
    """
    asked = options.source_language, options.target_language

    def order(file: Path) -> tuple[bool, bool, str]:
        language = side_of(file)
        wanted = [None if each is None else language_code(each) or each for each in asked]
        is_target = language == wanted[1]
        return language != wanted[0], is_target, file.name

    found = (file for file in folder.iterdir() if file.is_file() and side_of(file))
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(found, key=order):
        stem = file.name.removesuffix(".gz").rpartition(".")[0]
        by_stem.setdefault(stem, []).append(file)
    train = by_stem.get("train", [])
    if len(train) != 2:
        raise InputError(
            f"{folder} has {len(train)} files named train.LANGUAGE (or train.src and "
            "train.tgt), not two. Name the files: flambeau fit SOURCE --target TARGET."
        )
    source, target = train
    for name, file in zip(_LANGUAGES, train, strict=True):
        wanted = getattr(options, name)
        if wanted is not None and language_of(file) not in (None, language_code(wanted)):
            names = " and ".join(each.name for each in train)
            raise InputError(
                f"{name} is {wanted!r}, but {folder} has {names}. Give a language of these files."
            )
    pairs = {stem: files for stem, files in by_stem.items() if len(files) == 2}
    valid = next((pairs[name] for name in ("valid", "val", "dev") if name in pairs), None)
    test = next((files for stem, files in pairs.items() if stem.startswith("test")), None)
    found = {
        part: tuple(files)
        for part, files in (("valid", valid), ("test", test))
        if files is not None and not isinstance(getattr(request, part), tuple)
    }
    request.refuse_unused_sizes(dict.fromkeys(found))
    return read_files(source, target, replace(request, **found), options)


def _assemble(
    parts: Mapping[str, Pairs],
    request: SplitRequest,
    options: TranslationOptions,
    given: Mapping[str, Rows] | None = None,
) -> TranslationDataArguments:
    """Filter the pairs of all parts, join them in one table, and split the table."""
    rows = consecutive_rows({part: len(each) for part, each in parts.items()})
    first = request.split.test if isinstance(request.split, Split) else (given or {}).get("test")
    tested: list[int] = [] if first is None else first.tolist()
    whole = {"train": frozenset(tested)}
    whole["test"] = frozenset(range(len(parts.get("test", ()))))
    usable = {
        part: filter_pairs(each, options, whole.get(part, ())) for part, each in parts.items()
    }
    kept = [rows[part][positions] for part, (_, positions) in usable.items()]
    pairs = sum((each for each, _ in usable.values()), Pairs())
    split = request.resolve(
        sum(map(len, rows.values())),
        kept=np.concatenate(kept),
        given=rows if len(rows) > 1 else given,
        groups=_source_groups(pairs.sources, options) if options.group_sources else None,
    )
    if "by group" in split.method:
        note = (
            "a group is all pairs of one source; to draw single pairs, use "
            "TranslationOptions(group_sources=False) or --group-sources false"
        )
        split = replace(split, notes=(*split.notes, note))
    return pairs.as_samples(), split, options, pairs.skipped, tuple(pairs.notes)


def _source_groups(sources: Sequence[str], options: TranslationOptions) -> np.ndarray:
    """Return a group number per pair, the same for equal sources.

    Differences in case, spaces and Unicode form are ignored.
    """
    form = options.normalization or "nfc"
    numbers: dict[str, int] = {}
    plain = (" ".join(normalize(text, form).casefold().split()) for text in sources)
    return np.array([numbers.setdefault(text, len(numbers)) for text in plain], dtype=np.int64)
