"""The ways into ``TranslationData``: files, tables and iterables to samples, split and options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_text.translation.lines import language_of, read_pair, reads_like_a_sentence
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.pairs import (
    Pairs,
    pairs_of_columns,
    pairs_of_items,
    pairs_of_lines,
    usable,
)

_LANGUAGES = ("source_language", "target_language")

Built: TypeAlias = tuple[Samples, Split, TranslationOptions, Mapping[str, int]]
Request: TypeAlias = tuple[Any, Any, Any, int]
"""What was asked of the split: valid, test, split, seed."""


@dataclass(frozen=True)
class Table:
    """Columns by name, and which of them are the two sides.

    Attributes:
        columns: A data frame, or any mapping of names to sequences.
        source: Name of the source column.
        target: Name of the target column.
        name: What rows are called in messages.
    """

    columns: Any
    source: str
    target: str
    name: str


def of_files(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    request: Request,
    options: TranslationOptions | None,
) -> Built:
    """Two files, and two of its own for valid and test where they are given."""
    options = options or TranslationOptions()
    languages = {
        "source_language": options.source_language or language_of(source),
        "target_language": options.target_language or language_of(target),
    }
    options = options.with_given(languages)
    valid, test, split, seed = request

    def read(files: tuple[Any, Any]) -> Pairs:
        return pairs_of_lines(*read_pair(*files), Path(files[0]).name)

    parts = {"train": read((source, target))}
    for part, given in (("valid", valid), ("test", test)):
        if isinstance(given, tuple | list):
            parts[part] = read(_two(given, part))
    return _built(parts, (valid, test, split, seed), options)


def of_table(table: Table, request: Request, options: TranslationOptions | None) -> Built:
    """Two columns of a table; a third may name the parts.

    Columns that are called by a language ("en") say it where the options do not.
    """
    options = options or TranslationOptions()
    options = options.with_given(
        {
            name: getattr(options, name) or _language_named(column)
            for name, column in zip(_LANGUAGES, (table.source, table.target), strict=True)
        }
    )
    valid, test, split, seed = request
    pairs = pairs_of_columns(table.columns, table.source, table.target, table.name)
    if not isinstance(split, str):
        return _built({"train": pairs}, (valid, test, split, seed), options)
    if split not in table.columns:
        names = [str(each) for each in table.columns]
        raise InputError(f"There is no column {split!r}. {nearest(split, names)}")
    named = [str(cell).strip().lower() for cell in table.columns[split]]
    parts: dict[str, Pairs] = {part: Pairs() for part in PARTS}
    for row, (part, *pair) in enumerate(
        zip(named, pairs.sources, pairs.targets, pairs.places, strict=True)
    ):
        if part not in parts:
            raise InputError(
                f"{table.name} row {row}: the column {split!r} says {part!r}; it must say train, "
                "valid or test."
            )
        parts[part].add(*cast("tuple[str, str, str]", tuple(pair)))
    return _built(
        {part: each for part, each in parts.items() if len(each)}, (0.0, 0.0, None, seed), options
    )


def _language_named(column: str) -> str | None:
    return language_of(f"x.{column}") if len(column) == 2 else None


def of_pairs(pairs: Iterable[Any], request: Request, options: TranslationOptions | None) -> Built:
    """Any iterable of pairs, and others for valid and test where they are given."""
    options = options or TranslationOptions()
    valid, test, split, seed = request
    parts = {"train": pairs_of_items(pairs)}
    for part, given in (("valid", valid), ("test", test)):
        if not isinstance(given, int | float):
            parts[part] = pairs_of_items(given, f"{part} pair")
    return _built(parts, (valid, test, split, seed), options)


def read_csv(path: str | os.PathLike[str]) -> Mapping[str, list[str]]:
    """The columns of a CSV file with a header, every cell as text.

    Raises:
        InputError: The file is missing, not UTF-8, or no table.
    """
    import pandas as pd

    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file {path} (looked from {Path.cwd()}). Check the path.")
    try:
        frame = pd.read_csv(
            path,
            sep="\t" if ".tsv" in path.suffixes else ",",
            dtype=str,
            keep_default_na=False,
            encoding="utf-8",
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}. Save it as UTF-8.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is no table with a header: {error}") from error
    return {str(name): frame[name].tolist() for name in frame.columns}


def of_path(path: Path, options: Mapping[str, Any]) -> Built:
    """What the command line names.

    Args:
        path: The source file, with ``target`` among the options; a CSV or TSV file; or a folder
            with two files that differ in their ending alone (``train.en`` and ``train.de``).
        options: ``target``; ``source_column``, ``target_column`` and ``split`` of a table;
            ``source_language``, ``target_language``, ``seed``, ``tokenizer``, ``vocab_size``,
            ``lowercase``, ``unusable``; ``valid`` and ``test``, each a share or two files with a
            comma between them.

    Raises:
        ArgumentError: An option is unknown.
        InputError: The path holds no pairs.
    """
    given = {name: value for name, value in options.items() if value is not None}
    given.pop("classes", None)  # of other kinds of data
    task = given.pop("task", "translation")
    if task != "translation":
        raise ArgumentError(
            f"--task {task}: what is learned from sentence pairs is called translation. Write "
            "--task translation, or leave it out."
        )
    chosen = {
        name: given.pop(name)
        for name in (*_LANGUAGES, "tokenizer", "vocab_size", "lowercase", "unusable")
        if name in given
    }
    settings = TranslationOptions(**chosen)
    target = given.pop("target", None)
    source_column, target_column = (
        given.pop("source_column", None),
        given.pop("target_column", None),
    )
    column = given.pop("split", None)
    valid = _part("valid", given.pop("valid", 0.1))
    test = _part("test", given.pop("test", 0.0))
    request = (valid, test, column, given.pop("seed", 0))
    if given:
        name = next(iter(given))
        raise ArgumentError(
            f"Sentence pairs have no option {name!r}. "
            f"{nearest(name, ['target', 'valid', 'test', 'tokenizer', 'vocab_size'])}"
        )
    if target is not None:
        return of_files(path, target, (valid, test, None, request[3]), settings)
    if path.is_dir():
        return _of_folder(path, request, settings)
    if {".csv", ".tsv"} & set(path.suffixes):
        columns = read_csv(path)
        first, second = _sides(columns, source_column, target_column, path)
        if isinstance(valid, tuple) or isinstance(test, tuple):
            raise ArgumentError(
                f"{path} is a table, so valid and test are shares of its rows, or a column says "
                "what each row is for: --split NAME."
            )
        return of_table(Table(columns, first, second, path.name), request, settings)
    raise InputError(
        f"{path} is one side of sentence pairs. Name the other: --target FILE, with as many lines."
    )


def _part(name: str, value: Any) -> Any:
    """A share, or two files: of the command line, where either is text."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        pass
    files = tuple(part.strip() for part in value.split(","))
    if len(files) != 2 or not all(files):
        raise ArgumentError(
            f"{name} is {value!r}; give a share such as 0.1, or the two files with a comma between "
            f"them: --{name} SOURCE,TARGET."
        )
    return files


