"""The plan's rules for translation: tokenizer, vocabulary, architecture, training, decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_machine import precision_rule
from flambeau.plan.rules_training import lr_rule, unless_steps
from flambeau_text.decoding.strategy import Beam, strategy_from_json
from flambeau_text.forcing.teacher_forcing import TeacherForcing
from flambeau_text.languages import language_code
from flambeau_text.models.rnn import RnnConfig
from flambeau_text.models.transformer import TransformerConfig
from flambeau_text.token_rules import accepts_model_config
from flambeau_text.tokenization.fit import TOKENIZERS
from flambeau_text.tokenization.normalization import FORMS
from flambeau_text.translation.facts import TranslationFacts
from flambeau_text.translation.recipes import (
    BATCH_SIZES,
    BF16_GAINS,
    DROPOUT,
    LEARNING_RATES,
    MAX_EPOCHS,
    MIN_EPOCHS,
    SUBWORD_VOCAB_SIZES,
    TARGET_STEPS,
    TRANSFORMER_PAIRS,
)
from flambeau_text.translation.scores import (
    BLEU_TOKENIZERS,
    bleu_tokenizer,
    missing_bleu_tokenizer,
)
from flambeau_text.value_checks import from_json, one_of, whole_number

Values = Mapping[str, Any]

_CONFIGS: Mapping[str, type] = {"rnn": RnnConfig, "transformer": TransformerConfig}

# Up to this number of distinct words per side, each word gets a token.
_MAX_WORD_VOCAB = 2_000
# From this fraction of target words that occur in sources, both sides share a subword vocabulary.
_MIN_SHARED_WORDS = 0.02


def _task(facts: TranslationFacts, values: Values) -> Choice:
    names = f"{facts['source_language'] or 'source'} → {facts['target_language'] or 'target'}"
    return Choice(
        "task",
        "translation",
        f"{facts['n_train']:,} train pairs, {names}.",
        evidence={"n_train": facts["n_train"]},
        override="Learner(data, task=TranslationTask(...))",
        source="default",
    )


def _tokenizer(facts: TranslationFacts, values: Values) -> Choice:
    distinct = {
        "source": facts["source_distinct_words"],
        "target": facts["target_distinct_words"],
    }
    evidence = {**distinct, "words": facts["source_words"] + facts["target_words"]}
    unspaced = [side for side, script in facts["unspaced"].items() if script is not None]
    is_small = max(distinct.values()) <= _MAX_WORD_VOCAB
    value = "word" if is_small and not unspaced else "bpe"
    reason = (
        f"There are no spaces between words on the {' and '.join(unspaced)} side; subwords do not "
        "need them."
    )
    reason = (
        reason
        if unspaced
        else (
            f"The source side has {distinct['source']:,} distinct words and the target side "
            f"{distinct['target']:,}"
        )
    )
    reason += (
        ""
        if unspaced
        else ", few enough for one token per word."
        if value == "word"
        else ", many of them rare; subwords represent rare words by several tokens."
    )
    return Choice(
        "tokenizer",
        value,
        reason,
        evidence=evidence,
        alternatives=tuple(name for name in TOKENIZERS if name != value),
        override='options=TranslationOptions(tokenizer="word") in the data constructor',
    )


def _tokenizer_accepts(value: Any, facts: TranslationFacts, values: Values) -> str | None:
    if value in TOKENIZERS or (value is not None and value == facts["given_tokenizer"]):
        return None
    return (
        f"one of {', '.join(TOKENIZERS)}; pass any other as TranslationOptions(tokenizer=object)."
    )


def _normalization(facts: TranslationFacts, values: Values) -> Choice:
    n, n_texts = facts["n_other_form"], 2 * facts["n_train"]
    return Choice(
        "normalization",
        "nfc",
        f"{n:,} of {n_texts:,} train texts are not in the Unicode form NFC. In a single form equal "
        "letters give equal tokens in training, prediction and scores.",
        evidence={"n_other_form": n},
        alternatives=("nfkc", "none"),
        override='options=TranslationOptions(normalization="nfkc"), or --normalization nfkc',
        source="default",
    )


def _vocab_size(facts: TranslationFacts, values: Values) -> Choice:
    n, kind = facts["n_train"], values["tokenizer"]
    if kind in ("bpe", "unigram"):
        value = next(size for pairs, size in SUBWORD_VOCAB_SIZES if n >= pairs)
        reason = (
            f"{n:,} train pairs: in a vocabulary of more than {value:,} subwords, many would occur "
            "too rarely to be learned."
        )
    else:
        value = 30_000
        reason = f"An upper limit; a {kind} that does not occur in train is unknown."
    return Choice(
        "vocab_size",
        value,
        reason,
        evidence={"n_train": n, "tokenizer": kind},
        alternatives=(value * 2, value // 2),
        override="options=TranslationOptions(vocab_size=...) in the data constructor",
    )


def _shared_vocab(facts: TranslationFacts, values: Values) -> Choice:
    shared, kind = facts["shared_words"], values["tokenizer"]
    value = kind in ("bpe", "unigram") and shared >= _MIN_SHARED_WORDS
    reason = f"{shared:.1%} of the target words occur in sources"
    reason += (
        ", so both sides share subwords, and one matrix serves as both embeddings and as the "
        "output layer."
        if value
        else f"; with {kind} tokens the two sides have little in common."
    )
    return Choice(
        "shared_vocab",
        value,
        reason,
        evidence={"shared_words": shared, "tokenizer": kind},
        alternatives=(not value,),
        confidence=0.8,
    )


def _shared_vocab_accepts(value: Any, facts: TranslationFacts, values: Values) -> str | None:
    return None if isinstance(value, bool) else "True or False."


def _max_tokens(facts: TranslationFacts, values: Values) -> Choice:
    # A user-defined tokenizer may give one token per character.
    is_character = values["tokenizer"] not in ("bpe", "unigram", "word")
    unit = "characters" if is_character else "words"
    longest = facts["longest_characters"] if is_character else facts["longest_words"]
    value = max(64, 4 * longest)
    return Choice(
        "max_tokens",
        value,
        f"The longest train sentence has {longest:,} {unit}; sources with more than {value:,} "
        "tokens are refused, because the model was not trained on such lengths.",
        evidence={"longest": longest},
        alternatives=(value * 2,),
        source="default",
    )


def _bpe_dropout(facts: TranslationFacts, values: Values) -> Choice:
    return Choice(
        "bpe_dropout",
        0.0,
        "Train texts have one segmentation. With 0.1 each epoch has others, which can help on "
        "small data, in longer runs.",
        alternatives=(0.1,),
        override='choices={"bpe_dropout": 0.1} with tokenizer="bpe"',
        source="default",
    )


def _bpe_dropout_accepts(value: Any, facts: TranslationFacts, values: Values) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        return "a probability, at least 0 and below 1."
    if value and values["tokenizer"] not in ("bpe", "subword"):
        return f'0 with the tokenizer {values["tokenizer"]!r}: only "bpe" has merges to leave out.'
    return None


def _architecture(facts: TranslationFacts, values: Values) -> Choice:
    n, on_cpu = facts["n_train"], torch.device(values["device"]).type == "cpu"
    value = "rnn" if on_cpu or n < TRANSFORMER_PAIRS else "transformer"
    other = "transformer" if value == "rnn" else "rnn"
    if value == "transformer":
        reason = f"{n:,} train pairs are enough for a Transformer, and an accelerator computes all "
        reason += "tokens of a sentence in parallel."
    elif on_cpu:
        reason = "On a CPU a recurrent model with attention learns most in a given time."
    else:
        reason = f"{n:,} train pairs: on the 29,000 pairs of Multi30k the recurrent model scored "
        reason += "higher (39.0 BLEU against 37.9) in a third of the time."
    return Choice(
        "architecture",
        value,
        reason,
        evidence={"device": values["device"], "n_train": n},
        alternatives=(other,),
        confidence=0.8,
        override=f'Learner(data, "{other}")',
    )


def _model_config(facts: TranslationFacts, values: Values) -> Choice:
    architecture, n = values["architecture"], facts["n_train"]
    if facts.get("model_given", False):
        return Choice(
            "model_config",
            {},
            "Does not apply to a user-defined module.",
            override="Configure the module before it is passed to the Learner.",
            source="default",
        )
    small = values["tokenizer"] == "word" and facts["mean_words"] < 40 and n < 20_000
    if architecture == "rnn":
        width = 128 if small else 256
        value: dict[str, Any] = {"embedding_dim": width, "hidden_size": width}
    else:
        width = 128 if n < 100_000 else 256
        layers = 2 if small else 4 if n < 100_000 else 3
        value = {
            "d_model": width,
            "dim_feedforward": 2 * width if n < 100_000 else 4 * width,
            "encoder_layers": layers,
            "decoder_layers": layers,
        }
    dropout = next(p for pairs, p in DROPOUT if n >= pairs)
    value["dropout"] = 0.1 if small else dropout
    return Choice(
        "model_config",
        value,
        f"{n:,} train pairs of {facts['mean_words']:g} words: a larger network would overfit, a "
        "smaller one would underfit.",
        evidence={"n_train": n, "mean_words": facts["mean_words"]},
        confidence=0.6,
        override='choices={"model_config": {"hidden_size": 512}}; other fields keep their defaults',
    )


_model_config_accepts = accepts_model_config(
    _CONFIGS, 'fields of RnnConfig or TransformerConfig by name: {"hidden_size": 512}.'
)


def _batch_size(facts: TranslationFacts, values: Values) -> Choice:
    n = facts["n_train"]
    value = next(size for pairs, size in BATCH_SIZES if n >= pairs)
    words = round(value * facts["mean_words"])
    return Choice(
        "batch_size",
        value,
        f"{n:,} train pairs of {facts['mean_words']:g} words on average. A train batch has the "
        f"tokens of {value} average pairs, padding included (about {words:,} words), so its number "
        "of pairs varies.",
        evidence={"n_train": n, "mean_words": facts["mean_words"]},
        alternatives=(value * 2, max(1, value // 2)),
    )


def _epochs(facts: TranslationFacts, values: Values) -> Choice:
    n, pairs = facts["n_train"], values["batch_size"] * values["accumulate"]
    steps = -(-n // pairs)
    wanted = TARGET_STEPS["word" if values["tokenizer"] == "word" else "text"]
    value = min(MAX_EPOCHS, max(MIN_EPOCHS, -(-wanted // steps)))
    return Choice(
        "epochs",
        value,
        f"About {steps:,} steps per epoch give {steps * value:,} steps in all; the target is "
        f"{wanted:,} steps, with {MIN_EPOCHS} to {MAX_EPOCHS} epochs.",
        evidence={"steps_per_epoch": steps, "steps": steps * value},
        alternatives=(max(1, value // 2), value * 2),
        confidence=0.7,
        override=f"learner.fit({value * 2})",
    )


def _bleu_tokenizer(facts: TranslationFacts, values: Values) -> Choice:
    language = language_code(facts["target_language"] or "") or facts["unspaced"]["target"]
    value = bleu_tokenizer(language)
    reason = f"sacrebleu's tokenization for the target language {language!r}."
    if value == "13a":
        reason = "sacrebleu's default, for languages with spaces between words."
    elif value == "char":
        reason += " Each character is a token, because sacrebleu splits this language into words "
        reason += "only after a download (flores200)."
    return Choice(
        "bleu_tokenizer",
        value,
        reason,
        evidence={"target_language": language},
        alternatives=tuple(name for name in BLEU_TOKENIZERS if name != value),
        override='choices={"bleu_tokenizer": "char"}, or --set bleu_tokenizer=char',
        source="default",
    )


def _bleu_tokenizer_accepts(value: Any, facts: TranslationFacts, values: Values) -> str | None:
    if value not in BLEU_TOKENIZERS:
        return f"one of {', '.join(BLEU_TOKENIZERS)}."
    return missing_bleu_tokenizer(value)


def _label_smoothing(facts: TranslationFacts, values: Values) -> Choice:
    is_small = values["tokenizer"] == "word" and facts["target_distinct_words"] <= _MAX_WORD_VOCAB
    return Choice(
        "label_smoothing",
        0.0 if is_small else 0.1,
        "With a small target vocabulary the correct token is rarely ambiguous."
        if is_small
        else "The usual value: a sentence has several correct translations but one reference.",
        evidence={"target_distinct_words": facts["target_distinct_words"]},
        alternatives=(0.1,) if is_small else (0.0, 0.2),
        source="default",
    )


def _label_smoothing_accepts(value: Any, facts: TranslationFacts, values: Values) -> str | None:
    is_valid = type(value) in (int, float) and 0 <= value < 1
    return None if is_valid else "a number of at least 0 and below 1."


def _teacher_forcing(facts: TranslationFacts, values: Values) -> Choice:
    return Choice(
        "teacher_forcing",
        None,
        "The decoder always reads the reference in training: no published schedule gives better "
        "translations; some give better results on long synthetic sequences.",
        override='choices={"teacher_forcing": TeacherForcing(Linear(1.0, 1e-4))}',
        source="default",
    )


def _decoding(facts: TranslationFacts, values: Values) -> Choice:
    return Choice(
        "decoding",
        Beam().as_json(),
        "Beam search with size 5 and the usual length penalty; evaluations during a run use greedy "
        "search.",
        override='choices={"decoding": Greedy()}',
        source="default",
    )


def _data_device(facts: TranslationFacts, values: Values) -> Choice:
    return Choice(
        "data_device",
        "cpu",
        "Batches are padded on the CPU: token ids are small and fast to transfer.",
        override="There is no alternative for translation.",
        source="default",
    )


RULES: tuple[Rule, ...] = (
    Rule("task", (), _task),
    Rule("tokenizer", (), _tokenizer, _tokenizer_accepts, determines="preprocessor"),
    Rule("normalization", (), _normalization, one_of(FORMS), determines="preprocessor"),
    Rule(
        "vocab_size",
        ("tokenizer",),
        _vocab_size,
        whole_number(5, "tokens"),
        determines="preprocessor",
    ),
    Rule(
        "shared_vocab",
        ("tokenizer",),
        _shared_vocab,
        _shared_vocab_accepts,
        determines="preprocessor",
    ),
    Rule(
        "max_tokens",
        ("tokenizer",),
        _max_tokens,
        whole_number(1, "tokens"),
        determines="preprocessor",
    ),
    Rule("bpe_dropout", ("tokenizer",), _bpe_dropout, _bpe_dropout_accepts),
    Rule("architecture", ("device",), _architecture),
    Rule(
        "model_config",
        ("architecture", "tokenizer"),
        _model_config,
        _model_config_accepts,
        determines="model",
    ),
    Rule("batch_size", (), _batch_size),
    Rule("epochs", ("batch_size", "accumulate", "tokenizer", "steps"), unless_steps(_epochs)),
    Rule("label_smoothing", ("tokenizer",), _label_smoothing, _label_smoothing_accepts),
    Rule("bleu_tokenizer", (), _bleu_tokenizer, _bleu_tokenizer_accepts),
    Rule(
        "teacher_forcing",
        (),
        _teacher_forcing,
        from_json(TeacherForcing.from_json, "None or a TeacherForcing", none=True),
    ),
    Rule(
        "decoding",
        (),
        _decoding,
        from_json(strategy_from_json, "Greedy, Beam or Sampling", none=False),
    ),
    Rule("data_device", ("device",), _data_device),
    lr_rule(LEARNING_RATES),
    precision_rule(BF16_GAINS),
)
