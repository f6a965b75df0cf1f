"""Verdicts: what a record must show to be called a fault, and what is left out."""

from __future__ import annotations

import pytest
import torch

from flambeau.inspect.watch import thresholds
from flambeau.inspect.watch.layer_record import LayerRecord
from flambeau.inspect.watch.layer_watch import StepReading
from flambeau.inspect.watch.verdict_texts import TEXTS
from flambeau.inspect.watch.verdicts import find_verdicts
from flambeau.inspect.watch.watched_layer import COLUMNS, ROW_SIZE, WatchedLayer, WatchedWeight
from flambeau.inspect.watch.weight_watch import FROZEN, NO_GRADIENT, WEIGHT_COLUMNS


def record_of(
    layers: dict[str, list[dict[str, float]]],
    weights: dict[str, list[dict[str, float]]] | None = None,
    **shapes: tuple[int, ...],
) -> LayerRecord:
    """Return a record with the given statistics by layer and step."""
    record = LayerRecord()
    for number, name in enumerate(layers, start=1):
        record.layers[name] = WatchedLayer(name, "ReLU", number, units=10, per_sample=10)
    for name in weights or {}:
        layer = name.rpartition(".")[0]
        is_embedding = layer == "embedding"
        record.weights[name] = WatchedWeight(name, layer, shapes.get(layer, (4, 4)), is_embedding)
    steps = len(next(iter({**layers, **(weights or {})}.values())))
    for step in range(steps):
        reading = StepReading(step, values={"lr": 0.1})
        for name, rows in layers.items():
            row = torch.full((ROW_SIZE,), torch.nan)
            for column, value in rows[step].items():
                row[COLUMNS.index(column)] = value
            reading.layers[name] = row
        for name, rows in (weights or {}).items():
            values = {"norm": 1.0, "gradient_norm": 1.0, "update_norm": 0.01} | rows[step]
            reading.weights[name] = torch.tensor(
                [values.get(column, torch.nan) for column in WEIGHT_COLUMNS]
            )
        record.add([reading])
    return record


def found(record: LayerRecord) -> list[tuple[str, str]]:
    return [(verdict.kind, verdict.layer) for verdict in find_verdicts(record)]


def test_every_kind_has_a_threshold_and_a_text() -> None:
    assert set(thresholds.THRESHOLDS) == set(TEXTS)


@pytest.mark.parametrize("n_bad", [0, 1, 2, 3])
def test_a_fault_must_last_until_the_end(n_bad: int) -> None:
    good, bad = {"rms": 1.0, "input_rms": 1.0}, {"rms": 90.0, "input_rms": 1.0}
    ending = record_of({"a": [good] * 5 + [bad] * n_bad})
    assert found(ending) == ([("exploding", "a")] if n_bad == 3 else [])
    if n_bad == 3:
        [verdict] = find_verdicts(ending)
        assert (verdict.step, verdict.number, verdict.value) == (5, 1, 90.0)
        assert "layer 1 (a): its outputs are 90 times as large as its inputs since step 5" in str(
            verdict
        )
    assert found(record_of({"a": [bad] * 3 + [good]})) == []


def test_units_that_died_are_reported_with_the_step_and_their_share() -> None:
    record = record_of({"conv3.relu": [{"rms": 1.0}] * 10})
    record.last_active["conv3.relu"] = torch.tensor([9, 9, 9, 9, 9, 9, 4, 4, 3, -1])
    [verdict] = find_verdicts(record)
    assert (verdict.kind, verdict.step, verdict.value) == ("dead", 5, pytest.approx(0.4))
    assert "40% of its 10 units never fire since step 5" in verdict.text
    # The same units in the layer after it: a consequence.
    record = record_of({"relu": [{"rms": 1.0}] * 10, "scale": [{"rms": 1.0}] * 10})
    for name in record.layers:
        record.last_active[name] = torch.tensor([9, 9, 9, 9, 9, 9, 4, 4, 3, -1])
    assert found(record) == [("dead", "relu")]


