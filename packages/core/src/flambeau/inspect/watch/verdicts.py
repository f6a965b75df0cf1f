"""``find_verdicts``: what is wrong with which layer, from the record of an inspection."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch

from flambeau.inspect.watch import thresholds
from flambeau.inspect.watch.evidence import Evidence, evidence
from flambeau.inspect.watch.layer_record import LayerRecord
from flambeau.inspect.watch.verdict_texts import TEXTS


@dataclass(frozen=True)
class Verdict:
    """A fault of a layer.

    Attributes:
        kind: A name in ``TEXTS``.
        layer: Name of the layer.
        number: Position of the layer in the forward pass, from 1; 0 for an input of the model.
        step: The watched step from which on it was found.
        value: The figure that is compared with the threshold, in that step.
        text: What was found, with the figure.
        fix: What to do.
    """

    kind: str
    layer: str
    number: int
    step: int
    value: float
    text: str
    fix: str

    def __str__(self) -> str:
        where = f"layer {self.number} ({self.layer})" if self.number else self.layer
        return f"{where}: {self.text}. {self.fix}"


@dataclass(frozen=True)
class _Hit:
    """A figure beyond its threshold, from a step on."""

    found: Evidence
    step: int

    @property
    def value(self) -> float:
        return self.found.values[self.step]

    @property
    def layer(self) -> str:
        return self.found.layer


def find_verdicts(record: LayerRecord) -> list[Verdict]:
    """Return the faults of all layers, the most important kinds first; empty for a healthy net.

    A fault is reported if its figure is beyond the threshold in the last
    ``thresholds.LEAST_STEPS`` watched steps or more; too large updates in as many consecutive ones,
    and outputs that are not finite in the last one.
    """
    hits = [hit for found in evidence(record) if (hit := _hit(found)) is not None]
    by_kind = {kind: [hit for hit in hits if hit.found.kind == kind] for kind in TEXTS}
    numbers = {name: layer.number for name, layer in record.layers.items()}
    for each in by_kind.values():
        each.sort(key=lambda hit: numbers.get(hit.layer, 10**6))
    chosen = _without_consequences(record, by_kind, numbers)
    last = max(numbers.values(), default=0)
    found: list[Verdict] = []
    for kind, each in chosen.items():
        for hit in each:
            text, fix = TEXTS[kind](hit.found, hit.value, hit.step)
            number = numbers.get(hit.layer, last + 1)
            found.append(Verdict(kind, hit.layer, number, hit.step, hit.value, text, fix))
    return found


def _hit(found: Evidence) -> _Hit | None:
    """Return the first step of the last run of steps beyond the threshold, if it is long enough."""
    threshold, is_upper = thresholds.THRESHOLDS[found.kind]
    least = thresholds.LEAST_STEPS
    if found.kind == "not finite":  # never noise: a training may end with it
        least = 1
    elif found.kind == "duplicated":
        least = thresholds.LEAST_STEPS_OF_EQUAL
    elif found.kind in ("dead", "saturated"):
        per_unit = cast("int", found.detail["per_unit"])
        least = max(least, math.ceil(thresholds.LEAST_VALUES / max(1, per_unit)))
    start: int | None = None
    run = 0
    latest: int | None = None
    for step, value in found.values.items():
        beyond = value >= threshold if is_upper else value <= threshold
        start = (step if start is None else start) if beyond else None
        run = run + 1 if beyond else 0
        if run == least:
            latest = start
    if found.kind == "large updates":  # they may have passed, but their effect remains
        return None if latest is None else _Hit(found, latest)
    return _Hit(found, start) if start is not None and run >= least else None


_Hits = dict[str, list[_Hit]]


def _without_consequences(record: LayerRecord, hits: _Hits, numbers: Mapping[str, int]) -> _Hits:
    """Return the hits without those that another one explains."""
    for kind in ("dead", "saturated", "no entropy", "one position"):
        hits = {**hits, kind: _once_per_function(hits[kind])}
    found = dict(hits)
    # The layers before it follow a step later, when its gradients have reached their weights.
    found["not finite"] = sorted(hits["not finite"], key=lambda hit: hit.step)[:1]
    found["large updates"] = _one_of_updates(hits["large updates"])
    found["dead"] = _first_of_equal(hits["dead"], lambda hit: _dead_units(record, hit))
    found["duplicated"] = _first_of_equal(
        hits["duplicated"], lambda hit: (record.layers[hit.layer].units, hit.found.detail["pair"])
    )
    found["growing"] = [] if hits["exploding"] else hits["growing"][:1]
    constant = [*(hit for hit in hits["dead"] if hit.value > 0.9), *hits["saturated"]]
    first = min((numbers[hit.layer] for hit in constant), default=10**6)
    found["lost signal"] = [h for h in hits["lost signal"][:1] if numbers[h.layer] < first]
    # Where hardly anything depends on the sample, a unit is either 0 for all samples or for none.
    lost = min((numbers[hit.layer] for hit in found["lost signal"]), default=10**6)
    found["dead"] = [hit for hit in found["dead"] if numbers[hit.layer] < lost]
    stopping = [*constant, *hits["one position"], *hits["no entropy"]]
    found["vanishing"] = _one_of_vanishing(hits["vanishing"], stopping, numbers)
    found["frozen"] = _frozen_layers(record, hits["frozen"])
    collapsed = {hit.layer for hit in hits["one position"]}
    found["no entropy"] = [hit for hit in hits["no entropy"] if hit.layer not in collapsed]
    frozen = {hit.layer for hit in hits["frozen"]}
    found["unused rows"] = [
        hit for hit in hits["unused rows"] if hit.layer not in frozen and _is_final(hit)
    ]
    return found


def _once_per_function(hits: Sequence[_Hit]) -> list[_Hit]:
    """Return the first hit of each function: a recurrent cell calls it for every position."""
    found: dict[str, _Hit] = {}
    for hit in hits:
        found.setdefault(re.sub(r", \d+$", "", hit.layer), hit)
    return list(found.values())


def _one_of_updates(hits: Sequence[_Hit]) -> list[_Hit]:
    """Return the layer with the largest updates, with the number of other layers."""
    layers = {hit.layer for hit in hits}
    if not hits:
        return []
    most = max(hits, key=lambda hit: hit.value)
    return [_with_detail(most, others=len(layers) - 1)]


def _first_of_equal(hits: Iterable[_Hit], key: Callable[[_Hit], object]) -> list[_Hit]:
    """Return the first of consecutive layers that have the fault in the same units."""
    found: list[_Hit] = []
    seen: list[object] = []
    for hit in hits:
        value = key(hit)
        if value not in seen:
            found.append(hit)
            seen.append(value)
    return found


def _dead_units(record: LayerRecord, hit: _Hit) -> tuple[int, ...]:
    dead = record.last_active[hit.layer] < hit.step
    return (len(dead), *map(int, torch.nonzero(dead).flatten()))


def _one_of_vanishing(
    hits: Sequence[_Hit], stopping: Sequence[_Hit], numbers: Mapping[str, int]
) -> list[_Hit]:
    """Return the first layer whose gradient vanishes, with the layer that loses it, if it is one.

    Before a dead or saturated layer and a collapsed attention it vanishes because of that one.
    """
    last = max((numbers[hit.layer] for hit in stopping), default=0)
    hits = [hit for hit in hits if numbers[hit.layer] > last]
    if not hits:
        return []
    first = hits[0]
    sizes = cast("Mapping[str, Mapping[int, float]]", first.found.detail["sizes"])
    step = first.step
    ordered = [name for name in sorted(sizes, key=numbers.__getitem__) if step in sizes[name]]
    ordered = ordered[ordered.index(first.layer) :]
    drops = {
        after: sizes[before][step] / sizes[after][step]
        for before, after in pairwise(ordered)
        if sizes[after][step] > 0
    }
    # The gradient of a layer's output is lost in the layer after it, which passes it back.
    lost_in = min(drops, key=drops.__getitem__, default=None)
    where = lost_in and f"layer {numbers[lost_in]} ({lost_in})"
    if lost_in and 0.0 < first.value < drops[lost_in] ** 2:
        where = None  # less than half of the orders of magnitude: every layer loses some
    return [_with_detail(first, lost_in=where)]


def _frozen_layers(record: LayerRecord, hits: Sequence[_Hit]) -> list[_Hit]:
    """Return one hit per layer, without layers that are frozen on purpose."""
    frozen = {
        str(hit.found.detail["weight"]) for hit in hits if hit.found.detail["reason"] == "frozen"
    }
    total = sum(weight.size for weight in record.weights.values())
    size = sum(record.weights[name].size for name in frozen)
    deliberate = record.deliberately_frozen or size > thresholds.FROZEN_ON_PURPOSE * total
    by_layer: dict[str, list[_Hit]] = {}
    for hit in hits:
        is_frozen = hit.found.detail["reason"] == "frozen"
        layer = record.layers.get(hit.layer)
        if is_frozen and (deliberate or (layer is not None and layer.is_norm)):
            continue
        by_layer.setdefault(hit.layer, []).append(hit)
    return [
        _with_detail(each[0], weights=[str(hit.found.detail["weight"]) for hit in each])
        for each in by_layer.values()
    ]


def _is_final(hit: _Hit) -> bool:
    """Return whether rows that are still unused will stay so.

    There are more of them than special tokens, and the rows that are used have become more by less
    than ``MOST_NEW_ROWS`` since half of the steps. Where rows are drawn at random, they double.
    """
    values = hit.found.values
    rows = int(cast("int", hit.found.detail["rows"]))
    last = max(values, default=0)
    before = [step for step in values if step <= last / 2]
    if len(values) < thresholds.LEAST_STEPS_OF_ROWS or not before:
        return False
    used_before, used = ((1.0 - values[step]) * rows for step in (before[-1], last))
    is_special = values[last] * rows < thresholds.LEAST_UNUSED_ROWS
    return not is_special and used - used_before <= thresholds.MOST_NEW_ROWS * used_before


def _with_detail(hit: _Hit, **detail: object) -> _Hit:
    return replace(hit, found=replace(hit.found, detail={**hit.found.detail, **detail}))
