"""``DOMAIN``: the record that registers language models with flambeau's core."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path

from flambeau.domain import DATA_COMMANDS, CliOption, Domain, Recognition
from flambeau.errors import InputError
from flambeau_text.decoding.cli_options import SAMPLING_OPTIONS
from flambeau_text.huggingface.causal_lm import causal_lm
from flambeau_text.instructions import InstructionData, InstructionPreprocessor
from flambeau_text.instructions.recognise import instruction_reading
from flambeau_text.language.demo import python_topics
from flambeau_text.language.documents import is_text_file, text_files
from flambeau_text.language.path_data import PathData
from flambeau_text.language.preprocess import LanguagePreprocessor
from flambeau_text.language.rules import RULES
from flambeau_text.language.task import LanguageModelTask
from flambeau_text.models.awd_lstm import awd_lstm
from flambeau_text.models.decoder import decoder
from flambeau_text.text_lines import READ_ERRORS, open_bytes
from flambeau_text.word_count import count_words

_HEAD_BYTES = 1 << 16
_LOOKED_AT = 5  # files of a folder
_FEWEST_WORDS, _WORDS_PER_LINE = 100, 3


def recognise(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Recognise running text in a file or folder, as "possible": other tasks have such files, too.

    Lists and short notes are not recognised: a file needs 100 words, and 3 per line. A table of
    texts is read with ``--domain language``. Records with prompts and completions, or with
    messages, are "sure".
    """
    if (found := instruction_reading(path)) is not None:
        return Recognition("sure", found.what)
    if path.is_file():
        is_text = is_text_file(path) and _is_running_text(path)
        return Recognition("possible", "It is a file of running text.") if is_text else None
    if not path.is_dir():
        return None
    try:
        files = text_files(path)
    except InputError:
        return None
    if not any(map(_is_running_text, files[:_LOOKED_AT])):
        return None
    return Recognition("possible", f"It has {len(files):,} files of text.")


def _is_running_text(path: Path) -> bool:
    try:
        with open_bytes(path) as file:
            head = file.read(_HEAD_BYTES)
    except READ_ERRORS:
        return False
    if b"\0" in head:
        return False
    try:
        # The last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    counts = [count_words(line) for line in text.splitlines() if line.strip()]
    return sum(counts) >= max(_FEWEST_WORDS, _WORDS_PER_LINE * len(counts))


DATA_OPTIONS = (
    CliOption("text", str, "Column of a table with the texts (default: text).", "text"),
    CliOption(
        "document", str, "What a document of a text file is: file, paragraph or line.", "document"
    ),
    CliOption("valid", str, "Fraction or number of documents for validation, or a file.", "valid"),
    CliOption(
        "test", str, "Fraction or number of documents for the final test, or a file.", "test"
    ),
    CliOption(
        "language-model",
        str,
        "Folder of a decoder of Hugging Face, such as Llama, that is fine-tuned.",
        "language_model",
    ),
    CliOption("messages-field", str, "Field of JSON lines with the messages.", "messages"),
    CliOption("prompt-field", str, "Field of JSON lines with the prompts.", "prompt"),
    CliOption("completion-field", str, "Field of JSON lines with the answers.", "completion"),
    CliOption("form", str, "How prompts and answers are joined: chat or plain.", "form"),
    CliOption("tokenizer", str, "Tokenizer: bpe, unigram, word or character.", "tokenizer"),
    CliOption("vocab-size", int, "Size of the vocabulary, in tokens.", "vocab_size"),
    CliOption("language", str, "Language code, such as en, for --tokenizer word.", "language"),
    CliOption("lowercase", bool, "Lower-case the texts.", "lowercase"),
    CliOption(
        "word-rules", bool, "Capitals and repetition of --tokenizer word as tokens.", "word_rules"
    ),
    CliOption("normalization", str, "Unicode form of texts: nfc, nfkc or none.", "normalization"),
    CliOption("backward", bool, "Read texts from their end to their start.", "backward"),
    CliOption("split", str, "Column with train, valid, test …; none for a random split.", "split"),
)

PREDICT_OPTIONS = (
    CliOption("prompt", str, "Text to continue; the output is printed as it grows.", "prompt"),
    CliOption("max-tokens", int, "Most tokens to generate (default: 50).", "max_tokens"),
    CliOption("stop", str, "Text before which the output ends.", "stop"),
    *SAMPLING_OPTIONS,
    CliOption("min-p", float, "Sample tokens with this share of the highest probability.", "min_p"),
)

DOMAIN = Domain(
    name="language",
    data_classes={"LanguageModelData": PathData, "InstructionData": InstructionData},
    models={
        "awd_lstm": awd_lstm,
        "decoder": decoder,
        "causal_lm": causal_lm,
        "causal_lm_lora": causal_lm,
    },
    tasks={LanguageModelTask.builder: LanguageModelTask},
    rules=RULES,
    preprocessors={
        "language_preprocessor": LanguagePreprocessor,
        "instruction_preprocessor": InstructionPreprocessor,
    },
    recognise=recognise,
    cli_options={**dict.fromkeys(DATA_COMMANDS, DATA_OPTIONS), "predict": PREDICT_OPTIONS},
    demo=python_topics,
)