def test_only_the_first_layer_that_is_not_finite_is_reported() -> None:
    bad = [{"rms": 1.0, "nonfinite": 0.5}] * 4
    assert found(record_of({"a": [{"rms": 1.0}] * 4, "b": bad, "c": bad})) == [("not finite", "b")]


def test_one_step_that_is_not_finite_is_enough_at_the_end() -> None:
    """The training may end with it."""
    good, bad = {"rms": 1.0, "nonfinite": 0.0}, {"rms": 1.0, "nonfinite": 0.5}
    assert found(record_of({"a": [good, bad]})) == [("not finite", "a")]
    assert found(record_of({"a": [bad, good, good, good]})) == []


def test_a_layer_that_gets_no_gradient_is_reported_once_for_all_its_weights() -> None:
    none = [{"gradient_norm": NO_GRADIENT, "update_norm": 0.0}] * 4
    record = record_of(
        {"a": [{}] * 4, "b": [{}] * 4},
        {"a.weight": none, "a.bias": none, "b.weight": [{}] * 4},
    )
    [verdict] = find_verdicts(record)
    assert (verdict.kind, verdict.layer) == ("frozen", "a")
    assert "does not train: no loss depends on it" in verdict.text
    assert "(a.weight, a.bias; since step 0)" in verdict.text


def test_freezing_on_purpose_is_no_fault() -> None:
    frozen = [{"gradient_norm": FROZEN, "update_norm": 0.0}] * 4
    weights = {"a.weight": frozen, "b.weight": [{}] * 4}
    layers = {"a": [{}] * 4, "b": [{}] * 4}
    assert found(record_of(layers, weights, a=(4, 4), b=(9, 4))) == [("frozen", "a")]
    assert found(record_of(layers, weights, a=(9, 4), b=(4, 4))) == []  # most weights are frozen
    record = record_of(layers, weights, a=(4, 4), b=(9, 4))
    record.deliberately_frozen = True  # by a phase
    assert found(record) == []
    record = record_of(layers, weights, a=(4, 4), b=(9, 4))
    record.layers["a"].is_norm = True
    assert found(record) == []


@pytest.mark.parametrize(("unused", "is_fault"), [([90.0] * 8, True), (range(98, 90, -1), False)])
def test_rows_are_unused_when_no_more_of_them_are_reached(unused: object, is_fault: bool) -> None:
    rows = [{"unused_rows": float(each)} for each in unused]  # type: ignore[attr-defined]
    record = record_of({"embedding": [{}] * 8}, {"embedding.weight": rows}, embedding=(100, 4))
    assert found(record) == ([("unused rows", "embedding")] if is_fault else [])
    few = [{"unused_rows": 8.0}] * 8  # special tokens
    record = record_of({"embedding": [{}] * 8}, {"embedding.weight": few}, embedding=(10, 4))
    assert found(record) == []


def test_large_updates_are_reported_even_if_they_have_passed() -> None:
    updates = [{"update_norm": 3.0}] * 3 + [{"update_norm": 1e-3}] * 5
    record = record_of({"a": [{}] * 8}, {"a.weight": updates}, a=(4, 4))
    [verdict] = find_verdicts(record)
    assert (verdict.kind, verdict.step) == ("large updates", 0)
    assert "an update changes its weights by 300% of their size in step 0" in verdict.text


def test_a_gradient_that_vanishes_names_the_layer_that_loses_it() -> None:
    sizes = {"a": 1e-7, "b": 2e-7, "c": 1e-2, "d": 1e-2}
    record = record_of({name: [{"gradient_rms": size}] * 5 for name, size in sizes.items()})
    [verdict] = find_verdicts(record)
    assert (verdict.kind, verdict.layer) == ("vanishing", "a")
    assert "most of it is lost in layer 3 (c)" in verdict.text
    record.last_active["c"] = torch.full((10,), -1)
    assert found(record) == [("dead", "c")]
