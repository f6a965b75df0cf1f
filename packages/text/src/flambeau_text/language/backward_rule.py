"""``BACKWARD_RULE``: the plan's rule for the direction in which a language model reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau_text.language.facts import LanguageFacts
from flambeau_text.pretrained_rules import of_pretrained

Values = Mapping[str, Any]


def _backward(facts: LanguageFacts, values: Values) -> Choice:
    return Choice(
        "backward",
        False,
        "Texts are read from their start. A model that reads them from their end cannot continue a "
        "prompt, but starts a classifier that is combined with one that reads forwards.",
        alternatives=() if of_pretrained(facts["given_tokenizer"]) else (True,),
        override="options=LanguageOptions(backward=True), or --backward",
        source="default",
    )


def _backward_accepts(value: Any, facts: LanguageFacts, values: Values) -> str | None:
    if type(value) is not bool:
        return "True or False."
    if value and of_pretrained(facts["given_tokenizer"]):
        return "False: a pretrained model reads texts forwards."
    return None


BACKWARD_RULE = Rule("backward", (), _backward, _backward_accepts, determines="preprocessor")
