"""The inputs of ``TranslationData``: files, tables and iterables to samples, split and options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.translation.csv_file import read_csv
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.pairs import (
    Pairs,
    concatenate,
    filter_pairs,
    pairs_from_columns,
    pairs_from_items,
    pairs_from_lines,
)
from flambeau_text.translation.text_files import language_of, read_parallel, reads_like_a_sentence

_LANGUAGES = ("source_language", "target_language")

TranslationDataArguments: TypeAlias = tuple[Samples, Split, TranslationOptions, Mapping[str, int]]
"""The arguments of ``TranslationData``: samples, split, options, skipped pairs by reason."""


class SplitRequest(NamedTuple):
    """The arguments of a constructor that request a split.

    Attributes:
        valid: A fraction or number of train pairs, or separate pairs.
        test: The same for the test part.
        split: A `Split`, or the name of a column that assigns each row to a part.
        seed: Seed of the random split.
    """

    valid: Any
    test: Any
    split: Any
    seed: int


@dataclass(frozen=True)
class PairTable:
    """A table, and the names of its source and target columns.

    Attributes:
        columns: A data frame, or a mapping of names to sequences.
        source: Name of the source column.
        target: Name of the target column.
        name: Name of the table in messages.
    """

    columns: Any
    source: str
    target: str
    name: str


def read_files(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    request: SplitRequest,
    options: TranslationOptions | None,
) -> TranslationDataArguments:
    """Read two parallel files, and two more for each of validation and test if given."""
    options = options or TranslationOptions()
    languages = {
        "source_language": options.source_language or language_of(source),
        "target_language": options.target_language or language_of(target),
    }
    options = options.with_given(languages)

    def read(files: tuple[Any, Any]) -> Pairs:
        return pairs_from_lines(*read_parallel(*files), Path(files[0]).name)

    parts = {"train": read((source, target))}
    for part, given in (("valid", request.valid), ("test", request.test)):
        if isinstance(given, tuple | list):
            parts[part] = read(_two_files(given, part))
    return _assemble(parts, request, options)


def read_table(
    table: PairTable, request: SplitRequest, options: TranslationOptions | None
) -> TranslationDataArguments:
    """Read two columns of a table; a third column may name the part of each row.

    Column names that are language codes ("en") set the languages that the options do not.
    """
    options = options or TranslationOptions()
    options = options.with_given(
        {
            name: getattr(options, name) or _language_of_column(column)
            for name, column in zip(_LANGUAGES, (table.source, table.target), strict=True)
        }
    )
    pairs = pairs_from_columns(table.columns, table.source, table.target, table.name)
    split = request.split
    if not isinstance(split, str):
        return _assemble({"train": pairs}, request, options)
    if split not in table.columns:
        names = [str(each) for each in table.columns]
        raise InputError(f"There is no column {split!r}. {did_you_mean(split, names)}")
    part_of_row = [str(cell).strip().lower() for cell in table.columns[split]]
    parts: dict[str, Pairs] = {part: Pairs() for part in PARTS}
    for row, (part, *pair) in enumerate(
        zip(part_of_row, pairs.sources, pairs.targets, pairs.locations, strict=True)
    ):
        if part not in parts:
            raise InputError(
                f"{table.name} row {row}: the column {split!r} has {part!r}; it must have train, "
                "valid or test."
            )
        parts[part].add(*cast("tuple[str, str, str]", tuple(pair)))
    return _assemble(
        {part: each for part, each in parts.items() if len(each)},
        SplitRequest(0.0, 0.0, None, request.seed),
        options,
    )


def _language_of_column(column: str) -> str | None:
    return language_of(f"x.{column}") if len(column) == 2 else None


def read_items(
    pairs: Iterable[Any], request: SplitRequest, options: TranslationOptions | None
) -> TranslationDataArguments:
    """Read an iterable of pairs, and one for each of validation and test if given."""
    parts = {"train": pairs_from_items(pairs)}
    for part, given in (("valid", request.valid), ("test", request.test)):
        if not isinstance(given, int | float):
            parts[part] = pairs_from_items(given, f"{part} pair")
    return _assemble(parts, request, options or TranslationOptions())


def read_path(path: Path, options: Mapping[str, Any]) -> TranslationDataArguments:
    """Read the path and the options of the command line.

    Args:
        path: The source file, with the file ``target`` among the options; a CSV or TSV file; or a
            folder with two files that differ only in their ending (``train.en`` and ``train.de``).
        options: ``target``, in a table the name of a column; its ``source_column`` and ``split``;
            ``source_language``, ``target_language``, ``seed``, ``tokenizer``, ``vocab_size``,
            ``lowercase``, ``unusable``; ``valid`` and ``test``, each a fraction or two files
            separated by a comma.

    Raises:
        ArgumentError: An option is unknown.
        InputError: The path has no sentence pairs.
    """
    given = {name: value for name, value in options.items() if value is not None}
    given.pop("classes", None)  # an option of other kinds of data
    task = given.pop("task", "translation")
    if task != "translation":
        raise ArgumentError(
            f"--task {task} does not apply to sentence pairs. Use --task translation, or omit it."
        )
    chosen = {
        name: given.pop(name)
        for name in (*_LANGUAGES, "tokenizer", "vocab_size", "lowercase", "unusable")
        if name in given
    }
    settings = TranslationOptions(**chosen)
    target = given.pop("target", None)
    source_column, target_column = given.pop("source_column", None), None
    if {".csv", ".tsv"} & set(path.suffixes):
        target, target_column = None, target
    request = SplitRequest(
        _parse_part("valid", given.pop("valid", 0.1)),
        _parse_part("test", given.pop("test", 0.0)),
        given.pop("split", None),
        given.pop("seed", 0),
    )
    if given:
        name = next(iter(given))
        known = ["target", "valid", "test", "tokenizer", "vocab_size"]
        raise ArgumentError(
            f"Unknown option {name!r} for sentence pairs. {did_you_mean(name, known)}"
        )
    if target is not None:
        return read_files(path, target, request._replace(split=None), settings)
    if path.is_dir():
        return _read_folder(path, request, settings)
    if {".csv", ".tsv"} & set(path.suffixes):
        columns = read_csv(path)
        first, second = _choose_columns(columns, source_column, target_column, path)
        if isinstance(request.valid, tuple) or isinstance(request.test, tuple):
            raise ArgumentError(
                f"{path} is a table, so valid and test must be fractions of its rows. To assign "
                "each row to a part, name the column with --split NAME."
            )
        return read_table(PairTable(columns, first, second, path.name), request, settings)
    raise InputError(
        f"{path} has only one side of the sentence pairs. Give the file with the other side: "
        "--target FILE, with the same number of lines."
    )


def _parse_part(name: str, value: Any) -> Any:
    """Return the fraction or the two files that a text of the command line names."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        pass
    files = tuple(part.strip() for part in value.split(","))
    if len(files) != 2 or not all(files):
        raise ArgumentError(
            f"{name} is {value!r}; give a fraction such as 0.1, or two files separated by a comma: "
            f"--{name} SOURCE,TARGET."
        )
    return files


