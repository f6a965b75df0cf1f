"""Core rules for the model: pretrained weights, head, trainable parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from flambeau.data.facts import Facts
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.value_types import PARAMETER_GROUPS


def no_weights(facts: Facts, values: Mapping[str, Any]) -> Choice:
    """Return the choice "weights" without a file of weights: random ones, or the user's module."""
    given = bool(facts.get("model_given", False))
    reason = (
        "Your module already has its weights." if given else "Random: no pretrained weights chosen."
    )
    return Choice(
        "weights",
        None,
        reason,
        override="Pass a module with pretrained weights: Learner(data, module).",
        source="default",
    )


def _weights_accept(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    if value is None:
        return None
    return (
        "None: this domain has no pretrained weights. Pass a module that has them, "
        "Learner(data, module), or load them: learner.load(path)."
    )


def _head(facts: Facts, values: Mapping[str, Any]) -> Choice:
    own = "your module" if facts.get("model_given") else str(values["architecture"])
    return Choice(
        "head",
        "of the module",
        f"The head is the last layer of {own}.",
        override="Change the module before you pass it to the Learner.",
        source="default",
    )


def head_rule(where: str) -> Rule:
    """Return the rule for ``head`` in a domain whose builders take ``dropout``.

    Args:
        where: What dropout precedes, for the reason: "each layer but the first".
    """

    def decide(facts: Facts, values: Mapping[str, Any]) -> Choice:
        if facts.get("model_given"):
            return _head(facts, values)
        return Choice(
            "head",
            {"dropout": 0.0},
            f"The head of {values['architecture']} is one linear layer. Dropout before {where} is "
            "off: no benefit was measured.",
            evidence={"architecture": values["architecture"]},
            alternatives=({"dropout": 0.2}, {"dropout": 0.5}),
            source="default",
        )

    def accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
        if facts.get("model_given"):
            return _head_accepts(value, facts, values)
        share: object = None
        if isinstance(value, Mapping) and set(cast("Mapping[str, Any]", value)) == {"dropout"}:
            share = cast("Mapping[str, Any]", value)["dropout"]
        if type(share) in (int, float) and 0 <= cast("float", share) < 1:
            return None
        return '{"dropout": p} with a probability p from 0 to below 1.'

    return Rule("head", ("architecture",), decide, accepts, determines="model")


def _head_accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    if value == "of the module":
        return None
    return (
        "'of the module': the plan cannot change your module. Change it before you pass it to the "
        "Learner."
    )


def _trainable(facts: Facts, values: Mapping[str, Any]) -> Choice:
    if values["weights"] is None:
        reason = "All parameters train, because the weights are random."
        if facts.get("model_given"):
            reason = "All parameters of your module with requires_grad=True train."
        elif facts.get("started"):
            reason = (
                "All parameters train, from the weights of the export. learner.fine_tune() trains "
                "the head first, then the earlier groups with lower learning rates."
            )
    else:
        reason = (
            "All parameters train. learner.fine_tune() trains the head first, then the earlier "
            "groups with lower learning rates."
        )
    return Choice(
        "trainable",
        "all",
        reason,
        evidence={"weights": values["weights"]},
        alternatives=("head",),
        override="learner.freeze(), or a list of parameter groups",
        source="default",
    )


MODEL_RULES = (
    Rule("weights", (), no_weights, _weights_accept, determines="model"),
    Rule("head", ("architecture",), _head, _head_accepts, determines="model"),
    Rule("trainable", ("weights",), _trainable, type=PARAMETER_GROUPS, changes="fit"),
)
