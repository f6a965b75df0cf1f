"""The plan's rules for models of tables: architecture, embeddings and the training recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_model import head_rule
from flambeau.plan.rules_training import unless_steps
from flambeau.plan.value_types import whole
from flambeau_tabular.facts import TabularFacts
from flambeau_tabular.models.recipes import Recipe, planned_recipe
from flambeau_tabular.rules_embedding import EMBEDDING_RULES

Values = Mapping[str, Any]

_MOST_EPOCHS, _FEWEST_EPOCHS = 256, 4
# Rows seen in a run. On one core of an EPYC the MLP trains 41,000 rows per second. Longer runs gain
# little: on validation rows of Adult 15, 40 and 61 epochs reached a log-loss of 0.2962, 0.2954 and
# the same, and on those of California 40, 60 and 100 epochs an RMSE of 49,800, 49,400 and 48,600.
_SAMPLES = {"cpu": 1_600_000, "accelerator": 30_000_000}
_MANY_ROWS = 100_000


def _architecture(facts: TabularFacts, values: Values) -> Choice:
    device, n = str(values["device"]), facts["n_train"]
    columns = list(facts["columns"].values())
    n_numbers = sum(each["kind"] in ("number", "date") for each in columns)
    evidence = {"device": device, "n_train": n, "columns": len(columns), "numbers": n_numbers}
    if device == "cpu":
        value = "mlp"
        reason = (
            f"On a CPU one network of three layers (RealMLP) trains {n:,} rows in minutes; an "
            "ensemble in one network (TabM) needs several times as long."
        )
    else:
        value = "tabm"
        reason = (
            "On an accelerator the members of an ensemble in one network (TabM) are computed "
            "together, and their mean is better than one network."
        )
    other = "tabm" if value == "mlp" else "mlp"
    return Choice(
        "architecture",
        value,
        reason,
        evidence=evidence,
        alternatives=(other,),
        confidence=0.7,
        override=f'Learner(data, "{other}")',
    )


def _architecture_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    if value in ("collab_dot", "collab_net"):
        return "'mlp' or 'tabm': models of users and items take CollabData."
    return None


def _k(facts: TabularFacts, values: Values) -> Choice:
    chosen = planned_recipe(values)
    if values["architecture"] != "tabm" or chosen is None:
        reason = "Only the architecture 'tabm' has members."
        return Choice("k", None, reason, source="default", override='Learner(data, "tabm")')
    value = chosen.model["k"]
    return Choice(
        "k",
        value,
        f"{value} members share the weights of one network on {values['device']}.",
        evidence={"device": str(values["device"])},
        alternatives=(value * 2, value // 2),
    )


def _k_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    if values["architecture"] != "tabm":
        return None if value is None else "None, because only the architecture 'tabm' has members."
    return None if type(value) is int and value >= 1 else "a whole number of members from 1 on."


def _hidden(facts: TabularFacts, values: Values) -> Choice:
    chosen = planned_recipe(values)
    if chosen is None:
        return Choice("hidden", None, "Your module has its own layers.", source="default")
    value = list(chosen.model["hidden"])
    return Choice(
        "hidden",
        value,
        f"Widths of the hidden layers in the recipe of {values['architecture']}.",
        evidence={"architecture": values["architecture"], "device": str(values["device"])},
        alternatives=([width * 2 for width in value], [width // 2 for width in value]),
        confidence=0.7,
    )


def _hidden_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    if planned_recipe(values) is None:
        return None if value is None else "None, because your module has its own layers."
    is_widths = isinstance(value, list | tuple) and all(type(w) is int and w > 0 for w in value)
    return None if is_widths else "a list of the widths of the hidden layers, such as [256, 256]."


def _head(facts: TabularFacts, values: Values) -> Choice:
    chosen = planned_recipe(values)
    if chosen is None:
        return HEAD.decide(facts, values)
    value = chosen.model["dropout"]
    return Choice(
        "head",
        {"dropout": value},
        f"Dropout of {value:.0%} after each hidden layer, as in the recipe of "
        f"{values['architecture']}.",
        evidence={"architecture": values["architecture"]},
        alternatives=({"dropout": 0.0}, {"dropout": 0.3}),
        confidence=0.7,
    )


def _batch_size(facts: TabularFacts, values: Values) -> Choice:
    chosen, n = planned_recipe(values), facts["n_train"]
    value = 256 if chosen is None else chosen.batch_size
    reason = f"{value} rows per step, as in the recipe of the network."
    if n >= _MANY_ROWS:
        value = 1024
        reason = f"{n:,} train rows are enough for steps of {value:,} rows, which take less time."
    elif n < 2 * value:
        value = max(8, 1 << (max(n // 8, 8).bit_length() - 1))
        reason = f"{n:,} train rows give {-(-n // value):,} steps per epoch with {value} rows each."
    return Choice(
        "batch_size",
        value,
        reason,
        evidence={"n_train": n},
        alternatives=(value // 2, value * 2),
        confidence=0.8,
    )


def _from_recipe(
    key: str, get: Callable[[Recipe], Any], base: Choice, values: Values, what: str
) -> Choice:
    chosen = planned_recipe(values)
    if chosen is None:
        return base
    source = chosen.source.partition(":")[0]
    return Choice(
        key,
        get(chosen),
        f"{what} of the recipe of {values['architecture']} ({source}).",
        evidence={"architecture": values["architecture"], "task": values.get("task")},
        alternatives=() if base.value == get(chosen) else (base.value,),
        confidence=0.7,
    )


def _lr(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    return _from_recipe("lr", lambda each: each.lr, base, values, "The peak rate")


def _weight_decay(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    if values["optimizer"] != "adamw":
        return base
    return _from_recipe("weight_decay", lambda each: each.weight_decay, base, values, "The decay")


def _schedule(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    return _from_recipe("schedule", lambda each: each.schedule, base, values, "The schedule")


def _schedules(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    head: Mapping[str, Any] = values["head"] or {}

    def get(each: Recipe) -> dict[str, Any]:
        # Without dropout there is nothing for its factor to act on.
        kept = each.schedules if head.get("dropout") else {**each.schedules, "dropout_factor": None}
        return {name: dict(entry) for name, entry in kept.items() if entry is not None}

    return _from_recipe("schedules", get, base, values, "Schedules")


def _betas(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    if values["optimizer"] != "adamw":
        return base

    def get(each: Recipe) -> list[float] | None:
        return None if each.betas is None else list(each.betas)

    return _from_recipe("betas", get, base, values, "Moments")


def _patience(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    chosen = planned_recipe(values)
    if chosen is None or chosen.patience is None or not facts.get("n_valid", 0):
        return base
    return _from_recipe("patience", lambda each: each.patience, base, values, "Early stopping")


def _clip_norm(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    chosen = planned_recipe(values)
    if chosen is None or chosen.clip_norm is None:
        return base
    return _from_recipe("clip_norm", lambda each: each.clip_norm, base, values, "The largest norm")


def _epochs(facts: TabularFacts, values: Values) -> Choice:
    chosen, n = planned_recipe(values), facts["n_train"]
    most = _MOST_EPOCHS if chosen is None else chosen.epochs
    where = "cpu" if str(values["device"]) == "cpu" else "accelerator"
    rows = _SAMPLES[where] // (4 if values["architecture"] == "tabm" and where == "cpu" else 1)
    value = max(_FEWEST_EPOCHS, min(most, round(rows / n)))
    steps = -(-n // (values["batch_size"] * values["accumulate"]))
    reason = f"{most} epochs of the recipe"
    if value != most:
        reason = f"About {rows:,} rows in a run on {values['device']}, at most {most} epochs"
    return Choice(
        "epochs",
        value,
        f"{reason}: {value} epochs of {n:,} rows, {steps * value:,} steps.",
        evidence={"n_train": n, "steps_per_epoch": steps, "steps": steps * value},
        alternatives=(max(1, value // 4), value * 2),
        confidence=0.7,
        override=f"learner.fit({value * 2})",
    )


HEAD = head_rule("each layer but the first")
_WITH_RECIPE = ("architecture", "task", "device")

MODEL_RULES = (
    Rule(
        "architecture",
        ("device",),
        _architecture,
        accepts=_architecture_accept,
        determines="model",
    ),
    *EMBEDDING_RULES,
    Rule("k", _WITH_RECIPE, _k, accepts=_k_accept, determines="model"),
    Rule("hidden", _WITH_RECIPE, _hidden, accepts=_hidden_accept, determines="model"),
    Rule("head", _WITH_RECIPE, _head, accepts=HEAD.accepts, determines="model"),
    Rule("batch_size", _WITH_RECIPE, _batch_size, type=whole(1, "samples"), changes="apply"),
    Rule.extending("lr", _lr, needs=_WITH_RECIPE),
    Rule.extending("weight_decay", _weight_decay, needs=_WITH_RECIPE),
    Rule.extending("schedule", _schedule, needs=_WITH_RECIPE),
    Rule.extending("schedules", _schedules, needs=(*_WITH_RECIPE, "head")),
    Rule.extending("betas", _betas, needs=_WITH_RECIPE),
    Rule.extending("patience", _patience, needs=_WITH_RECIPE),
    Rule.extending("clip_norm", _clip_norm, needs=_WITH_RECIPE),
    Rule(
        "epochs",
        ("architecture", "task", "device", "batch_size", "accumulate", "steps"),
        unless_steps(_epochs),
        type=whole(1, "passes over the train set"),
        changes="fit",
    ),
)
