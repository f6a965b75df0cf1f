"""Choices that differ between groups of runs, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambeau.plan import Plan
from flambeau.plan.choice import Choice
from flambeau.plan.table import value_text
from flambeau.runs.comparison import Difference
from flambeau.runs.list_table import git_text
from flambeau.runs.run_groups import MACHINE_KEYS, RunGroup

_ABSENT = "(absent)"


def plan_differences(groups: Sequence[RunGroup]) -> tuple[Difference, ...]:
    """Return the differing choices: first those of the user, then others, the machine's last.

    Args:
        groups: The groups; plans that are not known are left out.
    """
    found = [
        *_of_plans(groups),
        *_of_earlier_fits(groups),
        *_of_options(groups),
        *_of_models(groups),
        *_of_facts(groups),
    ]
    return tuple(sorted(found, key=lambda each: (each.is_of_machine, not each.is_of_user)))


def _of_plans(groups: Sequence[RunGroup]) -> list[Difference]:
    plans = [each.first.plan for each in groups]
    known = [plan for plan in plans if plan is not None]
    if len(known) < 2:
        return []
    # The diff of plans decides which values are equal.
    changed = dict.fromkeys(each.key for other in known[1:] for each in known[0].diff(other))
    return [_difference(key, plans) for key in changed]


def _difference(key: str, plans: Sequence[Plan | None]) -> Difference:
    choices = [None if plan is None or key not in plan else plan[key] for plan in plans]
    return Difference(
        key,
        tuple(_ABSENT if each is None else value_text(each.value) for each in choices),
        tuple(map(_reason, choices)),
        any(each is not None and each.source == "user" for each in choices),
        key in MACHINE_KEYS,
    )


def _reason(choice: Choice | None) -> str:
    if choice is None:
        return ""
    return "set by the user" if choice.source == "user" else choice.reason


def _of_earlier_fits(groups: Sequence[RunGroup]) -> list[Difference]:
    counts = [each.first.earlier_epochs for each in groups]
    if len(set(counts)) == 1:
        return []
    reasons = tuple("trained by earlier fits of the same learner" if n else "" for n in counts)
    return [Difference("epochs before", tuple(map(str, counts)), reasons, is_of_user=True)]


def _of_options(groups: Sequence[RunGroup]) -> list[Difference]:
    """Return the training options that differ, and are not a difference of the plans already."""
    options = [each.first.options for each in groups]
    names = dict.fromkeys(name for each in options for name in each)
    in_plans = set[str]().union(*(each.first.plan or () for each in groups))
    found: list[Difference] = []
    for name in names:
        values = tuple(each.get(name, "default") for each in options)
        if len(set(values)) > 1 and name not in in_plans:
            reasons = tuple("" if v == "default" else "set by the user" for v in values)
            found.append(Difference(f"option {name}", values, reasons, is_of_user=True))
    return found


def _of_models(groups: Sequence[RunGroup]) -> list[Difference]:
    """Return the difference of models whose plans do not tell them apart."""
    models = [each.first.model for each in groups]
    architectures = {str(each.first.values.get("architecture")) for each in groups}
    digests = {str(each["digest"]) for each in models if each.get("digest")}
    if len(digests) < 2 or len(architectures) > 1:
        return []
    values = tuple(map(_model_text, models))
    return [Difference("model", values, ("",) * len(values), is_of_user=True)]


def _model_text(model: Mapping[str, Any]) -> str:
    if not model.get("digest"):
        return "(unknown)"
    count = model.get("parameters")
    return f"{model.get('class')}, {f'{count:,}' if isinstance(count, int) else '?'} parameters"


def _of_facts(groups: Sequence[RunGroup]) -> list[Difference]:
    """Return differences that are in no plan: seed, commit, releases, device."""
    runs = [each.first for each in groups]
    facts: dict[str, list[str]] = {
        "git commit": [git_text(run) for run in runs],
        "flambeau": [str(run.record.get("flambeau", "")) for run in runs],
        **{name: [str(run.machine.get(name, "")) for run in runs] for name in ("torch", "cpu")},
    }
    if all(len(each) == 1 for each in groups):
        facts = {"seed": ["" if run.seed is None else str(run.seed) for run in runs], **facts}
    return [
        Difference(name, tuple(v or "(unknown)" for v in values), ("",) * len(values), False, True)
        for name, values in facts.items()
        if len({value for value in values if value}) > 1
    ]
