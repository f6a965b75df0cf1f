"""The record by which core knows translation."""

from __future__ import annotations

from pathlib import Path

from flambeau.domain import CliOption, Domain
from flambeau_text.models import rnn, transformer
from flambeau_text.translation.data import TranslationData
from flambeau_text.translation.demo import dates_data
from flambeau_text.translation.lines import language_of, reads_like_a_sentence
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.rules import RULES
from flambeau_text.translation.task import TranslationTask


def recognise(path: Path) -> float:
    """How sure it is that ``path`` holds sentence pairs, 0 to 1.

    0.9 for a folder with two files ``train.*`` of two languages; 0.8 for a table with columns
    "source" and "target", or of two columns that are called by languages ("en", "de"); 0.6 for a
    file that ends in a language, whose other side has to be named beside it; 0.2 for two
    columns of a TSV file without a header, which reading it then asks for.
    """
    if path.is_dir():
        named = [file for file in path.iterdir() if file.name.startswith("train.")]
        return 0.9 if len({language_of(file) for file in named} - {None}) == 2 else 0.0
    if not path.is_file():
        return 0.0
    if path.suffix in (".csv", ".tsv"):
        return _of_header(path)
    return 0.6 if language_of(path) is not None else 0.0


def _of_header(path: Path) -> float:
    with open(path, encoding="utf-8", errors="replace") as file:
        header = file.readline().strip().lower().replace('"', "")
    names = header.split("\t" if path.suffix == ".tsv" else ",")
    languages = len(names) == 2 and all(language_of(f"x.{name}") for name in names)
    if languages or {"source", "target"} <= set(names):
        return 0.8
    is_bare = len(names) == 2 and any(map(reads_like_a_sentence, names))
    return 0.2 if is_bare and path.suffix == ".tsv" else 0.0


CLI_OPTIONS = (
    CliOption("source", str, "The file with the sources, instead of PATH.", "path"),
    CliOption("task", str, "translation: what is learned.", "task"),
    CliOption("target", str, "The file with the translations, line by line.", "target"),
    CliOption("source-language", str, "Such as en; the source of a folder.", "source_language"),
    CliOption("target-language", str, "Such as de.", "target_language"),
    CliOption("valid", str, "Share of the pairs that validate, or files: val.en,val.de", "valid"),
    CliOption("test", str, "Share that is looked at once, at the end, or files.", "test"),
    CliOption("tokenizer", str, "bpe, unigram, word or character.", "tokenizer"),
    CliOption("vocab-size", int, "Tokens in a vocabulary.", "vocab_size"),
    CliOption("lowercase", bool, "Lower-case both sides.", "lowercase"),
    CliOption("unusable", str, "'skip' pairs that cannot be used, or 'raise'.", "unusable"),
    CliOption("source-column", str, "Column of a table with the sources.", "source_column"),
    CliOption("target-column", str, "Column of a table with the targets.", "target_column"),
    CliOption("split", str, "Column of a table that says train, valid or test.", "split"),
)

DOMAIN = Domain(
    name="translate",
    data_classes={"TranslationData": TranslationData},
    models={"rnn": rnn, "transformer": transformer},
    tasks={TranslationTask.builder: TranslationTask},
    rules=RULES,
    builders={"translation_preprocessor": TranslationPreprocessor},
    recognise=recognise,
    cli_options=CLI_OPTIONS,
    demo=dates_data,
)
