"""Choose a batch-norm policy for ``bn="auto"`` from the batch statistics of the train data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from flambeau.distributed.processes import all_gather
from flambeau.phases.phase import Phase
from flambeau.plan.choice import Choice
from flambeau.plan.plan import Plan
from flambeau.task.task import StepContext
from flambeau.training.components import Components
from flambeau.training.norm.bn_statistics import (
    MEASURED_BATCHES,
    LayerShift,
    LayerStatistics,
    have_initial_statistics,
    layer_shift,
    layers_with_statistics,
    measure_statistics,
)
from flambeau.training.optim.groups import parameter_groups
from flambeau.training.optim.precision import Precision
from flambeau.wording import type_and_first_line

NOISE_LIMIT, NOISE_LIMIT_FROZEN = 0.04, 0.025
"""Noise of batch statistics, in nats, above which they are too noisy for training. The first limit
is for a model that is mostly trained, the second for a model that is mostly frozen and cannot
compensate for the noise.

Measured by ``flambeau bench run bn-finetune`` (``docs/findings/batch-norm.md``): "train" was worse
than "adapt" with batches of 2 images (0.04 to 0.08 nats) and better with 32 (0.004); with 4 (0.02
to 0.04) it was worse only with a frozen body.
"""

_FAR = 0.1
"""Distance in nats above which the reason says "far"; it does not affect the decision."""

_MOSTLY = 0.5

_UNSURE = 0.3
"""If the noise differs from the limit by less than this fraction, the confidence is lower."""

_OVERRIDE = 'choices={"bn": "eval"}'


@dataclass(frozen=True)
class Measured:
    """The measurements for the decision.

    Attributes:
        layers: Shift of each norm layer, by name.
        batches: Number of batches measured.
        samples: Number of samples in them.
        learning: Share of the parameters that are trained, in the phase that trains the most.
    """

    layers: Mapping[str, LayerShift]
    batches: int
    samples: int
    learning: float = 1.0


def measure_bn(plan: Plan, components: Components, phases: Sequence[Phase], epoch: int = 0) -> Plan:
    """Return the plan with a decision for ``bn``, if it is "auto" in the plan and in a phase.

    If the model's norm layers have running statistics, these are compared with train batches. The
    plan records the decision with its figures, so a replay or a resumed run does not measure again.
    Model, generators and order of the batches do not change.

    Args:
        plan: The learner's plan.
        components: Components of the run that will follow.
        phases: Phases of the run that will follow.
        epoch: Epochs since the first run started, which determine the order of the batches.
    """
    if plan["bn"].value != "auto" or all(phase.bn != "auto" for phase in phases):
        return plan
    layers = layers_with_statistics(components.model)
    if not layers:
        return plan
    if have_initial_statistics(layers):
        return plan.with_choice(_of_fresh(layers))
    return plan.with_choice(_of_stored(components, phases, layers, epoch))


def decide(measured: Measured) -> Choice:
    """Return the choice of the policy for the measured distance and noise.

    It is never "eval": even for data from which the stored statistics were computed, "adapt" was as
    good.
    """
    layers = measured.layers.values()
    distance = sum(layer.distance for layer in layers) / len(layers)
    noise = sum(layer.noise for layer in layers) / len(layers)
    limit = NOISE_LIMIT if measured.learning >= _MOSTLY else NOISE_LIMIT_FROZEN
    rough = noise > limit
    far = "far from" if distance > _FAR else "near"
    reason = (
        f"The running statistics are {far} the train data ({distance:.2g} nats), and the "
        f"statistics of a batch have a noise of {noise:.2g} nats; the limit is {limit:.2g}. "
    )
    reason += (
        "Batch statistics are too noisy, so fixed statistics are computed once from the train data."
        if rough
        else "Batch statistics are precise enough to train all norm layers, in frozen groups too."
    )
    sure = abs(noise / limit - 1) > _UNSURE
    return Choice(
        "bn",
        "adapt" if rough else "train",
        reason,
        evidence={
            "distance_nats": _round(distance),
            "noise_nats": _round(noise),
            "limit_nats": limit,
            "learning": _round(measured.learning),
            "batches": measured.batches,
            "samples": measured.samples,
            "distance_by_layer": {k: _round(v.distance) for k, v in measured.layers.items()},
            "noise_by_layer": {k: _round(v.noise) for k, v in measured.layers.items()},
        },
        alternatives=("train" if rough else "adapt", "eval"),
        confidence=0.9 if sure else 0.6,
        override=_OVERRIDE,
    )


def _of_fresh(layers: Mapping[str, nn.Module]) -> Choice:
    return Choice(
        "bn",
        "train",
        f"The {len(layers)} norm layers have no running statistics yet, so they train.",
        evidence={"layers": len(layers), "fresh": True},
        alternatives=("adapt",),
        override=_OVERRIDE,
    )


def _of_stored(
    components: Components,
    phases: Sequence[Phase],
    layers: Mapping[str, nn.Module],
    epoch: int,
) -> Choice:
    results = all_gather(_measure_layers(components, epoch))
    failure = next((each for each in results if isinstance(each, str)), None)
    seen = [each for each in results if not isinstance(each, str)]
    shifts: dict[str, LayerShift] = {}
    for name, module in layers.items():
        of_layer = [each for process in seen for each in process.get(name, ())]
        if of_layer:
            shifts[name] = layer_shift(module, of_layer)
    if failure is None and shifts:
        batches = max(len(noted) for process in seen for noted in process.values())
        samples = batches * components.values["batch_size"]
        return decide(Measured(shifts, batches, samples, _learning(components.model, phases)))
    why = failure or "no train batch reached any of these layers."
    return Choice(
        "bn",
        "train",
        f"The {len(layers)} norm layers have running statistics, but their distance to the train "
        f"data could not be measured: {why}",
        evidence={"layers": len(layers), "measured": False},
        alternatives=("adapt", "eval"),
        confidence=0.4,
        override=_OVERRIDE,
    )


def _learning(model: nn.Module, phases: Sequence[Phase]) -> float:
    """Return the largest share of the parameters that a phase trains."""
    groups = parameter_groups(model)
    counts = {name: sum(p.numel() for p in group) for name, group in groups.items()}
    learn = {
        name: sum(p.numel() for p in group if p.requires_grad) for name, group in groups.items()
    }
    most = max(
        sum(learn[name] for name in phase.trainable or groups if name in learn) for phase in phases
    )
    return most / max(1, sum(counts.values()))


def _measure_layers(
    components: Components, epoch: int
) -> Mapping[str, Sequence[LayerStatistics]] | str:
    """Return the statistics of each layer's inputs, or the error message if measuring fails."""
    try:
        values = {"lr": float(components.values["lr"]), **components.task.values}
        context = StepContext(values=values, seed=components.seed)
        precision = Precision(components.values.get("precision", "fp32"), components.device)
        return measure_statistics(components, epoch, context, precision.autocast, MEASURED_BATCHES)
    except Exception as error:  # noqa: BLE001 a user-defined model may raise anything
        return type_and_first_line(error)


def _round(value: float) -> float:
    return float(f"{value:.3g}")
