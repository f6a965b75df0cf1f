"""Rules of the plan for networks that start from a pretrained one, which several domains share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Accepts, Decide, Rule
from flambeau.plan.rules_model import no_weights
from flambeau.plan.rules_training import lr_rule
from flambeau_text.huggingface.encoder import ARCHITECTURE
from flambeau_text.tokenization.encoder_tokenizer import EncoderTokenizer
from flambeau_text.tokenization.normalization import FORMS
from flambeau_text.tokenization.pretrained import HFTokenizer
from flambeau_text.value_checks import one_of, whole_number

Values = Mapping[str, Any]

FINE_TUNING_RATES = {"causal_lm": 2e-5, "causal_lm_lora": 2e-4, ARCHITECTURE: 3e-5}
"""Usual peak learning rates of fine-tuning a pretrained model, whole or with adapters. Of encoders
BERT (arXiv 1810.04805, appendix A.3) tried 2e-5, 3e-5 and 5e-5."""

_KINDS = (HFTokenizer.kind, EncoderTokenizer.kind)
_LONGEST = 512  # tokens of a row by default, also of encoders that can read more
_BATCH_SIZE = 32
_EPOCHS = 3


def of_pretrained(tokenizer: str | None) -> bool:
    """Return whether a tokenizer's name is that of a pretrained model's tokenizer."""
    return tokenizer in _KINDS


def is_fine_tuned(facts: Any, values: Values) -> bool:
    """Return whether a network starts from trained weights: of the user, an export or a folder.

    Args:
        facts: Facts about data and model.
        values: With "weights".
    """
    given = facts.get("model_given") or facts.get("started")
    return bool(given) or values["weights"] is not None


def unchanged_texts() -> Choice:
    """Return the choice "normalization" for the tokenizer of a pretrained model."""
    reason = "The tokenizer of a pretrained model reads texts as they are."
    return Choice("normalization", "none", reason, source="default")


def accepts_normalization(value: Any, facts: Any, values: Values) -> str | None:
    """Accept a Unicode form; "none" alone for the tokenizer of a pretrained model."""
    if of_pretrained(facts["given_tokenizer"]):
        why = "'none': the tokenizer of a pretrained model reads texts as they are."
        return None if value == "none" else why
    return one_of(FORMS)(value, facts, values)


def accepts_architecture(options: str) -> Accepts:
    """Return the check of "architecture": a folder is named in the options of the data instead.

    Args:
        options: Name of the class of these options.
    """

    def accepts(value: Any, facts: Any, values: Values) -> str | None:
        if facts.get("model_given") or not (isinstance(value, str) and Path(value).is_dir()):
            return None
        return (
            "the name of an architecture, or a module. A folder with a pretrained model also "
            f"decides on the tokens, so name it for the data: {options}(language_model={value!r}), "
            f"or --language-model {value}."
        )

    return accepts


def pretrained_architecture(given: Mapping[str, Any], override: str) -> Choice:
    """Return the choice "architecture" for data with a language model.

    Args:
        given: The fact "language_model".
        override: How to choose another architecture.
    """
    reason = f"It starts from the {_kind(given)} in {given['folder']}."
    if given["folder"] is None:
        reason = f"The tokens are those of the {_kind(given)} in the export."
    names = given["architectures"]
    return Choice(
        "architecture", names[0], reason, alternatives=tuple(names[1:]), override=override
    )


def _kind(given: Mapping[str, Any]) -> str:
    return f"language model ({given['kind']})"


def pretrained_weights(options: str) -> Decide:
    """Return the function that decides "weights": those of the language model in the options.

    Args:
        options: Name of the class of these options.
    """

    def decide(facts: Any, values: Values) -> Choice:
        if facts.get("model_given"):
            return no_weights(facts, values)
        given = facts.get("language_model")
        override = f"options={options}(language_model=FOLDER), or --language-model FOLDER"
        why = None
        if given is None:
            why = "without a language model"
        elif values["architecture"] not in given["architectures"]:
            why = "this network has other layers"
        elif given["folder"] is None:
            why = "the export gives the tokens; start= also gives its weights"
        if given is None or why is not None:
            reason = f"Random weights: {why}."
            return Choice("weights", None, reason, override=override, source="default")
        return Choice(
            "weights",
            given["folder"],
            f"{given['layers']} of the {_kind(given)} in {given['folder']}, with "
            f"{given['tokens']:,} tokens.",
            evidence={"sha256": given["sha256"]},
            alternatives=(None,),
            override='choices={"weights": None}',
        )

    return decide


def accepts_weights(options: str) -> Accepts:
    """Return the check of "weights": None, or the folder of the language model in the options."""

    def accepts(value: Any, facts: Any, values: Values) -> str | None:
        given = facts.get("language_model")
        if value is None or facts.get("started"):  # the weights of the export replace them
            return None
        if given is None or value != given["folder"]:
            folder = f"{options}(language_model=FOLDER)"
            return f"None, or the folder in {folder}, which decides on tokens."
        if values["architecture"] not in given["architectures"] or facts.get("model_given", False):
            only = " or ".join(map(repr, given["architectures"]))
            return f"None, because only the architecture {only} has the same layers."
        return None

    return accepts


def encoder_length(facts: Any, architecture: str, default: int) -> int:
    """Return the most tokens of a row by default: at most as many as a pretrained encoder reads."""
    given = facts.get("language_model", {})
    if architecture != ARCHITECTURE or ARCHITECTURE not in given.get("architectures", ()):
        return default
    return min(_LONGEST, given["limit"] or _LONGEST)


def accepts_length(value: Any, facts: Any, values: Values) -> str | None:
    """Accept a number of tokens that the encoder can read."""
    limit = facts.get("language_model", {}).get("limit")
    if (found := whole_number(1, "tokens")(value, facts, values)) is not None:
        return found
    if limit is not None and values["architecture"] == ARCHITECTURE and value > limit:
        return f"at most {limit:,}, the number of positions of the encoder."
    return None


def encoder_config(facts: Any, more: Mapping[str, Any]) -> Choice:
    """Return the configuration of a network with a pretrained encoder.

    Args:
        facts: With "language_model".
        more: Further values, besides the encoder's settings and the dropout probability.
    """
    given = facts.get("language_model", {})
    return Choice(
        "model_config",
        {**given.get("config", {}), **more, "dropout": 0.1},
        f"The settings of the {given.get('kind', 'encoder')}, and a linear layer after dropout, as "
        "in BERT.",
        confidence=0.6,
        override='choices={"model_config": {"dropout": 0.3}}; other fields keep their defaults',
    )


def encoder_batch_size(base: Choice, facts: Any, values: Values) -> Choice:
    """Return at most 32 for an encoder of a pretrained model's size."""
    if base.value <= _BATCH_SIZE:
        return base
    reason = "Usual for fine-tuning a pretrained encoder."
    if not is_fine_tuned(facts, values):
        reason = f"A step of an encoder with more than {_BATCH_SIZE} rows takes long."
    return replace(base, value=_BATCH_SIZE, reason=reason, alternatives=(16, 64))


