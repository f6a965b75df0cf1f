"""``DOMAIN``: the record that registers translation with core."""

from __future__ import annotations

from pathlib import Path

from flambeau.data.tables import read_csv
from flambeau.domain import CliOption, Domain
from flambeau.errors import InputError
from flambeau_text.models import rnn, transformer
from flambeau_text.translation.data import TranslationData
from flambeau_text.translation.demo import dates_data
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.rules import RULES
from flambeau_text.translation.task import TranslationTask
from flambeau_text.translation.text_files import language_of, reads_like_a_sentence


def recognise(path: Path) -> float:
    """Return the confidence, 0 to 1, that ``path`` has sentence pairs.

    0.9 for a folder with files ``train.*`` of two languages; 0.8 for a table with the columns
    "source" and "target", or with two columns named by language codes ("en", "de"); 0.6 for a file
    that ends in a language code, whose other side must be given too; 0.2 for a TSV file with two
    columns and no header, for which reading raises an error that requests the header.
    """
    if path.is_dir():
        named = [file for file in path.iterdir() if file.name.startswith("train.")]
        return 0.9 if len({language_of(file) for file in named} - {None}) == 2 else 0.0
    if not path.is_file():
        return 0.0
    if path.suffix in (".csv", ".tsv"):
        return _confidence_of_table(path)
    return 0.6 if language_of(path) is not None else 0.0


def _confidence_of_table(path: Path) -> float:
    try:
        names = [name.strip().lower() for name in read_csv(path, rows=0).names]
    except InputError:  # not text, or not a table
        return 0.0
    languages = len(names) == 2 and all(language_of(f"x.{name}") for name in names)
    if languages or {"source", "target"} <= set(names):
        return 0.8
    is_bare = len(names) == 2 and any(map(reads_like_a_sentence, names))
    return 0.2 if is_bare and path.suffix == ".tsv" else 0.0


CLI_OPTIONS = (
    CliOption("source", str, "File with the source sentences, in place of PATH.", "path"),
    CliOption("task", str, "The task: translation.", "task"),
    CliOption("target", str, "File with the translations, line by line.", "target"),
    CliOption(
        "source-language",
        str,
        "Source language, such as en; its file is the source in a folder.",
        "source_language",
    ),
    CliOption("target-language", str, "Target language, such as de.", "target_language"),
    CliOption(
        "valid", str, "Fraction of the pairs for validation, or two files: val.en,val.de", "valid"
    ),
    CliOption("test", str, "Fraction of the pairs for the final test, or two files.", "test"),
    CliOption("tokenizer", str, "bpe, unigram, word or character.", "tokenizer"),
    CliOption("vocab-size", int, "Size of a vocabulary, in tokens.", "vocab_size"),
    CliOption("lowercase", bool, "Lower-case both sides.", "lowercase"),
    CliOption("unusable", str, "'skip' unusable pairs, or 'raise' an error.", "unusable"),
    CliOption("source-column", str, "Column of a table with the sources.", "source_column"),
    CliOption("target-column", str, "Column of a table with the targets.", "target_column"),
    CliOption("split", str, "Column of a table with train, valid or test for each row.", "split"),
)

DOMAIN = Domain(
    name="translate",
    data_classes={"TranslationData": TranslationData},
    models={"rnn": rnn, "transformer": transformer},
    tasks={TranslationTask.builder: TranslationTask},
    rules=RULES,
    preprocessors={"translation_preprocessor": TranslationPreprocessor},
    recognise=recognise,
    cli_options=CLI_OPTIONS,
    demo=dates_data,
)
