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
        record.layers[name] = WatchedLayer(
            name, "ReLU", number, units=10, per_sample=10, per_unit=100
        )
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


def test_the_layer_that_was_not_finite_first_is_reported() -> None:
    """A step later its gradients have reached the layers before it."""
    good, bad = {"rms": 1.0, "nonfinite": 0.0}, {"rms": 1.0, "nonfinite": 0.5}
    record = record_of({"a": [good, bad, bad, bad], "b": [bad] * 4})
    assert found(record) == [("not finite", "b")]


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


def test_rare_rows_that_come_late_do_not_hide_unused_ones() -> None:
    """At half of the steps 80 of 1,000 rows are used; 4 more follow, or 40 more."""
    for more, is_fault in ((1, True), (10, False)):
        rows = [{"unused_rows": 920.0 - more * max(0, step - 4)} for step in range(9)]
        record = record_of(
            {"embedding": [{}] * 9}, {"embedding.weight": rows}, embedding=(1_000, 4)
        )
        assert found(record) == ([("unused rows", "embedding")] if is_fault else [])


def test_rows_of_a_frozen_embedding_are_not_reported_as_unused() -> None:
    rows = [{"unused_rows": 100.0, "gradient_norm": NO_GRADIENT, "update_norm": 0.0}] * 8
    record = record_of(
        {"embedding": [{}] * 8}, {"embedding.weight": rows, "b.weight": [{}] * 8},
        embedding=(100, 4), b=(200, 4),
    )  # fmt: skip
    assert found(record) == [("frozen", "embedding")]


def test_dead_units_behind_a_lost_signal_are_its_consequence() -> None:
    constant = [{"rms": 1.0, "input_rms": 1.0, "differs": 1e-9}] * 4
    record = record_of({"a": [{"differs": 0.5}] * 4, "b": constant, "c": constant})
    record.last_active["c"] = torch.tensor([-1] * 4 + [3] * 6)
    assert found(record) == [("lost signal", "b")]
    record.last_active["a"] = record.last_active["c"]
    assert found(record) == [("lost signal", "b"), ("dead", "a")]


def test_a_function_that_a_recurrent_cell_repeats_is_reported_once() -> None:
    stuck = [{"rms": 1.0, "saturated": 1.0}] * 4
    names = ("sigmoid after gate", "sigmoid after gate, 2", "sigmoid after gate, 11")
    record = record_of(dict.fromkeys(names, stuck))
    assert found(record) == [("saturated", "sigmoid after gate")]


def test_large_updates_are_reported_even_if_they_have_passed() -> None:
    updates = [{"update_norm": 3.0}] * 3 + [{"update_norm": 1e-3}] * 5
    record = record_of({"a": [{}] * 8}, {"a.weight": updates}, a=(4, 4))
    [verdict] = find_verdicts(record)
    assert (verdict.kind, verdict.step) == ("large updates", 0)
    assert "an update changes its weights by 260% of their initial size in step 0" in verdict.text


def test_the_size_of_an_update_is_relative_to_the_initial_weights_in_the_text() -> None:
    """The weights of a training that diverges are large, too."""
    updates = [{"norm": 1e3**step, "update_norm": 1e3**step} for step in range(6)]
    [verdict] = find_verdicts(record_of({"a": [{}] * 6}, {"a.weight": updates}, a=(4, 4)))
    assert " 0% " not in verdict.text


def test_a_gradient_that_vanishes_names_the_layer_that_loses_it() -> None:
    sizes = {"a": 1e-7, "b": 2e-7, "c": 1e-2, "d": 1e-2}
    record = record_of({name: [{"gradient_rms": size}] * 5 for name, size in sizes.items()})
    [verdict] = find_verdicts(record)
    assert (verdict.kind, verdict.layer) == ("vanishing", "a")
    assert "most of it is lost in layer 3 (c)" in verdict.text
    record.last_active["c"] = torch.full((10,), -1)
    assert found(record) == [("dead", "c")]


def test_no_layer_is_named_where_each_loses_a_part_of_the_gradient() -> None:
    record = record_of({f"{i}": [{"gradient_rms": 10.0 ** (i - 8)}] * 5 for i in range(8)})
    [verdict] = find_verdicts(record)
    assert (verdict.kind, verdict.layer) == ("vanishing", "0")
    assert "each layer after it loses a part" in verdict.text