def encoder_epochs(base: Choice, facts: Any, values: Values) -> Choice:
    """Return 3 epochs for a pretrained encoder; core's for other networks and random weights."""
    is_encoder = values["architecture"] == ARCHITECTURE and is_fine_tuned(facts, values)
    return fine_tuning_epochs() if is_encoder and not values["steps"] else base


def fine_tuning_epochs() -> Choice:
    """Return the number of epochs for fine-tuning a pretrained model."""
    return Choice(
        "epochs",
        _EPOCHS,
        "Usual for fine-tuning; after more epochs a pretrained model often overfits.",
        alternatives=(1, 5),
        override="learner.fit(1)",
        source="default",
    )


def fine_tuning_lr_rule(table: Mapping[str, float]) -> Rule:
    """Return the rule for "lr": usual rates for pretrained weights, else those of the table.

    Args:
        table: As for ``lr_rule``.
    """
    measured = lr_rule(table)

    def decide(facts: Any, values: Values) -> Choice:
        rate = FINE_TUNING_RATES.get(values["architecture"])
        if rate is None or not is_fine_tuned(facts, values):
            return measured.decide(facts, values)
        return Choice(
            "lr",
            rate,
            "Usual for fine-tuning with AdamW; not measured for this model.",
            alternatives=(rate * 3, rate / 3),
            confidence=0.5,
            override=f"learner.fit(lr={rate * 3:.3g})",
        )

    return replace(measured, needs=(*measured.needs, "weights"), decide=decide)