def _sides(
    columns: Mapping[str, Any], source: str | None, target: str | None, path: Path
) -> tuple[str, str]:
    """The columns of the two sides: those named, else "source" and "target", else the only two."""
    if source and target:
        return source, target
    if not (source or target):
        if "source" in columns and "target" in columns:
            return "source", "target"
        if len(columns) == 2:
            first, second = columns
            _refuse_sentences(first, second, path)
            return first, second
    raise InputError(
        f"{path} has the columns {', '.join(map(str, columns))}. Say which are the two sides: "
        "--source-column NAME --target-column NAME."
    )


def _refuse_sentences(first: str, second: str, path: Path) -> None:
    """Tells names of columns from a first pair, which would be lost."""
    if reads_like_a_sentence(first) or reads_like_a_sentence(second):
        divider = "a tab" if path.suffix == ".tsv" else "a comma"
        raise InputError(
            f"{path} begins with {first!r:.60} and {second!r:.60}, which reads like a pair and not "
            f"like names of columns. Put a first line over it: source and target, {divider} "
            "between them; or say that these are the names: --source-column, --target-column."
        )


def _of_folder(folder: Path, request: Request, options: TranslationOptions) -> Built:
    """``train.*`` of two languages, and ``valid.*`` (or ``val.*``) and ``test*`` where they are.

    The source is the language that the options name as such, else the first by alphabet.
    """

    def place(file: Path) -> tuple[bool, bool, str]:
        language = language_of(file)
        is_target = language == options.target_language
        return language != options.source_language, is_target, file.name

    found = (file for file in folder.iterdir() if file.is_file() and language_of(file))
    files = sorted(found, key=place)
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        stem = file.name.removesuffix(".gz").rpartition(".")[0]
        by_stem.setdefault(stem, []).append(file)
    train = by_stem.get("train", [])
    if len(train) != 2:
        raise InputError(
            f"{folder} has {len(train)} files named train.* of a language each, not two. Name the "
            "files: flambeau fit SOURCE --target TARGET."
        )
    source, target = train
    for name, file in zip(_LANGUAGES, train, strict=True):
        wanted = getattr(options, name)
        if wanted not in (None, language_of(file)):
            names = " and ".join(each.name for each in train)
            raise InputError(f"{name} is {wanted!r}, but {folder} has {names}.")
    valid, test, split, seed = request
    for name in ("valid", "val", "dev"):
        if len(by_stem.get(name, [])) == 2 and not isinstance(valid, tuple):
            valid = tuple(by_stem[name])
            break
    tests = [each for stem, each in by_stem.items() if stem.startswith("test") and len(each) == 2]
    if tests and not isinstance(test, tuple):
        test = tuple(tests[0])
    return of_files(source, target, (valid, test, split, seed), options)


