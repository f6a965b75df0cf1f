"""``DOMAIN``: the record that registers translation with flambeau's core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flambeau.data.tables import read_csv
from flambeau.domain import DATA_COMMANDS, CliOption, Domain, Recognition
from flambeau.errors import InputError
from flambeau_text.decoding.cli_options import SAMPLING_OPTIONS
from flambeau_text.languages import language_code
from flambeau_text.models import rnn, transformer
from flambeau_text.translation.data import TranslationData
from flambeau_text.translation.demo import dates_data
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.rules import RULES
from flambeau_text.translation.table_columns import is_table_of_pairs
from flambeau_text.translation.task import TranslationTask
from flambeau_text.translation.text_files import reads_like_a_sentence, side_of


def recognise(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Recognise a path with sentence pairs; return None for any other.

    The result is "sure" for a folder with files ``train.*`` of two languages, for a table with the
    columns "source" and "target", with two columns named by language codes ("en", "de"), or with
    the option ``--task translation``; and for a file in one language if the file of the other
    language is given. It is "possible" for a file in one language alone, and for a table of two
    columns with sentences but with other names or without a header. If an option is missing, the
    error of reading the path names it.
    """
    if path.is_dir():
        found = (side_of(file) for file in path.iterdir() if file.name.startswith("train."))
        languages = sorted({language for language in found if language is not None})
        if len(languages) != 2:
            return None
        return Recognition("sure", f"It has the files train.{' and train.'.join(languages)}.")
    if is_table_of_pairs(path):
        if options.get("task") == "translation":
            return Recognition("sure", "--task is translation.")
        return _recognise_table(path, options)
    if not path.is_file():
        return None
    language = side_of(path)
    if "target" in options and (language is not None or Path(options["target"]).is_file()):
        return Recognition("sure", "--target gives the file with the translations.")
    if language is None:
        return None
    return Recognition("possible", f"Its name ends in {language!r}.")


def _recognise_table(path: Path, options: Mapping[str, str]) -> Recognition | None:
    if "columns" in options:
        return Recognition("sure", "--columns gives the columns of source and target.")
    try:
        head = read_csv(path, rows=1, header=False)
    except (InputError, OSError):
        return None
    names = [head.column(at)[0] for at in head.names]
    lower = [name.strip().lower() for name in names]
    if options.get("source-column") in names:
        return Recognition("sure", "--source-column names the column of the sources.")
    if {"source", "target"} <= set(lower):
        return Recognition("sure", "It has the columns 'source' and 'target'.")
    if len(names) != 2:
        return None
    if None not in map(language_code, names):
        return Recognition("sure", f"Its columns {names[0]!r} and {names[1]!r} are language codes.")
    if any(map(reads_like_a_sentence, names)):
        return Recognition("possible", "Its first line looks like a sentence pair.")
    return _recognise_sentences(path, names)


def _recognise_sentences(path: Path, names: Sequence[str]) -> Recognition | None:
    """Recognise a table whose two columns have sentences in the first rows."""
    try:
        table = read_csv(path, rows=20)
    except (InputError, OSError):
        return None
    if not all(_are_sentences(column) for column in map(table.column, names)):
        return None
    return Recognition("possible", f"Both columns, {names[0]!r} and {names[1]!r}, have sentences.")


def _are_sentences(column: Sequence[str]) -> bool:
    """Return whether most texts of a column have at least three words: labels have fewer."""
    return 2 * sum(len(text.split()) >= 3 for text in column) > len(column)


DATA_OPTIONS = (
    CliOption("source", str, "File with the source sentences, in place of PATH.", "path"),
    CliOption(
        "source-language",
        str,
        "Source language, such as en; in a folder its file is the source.",
        "source_language",
    ),
    CliOption("target-language", str, "Target language, such as de.", "target_language"),
    CliOption(
        "valid", str, "Fraction of the pairs for validation, or two files: val.en,val.de", "valid"
    ),
    CliOption("test", str, "Fraction of the pairs for the final test, or two files.", "test"),
    CliOption("tokenizer", str, "Tokenizer: bpe, unigram, word or character.", "tokenizer"),
    CliOption("vocab-size", int, "Size of a vocabulary, in tokens.", "vocab_size"),
    CliOption("lowercase", bool, "Lower-case both sides.", "lowercase"),
    CliOption(
        "group-sources",
        bool,
        "Keep all pairs of one source in one part of a drawn split (default: true).",
        "group_sources",
    ),
    CliOption("max-words", int, "Maximum number of words of each side.", "max_words"),
    CliOption(
        "max-characters", int, "Maximum number of characters of each side.", "max_characters"
    ),
    CliOption(
        "max-ratio", float, "Maximum ratio of the two sides' numbers of words.", "max_length_ratio"
    ),
    CliOption("normalization", str, "Unicode form of texts: nfc, nfkc or none.", "normalization"),
    CliOption(
        "unusable",
        str,
        "'skip' unusable pairs (except in test), 'keep' them, or 'raise' an error.",
        "unusable",
    ),
    CliOption("source-column", str, "Name of the source column of a table.", "source_column"),
    CliOption(
        "columns",
        str,
        "Positions of source and target column in a table without a header: 0,1.",
        "columns",
    ),
    CliOption(
        "split", str, "Name of a table's column with train, valid or test for each row.", "split"
    ),
)

PREDICT_OPTIONS = (
    CliOption("beam", int, "Size of the beam search; 1 is greedy, larger is slower.", "beam"),
    CliOption("n-best", int, "Number of translations per source, in JSON and CSV.", "n_best"),
    CliOption(
        "length-penalty", float, "Exponent of the length penalty; 0: none.", "length_penalty"
    ),
    *SAMPLING_OPTIONS,
    CliOption("attention", bool, "Add tokens and attention weights, in JSON and CSV.", "attention"),
    CliOption(
        "replace-unknown",
        bool,
        "Replace unknown tokens by the source token with the highest attention.",
        "replace_unknown",
    ),
)

DOMAIN = Domain(
    name="translate",
    data_classes={"TranslationData": TranslationData},
    models={"rnn": rnn, "transformer": transformer},
    tasks={TranslationTask.builder: TranslationTask},
    rules=RULES,
    preprocessors={"translation_preprocessor": TranslationPreprocessor},
    recognise=recognise,
    cli_options={**dict.fromkeys(DATA_COMMANDS, DATA_OPTIONS), "predict": PREDICT_OPTIONS},
    demo=dates_data,
)
