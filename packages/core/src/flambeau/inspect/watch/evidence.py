"""``Evidence``: for each kind of fault, the figure of each layer in each watched step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from flambeau.inspect.watch.layer_record import LayerRecord
from flambeau.inspect.watch.watched_layer import BOUNDS, WatchedLayer, WatchedWeight
from flambeau.inspect.watch.weight_watch import FROZEN, NO_GRADIENT, NO_OPTIMIZER

_LEAST_GRADIENT = 1e-4
_ROUNDED = ("bfloat16", "float16")  # smaller updates than 0.4 % or 0.05 % of a weight are lost


@dataclass(frozen=True)
class Evidence:
    """A figure of a layer over the watched steps.

    Attributes:
        kind: The fault that it may show, see ``FIGURES``.
        layer: Name of the layer.
        values: The figure by step, in the order of the steps.
        detail: Further facts for the text of a verdict, by name.
    """

    kind: str
    layer: str
    values: Mapping[int, float]
    detail: Mapping[str, object] = field(default_factory=dict[str, object])


def evidence(record: LayerRecord) -> Iterator[Evidence]:
    """Yield the figures of all layers for all kinds of faults."""
    for name, layer in record.layers.items():
        yield from _of_layer(record, name, layer)
    yield from _vanishing(record)
    for name, weight in record.weights.items():
        yield from _of_weight(record, name, weight)


def _of_layer(record: LayerRecord, name: str, layer: WatchedLayer) -> Iterator[Evidence]:
    yield Evidence("not finite", name, record.series(name, "nonfinite"))
    if name in record.last_active and layer.kind not in BOUNDS:
        yield Evidence("dead", name, _silent_shares(record, name), _of_units(layer))
    # After one step, all units of such a layer are equal up to their sign with Adam.
    starts_at_zero = any(
        next(iter(record.weight_series(weight.name, "norm").values()), 1.0) == 0.0
        for weight in record.weights.values()
        if weight.layer == name and weight.is_matrix
    )
    rms, inputs = record.series(name, "rms"), record.series(name, "input_rms")
    # Relative to inputs of at least 1: a bias dominates small ones.
    gains = {step: rms[step] / max(value, 1.0) for step, value in inputs.items() if step in rms}
    yield Evidence("exploding", name, gains, {"rms": rms})
    first = _first_inputs(record)
    if layer.number > 0:
        grown = {step: value / max(first.get(step, 1.0), 1.0) for step, value in rms.items()}
        yield Evidence("growing", name, grown)
        differs = record.series(name, "differs")
        if layer.kind not in ("Embedding", "EmbeddingBag") and not starts_at_zero:
            # Exactly 0 is an output for which the samples do not count, such as positions.
            yield Evidence("lost signal", name, {s: v for s, v in differs.items() if v > 0})
    else:
        yield Evidence("input scale", name, rms)
    if not layer.is_output:
        yield Evidence("saturated", name, record.series(name, "saturated"), _of_units(layer))
    pair = [_last(record.series(name, each)) for each in ("twin_a", "twin_b")]
    if not starts_at_zero:
        yield Evidence("duplicated", name, record.series(name, "twins"), {"pair": pair})
    yield Evidence("one position", name, record.series(name, "one_position"))
    yield Evidence("no entropy", name, record.series(name, "entropy"))


def _first_inputs(record: LayerRecord) -> dict[int, float]:
    """Return the size of the inputs of the first layer that has inputs of real numbers."""
    for name in record.layers:
        found = record.series(name, "input_rms")
        if found:
            return found
    return {}


def _of_units(layer: WatchedLayer) -> dict[str, object]:
    return {"units": layer.units, "per_unit": layer.per_unit}


def _silent_shares(record: LayerRecord, name: str) -> dict[int, float]:
    """Return the share of units that were 0 in a step and in all watched steps after it."""
    last: Tensor = record.last_active[name]
    steps = record.rows.get(name, {})
    return {step: float((last < step).float().mean()) for step in steps}


def _vanishing(record: LayerRecord) -> Iterator[Evidence]:
    """Yield the size of the gradient of each layer relative to the largest one after it.

    The size is the norm over the outputs of a sample. In the first watched step layers that start
    at zero stop the gradient of those before them.
    """
    called = sorted(
        (each for each in record.layers.values() if each.number > 0 and each.per_sample),
        key=lambda each: each.number,
    )
    sizes = {
        layer.name: {
            step: value * math.sqrt(layer.per_sample)
            for step, value in record.series(layer.name, "gradient_rms").items()
        }
        for layer in called
    }
    first = record.steps[:1]
    largest: dict[int, float] = {}
    for layer in reversed(called):
        found = {step: value for step, value in sizes[layer.name].items() if step not in first}
        relative = {s: v / largest[s] for s, v in found.items() if largest.get(s, 0.0) > 0}
        if relative:
            yield Evidence("vanishing", layer.name, relative, {"sizes": sizes})
        for step, value in found.items():
            largest[step] = max(largest.get(step, 0.0), value)


def _of_weight(record: LayerRecord, name: str, weight: WatchedWeight) -> Iterator[Evidence]:
    gradients = record.weight_series(name, "gradient_norm")
    updates = record.weight_series(name, "update_norm")
    sizes = record.weight_series(name, "norm")
    reasons = {
        step: _why_not_trained(
            value, updates.get(step, math.nan), sizes.get(step, 0.0), weight.dtype
        )
        for step, value in gradients.items()
    }
    values = {step: float(bool(reason)) for step, reason in reasons.items()}
    yield Evidence("frozen", weight.layer, values, {"weight": name, "reason": _last(reasons)})
    if weight.is_embedding:
        unused = record.weight_series(name, "unused_rows")
        shares = {step: value / weight.shape[0] for step, value in unused.items()}
        yield Evidence("unused rows", weight.layer, shares, {"rows": weight.shape[0]})
    if weight.is_matrix:
        # Relative to the first weights: with too large updates the weights themselves grow, so
        # that a ratio to them hides it. Weights that start at zero count as torch's usual initial
        # ones, uniform within ± 1 / sqrt(inputs).
        norms = record.weight_series(name, "norm")
        usual = math.sqrt(weight.shape[0] / 3.0)
        first = max(next(iter(norms.values()), 0.0), usual)
        ratios = {step: value / first for step, value in updates.items()}
        yield Evidence("large updates", weight.layer, ratios, {"weight": name})


def _why_not_trained(gradient: float, update: float, size: float, dtype: str) -> str:
    """Return why a weight does not change; empty if it does, or if nothing says that it does not.

    A gradient of exactly 0 comes from the layers after it, which have verdicts of their own. One
    that is small beside the weight, such as that of the bias of keys, which a softmax ignores, may
    be lost in the rounding of the weight.
    """
    if gradient == FROZEN:
        return "frozen"
    if gradient == NO_GRADIENT:
        return "no gradient"
    if gradient == NO_OPTIMIZER:
        return "no optimizer"
    if gradient > _LEAST_GRADIENT * size and update == 0:
        return f"no update of {dtype}" if dtype in _ROUNDED else "no update"
    return ""


def _last(series: Mapping[int, object]) -> object:
    return next(reversed(list(series.values())), None)
