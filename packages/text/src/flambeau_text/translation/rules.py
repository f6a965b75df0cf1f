"""The plan's rules for translation: what core cannot know of words and networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flambeau.errors import FlambeauError
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_machine import precision_rule
from flambeau.plan.rules_training import lr_rule
from flambeau_text.decoding.strategy import Beam, strategy_from_json
from flambeau_text.forcing.teacher_forcing import TeacherForcing
from flambeau_text.models.rnn import RnnShape
from flambeau_text.models.shape import shape_from
from flambeau_text.models.transformer import TransformerShape
from flambeau_text.translation.options import TOKENIZERS
from flambeau_text.translation.recipes import (
    BATCH_PAIRS,
    BF16_GAINS,
    DROPOUT,
    FEWEST_EPOCHS,
    LEARNING_RATES,
    MOST_EPOCHS,
    PIECES,
    STEPS_WANTED,
    TRANSFORMER_PAIRS,
)

Values = Mapping[str, Any]

_SHAPES: Mapping[str, type] = {"rnn": RnnShape, "transformer": TransformerShape}

# A side with at most so many different words is small enough to have a number for each.
_CLOSED = 2_000
# Words of the target side that sources have, too, from which on one vocabulary serves both.
_RELATED = 0.02


def _task(facts: Values, values: Values) -> Choice:
    names = f"{facts['source_language'] or 'source'} → {facts['target_language'] or 'target'}"
    return Choice(
        "task",
        "translation",
        f"{facts['n_train']:,} train pairs, {names}.",
        evidence={"n_train": facts["n_train"]},
        override="Learner(data, task=TranslationTask(...))",
        source="default",
    )


def _tokenizer(facts: Values, values: Values) -> Choice:
    distinct = {side: facts[f"{side}_distinct"] for side in ("source", "target")}
    many = max(distinct.values())
    evidence = {**distinct, "words": facts["source_words"] + facts["target_words"]}
    value = "word" if many <= _CLOSED else "bpe"
    reason = f"Sides of {distinct['source']:,} and {distinct['target']:,} different words"
    reason += (
        ": few enough to have a number each."
        if value == "word"
        else ", many of them rare: frequent ones stay whole, rare ones are written in pieces."
    )
    return Choice(
        "tokenizer",
        value,
        reason,
        evidence=evidence,
        alternatives=tuple(name for name in TOKENIZERS if name != value),
        override='TranslationOptions(tokenizer="word") where the data are built',
    )


def _tokenizer_accepts(value: Any, facts: Values, values: Values) -> str | None:
    return None if value in TOKENIZERS else f"one of {', '.join(TOKENIZERS)}."


def _vocab_size(facts: Values, values: Values) -> Choice:
    n, kind = facts["n_train"], values["tokenizer"]
    if kind in ("bpe", "unigram"):
        value = next(size for rows, size in PIECES if n >= rows)
        reason = (
            f"{n:,} train pairs: more pieces than {value:,} would each be seen too rarely to be "
            "learned well."
        )
    else:
        value, reason = 30_000, "At most; a word or character that train has not is unknown."
    return Choice(
        "vocab_size",
        value,
        reason,
        evidence={"n_train": n, "tokenizer": kind},
        alternatives=(value * 2, value // 2),
        override="TranslationOptions(vocab_size=...) where the data are built",
    )


def _whole(least: int, what: str) -> Any:
    def accepts(value: Any, facts: Values, values: Values) -> str | None:
        fine = type(value) is int and value >= least
        return None if fine else f"a whole number of {what}, at least {least}."

    return accepts


def _shared_vocab(facts: Values, values: Values) -> Choice:
    shared, kind = facts["shared_words"], values["tokenizer"]
    value = kind in ("bpe", "unigram") and shared >= _RELATED
    reason = f"{shared:.1%} of the target's words are among the source's"
    reason += (
        ", so both sides share pieces, and one matrix serves as both embeddings and output."
        if value
        else f"; {kind} tokens of two sides have little to share."
    )
    return Choice(
        "shared_vocab",
        value,
        reason,
        evidence={"shared_words": shared, "tokenizer": kind},
        alternatives=(not value,),
        confidence=0.8,
    )


def _shared_accepts(value: Any, facts: Values, values: Values) -> str | None:
    return None if isinstance(value, bool) else "True or False."


def _max_tokens(facts: Values, values: Values) -> Choice:
    unit = "characters" if values["tokenizer"] == "character" else "words"
    longest = facts[f"longest_{unit}"]
    value = max(64, 4 * longest)
    return Choice(
        "max_tokens",
        value,
        f"The longest train sentence has {longest:,} {unit}; a source of more than {value:,} "
        "tokens is refused, since nothing like it was learned.",
        evidence={"longest": longest},
        alternatives=(value * 2,),
        source="default",
    )


def _architecture(facts: Values, values: Values) -> Choice:
    n, on_cpu = facts["n_train"], torch.device(values["device"]).type == "cpu"
    value = "rnn" if on_cpu or n < TRANSFORMER_PAIRS else "transformer"
    other = "transformer" if value == "rnn" else "rnn"
    if value == "transformer":
        reason = f"{n:,} train pairs: enough for a Transformer, and an accelerator computes all "
        reason += "words of a sentence at once, as it wants it."
    elif on_cpu:
        reason = "On a CPU a recurrent model with attention learns most in a given time."
    else:
        reason = f"{n:,} train pairs: on the 29,000 of Multi30k a recurrent model scored higher "
        reason += "(39.0 BLEU against 37.9) in a third of the time."
    return Choice(
        "architecture",
        value,
        reason,
        evidence={"device": values["device"], "n_train": n},
        alternatives=(other,),
        confidence=0.8,
        override=f'Learner(data, "{other}")',
    )


def _size(facts: Values, values: Values) -> Choice:
    architecture, n = values["architecture"], facts["n_train"]
    if facts.get("model_given", False):
        return Choice(
            "size", {}, "Your module has its own.", override="Change the module.", source="default"
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
    dropout = next(share for rows, share in DROPOUT if n >= rows)
    value["dropout"] = 0.1 if small else dropout
    return Choice(
        "size",
        value,
        f"{n:,} train pairs of {facts['mean_words']:g} words: a larger network would learn them by "
        "heart, and a smaller one does not hold them.",
        evidence={"n_train": n, "mean_words": facts["mean_words"]},
        confidence=0.6,
        override='choices={"size": {"hidden_size": 512}}; what is left out keeps its own value',
    )


def _size_accepts(value: Any, facts: Values, values: Values) -> str | None:
    if not isinstance(value, Mapping):
        return 'sizes by name: {"hidden_size": 512}, as RnnShape and TransformerShape list them.'
    shape = _SHAPES.get(values["architecture"])
    if shape is None or facts.get("model_given", False):
        return None
    try:
        shape_from(shape, value, f"the architecture {values['architecture']!r}")
    except (FlambeauError, TypeError) as error:
        return f"sizes that the model has: {error}"
    return None


def _batch_size(facts: Values, values: Values) -> Choice:
    n = facts["n_train"]
    value = next(size for rows, size in BATCH_PAIRS if n >= rows)
    tokens = round(value * facts["mean_words"])
    return Choice(
        "batch_size",
        value,
        f"{n:,} train pairs of {facts['mean_words']:g} words on average: a batch is filled by "
        f"tokens, padding counted, with what so many average pairs have (about {tokens:,} words).",
        evidence={"n_train": n, "mean_words": facts["mean_words"]},
        alternatives=(value * 2, max(1, value // 2)),
    )


def _epochs(facts: Values, values: Values) -> Choice:
    n, pairs = facts["n_train"], values["batch_size"] * values["accumulate"]
    steps = -(-n // pairs)
    wanted = STEPS_WANTED["word" if values["tokenizer"] == "word" else "text"]
    value = min(MOST_EPOCHS, max(FEWEST_EPOCHS, -(-wanted // steps)))
    return Choice(
        "epochs",
        value,
        f"About {steps:,} steps an epoch make {steps * value:,} steps; about {wanted:,} are "
        f"wanted, in {FEWEST_EPOCHS} to {MOST_EPOCHS} epochs.",
        evidence={"steps_per_epoch": steps, "steps": steps * value},
        alternatives=(max(1, value // 2), value * 2),
        confidence=0.7,
        override=f"learner.fit({value * 2})",
    )


def _label_smoothing(facts: Values, values: Values) -> Choice:
    closed = values["tokenizer"] == "word" and facts["target_distinct"] <= _CLOSED
    return Choice(
        "label_smoothing",
        0.0 if closed else 0.1,
        "The target's few words leave little doubt which is right."
        if closed
        else "The usual share: several translations are right, and one is wanted.",
        evidence={"target_distinct": facts["target_distinct"]},
        alternatives=(0.1,) if closed else (0.0, 0.2),
        source="default",
    )


def _share(value: Any, facts: Values, values: Values) -> str | None:
    fine = type(value) in (int, float) and 0 <= value < 1
    return None if fine else "a share from 0 to below 1."


def _teacher_forcing(facts: Values, values: Values) -> Choice:
    return Choice(
        "teacher_forcing",
        None,
        "The true words throughout: on translation no schedule was published to do better, on long "
        "made sequences some do.",
        override='choices={"teacher_forcing": TeacherForcing(Linear(1.0, 1e-4)).as_json()}',
        source="default",
    )


def _decoding(facts: Values, values: Values) -> Choice:
    return Choice(
        "decoding",
        Beam().as_json(),
        "A beam of 5 with the usual penalty; within a run the search is greedy.",
        override='choices={"decoding": Greedy().as_json()}',
        source="default",
    )


def _from_json(build: Any, what: str, *, none: bool) -> Any:
    """Accepts what can be built, and says what is wrong with what cannot."""

    def accepts(value: Any, facts: Values, values: Values) -> str | None:
        if value is None and none:
            return None
        if not isinstance(value, Mapping):
            return f"{what}, as .as_json() gives it."
        try:
            build(value)
        except (FlambeauError, TypeError) as error:
            return f"{what}: {error}"
        return None

    return accepts


def _data_device(facts: Values, values: Values) -> Choice:
    return Choice(
        "data_device",
        "cpu",
        "Batches are padded on the CPU: token numbers are small, and copied quickly.",
        override="Nothing else to choose here.",
        source="default",
    )


RULES: tuple[Rule, ...] = (
    Rule("task", (), _task),
    Rule("tokenizer", (), _tokenizer, _tokenizer_accepts),
    Rule("vocab_size", ("tokenizer",), _vocab_size, _whole(5, "tokens")),
    Rule("shared_vocab", ("tokenizer",), _shared_vocab, _shared_accepts),
    Rule("max_tokens", ("tokenizer",), _max_tokens, _whole(1, "tokens")),
    Rule("architecture", ("device",), _architecture),
    Rule("size", ("architecture", "tokenizer"), _size, _size_accepts),
    Rule("batch_size", (), _batch_size),
    Rule("epochs", ("batch_size", "accumulate", "tokenizer"), _epochs),
    Rule("label_smoothing", ("tokenizer",), _label_smoothing, _share),
    Rule(
        "teacher_forcing",
        (),
        _teacher_forcing,
        _from_json(TeacherForcing.from_json, "None or a teacher forcing", none=True),
    ),
    Rule("decoding", (), _decoding, _from_json(strategy_from_json, "a strategy", none=False)),
    Rule("data_device", ("device",), _data_device),
    lr_rule(LEARNING_RATES),
    precision_rule(BF16_GAINS),
)
