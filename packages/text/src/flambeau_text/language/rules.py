"""The plan's rules for language models: tokens, network, chunks of the stream, training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from flambeau.device import available_memory_bytes
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_machine import precision_rule
from flambeau.plan.rules_task import with_readings
from flambeau.plan.rules_training import unless_steps
from flambeau.wording import format_bytes
from flambeau_text.decoding.strategy import Sampling, strategy_from_json
from flambeau_text.huggingface.adapters import LoRA
from flambeau_text.huggingface.causal_lm import CausalLMConfig
from flambeau_text.huggingface.decoder_folder import PRETRAINED, WITH_ADAPTERS
from flambeau_text.language.backward_rule import BACKWARD_RULE
from flambeau_text.language.facts import LanguageFacts
from flambeau_text.language.recipes import (
    BATCH_SIZES,
    BF16_GAINS,
    DECODER_DEPTHS,
    DECODER_DROPOUTS,
    DROPOUT_FACTORS,
    LEARNING_RATES,
    MAX_EPOCHS,
    MIN_EPOCHS,
    PUBLISHED_WORDS,
    SIZES_ON_CPU,
    SUBWORD_VOCAB_SIZES,
    TARGET_STEPS,
)
from flambeau_text.models.awd_lstm import AwdDropout, AwdLstmConfig
from flambeau_text.models.decoder import DecoderConfig
from flambeau_text.pretrained_rules import (
    accepts_architecture,
    accepts_normalization,
    accepts_weights,
    fine_tuning_epochs,
    fine_tuning_lr_rule,
    is_fine_tuned,
    of_pretrained,
    pretrained_architecture,
    pretrained_weights,
    unchanged_texts,
)
from flambeau_text.token_rules import (
    accepts_model_config,
    accepts_word_rules,
    data_device_rule,
)
from flambeau_text.tokenization.fit import TOKENIZERS
from flambeau_text.value_checks import from_json, one_of, whole_number

Values = Mapping[str, Any]

_ROW_LENGTH = 512
_CACHES = ("memory", "disk")
_MEMORY_SHARE = 0.25

# Fewer words give too few subwords to learn from; characters need no vocabulary.
_FEWEST_WORDS = 20_000
LAYOUTS = ("stream", "packed")
_PUBLISHED = AwdDropout()
_CONFIGS: Mapping[str, type] = {
    **{"awd_lstm": AwdLstmConfig, "decoder": DecoderConfig},
    **{"causal_lm": CausalLMConfig, "causal_lm_lora": LoRA},
}


def _task(facts: LanguageFacts, values: Values) -> Choice:
    choice = Choice(
        "task",
        "language_model",
        f"{facts['n_train']:,} train documents with {facts['words']:,} words.",
        evidence={"n_train": facts["n_train"], "words": facts["words"]},
        override="Learner(data, task=LanguageModelTask(...))",
        source="default",
    )
    return with_readings(choice, facts)


def _tokenizer(facts: LanguageFacts, values: Values) -> Choice:
    words, unknown = facts["words"], facts["unknown_words"]
    evidence = {"words": words, "distinct_words": facts["distinct_words"], "unknown": unknown}
    if unknown:
        value = "word"
        reason = (
            f"{unknown:,} words are <unk>: the text is tokenized and has a closed vocabulary of "
            f"{facts['distinct_words']:,} words."
        )
    elif words < _FEWEST_WORDS:
        value = "character"
        reason = f"{words:,} train words are too few to learn subwords from."
    else:
        value = "bpe"
        reason = (
            f"{facts['distinct_words']:,} distinct words, many of them rare; subwords represent "
            "rare words by several tokens, and any text can be written with them."
        )
    return Choice(
        "tokenizer",
        value,
        reason,
        evidence=evidence,
        alternatives=tuple(name for name in TOKENIZERS if name != value),
        override='options=LanguageOptions(tokenizer="word"), or --tokenizer word',
    )


def _tokenizer_accepts(value: Any, facts: LanguageFacts, values: Values) -> str | None:
    given = value is not None and value == facts["given_tokenizer"]
    if value in TOKENIZERS or given or facts.get("started"):  # that of the export
        return None
    return f"one of {', '.join(TOKENIZERS)}; pass any other as LanguageOptions(tokenizer=object)."


def _normalization(facts: LanguageFacts, values: Values) -> Choice:
    if of_pretrained(facts["given_tokenizer"]):
        return unchanged_texts()
    n = facts["n_other_form"]
    return Choice(
        "normalization",
        "nfc",
        f"{n:,} of {facts['lines']:,} train lines are not in the Unicode form NFC. In a single "
        "form equal letters give equal tokens.",
        evidence={"n_other_form": n},
        alternatives=("nfkc", "none"),
        override='options=LanguageOptions(normalization="nfkc"), or --normalization nfkc',
        source="default",
    )


def _word_rules(facts: LanguageFacts, values: Values) -> Choice:
    language = facts["language"]
    value = values["tokenizer"] == "word" and language is not None and not facts["lowercase"]
    if value:
        reason = (
            "Words are in lower case, so that a word has one token wherever it stands; capitals "
            "and repetition are tokens of their own (xxmaj, xxup, xxrep, xxwrep)."
        )
    elif values["tokenizer"] != "word":
        reason = "The rules are for whole words."
    elif language is None:
        reason = "Without a language the text is taken as it is, already divided into words."
    else:
        reason = "The text is in lower case."
    return Choice(
        "word_rules",
        value,
        reason,
        evidence={"tokenizer": values["tokenizer"], "language": language},
        alternatives=(not value,) if values["tokenizer"] == "word" else (),
        override="options=LanguageOptions(word_rules=...), or --word-rules",
        source="default",
    )


def _vocab_size(facts: LanguageFacts, values: Values) -> Choice:
    words, kind = facts["words"], values["tokenizer"]
    if kind in ("bpe", "unigram"):
        value = next(size for least, size in SUBWORD_VOCAB_SIZES if words >= least)
        reason = f"{words:,} train words: many of more than {value:,} subwords would be rare."
    else:
        value = 60_000
        reason = f"An upper limit; a {kind} that does not occur in train is unknown."
    return Choice(
        "vocab_size",
        value,
        reason,
        evidence={"words": words, "tokenizer": kind},
        alternatives=(value * 2, value // 2),
        override="options=LanguageOptions(vocab_size=...), or --vocab-size",
    )


def _architecture(facts: LanguageFacts, values: Values) -> Choice:
    given = facts.get("language_model")
    if given is not None:
        return pretrained_architecture(given, 'Learner(data, "causal_lm_lora"), for adapters only')
    return Choice(
        "architecture",
        "awd_lstm",
        "A recurrent network with strong dropout learns well from little text.",
        alternatives=("decoder",),
        override='Learner(data, "decoder")',
        source="default",
    )


def _model_config(facts: LanguageFacts, values: Values) -> Choice:
    words, on_cpu = facts["words"], torch.device(values["device"]).type == "cpu"
    if facts.get("model_given", False):
        return Choice(
            "model_config",
            {},
            "Does not apply to a user-defined module.",
            override="Configure the module before it is passed to the Learner.",
            source="default",
        )
    if values["architecture"] in PRETRAINED:
        return _pretrained_config(values["architecture"])
    if values["architecture"] == "decoder":
        return _decoder_config(words)
    published = not on_cpu and words >= PUBLISHED_WORDS
    sizes = (
        SIZES_ON_CPU[0][1]
        if published
        else next(each for least, each in SIZES_ON_CPU if words >= least)
    )
    factor = next(each for least, each in DROPOUT_FACTORS if words >= least)
    dropout = {name: round(p, 3) for name, p in asdict(_PUBLISHED.times(factor)).items()}
    reason = f"{words:,} train words; the published dropout probabilities times {factor:g}."
    if on_cpu and words < SIZES_ON_CPU[0][0]:
        reason += " On a CPU the published size (400, 1150, 3 layers) would take hours."
    return Choice(
        "model_config",
        {**sizes, "dropout": dropout},
        reason,
        evidence={"words": words, "dropout_factor": factor},
        confidence=0.6,
        override='choices={"model_config": {"hidden_size": 512}}; other fields keep their defaults',
    )


def _pretrained_config(architecture: str) -> Choice:
    if architecture == WITH_ADAPTERS:
        return Choice(
            "model_config",
            {"rank": LoRA().rank},
            "Adapters on all linear layers but the output layer.",
            alternatives=({"rank": 8}, {"rank": 64}),
            override='choices={"model_config": {"rank": 8, "dora": True}}',
            source="default",
        )
    reason = "The layers are those of the pretrained model."
    return Choice("model_config", {}, reason, source="default")


def _decoder_config(words: int) -> Choice:
    depth = next(depth for least, depth in DECODER_DEPTHS if words >= least)
    dropout = next(p for least, p in DECODER_DROPOUTS if words >= least)
    return Choice(
        "model_config",
        {"depth": depth, "dropout": dropout},
        f"{words:,} train words. The width is 64 times the depth, with a head for each 64.",
        evidence={"words": words},
        confidence=0.5,
        override='choices={"model_config": {"depth": 6}}; other fields keep their defaults',
    )


_model_config_accepts = accepts_model_config(
    _CONFIGS, 'fields of AwdLstmConfig or DecoderConfig by name: {"hidden_size": 512}.'
)


def _regularisation(facts: LanguageFacts, values: Values) -> Choice:
    return Choice(
        "regularisation",
        {"alpha": 2.0, "beta": 1.0},
        "Published factors of the squares of the last layer's activations (alpha) and of their "
        "differences between adjacent tokens (beta).",
        alternatives=({"alpha": 0.0, "beta": 0.0},),
        override='choices={"regularisation": {"alpha": 0.0, "beta": 0.0}}',
        source="default",
    )


def _regularisation_accepts(value: Any, facts: LanguageFacts, values: Values) -> str | None:
    valid = isinstance(value, Mapping) and set(value) == {"alpha", "beta"}
    if valid and all(type(each) in (int, float) and each >= 0 for each in value.values()):
        return None
    return 'two numbers of at least 0: {"alpha": 2.0, "beta": 1.0}.'


def _decoding(facts: LanguageFacts, values: Values) -> Choice:
    return Choice(
        "decoding",
        Sampling(temperature=0.8, top_p=0.9).as_json(),
        "Predictions draw tokens at temperature 0.8 from the most probable 90%; the most probable "
        "token alone repeats itself.",
        override='choices={"decoding": Greedy()}, or --temperature of predict',
        source="default",
    )


def _bptt(facts: LanguageFacts, values: Values) -> Choice:
    value = 70 if values["tokenizer"] != "character" else 150
    return Choice(
        "bptt",
        value,
        f"Gradients go back over {value} tokens; the state of the network is carried further. In "
        "training the length of chunks varies, and the learning rate with it.",
        alternatives=(value // 2, value * 2),
        override='choices={"bptt": 35}',
        source="default",
    )


def _layout(facts: LanguageFacts, values: Values) -> Choice:
    if values["architecture"] in PRETRAINED:
        return Choice(
            "layout",
            "packed",
            "A pretrained model carries nothing from batch to batch; each row has whole documents, "
            "which do not see each other.",
            source="default",
        )
    return Choice(
        "layout",
        "stream",
        "Documents follow each other in one stream, and the network carries its state over their "
        "ends.",
        alternatives=("packed",) if values["architecture"] != "awd_lstm" else (),
        override='choices={"layout": "packed"}: documents that do not see each other',
        source="default",
    )


def _layout_accepts(value: Any, facts: LanguageFacts, values: Values) -> str | None:
    if value not in LAYOUTS:
        return f"one of {', '.join(LAYOUTS)}."
    if value == "packed" and values["architecture"] == "awd_lstm":
        return '"stream" for awd_lstm, which carries its state; "decoder" can read packed rows.'
    if value == "stream" and values["architecture"] in PRETRAINED:
        return '"packed" for a pretrained model, which carries nothing from batch to batch.'
    return None


def _row_length(facts: LanguageFacts, values: Values) -> Choice:
    limit = facts.get("language_model", {}).get("limit")
    value = min(_ROW_LENGTH, limit or _ROW_LENGTH)
    reason = "Number of tokens of a packed row. Longer documents are divided."
    if limit is not None:
        reason += f" The model reads at most {limit:,}."
    return Choice(
        "row_length",
        value,
        reason,
        alternatives=tuple(each for each in (256, 1024) if each <= (limit or each)),
        override='choices={"row_length": 1024}',
        source="default",
    )


def _batch_size(facts: LanguageFacts, values: Values) -> Choice:
    words = facts["words"]
    if values["architecture"] in PRETRAINED:
        return Choice(
            "batch_size",
            8,
            "Rows are packed with documents, so that a few of them have many tokens.",
            alternatives=(16, 4),
            source="default",
        )
    value = next(size for least, size in BATCH_SIZES if words >= least)
    return Choice(
        "batch_size",
        value,
        f"The {words:,} train words form one stream, which is cut into {value} rows that are read "
        "in parallel.",
        evidence={"words": words},
        alternatives=(value * 2, max(1, value // 2)),
    )


def _epochs(facts: LanguageFacts, values: Values) -> Choice:
    if values["architecture"] in PRETRAINED and is_fine_tuned(facts, values):
        return fine_tuning_epochs()
    # Subwords are about a third more than words.
    per_word = {"character": facts["characters"] / max(1, facts["words"]), "word": 1.0}
    tokens = facts["words"] * per_word.get(values["tokenizer"], 1.33) + facts["lines"]
    length = values["row_length" if values["layout"] == "packed" else "bptt"]
    steps = max(1, round(tokens / (values["batch_size"] * values["accumulate"] * length)))
    value = min(MAX_EPOCHS, max(MIN_EPOCHS, round(TARGET_STEPS / steps)))
    return Choice(
        "epochs",
        value,
        f"About {steps:,} steps per epoch give {steps * value:,} steps in all; the target is "
        f"{TARGET_STEPS:,} steps, with {MIN_EPOCHS} to {MAX_EPOCHS} epochs.",
        evidence={"steps_per_epoch": steps, "steps": steps * value},
        alternatives=(max(1, value // 2), value * 2),
        confidence=0.7,
        override=f"learner.fit({value * 2})",
    )


def _clip_norm(base: Choice, facts: LanguageFacts, values: Values) -> Choice:
    return Choice(
        "clip_norm",
        1.0,
        "Gradients of recurrent networks are sometimes much longer than usual.",
        alternatives=(0.25, None),
        override=base.override,
        source="default",
    )


def _keep_best(base: Choice, facts: LanguageFacts, values: Values) -> Choice:
    if not facts.get("n_valid", 0):
        return base
    return Choice(
        "keep_best",
        "valid_loss",
        "Language models overfit small texts before a long run ends, so the model ends with the "
        "weights of its best epoch.",
        alternatives=(None,),
        override=base.override,
        source="default",
    )


def _cache(facts: LanguageFacts, values: Values) -> Choice:
    # int32; sub-words and words have three characters or more on average.
    per_token = 1 if values["tokenizer"] == "character" else 3
    size, free = 4 * facts["characters"] // per_token, available_memory_bytes()
    fits = size < _MEMORY_SHARE * free
    return Choice(
        "cache",
        "memory" if fits else "disk",
        f"The train tokens need about {format_bytes(size)}, {'within' if fits else 'above'} the "
        f"limit of {_MEMORY_SHARE:.0%} of {format_bytes(free)} free memory"
        + ("." if fits else ": they are written once to a memory-mapped file."),
        evidence={"bytes": size, "available_bytes": free, "share": _MEMORY_SHARE},
        alternatives=("disk" if fits else "memory",),
        override=f'Learner(data, choices={{"cache": "{"disk" if fits else "memory"}"}})',
    )


RULES: tuple[Rule, ...] = (
    Rule("task", (), _task),
    Rule("tokenizer", (), _tokenizer, _tokenizer_accepts, determines="preprocessor"),
    Rule("normalization", (), _normalization, accepts_normalization, determines="preprocessor"),
    Rule(
        "word_rules",
        ("tokenizer",),
        _word_rules,
        accepts_word_rules,
        determines="preprocessor",
    ),
    BACKWARD_RULE,
    Rule(
        "vocab_size",
        ("tokenizer",),
        _vocab_size,
        whole_number(5, "tokens"),
        determines="preprocessor",
    ),
    Rule("architecture", (), _architecture, accepts_architecture("LanguageOptions")),
    Rule(
        "weights",
        ("architecture",),
        pretrained_weights("LanguageOptions"),
        accepts_weights("LanguageOptions"),
        determines="model",
    ),
    Rule(
        "model_config",
        ("architecture", "device"),
        _model_config,
        _model_config_accepts,
        determines="model",
    ),
    Rule("regularisation", (), _regularisation, _regularisation_accepts),
    Rule(
        "decoding", (), _decoding, from_json(strategy_from_json, "Greedy or Sampling", none=False)
    ),
    Rule("bptt", ("tokenizer",), _bptt, whole_number(5, "tokens")),
    Rule("layout", ("architecture",), _layout, _layout_accepts),
    Rule("row_length", (), _row_length, whole_number(2, "tokens")),
    Rule("batch_size", ("architecture",), _batch_size),
    Rule(
        "epochs",
        (
            *("architecture", "weights", "tokenizer", "layout", "bptt", "row_length"),
            *("batch_size", "accumulate", "steps"),
        ),
        unless_steps(_epochs),
    ),
    Rule.extending("clip_norm", _clip_norm),
    Rule.extending("keep_best", _keep_best),
    data_device_rule("language models"),
    Rule("cache", ("tokenizer",), _cache, one_of(_CACHES)),
    fine_tuning_lr_rule(LEARNING_RATES),
    precision_rule(BF16_GAINS),
)