def _choose_columns(
    columns: Mapping[str, Any], source: str | None, target: str | None, path: Path
) -> tuple[str, str]:
    """Return the named columns, else "source" and "target", else the only two columns."""
    if source and target:
        return source, target
    if not (source or target):
        if "source" in columns and "target" in columns:
            return "source", "target"
        if len(columns) == 2:
            first, second = columns
            _check_header(first, second, path)
            return first, second
    raise InputError(
        f"{path} has the columns {', '.join(map(str, columns))}. Name the two sides: "
        "--source-column NAME --target NAME."
    )


def _check_header(first: str, second: str, path: Path) -> None:
    """Refuse a header that looks like a sentence pair: this pair would be lost."""
    if reads_like_a_sentence(first) or reads_like_a_sentence(second):
        divider = "a tab" if path.suffix == ".tsv" else "a comma"
        raise InputError(
            f"The first line of {path}, {first!r:.60} and {second!r:.60}, looks like a sentence "
            f"pair, not like column names. Add a header line: source and target, separated by "
            f"{divider}. If these are the column names, pass them: --source-column, "
            "--target."
        )


def _read_folder(
    folder: Path, request: SplitRequest, options: TranslationOptions
) -> TranslationDataArguments:
    """Read ``train.*`` of two languages, and ``valid.*`` (or ``val.*``) and ``test*`` if present.

    The source is the language set in the options, else the first in alphabetical order.
    """

    def order(file: Path) -> tuple[bool, bool, str]:
        language = language_of(file)
        is_target = language == options.target_language
        return language != options.source_language, is_target, file.name

    found = (file for file in folder.iterdir() if file.is_file() and language_of(file))
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(found, key=order):
        stem = file.name.removesuffix(".gz").rpartition(".")[0]
        by_stem.setdefault(stem, []).append(file)
    train = by_stem.get("train", [])
    if len(train) != 2:
        raise InputError(
            f"{folder} has {len(train)} files named train.LANGUAGE, not two. Name the files: "
            "flambeau fit SOURCE --target TARGET."
        )
    source, target = train
    for name, file in zip(_LANGUAGES, train, strict=True):
        wanted = getattr(options, name)
        if wanted not in (None, language_of(file)):
            names = " and ".join(each.name for each in train)
            raise InputError(f"{name} is {wanted!r}, but {folder} has {names}.")
    valid, test = request.valid, request.test
    for name in ("valid", "val", "dev"):
        if len(by_stem.get(name, [])) == 2 and not isinstance(valid, tuple):
            valid = tuple(by_stem[name])
            break
    tests = [each for stem, each in by_stem.items() if stem.startswith("test") and len(each) == 2]
    if tests and not isinstance(test, tuple):
        test = tuple(tests[0])
    return read_files(source, target, request._replace(valid=valid, test=test), options)


