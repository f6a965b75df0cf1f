"""Rules of the plan, and checks of their values, that several kinds of text data share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.data.facts import Facts
from flambeau.errors import FlambeauError
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Accepts, Rule
from flambeau_text.models.config import config_from_values


def data_device_rule(kind: str) -> Rule:
    """Return the rule that keeps token ids on the CPU.

    Args:
        kind: What the data are, in the plural, for the plan: "language models".
    """

    def decide(facts: Facts, values: Mapping[str, Any]) -> Choice:
        return Choice(
            "data_device",
            "cpu",
            "Token ids are small and fast to transfer.",
            override=f"There is no alternative for {kind}.",
            source="default",
        )

    return Rule("data_device", ("device",), decide)


def accepts_model_config(configs: Mapping[str, type], expected: str) -> Accepts:
    """Return the check of "model_config": fields of the architecture's settings, with valid values.

    Args:
        configs: The dataclass with the settings of each architecture; others are not checked.
        expected: What to give in place of a value that is no mapping.
    """

    def accepts(value: Any, facts: Any, values: Mapping[str, Any]) -> str | None:
        if not isinstance(value, Mapping):
            return expected
        config = configs.get(values["architecture"])
        if config is None or facts.get("model_given", False):
            return None
        try:
            config_from_values(config, value, f"The architecture {values['architecture']!r}")
        except (FlambeauError, TypeError) as error:
            return f"valid settings of the model: {error}"
        return None

    return accepts


def accepts_word_rules(value: Any, facts: Any, values: Mapping[str, Any]) -> str | None:
    """Accept True or False for "word_rules"; only False for other tokens than words."""
    if type(value) is not bool:
        return "True or False."
    if value and values["tokenizer"] != "word":
        return f"False: the rules are for whole words, not for the tokenizer {values['tokenizer']}."
    return None
