"""The plan's rules for the embeddings of numbers: kind, bins and frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.value_types import is_number
from flambeau_tabular.facts import TabularFacts
from flambeau_tabular.models.recipes import planned_recipe
from flambeau_tabular.models.table_inputs import NUMBER_EMBEDDINGS, SIGMAS

Values = Mapping[str, Any]

PLE_BINS = 48
"""Bins of the piecewise linear embedding of each number, and as many for its distinct values."""


def _number_embedding(facts: TabularFacts, values: Values) -> Choice:
    chosen = planned_recipe(values)
    value = "none" if chosen is None else chosen.inputs["number_embedding"]
    reasons = {
        "none": "Your module gets the scaled numbers.",
        "pbld": "Each number enters as itself and three learned periodic features of it (RealMLP), "
        "so that the network can bend at any value.",
        "ple": "Each number enters by its position among the quantiles of the train rows (TabM) "
        "and of its distinct values, so that the network can bend at each of them.",
    }
    return Choice(
        "number_embedding",
        value,
        reasons[value],
        evidence={"architecture": values["architecture"]},
        alternatives=tuple(each for each in NUMBER_EMBEDDINGS if each != value),
        source="default" if chosen is None else "rule",
    )


def _number_embedding_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    if facts.get("model_given") and value != "none":
        return "'none' for your own module, which gets the scaled numbers."
    known = value in NUMBER_EMBEDDINGS
    return None if known else f"one of {', '.join(map(repr, NUMBER_EMBEDDINGS))}."


def _ple_bins(facts: TabularFacts, values: Values) -> Choice:
    if values["number_embedding"] != "ple":
        reason = "Only the number embedding 'ple' has bins."
        return Choice("ple_bins", None, reason, source="default", override=_EXAMPLE)
    return Choice(
        "ple_bins",
        PLE_BINS,
        f"{PLE_BINS} bins with equally many train rows (TabM), and {PLE_BINS} with equally many "
        "distinct values; equal edges count once.",
        alternatives=(PLE_BINS // 2, PLE_BINS * 2),
        override='choices={"ple_bins": 24}, on the command line --set ple_bins=24',
    )


_EXAMPLE = 'choices={"number_embedding": "ple"}'


def _ple_bins_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    if values["number_embedding"] != "ple":
        return None if value is None else "None, because only the embedding 'ple' has bins."
    from flambeau_tabular.columns.scaling import GRID

    known = type(value) is int and 1 <= value <= GRID
    return None if known else f"a whole number of bins from 1 to {GRID}."


def _sigma(facts: TabularFacts, values: Values) -> Choice:
    kind = values["number_embedding"]
    if kind not in SIGMAS:
        reason = "Only the periodic embeddings (plr, plr_lite, pbld) have frequencies."
        example = 'choices={"number_embedding": "plr_lite"}'
        return Choice("plr_sigma", None, reason, source="default", override=example)
    return Choice(
        "plr_sigma",
        SIGMAS[kind],
        f"The authors' standard deviation of the initial frequencies of {kind}. The best one "
        "depends on the data (published searches found 0.01 to 50) and was not measured here: "
        "probe_frequency(data) compares some on train rows.",
        evidence={"number_embedding": kind},
        alternatives=(0.5, 5.0),
        confidence=0.5,
        override='choices={"plr_sigma": 0.5}, on the command line --set plr_sigma=0.5',
        source="default",
    )


def sigma_of(value: Any) -> float | None:
    """Return the standard deviation in a value of "plr_sigma": a number, or a probe's result."""
    return value["sigma"] if isinstance(value, Mapping) else value


def _sigma_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    if values["number_embedding"] not in SIGMAS:
        return None if value is None else "None, because only periodic embeddings have frequencies."
    number: Any = value
    if isinstance(value, Mapping) and {"sigma", "curve"} <= value.keys():
        number = sigma_of(value)
    if is_number(number) and number > 0:
        return None
    return 'a number above 0, or what probe_frequency measured: {"sigma": 0.5, "curve": …}.'


EMBEDDING_RULES = (
    Rule(
        "number_embedding",
        ("architecture", "task", "device"),
        _number_embedding,
        accepts=_number_embedding_accept,
        determines="model",
    ),
    Rule(
        "ple_bins",
        ("number_embedding",),
        _ple_bins,
        accepts=_ple_bins_accept,
        determines="model",
    ),
    Rule(
        "plr_sigma",
        ("number_embedding",),
        _sigma,
        accepts=_sigma_accept,
        determines="model",
    ),
)
