"""``DOMAIN``: the record that registers text classification with flambeau's core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flambeau.data.tables import read_csv
from flambeau.domain import DATA_COMMANDS, CliOption, Domain, Recognition
from flambeau.errors import InputError
from flambeau.task import Classification, MultiLabel, Regression
from flambeau_text.classification.checks import CHECKS
from flambeau_text.classification.columns import find_text_column
from flambeau_text.classification.data import TextData
from flambeau_text.classification.demo import python_help
from flambeau_text.classification.folders import class_folders
from flambeau_text.classification.preprocess import EncoderTextPreprocessor, TextPreprocessor
from flambeau_text.classification.rules import RULES
from flambeau_text.file_kinds import JSON_SUFFIXES, TABLE_SUFFIXES, suffix_of
from flambeau_text.huggingface.encoder import encoder_classifier
from flambeau_text.models.bag import bag_classifier
from flambeau_text.models.concat_pool import awd_lstm_classifier
from flambeau_text.models.transformer_classifier import transformer_classifier

if TYPE_CHECKING:
    from flambeau.data.attributions import Attributions

_ROWS = 50


def recognise(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Recognise folders of text files by class, and tables with a column of texts.

    "sure" for a folder with several class folders of text files. A table is "possible", because
    its other columns may matter, too: ``--domain text`` chooses this domain.
    """
    if path.is_dir():
        names = [each.name for each in class_folders(path)]
        if len(names) < 2:
            return None
        return Recognition("sure", f"It has {len(names):,} folders of text files: one per class.")
    suffix = suffix_of(path)
    if suffix in JSON_SUFFIXES:
        return Recognition("possible", "It is a file of JSON lines.")
    if suffix not in TABLE_SUFFIXES:
        return None
    try:
        table = read_csv(path, rows=_ROWS).with_numbers()
        target = options.get("target", "")
        name, _ = find_text_column(table, [target])
    except (InputError, OSError, ValueError):
        return None
    if len(table.names) < 2:
        return None
    return Recognition("possible", f"It is a table with texts in the column {name!r}.")


def parse_names(text: str) -> list[str]:
    """Return names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_columns(text: str) -> str | list[str]:
    """Return the name of a column, or several names separated by commas."""
    names = parse_names(text)
    return names if len(names) > 1 else text


DATA_OPTIONS = (
    CliOption(
        "text",
        parse_columns,
        "Column with the texts, by default found; two with a comma for pairs of texts.",
        "text",
    ),
    CliOption("valid", str, "Share or number of texts for validation, or a file.", "valid"),
    CliOption("test", str, "Share or number of texts for the final test, or a file.", "test"),
    CliOption(
        "calibration",
        str,
        "Share or number of texts for calibration after training, or a file.",
        "calibration",
    ),
    CliOption("split", str, "Column with train, valid, test …; none for a random split.", "split"),
    CliOption("weight", str, "Column with the weight of each text.", "weight"),
    CliOption("group", str, "Column with the group of each text: in one part only.", "group"),
    CliOption("sep", str, "Separator between several labels of one text.", "sep"),
    CliOption("classes", parse_names, "The classes, in order, separated by commas.", "classes"),
    CliOption("tokenizer", str, "Tokenizer: word, bpe, unigram or character.", "tokenizer"),
    CliOption("vocab-size", int, "Size of the vocabulary, in tokens.", "vocab_size"),
    CliOption("language", str, "Language code, such as en, for --tokenizer word.", "language"),
    CliOption("lowercase", bool, "Lower-case the texts.", "lowercase"),
    CliOption(
        "word-rules", bool, "Capitals and repetition of --tokenizer word as tokens.", "word_rules"
    ),
    CliOption("normalization", str, "Unicode form of texts: nfc, nfkc or none.", "normalization"),
    CliOption(
        "language-model",
        str,
        "Folder of an exported language model, or of an encoder of Hugging Face, to start from.",
        "language_model",
    ),
    CliOption("max-length", int, "Most tokens of a text.", "max_length"),
    CliOption("truncation", str, "What is kept of longer texts: head or head_tail.", "truncation"),
)

# The classes are those of the model.
EVALUATE_OPTIONS = (
    *(option for option in DATA_OPTIONS if option.name != "classes"),
    CliOption(
        "unknown",
        str,
        "What to do with texts of a class that the model does not know: 'raise' or 'skip'.",
        "unknown",
    ),
)


def _attributions(
    predictor: Any, item: Any, output: str | None, background: Sequence[Any]
) -> Attributions:
    """Return how much each token of a text moves an output."""
    from flambeau_text.classification.report.attribution import (
        word_attributions,  # needed by explain alone
    )

    return word_attributions(predictor, item, output, background)


DOMAIN = Domain(
    name="text",
    data_classes={"TextData": TextData},
    models={
        "bag": bag_classifier,
        "awd_lstm": awd_lstm_classifier,
        "transformer": transformer_classifier,
        "hf_encoder": encoder_classifier,
    },
    tasks={
        "classification": Classification,
        "multi_label": MultiLabel,
        "regression": Regression,
    },
    rules=RULES,
    checks=CHECKS,
    preprocessors={
        "text_preprocessor": TextPreprocessor,
        "encoder_text_preprocessor": EncoderTextPreprocessor,
    },
    recognise=recognise,
    cli_options={**dict.fromkeys(DATA_COMMANDS, DATA_OPTIONS), "evaluate": EVALUATE_OPTIONS},
    demo=python_help,
    attributions=_attributions,
)