def _two_files(files: Any, part: str) -> tuple[Any, Any]:
    if len(files) != 2:
        raise ArgumentError(
            f"{part} is {files!r:.80}; give a fraction, or two files: (source, target)."
        )
    return files[0], files[1]


def _assemble(
    parts: Mapping[str, Pairs], request: SplitRequest, options: TranslationOptions
) -> TranslationDataArguments:
    """Filter the pairs of all parts into one table and split it."""
    valid, test, split, seed = request
    if isinstance(split, Split) and len(parts) == 1:
        return _assemble_with_split(parts["train"], split, options)
    pairs, rows = concatenate({part: filter_pairs(each, options) for part, each in parts.items()})
    fractions = {
        part: fraction if part not in parts else 0.0
        for part, fraction in (("valid", valid), ("test", test))
    }
    train = rows["train"]
    random_parts = [part for part, fraction in fractions.items() if fraction]
    if random_parts:
        drawn = _random_parts(len(train), fractions, seed)
        rows |= {part: train[inner] for part, inner in drawn.items()}
    method = "given" if not random_parts else f"random (seed {seed})"
    empty = np.zeros(0, dtype=np.int64)
    found = Split(rows["train"], rows.get("valid", empty), rows.get("test", empty), method=method)
    return pairs.as_samples(), found, options, pairs.skipped


def _random_parts(n: int, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Split the train table at random into train and the parts that have no separate pairs."""
    if fractions["valid"]:
        split = Split.random(n, fractions["valid"], fractions["test"], seed)
        parts = {part: split.part(part) for part in PARTS}
        return {part: rows for part, rows in parts.items() if part == "train" or fractions[part]}
    split = Split.random(n, fractions["test"], 0.0, seed)
    return {"train": split.train, "test": split.valid}


def _assemble_with_split(
    pairs: Pairs, split: Split, options: TranslationOptions
) -> TranslationDataArguments:
    """Filter the pairs and map the rows of a given split to the rows that are kept."""
    split.check_length(len(pairs))
    kept = filter_pairs(pairs, options)
    new_row = {location: row for row, location in enumerate(kept.locations)}
    rows = {
        part: np.array(
            [
                new_row[pairs.locations[row]]
                for row in split.part(part).tolist()
                if pairs.locations[row] in new_row
            ],
            dtype=np.int64,
        )
        for part in PARTS
    }
    found = Split(rows["train"], rows["valid"], rows["test"], method=split.method)
    return kept.as_samples(), found, options, kept.skipped
