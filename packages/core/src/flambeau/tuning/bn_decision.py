"""``bn="auto"`` decided from what the norm layers see of the train data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from flambeau.distributed.processes import gathered
from flambeau.phases.phase import Phase
from flambeau.plan.choice import Choice
from flambeau.plan.plan import Plan
from flambeau.task.task import StepContext
from flambeau.training.components import Components
from flambeau.training.norm.bn_statistics import (
    MEASURED_BATCHES,
    LayerShift,
    Seen,
    are_fresh,
    see,
    shift_of,
    stored_layers,
)
from flambeau.training.optim.groups import parameter_groups
from flambeau.training.optim.precision import Precision
from flambeau.wording import type_and_first_line

NOISE_LIMIT, NOISE_LIMIT_FROZEN = 0.04, 0.025
"""Noise of a batch's statistics, in nats, from which on it is too rough to normalise with: where
most of the model learns, and where most of it is frozen and cannot make up for it.

Set by ``flambeau bench run bn-finetune`` (``docs/findings/batch-norm.md``): with batches of 2
pictures (0.04 to 0.08) "train" lost to "adapt", with 32 (0.004) it won; with 4 (0.02 to 0.04) it
lost where the body was frozen alone.
"""

_FAR = 0.1
"""Distance from which on the words say "far"; it decides nothing."""

_MOSTLY = 0.5

_UNSURE = 0.3
"""Share of the limit within which the decision might as well have been the other one."""

_OVERRIDE = 'choices={"bn": "eval"}'


@dataclass(frozen=True)
class Measured:
    """What the decision rests on.

    Attributes:
        layers: By name.
        batches: How many were looked at.
        samples: In them.
        learning: Share of the parameters that learn, in the phase in which most do.
    """

    layers: Mapping[str, LayerShift]
    batches: int
    samples: int
    learning: float = 1.0


def measure_bn(plan: Plan, components: Components, phases: Sequence[Phase], epoch: int = 0) -> Plan:
    """Return the plan with ``bn`` decided, where plan and phases leave it open.

    Where both say "auto" and norm layers of the model keep statistics, it is measured on train
    batches, and the plan gets the choice with its figures: a replay or a resumed run measures
    nothing again. Model, generators and batches stay as they were.

    Args:
        plan: The learner's.
        components: Of the run to come.
        phases: Of the run to come.
        epoch: Epochs since the first run began, which key the order of the batches.
    """
    if plan["bn"].value != "auto" or all(phase.bn != "auto" for phase in phases):
        return plan
    layers = stored_layers(components.model)
    if not layers:
        return plan
    if are_fresh(layers):
        return plan.with_choice(_of_fresh(layers))
    return plan.with_choice(_of_stored(components, phases, layers, epoch))


def decide(measured: Measured) -> Choice:
    """The policy for stored statistics on data of that distance, in batches of that noise.

    "eval" is never it: on the data that the statistics are from, "adapt" was as good.
    """
    layers = measured.layers.values()
    distance = sum(layer.distance for layer in layers) / len(layers)
    noise = sum(layer.noise for layer in layers) / len(layers)
    limit = NOISE_LIMIT if measured.learning >= _MOSTLY else NOISE_LIMIT_FROZEN
    rough = noise > limit
    far = "far from" if distance > _FAR else "near"
    figures = f"the stored statistics are {far} the train data ({distance:.2g} nats)"
    batch = f"a batch's own are off by {noise:.2g} nats by chance"
    reason = (
        f"{batch}, too rough to train with, and {figures}: taken from the data once, then fixed."
        if rough
        else f"{figures}, and {batch}: exact enough to train the norm layers, frozen groups' too."
    )
    sure = abs(noise / limit - 1) > _UNSURE
    return Choice(
        "bn",
        "adapt" if rough else "train",
        reason[0].upper() + reason[1:],
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
        f"From scratch: the {len(layers)} norm layers hold no statistics yet, so they learn.",
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
    told = gathered(_look(components, epoch))
    failure = next((each for each in told if isinstance(each, str)), None)
    seen = [each for each in told if not isinstance(each, str)]
    shifts: dict[str, LayerShift] = {}
    for name, module in layers.items():
        of_layer = [each for process in seen for each in process.get(name, ())]
        if of_layer:
            shifts[name] = shift_of(module, of_layer)
    if failure is None and shifts:
        batches = max(len(noted) for process in seen for noted in process.values())
        samples = batches * components.values["batch_size"]
        return decide(Measured(shifts, batches, samples, _learning(components.model, phases)))
    why = failure or "the train batches reach none of them."
    return Choice(
        "bn",
        "train",
        f"The {len(layers)} norm layers hold statistics, but how far the train data are from them "
        f"could not be measured: {why}",
        evidence={"layers": len(layers), "measured": False},
        alternatives=("adapt", "eval"),
        confidence=0.4,
        override=_OVERRIDE,
    )


def _learning(model: nn.Module, phases: Sequence[Phase]) -> float:
    """The largest share of the parameters that a phase trains."""
    groups = parameter_groups(model)
    counts = {name: sum(p.numel() for p in group) for name, group in groups.items()}
    learn = {
        name: sum(p.numel() for p in group if p.requires_grad) for name, group in groups.items()
    }
    most = max(
        sum(learn[name] for name in phase.trainable or groups if name in learn) for phase in phases
    )
    return most / max(1, sum(counts.values()))


def _look(components: Components, epoch: int) -> Mapping[str, Sequence[Seen]] | str:
    """What the layers see, or why that cannot be known: then the first step will tell more."""
    try:
        values = {"lr": float(components.values["lr"]), **components.task.values}
        context = StepContext(values=values, seed=components.seed)
        precision = Precision(components.values.get("precision", "fp32"), components.device)
        return see(components, epoch, context, precision.autocast, MEASURED_BATCHES)
    except Exception as error:  # noqa: BLE001 whatever a model of the user's raises
        return type_and_first_line(error)


def _round(value: float) -> float:
    return float(f"{value:.3g}")
