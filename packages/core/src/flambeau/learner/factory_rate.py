"""Record the learning rate of an optimizer factory in the plan, if the factory sets its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flambeau.errors import ArgumentError
from flambeau.learner.setup import Request, Setup, options_of
from flambeau.phases import recipes
from flambeau.plan import Plan
from flambeau.plan.choice import Choice
from flambeau.training.optim.optimizer_class import (
    OPTIMIZER_KEYS,
    ClassFactory,
    SubmoduleFactory,
)
from flambeau.training.optim.own_rate import OwnRate, own_rate

if TYPE_CHECKING:
    from flambeau.tuning.lr_result import LearningRate

_EVIDENCE = "optimizer_factory"
_SETTINGS = ("weight_decay", *OPTIMIZER_KEYS)


def with_factory_rate(setup: Setup, plan: Plan, requested: float | None = None) -> Plan:
    """Return the plan; if the optimizer factory sets its own learning rate, with that rate.

    Args:
        setup: The learner's setup.
        plan: The plan with the arguments of the method as choices.
        requested: The method's argument ``lr``.

    Raises:
        ArgumentError: The user set another learning rate, or a setting that the factory does not
            read.
    """
    factory = setup.training.factory
    if factory is None:
        return plan
    own = own_rate(factory, setup.built(plan).model, plan.values)
    # A class or a function has its own name; another one from the user chooses nothing.
    named = () if isinstance(factory, ClassFactory | SubmoduleFactory) else ("optimizer",)
    for key in (*named, *_SETTINGS):
        if plan[key].value == "custom":
            continue
        if plan[key].source == "user" and plan[key].value and key in own.unread:
            raise ArgumentError(
                f"{key} is {plan[key].value!r} in choices, but the optimizer factory of "
                f"TrainingOptions does not read it. Use values[{key!r}] in the factory, or remove "
                "the choice."
            )
    if not own.lr:
        return plan
    lr = plan["lr"]
    is_users = requested is not None or (lr.source == "user" and _EVIDENCE not in lr.evidence)
    if is_users and lr.value != own.lr:
        raise _refusal(f"lr is {lr.value:g}", own)
    if lr.value == own.lr:
        return plan
    return plan.override("lr", _choice(own))


def check_peaks(plan: Plan, request: Request) -> None:
    """Check that the user's phases have the peak learning rate that the optimizer factory sets.

    Raises:
        ArgumentError: The schedule of "lr" has another peak.
    """
    evidence = plan["lr"].evidence.get(_EVIDENCE)
    if evidence is None or request.auto is not None:
        return
    phases = request.recipe(plan.values)
    peaks = [phase.schedules["lr"].peak for phase in phases if "lr" in phase.schedules]
    own = OwnRate(frozenset(), plan["lr"].value, evidence)
    if peaks and max(peaks) != own.lr:
        raise _refusal(f"The schedule of lr has the peak {max(peaks):g}", own)


def _choice(own: OwnRate) -> Choice:
    return Choice(
        "lr",
        own.lr,
        f'The optimizer factory sets {_rates(own.by_name)} and does not read values["lr"].',
        evidence={_EVIDENCE: dict(own.by_name)},
        override='Use lr=values["lr"] in the optimizer factory; then learner.fit(lr=…).',
        source="user",
    )


def _refusal(what: str, own: OwnRate) -> ArgumentError:
    return ArgumentError(
        f"{what}, but the optimizer factory of TrainingOptions does not read it: the factory sets "
        f'{_rates(own.by_name)}. Use lr=values["lr"] in the factory (lambda model, values: '
        '{"main": torch.optim.SGD(model.parameters(), lr=values["lr"])}), or remove the lr that '
        "you passed, to keep the rate of the factory."
    )


def _rates(by_name: Mapping[str, Any]) -> str:
    return ", ".join(f"the rate {rate:g} for {name!r}" for name, rate in by_name.items())


def find_lr(setup: Setup, trainable: tuple[str, ...] | None, max_steps: int) -> LearningRate:
    """Return the measured peak learning rate of the next fit of the given parameter groups."""
    from flambeau.tuning.lr_finder import Start, find

    values = with_factory_rate(setup, setup.plan).values
    [phase] = recipes.single_phase(values, trainable=trainable)
    components = setup.built(setup.plan).components(values)
    options = options_of(setup.training, values)
    return find(Start(components, options, phase, setup.position), max_steps)
