"""The plan's rules for text classification: tokens, lengths, network, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_machine import precision_rule
from flambeau.plan.rules_task import targets_accept, with_readings
from flambeau_text.classification.facts import PERCENTS, TextFacts
from flambeau_text.classification.options import TRUNCATIONS
from flambeau_text.classification.recipes import (
    AWD_DROPOUT_FACTOR,
    AWD_FEWEST_TEXTS,
    AWD_SIZES,
    BAG_BATCH_SIZES,
    BAG_BUCKETS,
    BAG_WIDTHS,
    BF16_GAINS,
    LEARNING_RATES,
    LENGTH_LIMITS,
    MAX_EPOCHS,
    MEASURED_STEPS,
    MIN_EPOCHS,
    OTHER_LENGTH_LIMIT,
    SUBWORD_VOCAB_SIZES,
    TARGET_STEPS,
    TOKENS_PER_WORD,
    WORD_VOCAB_SIZE,
)
from flambeau_text.huggingface.encoder import ARCHITECTURE as HF_ENCODER
from flambeau_text.huggingface.encoder import EncoderConfig
from flambeau_text.models.awd_lstm import AwdDropout
from flambeau_text.models.bag import BagConfig
from flambeau_text.models.concat_pool import AwdClassifierConfig
from flambeau_text.models.transformer_classifier import TransformerClassifierConfig
from flambeau_text.pretrained_rules import (
    accepts_architecture,
    accepts_length,
    accepts_normalization,
    accepts_weights,
    encoder_batch_size,
    encoder_config,
    encoder_epochs,
    encoder_length,
    fine_tuning_lr_rule,
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
from flambeau_text.value_checks import one_of, whole_number

Values = Mapping[str, Any]

_LARGEST_BATCH = 64

_CONFIGS: Mapping[str, type] = {
    "bag": BagConfig,
    "awd_lstm": AwdClassifierConfig,
    "transformer": TransformerClassifierConfig,
    HF_ENCODER: EncoderConfig,
}


def _task(facts: TextFacts, values: Values) -> Choice:
    kind, n = facts["label_kind"], facts["n_train"]
    other = "classification" if kind == "regression" else "regression"
    choice = Choice(
        "task",
        kind,
        f"The labels of {n:,} train texts: {facts['label_reason']}.",
        evidence={"n_train": n},
        override=f'TextOptions(task="{other}"), on the command line --task {other}',
    )
    return with_readings(choice, facts)


# ---------------------------------------------------------------- tokens


def _tokenizer(facts: TextFacts, values: Values) -> Choice:
    distinct, unspaced = facts["distinct_words"], facts["unspaced"]
    if unspaced is not None:
        value = "bpe"
        reason = "The texts have no spaces between words; subwords do not need them."
    else:
        value = "word"
        reason = (
            f"{facts['words']:,} train words, {distinct:,} of them distinct. For a label, the "
            "frequent words matter most; rare ones are unknown."
        )
    return Choice(
        "tokenizer",
        value,
        reason,
        evidence={"words": facts["words"], "distinct_words": distinct, "unspaced": unspaced},
        alternatives=tuple(name for name in TOKENIZERS if name != value),
        override='options=TextOptions(tokenizer="bpe"), or --tokenizer bpe',
    )


def _tokenizer_accepts(value: Any, facts: TextFacts, values: Values) -> str | None:
    given = value is not None and value == facts["given_tokenizer"]
    if value in TOKENIZERS or given or facts.get("started"):  # that of the export
        return None
    return f"one of {', '.join(TOKENIZERS)}; pass any other as TextOptions(tokenizer=object)."


def _word_rules(facts: TextFacts, values: Values) -> Choice:
    is_word = values["tokenizer"] == "word" and facts["given_tokenizer"] is None
    return Choice(
        "word_rules",
        False,
        "Capitals and repetition are no tokens of their own (xxmaj, xxup, xxrep, xxwrep), as they "
        "are in ULMFiT: their gain was not measured for labels."
        if is_word
        else f"The tokenizer {values['tokenizer']!r} has no such rules, or has its own.",
        alternatives=(True,) if is_word else (),
        override="options=TextOptions(word_rules=True), or --word-rules",
        source="default",
    )


def _lowercase(facts: TextFacts, values: Values) -> Choice:
    if values["word_rules"]:
        reason = "The word rules write words in lower case, and their capitals as tokens."
        return Choice("lowercase", False, reason, source="default")
    # A tokenizer that the user passed keeps or changes the case itself.
    value = values["tokenizer"] == "word" and facts["given_tokenizer"] is None
    share = facts["upper_words"]
    return Choice(
        "lowercase",
        value,
        f"{share:.0%} of the distinct words differ from another one only by their case, for "
        "example at the start of a sentence."
        if value
        else f"The tokenizer {values['tokenizer']!r} decides on upper and lower case.",
        evidence={"upper_words": share},
        alternatives=(not value,),
        override="options=TextOptions(lowercase=False), or --lowercase false",
    )


def _lowercase_accepts(value: Any, facts: TextFacts, values: Values) -> str | None:
    if not isinstance(value, bool):
        return "True or False."
    if value and values["word_rules"]:
        return "False: with word_rules capitals are tokens, which lower-cased texts do not have."
    return None


def _normalization(facts: TextFacts, values: Values) -> Choice:
    if of_pretrained(facts["given_tokenizer"]):
        return unchanged_texts()
    n = facts["n_other_form"]
    return Choice(
        "normalization",
        "nfc",
        f"{n:,} of {facts['n_train']:,} train texts are not in the Unicode form NFC. In a single "
        "form equal letters give equal tokens.",
        evidence={"n_other_form": n},
        alternatives=("nfkc", "none"),
        override='options=TextOptions(normalization="nfkc"), or --normalization nfkc',
        source="default",
    )


def _vocab_size(facts: TextFacts, values: Values) -> Choice:
    words, kind = facts["words"], values["tokenizer"]
    if kind in ("bpe", "unigram"):
        value = next(size for least, size in SUBWORD_VOCAB_SIZES if words >= least)
        reason = f"{words:,} train words: many of more than {value:,} subwords would be rare."
    else:
        value = WORD_VOCAB_SIZE
        reason = f"An upper limit; a {kind} that does not occur in train is unknown."
    return Choice(
        "vocab_size",
        value,
        reason,
        evidence={"words": words, "tokenizer": kind},
        alternatives=(value * 2, value // 2),
        override="options=TextOptions(vocab_size=...), or --vocab-size",
    )


def _estimated_lengths(facts: TextFacts, kind: str) -> tuple[Sequence[int], str]:
    """Return about how many tokens a text has at each percentile, and how they were counted."""
    if (factor := TOKENS_PER_WORD.get(kind)) is not None:
        words = facts["word_percentiles"]
        return [round(factor * each) for each in words], f"{factor:g} tokens per word"
    return facts["character_percentiles"], "a token per character"


def _max_length(facts: TextFacts, values: Values) -> Choice:
    lengths, how = _estimated_lengths(facts, values["tokenizer"])
    architecture = values["architecture"]
    value = LENGTH_LIMITS.get(architecture, OTHER_LENGTH_LIMIT)
    if facts.get("model_given", False):
        architecture, value = "your module", OTHER_LENGTH_LIMIT
    value = encoder_length(facts, architecture, value)
    at = dict(zip(PERCENTS, lengths, strict=True))
    return Choice(
        "max_length",
        value,
        f"Half of the train texts have at most about {at[50]:,} tokens, 99% at most {at[99]:,}, "
        f"the longest {at[100]:,} (estimated with {how}); {value:,} is the limit for "
        f"{architecture}.",
        evidence={"median": at[50], "99%": at[99], "longest": at[100]},
        alternatives=tuple(
            each
            for each in sorted({max(1, at[99]), 2 * value} - {value})
            if accepts_length(each, facts, values) is None
        ),
        override="options=TextOptions(max_length=...), or --max-length",
    )


def _truncation(facts: TextFacts, values: Values) -> Choice:
    limit, (lengths, how) = values["max_length"], _estimated_lengths(facts, values["tokenizer"])
    whole = max((p for p, n in zip(PERCENTS, lengths, strict=True) if n <= limit), default=0)
    cut = (
        f"No train text has more than {limit:,} tokens"
        if whole == 100
        else f"About {100 - whole:g}% of the train texts have more than {limit:,} tokens"
    )
    return Choice(
        "truncation",
        "head",
        f"{cut} (estimated with {how}). The first {limit:,} tokens of longer texts are kept; "
        "'head_tail' keeps half of them from each end.",
        evidence={"cut, %": 100 - whole, "longest": lengths[-1]},
        alternatives=("head_tail",),
        override='options=TextOptions(truncation="head_tail"), or --truncation head_tail',
        source="default",
    )


# ---------------------------------------------------------------- network


def _architecture(facts: TextFacts, values: Values) -> Choice:
    n, on_cpu = facts["n_train"], torch.device(values["device"]).type == "cpu"
    given = facts.get("language_model")
    evidence = {"n_train": n, "device": values["device"]}
    override = 'Learner(data, "awd_lstm")'
    if given is not None:
        return pretrained_architecture(given, 'Learner(data, "bag")')
    if not on_cpu and n >= AWD_FEWEST_TEXTS:
        value, override = "awd_lstm", 'Learner(data, "bag")'
        reason = f"{n:,} train texts on an accelerator: enough to learn from the order of words."
    else:
        value = "bag"
        why = (
            "on a CPU a step of the recurrent network takes about 40 times as long"
            if on_cpu
            else f"a recurrent network without pretraining needs more than {AWD_FEWEST_TEXTS:,}"
        )
        reason = f"{n:,} train texts: the mean of the vectors of words and word pairs, because "
        reason += f"{why}."
    return Choice(
        "architecture",
        value,
        reason,
        evidence=evidence,
        alternatives=tuple(name for name in _CONFIGS if name not in (value, HF_ENCODER)),
        confidence=0.8,
        override=override,
    )


def _model_config(facts: TextFacts, values: Values) -> Choice:
    if facts.get("model_given", False):
        return Choice(
            "model_config",
            {},
            "Does not apply to a user-defined module.",
            override="Configure the module before it is passed to the Learner.",
            source="default",
        )
    words, n = facts["words"], facts["n_train"]
    if values["architecture"] == HF_ENCODER:
        return encoder_config(facts, {"pooling": "first"})
    if values["architecture"] == "awd_lstm":
        sizes: Mapping[str, Any] = next(each for least, each in AWD_SIZES if words >= least)
        if values["weights"] is not None:
            sizes = facts.get("language_model", {}).get("config", sizes)
        times = AWD_DROPOUT_FACTOR
        dropout = {name: round(p, 3) for name, p in asdict(AwdDropout().times(times)).items()}
        value: dict[str, Any] = {**sizes, "dropout": dropout}
        reason = f"{words:,} train words; the language model's dropout probabilities × {times:g}."
    elif values["architecture"] == "transformer":
        value = {"d_model": 128, "num_layers": 2 if n < AWD_FEWEST_TEXTS else 4}
        reason = f"{n:,} train texts."
    else:
        width = next(each for least, each in BAG_WIDTHS if n >= least)
        buckets = next(each for least, each in BAG_BUCKETS if words >= least)
        value = {"width": width, "buckets": buckets}
        reason = f"{n:,} train texts with {words:,} words."
    return Choice(
        "model_config",
        value,
        reason,
        evidence={"n_train": n, "words": words},
        confidence=0.6,
        override='choices={"model_config": {"width": 64}}; other fields keep their defaults',
    )


_model_config_accepts = accepts_model_config(
    _CONFIGS, 'fields of the network by name: {"width": 64}.'
)


# ---------------------------------------------------------------- targets and training


def _targets(base: Choice, facts: TextFacts, values: Values) -> Choice:
    if values["task"] != "regression" or "task_given" in facts:
        return base
    choice = Choice(
        "targets",
        "standard",
        f"Standardised to mean 0 and standard deviation 1 over {facts['n_train']:,} train texts; "
        "predictions and metrics are in the units of the target.",
        evidence={"n_train": facts["n_train"]},
        alternatives=("as_is",),
        override='choices={"targets": "as_is"}, on the command line --set targets=as_is',
    )
    return with_readings(choice, facts)


def _metrics(base: Choice, facts: TextFacts, values: Values) -> Choice:
    if values["task"] != "classification" or "task_given" in facts:
        return base
    return replace(
        base,
        value=[*base.value, "auroc"],
        reason=f"{base.reason} AUROC measures the ranking.",
        alternatives=(base.value, *base.alternatives),
    )


def _batch_size(base: Choice, facts: TextFacts, values: Values) -> Choice:
    if values["architecture"] == HF_ENCODER:
        return encoder_batch_size(base, facts, values)
    if facts.get("model_given"):
        return base
    n = facts["n_train"]
    if values["architecture"] == "bag":
        value = next((size for least, size in BAG_BATCH_SIZES if n >= least), base.value)
        steps = -(-n // value)
        why = "A bag trains in the time of its steps, which hardly depends on their size."
    else:
        value = min(base.value, _LARGEST_BATCH)
        steps = -(-n // value)
        why = f"A step of more than {_LARGEST_BATCH} texts takes long."
    if value == base.value:
        return base
    return replace(
        base,
        value=value,
        reason=f"An epoch of the {n:,} train texts has {steps:,} steps. {why}",
        evidence={"n_train": n, "steps_per_epoch": steps},
        alternatives=(value * 2, max(1, value // 2)),
    )


def _epochs(base: Choice, facts: TextFacts, values: Values) -> Choice:
    if values["architecture"] == HF_ENCODER:
        return encoder_epochs(base, facts, values)
    if facts.get("model_given") or values["steps"] is not None:
        return base
    architecture, n = values["architecture"], facts["n_train"]
    steps, target = base.evidence["steps_per_epoch"], TARGET_STEPS[architecture]
    value = min(MAX_EPOCHS, max(MIN_EPOCHS, -(-target // steps)))
    guess = f"in {MIN_EPOCHS} to {MAX_EPOCHS} epochs are a target not measured for {architecture}"
    why = MEASURED_STEPS.get(architecture, guess)
    return replace(
        base,
        value=value,
        reason=f"{value} epochs of {steps:,} steps are {steps * value:,} steps; about {target:,} "
        f"{why}.",
        confidence=base.confidence if architecture in MEASURED_STEPS else 0.5,
        evidence={"steps_per_epoch": steps, "steps": steps * value, "n_train": n},
        alternatives=(max(1, value // 2), value * 2),
        override=f"learner.fit({value * 2})",
    )


def _keep_best(base: Choice, facts: TextFacts, values: Values) -> Choice:
    n = facts.get("n_valid", 0)
    if facts.get("model_given") or not n:
        return base
    return replace(
        base,
        value="valid_loss",
        reason=f"The model ends with the weights of its best epoch on {n:,} validation texts; "
        "networks overfit small sets of texts early.",
        evidence={"n_valid": n},
        alternatives=(None,),
        override='choices={"keep_best": None}',
        source="rule",
    )


def _clip_norm(base: Choice, facts: TextFacts, values: Values) -> Choice:
    if values["architecture"] != "awd_lstm" or facts.get("model_given"):
        return base
    return replace(
        base,
        value=1.0,
        reason="Gradients of recurrent networks are sometimes much longer than usual.",
        alternatives=(0.25, None),
    )


RULES: tuple[Rule, ...] = (
    Rule("task", (), _task),
    Rule("tokenizer", (), _tokenizer, _tokenizer_accepts, determines="preprocessor"),
    Rule(
        "word_rules",
        ("tokenizer",),
        _word_rules,
        accepts_word_rules,
        determines="preprocessor",
    ),
    Rule(
        "lowercase",
        ("tokenizer", "word_rules"),
        _lowercase,
        _lowercase_accepts,
        determines="preprocessor",
    ),
    Rule(
        "normalization",
        (),
        _normalization,
        accepts_normalization,
        determines="preprocessor",
    ),
    Rule(
        "vocab_size",
        ("tokenizer",),
        _vocab_size,
        whole_number(5, "tokens"),
        determines="preprocessor",
    ),
    Rule(
        "max_length",
        ("tokenizer", "architecture"),
        _max_length,
        accepts_length,
        determines="preprocessor",
    ),
    Rule(
        "truncation",
        ("max_length", "tokenizer"),
        _truncation,
        one_of(TRUNCATIONS),
        determines="preprocessor",
    ),
    Rule("architecture", ("device",), _architecture, accepts_architecture("TextOptions")),
    Rule(
        "weights",
        ("architecture",),
        pretrained_weights("TextOptions"),
        accepts_weights("TextOptions"),
        determines="model",
    ),
    Rule(
        "model_config",
        ("architecture", "weights"),
        _model_config,
        _model_config_accepts,
        determines="model",
    ),
    Rule.extending("targets", _targets, accepts=targets_accept("as_is", "standard")),
    Rule.extending("metrics", _metrics),
    Rule.extending("batch_size", _batch_size, needs=("architecture", "weights")),
    Rule.extending("epochs", _epochs, needs=("architecture", "weights")),
    Rule.extending("clip_norm", _clip_norm, needs=("architecture",)),
    Rule.extending("keep_best", _keep_best),
    data_device_rule("texts"),
    fine_tuning_lr_rule(LEARNING_RATES),
    precision_rule(BF16_GAINS),
)
