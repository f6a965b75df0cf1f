"""The plan as people read it."""

import re

import pytest

from flambeau.plan import CORE_RULES, Choice, Plan

FACTS = {
    "n_train": 39_074,
    "n_valid": 9_768,
    "n_test": 0,
    "split": "random, stratified (seed 0): 39,074 train, 9,768 valid rows",
    "target_dtype": "int64",
    "target_shape": [],
    "target_distinct": 7,
    "target_min": 0,
    "target_max": 6,
    "in_memory": True,
}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.derive(CORE_RULES, FACTS, {"architecture": "MyNet"})


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(plan: Plan, width: int) -> None:
    lines = plan.table(width).splitlines()
    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) > width - 8, "the width is used"


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_every_field(plan: Plan, width: int) -> None:
    text = plan.table(width)
    heads = text.splitlines()[0]
    assert heads.split()[:4] == ["key", "value", "source", "reason"]
    start = heads.index("reason")
    words = " ".join(line[start:].strip() for line in text.splitlines()[2:])
    for key in plan:
        choice = plan[key]
        assert re.search(rf"^{key}  ", text, re.MULTILINE)
        assert choice.reason in words
        shown = choice.override.removeprefix("Learner(data, ")
        assert shown.removesuffix(")") in words, key
    assert "choices={...} is an argument: Learner(data, choices={...})." in text


def test_columns_are_aligned(plan: Plan) -> None:
    lines = plan.table(100).splitlines()
    source = lines[0].index("source")
    rows = [line for line in lines[2:] if re.match(r"[a-z_]+  ", line)]
    assert len(rows) == len(plan)
    for row in rows:
        assert row[source - 2 : source] == "  "
        assert row[source:].split()[0] in ("rule", "user", "default")


def test_low_confidence_is_marked(plan: Plan) -> None:
    text = plan.table(120)
    [row] = [line for line in text.splitlines() if line.startswith("lr ")]
    assert "rule ?" in row
    assert "(confidence 0.45)" in text
    assert "? marks a choice with low confidence" in text
    sure = Plan([Choice("lr", 1, "Measured.", confidence=0.5)])
    assert "?" not in sure.table(80)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"),
        (True, "yes"),
        (0.1 + 0.2, "0.3"),
        (1e-5, "1e-05"),
        (["a", 1], '["a", 1]'),
        ({"flip": True}, '{"flip": true}'),
    ],
)
def test_values_are_short(value: object, shown: str) -> None:
    row = Plan([Choice("key", value, "Why.")]).table(100).splitlines()[2]
    assert row.split("  ")[1].strip() == shown


def test_a_long_value_wraps_in_its_column() -> None:
    plan = Plan([Choice("k", "word " * 20 + "x" * 50, "Why.", override="f()")])
    lines = plan.table(80).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("word") for line in lines[2:]) == 20
    assert sum(line.count("x") for line in lines[2:]) == 50


def test_the_terminals_width_is_asked(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    assert str(plan) == plan.table(90)
    assert str(plan) != plan.table(120)


def test_html_is_escaped() -> None:
    page = Plan([Choice("k", "<b>", "a & b", override="f(<x>)")])._repr_html_()
    assert "&lt;b&gt;" in page
    assert "a &amp; b" in page
    assert "f(&lt;x&gt;)" in page
    assert "<b>" not in page


def test_html_marks_low_confidence_too() -> None:
    page = Plan([Choice("k", 1, "a", confidence=0.2), Choice("l", 2, "b")])._repr_html_()
    rows = re.findall(r"<tr[ >].*?</tr>", page)
    assert ["background" in row for row in rows] == [False, True, False]
    assert page.endswith("<p>? marks a choice with low confidence: check it first.</p>")
    assert "<p>" not in Plan([Choice("l", 2, "b")])._repr_html_()


def test_an_empty_plan_prints() -> None:
    assert Plan([]).table(80).startswith("key")
