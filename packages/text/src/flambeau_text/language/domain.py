"""``DOMAIN``: the record that registers language models with flambeau's core."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flambeau.domain import DATA_COMMANDS, CliOption, Domain, Recognition
from flambeau.errors import InputError
from flambeau_text.language.data import LanguageModelData
from flambeau_text.language.demo import python_topics
from flambeau_text.language.documents import is_text_file, text_files
from flambeau_text.language.preprocess import LanguagePreprocessor
from flambeau_text.language.rules import RULES
from flambeau_text.language.task import LanguageModelTask
from flambeau_text.models.awd_lstm import awd_lstm
from flambeau_text.models.decoder import decoder


def recognise(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Recognise text files and folders of text files, as "possible": other tasks have such files.

    A table of texts is read with ``--domain language``.
    """
    if path.is_file():
        return Recognition("possible", "It is a text file.") if is_text_file(path) else None
    if not path.is_dir():
        return None
    try:
        n = len(text_files(path))
    except InputError:
        return None
    return Recognition("possible", f"It has {n:,} text files.")


DATA_OPTIONS = (
    CliOption("text", str, "Column of a table with the texts (default: text).", "text"),
    CliOption(
        "document", str, "What a document of a text file is: file, paragraph or line.", "document"
    ),
    CliOption("valid", str, "Fraction or number of documents for validation, or a file.", "valid"),
    CliOption(
        "test", str, "Fraction or number of documents for the final test, or a file.", "test"
    ),
    CliOption("tokenizer", str, "Tokenizer: bpe, unigram, word or character.", "tokenizer"),
    CliOption("vocab-size", int, "Size of the vocabulary, in tokens.", "vocab_size"),
    CliOption("language", str, "Language code, such as en, for --tokenizer word.", "language"),
    CliOption("lowercase", bool, "Lower-case the texts.", "lowercase"),
    CliOption("normalization", str, "Unicode form of texts: nfc, nfkc or none.", "normalization"),
    CliOption(
        "split", str, "Name of a table's column with train, valid or test for each row.", "split"
    ),
)

PREDICT_OPTIONS = (
    CliOption("max-tokens", int, "Number of tokens to generate (default: 50).", "max_tokens"),
    CliOption("temperature", float, "Temperature of sampling; 0 is greedy.", "temperature"),
    CliOption("top-k", int, "Sample among this number of most probable tokens.", "top_k"),
    CliOption(
        "top-p",
        float,
        "Sample among the most probable tokens whose probabilities add up to this.",
        "top_p",
    ),
    CliOption("min-p", float, "Sample tokens with this share of the highest probability.", "min_p"),
    CliOption("seed", int, "Seed of the sampling.", "seed"),
)

DOMAIN = Domain(
    name="language",
    data_classes={"LanguageModelData": LanguageModelData},
    models={"awd_lstm": awd_lstm, "decoder": decoder},
    tasks={LanguageModelTask.builder: LanguageModelTask},
    rules=RULES,
    preprocessors={"language_preprocessor": LanguagePreprocessor},
    recognise=recognise,
    cli_options={**dict.fromkeys(DATA_COMMANDS, DATA_OPTIONS), "predict": PREDICT_OPTIONS},
    demo=python_topics,
)
