"""The plan's rules for ratings and recommendations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_training import unless_steps
from flambeau.plan.value_types import whole
from flambeau_tabular.collab_facts import CollabFacts
from flambeau_tabular.models.recipes import Recipe, recipe

Values = Mapping[str, Any]

MODEL_NAMES = ("collab_dot", "collab_net")
_N_FACTORS = 50
_N_NEGATIVES = 4
# A sigmoid does not reach its bounds, so they are this share of the range outside of it.
_MARGIN = 0.1
_MANY_SAMPLES = 200_000
# On 4,700 made-up ratings 370 steps gave an RMSE of 0.54, 740 steps 0.43, and 1,480 steps the same.
_FEWEST_STEPS, _MOST_EPOCHS = 2_000, 20


def _is_implicit(facts: CollabFacts) -> bool:
    return facts["feedback"] == "implicit"


def _n_samples(facts: CollabFacts, values: Values) -> int:
    """Return the samples in an epoch: the train rows, and the negatives for each of them."""
    return facts["n_train"] * (1 + (values["n_negatives"] or 0))


def _recipe(values: Values) -> Recipe | None:
    name = values["architecture"]
    return recipe(name, kind=str(values["task"])) if name in MODEL_NAMES else None


def _task(facts: CollabFacts, values: Values) -> Choice:
    n = facts["n_train"]
    if _is_implicit(facts):
        value = "multi_label"
        reason = (
            f"{n:,} train rows say which items users chose: the probability of a choice, against "
            "items drawn from those that the user did not choose."
        )
    else:
        value = "regression"
        low, high = facts.get("target_min", 0.0), facts.get("target_max", 0.0)
        reason = f"{n:,} train ratings from {low:g} to {high:g} are numbers."
    return Choice(
        "task",
        value,
        reason,
        evidence={"feedback": facts["feedback"], "n_train": n},
        override='CollabData.from_df(…, rating="stars"), or without rating=…',
    )


def _task_accept(value: Any, facts: CollabFacts, values: Values) -> str | None:
    wanted = "multi_label" if _is_implicit(facts) else "regression"
    is_free = "task_given" in facts or value == wanted
    return None if is_free else f"{wanted!r}, because it follows from rating=…."


def _architecture(facts: CollabFacts, values: Values) -> Choice:
    return Choice(
        "architecture",
        "collab_dot",
        f"The scalar product of vectors of {facts['n_users']:,} users and {facts['n_items']:,} "
        "items: it is fast, and on such tables networks are rarely better.",
        evidence={"n_users": facts["n_users"], "n_items": facts["n_items"]},
        alternatives=("collab_net",),
        confidence=0.8,
        override='Learner(data, "collab_net")',
    )


def _architecture_accept(value: Any, facts: CollabFacts, values: Values) -> str | None:
    if value in ("mlp", "tabm"):
        return "'collab_dot' or 'collab_net': models of columns take TabularData."
    return None


def _n_factors(facts: CollabFacts, values: Values) -> Choice:
    if values["architecture"] != "collab_dot":
        reason = "Only the architecture 'collab_dot' has factors."
        return Choice("n_factors", None, reason, source="default")
    return Choice(
        "n_factors",
        _N_FACTORS,
        f"The vector of each user and item has {_N_FACTORS} numbers, as in fastai; weight decay "
        "limits how many of them matter.",
        evidence={"n_train": facts["n_train"]},
        alternatives=(10, 100),
        confidence=0.7,
    )


def _n_factors_accept(value: Any, facts: CollabFacts, values: Values) -> str | None:
    if values["architecture"] != "collab_dot":
        return None if value is None else "None, because only 'collab_dot' has factors."
    return None if type(value) is int and value >= 1 else "a whole number from 1 on."


def _y_range(facts: CollabFacts, values: Values) -> Choice:
    if _is_implicit(facts):
        reason = "The output is a logit, which has no bounds."
        return Choice("y_range", None, reason, source="default")
    low, high = facts.get("target_min", 0.0), facts.get("target_max", 0.0)
    margin = _MARGIN * (high - low)
    return Choice(
        "y_range",
        [low - margin, high + margin],
        f"Train ratings are from {low:g} to {high:g}. A sigmoid keeps predictions in this range; "
        f"{_MARGIN:.0%} more on each side, because it does not reach its bounds.",
        evidence={"target_min": low, "target_max": high},
        alternatives=(None,),
    )


def _y_range_accept(value: Any, facts: CollabFacts, values: Values) -> str | None:
    if value is None:
        return None
    if _is_implicit(facts):
        return "None, because there are no ratings."
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    if is_pair and all(type(each) in (int, float) for each in value) and value[0] < value[1]:
        return None
    return "None, or the lowest and the highest prediction, such as [0.5, 5.5]."


def _n_negatives(facts: CollabFacts, values: Values) -> Choice:
    if not _is_implicit(facts):
        reason = "Ratings need no items that were not rated."
        return Choice("n_negatives", None, reason, source="default")
    return Choice(
        "n_negatives",
        _N_NEGATIVES,
        f"For each choice {_N_NEGATIVES} items that the user did not choose in train, others in "
        "every epoch (He et al., 2017: 3 to 6 are best).",
        evidence={"n_train": facts["n_train"], "n_items": facts["n_items"]},
        alternatives=(1, 8),
        confidence=0.7,
    )


def _n_negatives_accept(value: Any, facts: CollabFacts, values: Values) -> str | None:
    if not _is_implicit(facts):
        return None if value is None else "None, because ratings need no negatives."
    return None if type(value) is int and value >= 1 else "a whole number from 1 on."


def _min_count(facts: CollabFacts, values: Values) -> Choice:
    return Choice(
        "min_count",
        1,
        f"Each of the {facts['n_users']:,} users and {facts['n_items']:,} items of the train rows "
        "has a code of its own.",
        alternatives=(5,),
        override="CollabOptions(min_count=5)",
        source="default",
    )


def _targets(base: Choice, facts: CollabFacts, values: Values) -> Choice:
    if _is_implicit(facts):
        return base
    return Choice(
        "targets",
        "standard",
        f"Standardised to mean 0 and standard deviation 1 over {facts['n_train']:,} train rows; "
        "predictions and metrics are in the units of the ratings.",
        alternatives=("as_is",),
    )


def _metrics(base: Choice, facts: CollabFacts, values: Values) -> Choice:
    if "task_given" in facts or not _is_implicit(facts):
        return base
    return replace(
        base,
        value=["auroc", "average_precision"],
        reason="How well choices are ranked above the drawn items. For recall@k and NDCG@k among "
        "all items use ranking_scores.",
        alternatives=(base.value,),
    )


def _keep_best(base: Choice, facts: CollabFacts, values: Values) -> Choice:
    n = facts.get("n_valid", 0)
    if facts.get("model_given") or not n:
        return base
    return replace(
        base,
        value="valid_loss",
        reason=f"The model ends with the weights of its best epoch on {n:,} validation rows, since "
        "vectors of users with few rows overfit early.",
        evidence={"n_valid": n},
        alternatives=(None,),
        source="rule",
    )


def _batch_size(facts: CollabFacts, values: Values) -> Choice:
    chosen, n = _recipe(values), _n_samples(facts, values)
    value = 64 if chosen is None else chosen.batch_size
    reason = f"{value} samples per step, as in the recipe."
    if n >= _MANY_SAMPLES:
        value = 1024
        reason = f"{n:,} samples are enough for steps of {value:,}, which take less time."
    return Choice(
        "batch_size",
        value,
        reason,
        evidence={"samples": n},
        alternatives=(value // 2, value * 2),
        confidence=0.7,
    )


def _from_recipe(key: str, get: Callable[[Recipe], Any], base: Choice, values: Values) -> Choice:
    chosen = _recipe(values)
    if chosen is None:
        return base
    return Choice(
        key,
        get(chosen),
        f"The recipe of {values['architecture']} ({chosen.source.rstrip('.')}).",
        evidence={"architecture": values["architecture"], "task": values["task"]},
        alternatives=() if base.value == get(chosen) else (base.value,),
        confidence=0.7,
    )


def _lr(base: Choice, facts: CollabFacts, values: Values) -> Choice:
    return _from_recipe("lr", lambda each: each.lr, base, values)


def _weight_decay(base: Choice, facts: CollabFacts, values: Values) -> Choice:
    if values["optimizer"] != "adamw":
        return base
    return _from_recipe("weight_decay", lambda each: each.weight_decay, base, values)


def _schedule(base: Choice, facts: CollabFacts, values: Values) -> Choice:
    return _from_recipe("schedule", lambda each: each.schedule, base, values)


def _epochs(facts: CollabFacts, values: Values) -> Choice:
    chosen, n = _recipe(values), _n_samples(facts, values)
    usual = 5 if chosen is None else chosen.epochs
    steps = -(-n // (values["batch_size"] * values["accumulate"]))
    value = max(usual, min(_MOST_EPOCHS, -(-_FEWEST_STEPS // steps)))
    what = f"{usual} epochs of the recipe"
    if value > usual:
        what = f"{value} epochs instead of the recipe's {usual}, because the table is small"
    return Choice(
        "epochs",
        value,
        f"{what}: {n:,} samples, {steps * value:,} steps.",
        evidence={"samples": n, "steps_per_epoch": steps, "steps": steps * value},
        alternatives=(max(1, value // 2), value * 2),
        confidence=0.7,
        override=f"learner.fit({value * 2})",
    )


_WITH_RECIPE = ("architecture", "task")

COLLAB_RULES = (
    Rule("task", (), _task, accepts=_task_accept),
    Rule("architecture", (), _architecture, accepts=_architecture_accept, determines="model"),
    Rule("n_factors", ("architecture",), _n_factors, accepts=_n_factors_accept, determines="model"),
    Rule("y_range", (), _y_range, accepts=_y_range_accept, determines="model"),
    Rule("n_negatives", (), _n_negatives, accepts=_n_negatives_accept),
    Rule(
        "min_count",
        (),
        _min_count,
        type=whole(1, "train rows"),
        determines="preprocessor",
    ),
    Rule.extending("targets", _targets),
    Rule.extending("metrics", _metrics),
    Rule.extending("keep_best", _keep_best),
    Rule(
        "batch_size",
        (*_WITH_RECIPE, "n_negatives"),
        _batch_size,
        type=whole(1, "samples"),
        changes="apply",
    ),
    Rule.extending("lr", _lr, needs=_WITH_RECIPE),
    Rule.extending("weight_decay", _weight_decay, needs=_WITH_RECIPE),
    Rule.extending("schedule", _schedule, needs=_WITH_RECIPE),
    Rule(
        "epochs",
        (*_WITH_RECIPE, "n_negatives", "batch_size", "accumulate", "steps"),
        unless_steps(_epochs),
        type=whole(1, "passes over the train set"),
        changes="fit",
    ),
)
