"""``Rule.extending``: a domain's rule that starts from core's choice."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flambeau.domain import Domain
from flambeau.errors import PlanError
from flambeau.plan import Choice, Plan, Rule, combine
from flambeau.plan.value_types import positive


def decide_rate(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    return Choice("lr", facts["base"] * values["width"], "Core's.")


def refuse_large(value: Any, facts: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    return None if value < 100 else "below 100."


CORE = (
    Rule("width", (), lambda facts, values: Choice("width", 4, "Core's.")),
    Rule("depth", (), lambda facts, values: Choice("depth", 3, "Core's.")),
    Rule("lr", ("width",), decide_rate, refuse_large, positive("a positive number.")),
)


def divide_by_depth(base: Choice, facts: Any, values: Mapping[str, Any]) -> Choice:
    assert set(values) == {"width", "depth"}  # what core's rule needs and what this one needs
    return replace(base, value=base.value / values["depth"], reason=f"{base.reason} Per layer.")


EXTENDED = combine(CORE, [Rule.extending("lr", divide_by_depth, needs=("depth",))])


def test_the_rule_starts_from_the_choice_of_core() -> None:
    choice = Plan.derive(EXTENDED, {"base": 6.0})["lr"]
    assert (choice.value, choice.reason) == (6.0 * 4 / 3, "Core's. Per layer.")


def test_a_change_of_either_need_decides_again() -> None:
    plan = Plan.derive(EXTENDED, {"base": 6.0})
    assert plan.override("depth", 6).values["lr"] == 6.0 * 4 / 6
    assert plan.override("width", 1).values["lr"] == 6.0 / 3


def test_the_checks_of_core_stay_unless_replaced() -> None:
    plan = Plan.derive(EXTENDED, {"base": 6.0})
    with pytest.raises(PlanError, match="below 100"):
        plan.override("lr", 100)
    with pytest.raises(PlanError, match="a positive number"):
        plan.override("lr", -1)
    allowing = Rule.extending("lr", lambda base, facts, values: base, accepts=lambda *_: None)
    assert Plan.derive(combine(CORE, [allowing]), {"base": 6.0}).override("lr", 100)["lr"]


def test_a_key_that_core_does_not_decide_cannot_be_extended() -> None:
    unknown = Rule.extending("lrr", lambda base, facts, values: base)
    with pytest.raises(PlanError, match=r"no rule before it decides 'lrr'\. Did you mean 'lr'"):
        combine(CORE, [unknown])
    with pytest.raises(PlanError, match="no rule before it decides 'lrr'"):
        Domain(name="own", data_classes={}, models={}, tasks={}, rules=(unknown,))


def test_a_rule_extends_the_one_before_it_in_the_domain() -> None:
    own = Rule("width", (), lambda facts, values: Choice("width", 10, "The domain's."))
    new = Rule("grain", (), lambda facts, values: Choice("grain", 2, "The domain's."))

    def double(base: Choice, facts: Any, values: Any) -> Choice:
        return replace(base, value=2 * base.value)

    twice = [Rule.extending(key, double) for key in ("width", "width", "grain")]
    domain = Domain(name="own", data_classes={}, models={}, tasks={}, rules=(own, new, *twice))
    values = Plan.derive(combine(CORE, domain.rules), {"base": 6.0}).values
    assert values == {"width": 40, "depth": 3, "lr": 240.0, "grain": 4}


def test_a_rule_after_an_extension_would_drop_it() -> None:
    own = Rule("width", (), lambda facts, values: Choice("width", 10, "The domain's."))
    extension = Rule.extending("width", lambda base, facts, values: base)
    with pytest.raises(PlanError, match=r"follows Rule\.extending\('width'\)"):
        combine(CORE, [extension, own])


def test_the_rule_alone_says_how_to_use_it() -> None:
    with pytest.raises(PlanError, match="as part of a domain"):
        Plan.derive([Rule.extending("lr", lambda base, facts, values: base)], {})
