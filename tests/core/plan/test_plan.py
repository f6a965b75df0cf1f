"""Order by needs, overrides on the graph, replay, saving."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flambeau.errors import PlanError
from flambeau.plan import Choice, Plan, Rule, combine, dependents, order


def rule(key: str, *needs: str, value: Any = None) -> Rule:
    """Decides ``key`` as text that shows what it was made from, or as ``value``."""

    def decide(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
        made = f"{key}({', '.join(str(values[need]) for need in needs)})"
        return Choice(key, made if value is None else value, "Because of a test.")

    return Rule(key, needs, decide)


# a ─► b ─► d ─► e        c and f hang on nothing that a decides
#      c ─► d     f
GRAPH = [rule("e", "d"), rule("d", "b", "c"), rule("b", "a"), rule("a"), rule("c"), rule("f", "c")]


def keys(rules: tuple[Rule, ...]) -> list[str]:
    return [entry.key for entry in rules]


# ---------------------------------------------------------------- order


def test_a_rule_decides_after_those_it_needs() -> None:
    for seed in range(20):
        shuffled = random.Random(seed).sample(GRAPH, len(GRAPH))
        ordered = keys(order(shuffled))
        assert sorted(ordered) == list("abcdef")
        for entry in GRAPH:
            assert all(ordered.index(need) < ordered.index(entry.key) for need in entry.needs)


def test_rules_without_needs_keep_their_order() -> None:
    assert keys(order([rule("z"), rule("y", "x"), rule("x"), rule("a")])) == ["z", "x", "y", "a"]


def test_rule_order_does_not_change_choices() -> None:
    plans = [Plan.derive(random.Random(seed).sample(GRAPH, 6), {}) for seed in range(10)]
    assert all(plan.values == plans[0].values for plan in plans)
    assert plans[0].values["e"] == "e(d(b(a()), c()))"


def test_a_cycle_of_rules_is_reported() -> None:
    with pytest.raises(PlanError, match="in a cycle: b → c → d → b"):
        order([rule("a", "b"), rule("b", "c"), rule("c", "d"), rule("d", "b")])
    with pytest.raises(PlanError, match="in a cycle: a → a"):
        order([rule("a", "a")])


def test_a_missing_need_is_named() -> None:
    with pytest.raises(PlanError, match=r"'lr'.*needs 'optimiser'.*Did you mean 'optimizer'\?"):
        order([rule("lr", "optimiser"), rule("optimizer")])


def test_two_rules_for_one_key_are_refused() -> None:
    with pytest.raises(PlanError, match=r"Two rules decide 'lr'.*combine"):
        Plan.derive([rule("lr"), rule("lr")], {})


def test_a_domain_replaces_a_rule_of_core_and_adds_its_own() -> None:
    merged = combine([rule("lr", value=1.0), rule("bn")], [rule("size"), rule("lr", value=2.0)])
    assert keys(merged) == ["lr", "bn", "size"]
    assert Plan.derive(merged, {}).values["lr"] == 2.0
    with pytest.raises(PlanError, match="Two rules decide 'lr'"):
        combine([], [rule("lr"), rule("lr")])


# ---------------------------------------------------------------- what a rule sees and answers


def test_a_rule_sees_its_needs_and_no_other_value() -> None:
    seen: dict[str, Any] = {}

    def decide(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
        seen.update(values)
        return Choice("d", 0, "")

    Plan.derive([rule("a"), rule("b"), Rule("d", ("b",), decide)], {})
    assert seen == {"b": "b()"}


def test_a_missing_fact_is_named() -> None:
    bad = Rule("lr", (), lambda facts, values: Choice("lr", facts["rows"], ""))
    with pytest.raises(PlanError, match=r"'lr'.*reads 'rows'.*neither a fact \(n_train\)"):
        Plan.derive([bad], {"n_train": 3})


def test_a_rule_that_answers_for_another_key_is_refused() -> None:
    bad = Rule("lr", (), lambda facts, values: Choice("epochs", 3, ""))
    with pytest.raises(PlanError, match=r"'lr'.*returned one for 'epochs'"):
        Plan.derive([bad], {})
    nothing = Rule("lr", (), lambda facts, values: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(PlanError, match="returned None"):
        Plan.derive([nothing], {})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(2), r"type numpy\.ndarray"),
        (float("nan"), "nan, which JSON cannot hold"),
        ({"mean": [torch.zeros(2)]}, r"at \['mean'\]\[0\] is tensor"),
        ({1: 2}, "the key 1"),
        (print, "type builtins"),
    ],
)
def test_a_value_that_is_not_json_is_refused(value: Any, words: str) -> None:
    with pytest.raises(PlanError, match=f"the value of 'x'.*{words}"):
        Plan.derive([rule("x", value=value)], {})
    with pytest.raises(PlanError, match=words):
        Plan.derive([rule("x")], {}, {"x": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(1e-3), 1e-3),
        (np.float32(0.5), 0.5),
        (np.int64(8), 8),
        (np.bool_(True), True),
        (np.str_("fp32"), "fp32"),
        ([np.int64(1), {"a": np.float64(2.5)}], [1, {"a": 2.5}]),
    ],
)
def test_numpy_scalars_become_python_values(value: Any, expected: Any) -> None:
    for plan in (
        Plan.derive([rule("x", value=value)], {}),
        Plan.derive([rule("x")], {}, {"x": value}),
        Plan.derive([rule("x")], {}).override("x", value),
    ):
        found = plan["x"].value
        assert (found, type(found)) == (expected, type(expected))
        assert json.loads(json.dumps(found)) == expected
    with pytest.raises(PlanError, match="nan, which JSON cannot hold"):
        Plan.derive([rule("x")], {}, {"x": np.float32("nan")})


def test_values_become_plain() -> None:
    plan = Plan.derive([rule("x", value=(1, (2.5, None))), rule("y")], {}, {"y": Path("a/b")})
    assert plan.values == {"x": [1, [2.5, None]], "y": "a/b"}
    device = Plan.derive([rule("device")], {}, {"device": torch.device("cuda", 1)})
    assert device.values["device"] == "cuda:1"


# ---------------------------------------------------------------- what the user fixes


def test_a_users_value_stands_and_feeds_the_rest() -> None:
    plan = Plan.derive(GRAPH, {}, {"b": 7})
    assert plan["b"].source == "user"
    assert plan["b"].reason == "Set by the user."
    assert plan.values["d"] == "d(7, c())"
    assert plan["d"].source == "rule"


def test_the_rule_of_a_users_key_is_not_asked() -> None:
    def decide(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
        raise RuntimeError("asked")

    assert Plan.derive([Rule("lr", (), decide)], {}, {"lr": 0.1}).values == {"lr": 0.1}


def test_a_users_choice_is_kept_as_it_is() -> None:
    given = Choice("b", 7, "Found by a sweep.", source="rule", confidence=0.6)
    plan = Plan.derive(GRAPH, {}, {"b": given})
    assert (plan["b"].reason, plan["b"].source, plan["b"].confidence) == (
        "Found by a sweep.",
        "rule",
        0.6,
    )
    with pytest.raises(PlanError, match="as 'c' has the key 'b'"):
        Plan.derive(GRAPH, {}, {"c": given})


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(PlanError, match=r"no key 'batchsize'.*64.*Did you mean 'batch_size'\?"):
        Plan.derive([rule("batch_size")], {}, {"batchsize": 64})
    with pytest.raises(PlanError, match="Did you mean 'batch_size'"):
        Plan.derive([rule("batch_size")], {}).override("batch_sise", 1)
    with pytest.raises(PlanError, match=r"no choice for 'batch_sze'.*Did you mean 'batch_size'"):
        Plan.derive([rule("batch_size")], {})["batch_sze"]


def test_every_choice_has_an_override() -> None:
    made = Rule("lr", (), lambda facts, values: Choice("lr", 0.1, "", alternatives=(0.3,)))
    assert Plan.derive([made], {})["lr"].override == 'Learner(data, choices={"lr": 0.3})'
    told = Rule("lr", (), lambda facts, values: Choice("lr", 0.1, "", override="fit(lr=1)"))
    assert Plan.derive([told], {})["lr"].override == "fit(lr=1)"
    text = Plan.derive([rule("mode", value="a")], {})["mode"].override
    assert text == 'Learner(data, choices={"mode": "a"})'


# ---------------------------------------------------------------- overriding


@pytest.mark.parametrize(
    ("key", "expected"),
    [("a", "bde"), ("b", "de"), ("c", "def"), ("d", "e"), ("e", ""), ("f", "")],
)
def test_an_override_derives_exactly_the_dependents_anew(key: str, expected: str) -> None:
    calls: list[str] = []

    def counted(entry: Rule) -> Rule:
        def decide(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
            calls.append(entry.key)
            return entry.decide(facts, values)

        return Rule(entry.key, entry.needs, decide)

    before = Plan.derive([counted(entry) for entry in GRAPH], {})
    calls.clear()
    after = before.override(key, "mine")
    assert sorted(calls) == list(expected)
    assert after[key].source == "user"
    for name in before:
        same = name != key and name not in expected
        assert (after[name] is before[name]) is same
    assert list(after) == list(before)
    assert before[key].source == "rule", "the plan that was changed stays as it was"


def test_dependents_agree_with_a_slow_reachability() -> None:
    for seed in range(30):
        draw = random.Random(seed)
        names = [f"k{i}" for i in range(12)]
        rules = order(
            rule(name, *draw.sample(names[:i], min(i, draw.randrange(3))))
            for i, name in enumerate(names)
        )
        fixed = set(draw.sample(names, 2))
        needs = {entry.key: entry.needs for entry in rules}

        def hangs_on(name: str, key: str, needs=needs, fixed=fixed) -> bool:
            if name in fixed:
                return False
            return any(need == key or hangs_on(need, key, needs, fixed) for need in needs[name])

        for key in names:
            slow = {name for name in names if name != key and hangs_on(name, key)}
            assert dependents(rules, key, fixed) == slow


def test_other_choices_of_the_user_stay_and_pass_nothing_on() -> None:
    before = Plan.derive(GRAPH, {}, {"d": "fixed"})
    after = before.override("a", "mine")
    assert after.values["b"] == "b(mine)"
    assert after["d"] is before["d"]
    assert after["e"] is before["e"], "e hangs on a only through d, which the user fixed"


def test_overriding_twice_equals_deriving_with_both() -> None:
    step_by_step = Plan.derive(GRAPH, {}).override("a", 1).override("c", 2)
    assert step_by_step == Plan.derive(GRAPH, {}, {"a": 1, "c": 2})


def test_an_outcome_is_recorded_without_deciding_anything_anew() -> None:
    before = Plan.derive(GRAPH, {})
    found = Choice("b", 0.01, "Found by measuring.", evidence={"losses": (3.0, 2.0)})
    after = before.with_choice(found).with_choice(Choice("threads", 2, "As run."))
    assert after["b"].evidence == {"losses": [3.0, 2.0]}
    assert after["d"] is before["d"]
    assert after.values["threads"] == 2
    assert after.override("a", 1).values["b"] == "b(1)", "what it rested on has changed"
    assert after.override("c", 1)["b"] is after["b"]


def test_facts_that_change_later_do_not_reach_a_plan() -> None:
    facts = {"n": 1}
    plan = Plan.derive(
        [rule("a"), Rule("b", ("a",), lambda facts, values: Choice("b", facts["n"], ""))], facts
    )
    facts["n"] = 2
    assert plan.override("a", 0).values["b"] == 1


# ---------------------------------------------------------------- saving and replaying


def rich_plan() -> Plan:
    choices = (
        Choice("lr", 1e-3, "Größe × 2", {"a": {"b": [1, 2.5, None]}}, (0.01, None), 0.4, "fit(…)"),
        Choice("augmentation", {"flip": True, "zoom": [1.0, 1.1]}, "r", source="default"),
        Choice("weights", None, "none", source="user"),
        Choice("seed", 2**60, "an integer stays one"),
    )
    return Plan(choices)


def test_json_round_trip_is_exact(tmp_path: Path) -> None:
    plan = rich_plan()
    text = json.dumps(plan.to_json(), allow_nan=False)
    assert Plan.from_json(json.loads(text)) == plan
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert [loaded[key] for key in loaded] == [plan[key] for key in plan]
    assert loaded.to_json() == plan.to_json()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json"]


def test_a_replay_is_the_same_plan_and_asks_no_rule(tmp_path: Path) -> None:
    plan = Plan.derive(GRAPH, {}, {"c": 3}).with_choice(Choice("epochs_run", 4, "Stopped early."))
    plan.save(tmp_path / "plan.json")

    def asked(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
        raise RuntimeError("asked")

    saved = Plan.load(tmp_path / "plan.json")
    bound = saved.bind([Rule(entry.key, entry.needs, asked) for entry in GRAPH], {})
    assert bound == plan
    assert all(bound[key] is saved[key] for key in saved)


def test_a_plan_from_a_file_overrides_once_it_is_bound() -> None:
    plan = Plan.derive(GRAPH, {}, {"c": 3})
    saved = Plan.from_json(plan.to_json())
    with pytest.raises(PlanError, match=r"has no rules.*plan\.bind"):
        saved.override("a", 1)
    assert saved.bind(GRAPH, {}).override("a", 1) == plan.override("a", 1)


def test_binding_decides_keys_that_an_earlier_release_did_not_have() -> None:
    old = Plan.from_json(Plan.derive(GRAPH[1:], {}).to_json())
    bound = old.bind(GRAPH, {})
    assert bound.values["e"] == "e(d(b(a()), c()))"
    assert all(bound[key] is old[key] for key in old)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"schema_version": 2, "choices": []}, "schema version 2"),
        ({"choices": []}, "schema version None"),
        ({"schema_version": 1, "choices": {}}, "'choices' is a dict"),
        ({"schema_version": 1, "choices": [3]}, "fields \\(none\\)"),
        ({"schema_version": 1, "choices": [{"key": "a", "value": 1}]}, "needs key, value and"),
        (
            {"schema_version": 1, "choices": [{"key": "a", "value": 1, "reason": "", "why": 2}]},
            "why",
        ),
        (
            {
                "schema_version": 1,
                "choices": [{"key": "a", "value": 1, "reason": "", "source": "oracle"}],
            },
            "source 'oracle'",
        ),
        (
            {"schema_version": 1, "choices": [{"key": "a", "value": 1, "reason": ""}] * 2},
            "two choices for 'a'",
        ),
    ],
)
def test_a_damaged_plan_is_refused(content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=words):
        Plan.from_json(content)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(content))
    with pytest.raises(PlanError, match=rf"plan\.json: .*{words}"):
        Plan.load(path)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"schema_version": 1, "choi')
    with pytest.raises(PlanError, match=r"plan\.json is not a plan: it is not valid JSON"):
        Plan.load(path)
    path.write_text("[]")
    with pytest.raises(PlanError, match="it contains a list"):
        Plan.load(path)


# ---------------------------------------------------------------- comparing


def test_diff_names_what_differs() -> None:
    before = Plan.derive(GRAPH, {})
    after = before.override("d", "mine").with_choice(Choice("threads", 2, "As run."))
    diff = before.diff(after)
    assert [change.key for change in diff] == ["d", "e", "threads"]
    assert diff.changes[2].before is None
    assert "d: d(b(a()), c()) → mine  (user: Set by the user.)" in str(diff)
    assert "threads: (absent) → 2" in str(diff)
    assert not before.diff(before)
    assert str(before.diff(before)) == "The plans choose the same values."


def test_diff_tells_a_number_from_a_truth_value() -> None:
    assert Plan([Choice("x", 1, "")]).diff(Plan([Choice("x", True, "")]))


def test_a_plan_reads_as_a_mapping_of_choices() -> None:
    plan = Plan.derive(GRAPH, {})
    assert len(plan) == 6
    assert "a" in plan
    assert "z" not in plan
    assert dict(plan.values) == {key: plan[key].value for key in plan}
    assert repr(Plan([Choice("x", 1, "")])) == "Plan(x=1)"


def test_values_that_are_changed_do_not_change_the_plan() -> None:
    plan = Plan.derive([rule("x", value=[1, 2])], {})
    values = plan.values
    values["x"].append(3)  # type: ignore[index]
    assert plan.values["x"] == [1, 2]