def _two(files: Any, part: str) -> tuple[Any, Any]:
    if len(files) != 2:
        raise ArgumentError(
            f"{part} is {files!r:.80}; give a share, or two files: (source, target)."
        )
    return files[0], files[1]


def _built(parts: Mapping[str, Pairs], request: Request, options: TranslationOptions) -> Built:
    """Filtered pairs in one table, and the split over them."""
    from flambeau_text.translation.data import joined

    valid, test, split, seed = request
    if isinstance(split, Split) and len(parts) == 1:
        # Row numbers are those of the pairs as they came, so the split is told what stays.
        return _with_split(parts["train"], split, options)
    pairs, rows = joined({part: usable(each, options) for part, each in parts.items()})
    shares = {
        part: share if part not in parts else 0.0
        for part, share in (("valid", valid), ("test", test))
    }
    made = rows["train"]
    drawn = [part for part, share in shares.items() if share]
    if drawn:
        rows |= {part: made[inner] for part, inner in _drawn(len(made), shares, seed).items()}
    method = "given" if not drawn else f"random (seed {seed})"
    empty = np.zeros(0, dtype=np.int64)
    found = Split(rows["train"], rows.get("valid", empty), rows.get("test", empty), method=method)
    return pairs.as_samples(), found, options, pairs.left_out


def _drawn(n: int, shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Rows of the train table by the part that they go to, for parts without pairs of their own."""
    if shares["valid"]:
        split = Split.random(n, shares["valid"], shares["test"], seed)
        parts = {part: split.part(part) for part in PARTS}
        return {part: rows for part, rows in parts.items() if part == "train" or shares[part]}
    split = Split.random(n, shares["test"], 0.0, seed)
    return {"train": split.train, "test": split.valid}


def _with_split(pairs: Pairs, split: Split, options: TranslationOptions) -> Built:
    """The split by the user's own row numbers, without the pairs that cannot be used."""
    split.check_length(len(pairs))
    kept = usable(pairs, options)
    new = {place: row for row, place in enumerate(kept.places)}
    rows = {
        part: np.array(
            [
                new[pairs.places[row]]
                for row in split.part(part).tolist()
                if pairs.places[row] in new
            ],
            dtype=np.int64,
        )
        for part in PARTS
    }
    found = Split(rows["train"], rows["valid"], rows["test"], method=split.method)
    return kept.as_samples(), found, options, kept.left_out
