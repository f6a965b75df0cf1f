"""The plan's rules for tags: tokens, network, training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_task import with_readings
from flambeau_text.huggingface.encoder import ARCHITECTURE as HF_ENCODER
from flambeau_text.huggingface.encoder import EncoderConfig
from flambeau_text.pretrained_rules import (
    accepts_architecture,
    accepts_normalization,
    accepts_weights,
    encoder_batch_size,
    encoder_config,
    encoder_epochs,
    fine_tuning_lr_rule,
    of_pretrained,
    pretrained_architecture,
    pretrained_weights,
    unchanged_texts,
)
from flambeau_text.tagging.entities import nearly_entities
from flambeau_text.tagging.network import TaggerConfig
from flambeau_text.token_rules import accepts_model_config, data_device_rule
from flambeau_text.tokenization.fit import TOKENIZERS
from flambeau_text.tokenization.normalization import FORMS
from flambeau_text.value_checks import whole_number

Values = Mapping[str, Any]

_SUBWORDS = 20_000  # train words from which subwords can be learned
# On the sentences of the demo, 8 epochs: F1 above .95.
_LEARNING_RATES = {"gru": 1e-2}
_VOCAB_SIZES = ((500_000, 8_000), (100_000, 4_000), (0, 2_000))


def _task(facts: Any, values: Values) -> Choice:
    names, n = facts["class_names"], facts["n_train"]
    what = "entities and other words" if facts["entities"] else "words"
    odd = nearly_entities(names)
    doubt = (
        ""
        if odd is None
        else f" Entities are not scored, because {odd!r} is not of the form B-TYPE or I-TYPE."
    )
    choice = Choice(
        "task",
        "tags",
        f"{len(names)} tags of {what}: {facts['words']:,} words in {n:,} train sentences.{doubt}",
        override="Learner(data, task=…)",
        source="default",
    )
    return with_readings(choice, facts)


def _tokenizer(facts: Any, values: Values) -> Choice:
    words = facts["words"]
    value = "bpe" if words >= _SUBWORDS else "word"
    why = (
        "subwords represent rare and new words by several tokens; the first has the word's tag"
        if value == "bpe"
        else "too few to learn subwords from; a token per word"
    )
    return Choice(
        "tokenizer",
        value,
        f"{words:,} train words: {why}.",
        evidence={"words": words, "distinct_words": facts["distinct_words"]},
        alternatives=tuple(name for name in TOKENIZERS if name != value),
        override='options=TagOptions(tokenizer="bpe"), or --tokenizer bpe',
    )


def _normalization(facts: Any, values: Values) -> Choice:
    if of_pretrained(facts["given_tokenizer"]):
        return unchanged_texts()
    return Choice(
        "normalization",
        "nfc",
        "In a single Unicode form equal letters give equal tokens.",
        alternatives=tuple(form for form in FORMS if form != "nfc"),
        override='options=TagOptions(normalization="nfkc"), or --normalization nfkc',
        source="default",
    )


def _vocab_size(facts: Any, values: Values) -> Choice:
    subwords = values["tokenizer"] in ("bpe", "unigram")
    value = next(size for least, size in _VOCAB_SIZES if facts["words"] >= least)
    return Choice(
        "vocab_size",
        value if subwords else 60_000,
        f"{facts['words']:,} train words." if subwords else "An upper limit.",
        override="options=TagOptions(vocab_size=…), or --vocab-size",
    )


def _architecture(facts: Any, values: Values) -> Choice:
    given = facts.get("language_model")
    if given is not None:
        return pretrained_architecture(given, 'Learner(data, "gru")')
    return Choice(
        "architecture",
        "gru",
        "A recurrent network reads each sentence in both directions.",
        override="options=TagOptions(language_model=FOLDER), or --language-model FOLDER",
        source="default",
    )


def _model_config(facts: Any, values: Values) -> Choice:
    if values["architecture"] == HF_ENCODER:
        return encoder_config(facts, {})
    if facts.get("model_given", False):
        reason, value = "Does not apply to a user-defined module.", {}
    else:
        width = 64 if facts["words"] < 100_000 else 128
        value = {"embedding_dim": width, "hidden_size": width}
        reason = f"{facts['words']:,} train words."
    return Choice(
        "model_config",
        value,
        reason,
        confidence=0.6,
        override='choices={"model_config": {"hidden_size": 128}}; other fields keep their defaults',
    )


_model_config_accepts = accepts_model_config(
    {"gru": TaggerConfig, HF_ENCODER: EncoderConfig},
    'fields of the network by name: {"hidden_size": 64}.',
)


def _batch_size(base: Choice, facts: Any, values: Values) -> Choice:
    if values["architecture"] != HF_ENCODER:
        return base
    return encoder_batch_size(base, facts, values)


def _keep_best(base: Choice, facts: Any, values: Values) -> Choice:
    if facts.get("model_given") or not facts.get("n_valid", 0):
        return base
    value = "valid_entity_f1" if facts["entities"] else "valid_loss"
    reason = "The model ends with the weights of its best epoch on the validation sentences."
    return replace(base, value=value, reason=reason, alternatives=(None,), source="rule")


RULES: tuple[Rule, ...] = (
    Rule("task", (), _task),
    Rule("tokenizer", (), _tokenizer, determines="preprocessor"),
    Rule("normalization", (), _normalization, accepts_normalization, determines="preprocessor"),
    Rule(
        "vocab_size",
        ("tokenizer",),
        _vocab_size,
        whole_number(5, "tokens"),
        determines="preprocessor",
    ),
    Rule("architecture", (), _architecture, accepts_architecture("TagOptions")),
    Rule(
        "weights",
        ("architecture",),
        pretrained_weights("TagOptions"),
        accepts_weights("TagOptions"),
        determines="model",
    ),
    Rule(
        "model_config",
        ("architecture",),
        _model_config,
        _model_config_accepts,
        determines="model",
    ),
    Rule.extending("batch_size", _batch_size, needs=("architecture", "weights")),
    Rule.extending("epochs", encoder_epochs, needs=("architecture", "weights")),
    Rule.extending("keep_best", _keep_best),
    data_device_rule("tags"),
    fine_tuning_lr_rule(_LEARNING_RATES),
)
