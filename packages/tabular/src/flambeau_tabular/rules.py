"""The plan's rules for the data: task, columns, scaling, rare categories, targets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from flambeau.data.reading import DOUBTFUL_BELOW
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_task import targets_accept, with_readings
from flambeau.wording import name_some
from flambeau_tabular.column_kind import UNUSED, require_inputs
from flambeau_tabular.facts import TabularFacts
from flambeau_tabular.options import OutOfRange, Scaling
from flambeau_tabular.rules_targets import (
    TARGET_RULES,
    logs_of,
    targets_of_several,
    task_of_several,
    ways_accept,
)
from flambeau_tabular.target_columns import SEVERAL

Values = Mapping[str, Any]


_WHOLE = re.compile(r"-?[0-9]+")
_IF_WHOLE = 0.7  # a choice that is not marked as doubtful


def _task(facts: TabularFacts, values: Values) -> Choice:
    kind, n = facts["label_kind"], facts["n_train"]
    names = facts.get("class_names", [])
    if kind == "classification":
        reason = f"The target has {len(names):,} classes in {n:,} train rows."
    elif kind == "multi_label":
        reason = f"{len(names):,} target columns of 0 and 1 in {n:,} train rows."
    elif kind == SEVERAL:
        return task_of_several(facts, n)
    else:
        low, high = facts.get("target_min", 0.0), facts.get("target_max", 0.0)
        reason = f"The target is a number from {low:g} to {high:g} in {n:,} train rows."
    confidence = 1.0
    if kind == "classification" and len(names) > 2 and all(map(_WHOLE.fullmatch, names)):
        confidence = _IF_WHOLE
        reason += (
            f" They are whole numbers ({name_some(names, 3)}): if they are ratings or counts, the "
            "task 'regression' uses their order."
        )
    other, more = "classification" if kind == "regression" else "regression", ()
    evidence = {"n_train": n, "classes": len(names), "target_dtype": facts.get("target_dtype")}
    if kind == "regression" and (found := _suggested_task(facts)) is not None:
        other, more = found[0], found
        reason += f" {found[1]}"
        evidence |= {key: facts.get(key) for key in _SHAPE_OF_TARGET}
    choice = Choice(
        "task",
        kind,
        reason,
        evidence=evidence,
        alternatives=more[:1] or ((other,) if confidence < 1 else ()),
        confidence=confidence,
        override=f'TabularOptions(task="{other}"), on the command line --task {other}',
    )
    return with_readings(choice, facts)


_SHAPE_OF_TARGET = ("target_min", "target_mean", "target_std", "target_zeros", "target_whole")
# Shares of zeros and of the standard deviation in the mean from which another task may fit better.
_MANY_ZEROS, _WIDE = 0.1, 0.8


def _suggested_task(facts: TabularFacts) -> tuple[str, str] | None:
    """Return a task that may fit the numbers better than squared errors, and the reason."""
    mean = facts.get("target_mean") or [0.0]
    if len(mean) > 1 or facts.get("target_min", -1) < 0 or "target_zeros" not in facts:
        return None
    zeros, spread = facts["target_zeros"], facts.get("target_std", [0.0])[0] / max(mean[0], 1e-300)
    if facts.get("target_whole"):
        return (
            "poisson",
            "All are whole numbers from 0 on: if they count events, the task 'poisson' predicts "
            "expected counts, and exposure= makes them rates.",
        )
    if zeros > _MANY_ZEROS:
        return (
            "tweedie",
            f"{zeros:.0%} are exactly 0 and none is negative: the task 'tweedie' is for such "
            "amounts.",
        )
    if not zeros and spread > _WIDE:
        return (
            "gamma",
            f"All are above 0 and the standard deviation is {spread:.0%} of the mean: the task "
            "'gamma', or the logarithm (targets='log'), weighs relative errors.",
        )
    return None


_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}


def _csv(facts: TabularFacts, values: Values) -> Choice:
    dialect = facts.get("csv")
    if dialect is None:
        reason = "The table was not read from a text file."
        return Choice("csv", None, reason, source="default")
    value, found, given = dialect["values"], dialect["found"], dialect["given"]
    delimiter = _NAMES.get(value["delimiter"], repr(value["delimiter"]))
    reason = f"Cells are separated by {delimiter}: {found['columns']:,} columns in the header."
    others = {name: count for name, count in found.items() if name != "columns"}
    separators = {name: count for name, count in others.items() if not name.startswith("missing")}
    missing = {
        name.removeprefix("missing "): count
        for name, count in others.items()
        if name.startswith("missing")
    }
    if separators:
        shown = name_some(f"{name} in {count:,}" for name, count in separators.items())
        reason += f" Columns of numbers with a separator: {shown}."
    if missing:
        reason += f" Missing: {name_some(f'{n:,} cells {text}' for text, n in missing.items())}."
    if given:
        reason += f" Set by the user: {', '.join(given)}."
    choice = Choice(
        "csv",
        dict(value),
        reason,
        evidence=dict(found),
        override='TabularOptions(csv=CsvOptions(decimal=",")), on the command line --decimal , '
        "(--delimiter, --thousands, --encoding, --quote, --missing)",
    )
    return with_readings(choice, facts)


def _csv_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    dialect = facts.get("csv")
    if value == (None if dialect is None else dict(dialect["values"])):
        return None
    return (
        "the way in which the file was read. Set it when you create the data: "
        'TabularData.from_csv(…, options=TabularOptions(csv=CsvOptions(decimal=","))).'
    )


def _columns(facts: TabularFacts, values: Values) -> Choice:
    columns = facts["columns"]
    require_inputs({name: (each["kind"], each["reason"]) for name, each in columns.items()})
    kinds = {name: each["kind"] for name, each in columns.items()}
    counts = Counter(kinds.values())
    used = ", ".join(f"{n:,} {kind}" for kind, n in counts.most_common() if kind not in UNUSED)
    reason = f"By the cells of {facts['n_train']:,} train rows: {used}."
    unused = [name for name, kind in kinds.items() if kind in UNUSED]
    if unused:
        shown = name_some((f"{name} ({kinds[name]})" for name in unused), 5)
        reason += f" Not used: {shown}."
    doubtful = {name: each for name, each in columns.items() if each["confidence"] < DOUBTFUL_BELOW}
    for name, each in list(doubtful.items())[:3]:
        reason += f" Doubtful: {name} is {each['kind']} ({each['reason']})."
    choice = Choice(
        "columns",
        kinds,
        reason,
        evidence={"kinds": dict(counts), "doubtful": sorted(doubtful)},
        confidence=min((each["confidence"] for each in columns.values()), default=1.0),
        override=(
            'TabularData.from_df(…, kinds={"zip": "category"}), on the command line '
            "--kinds zip=category"
        ),
    )
    return with_readings(choice, facts)


def _columns_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    kinds = {name: each["kind"] for name, each in facts["columns"].items()}
    if value == kinds:
        return None
    return (
        "the kinds of the data, because they decide how the cells are read. Set them when you "
        'create the data: TabularData.from_df(…, kinds={"zip": "category"}).'
    )


def _scaling(facts: TabularFacts, values: Values) -> Choice:
    n = sum(each["kind"] in ("number", "date") for each in facts["columns"].values())
    value: str
    if facts.get("model_given"):
        value, reason = "standard", "Your module gets numbers with mean 0 and standard deviation 1."
    else:
        value = "robust"
        reason = (
            f"{n:,} columns of numbers: median 0, quartiles one apart, and values far from the "
            "median moved closer, so that outliers have little influence (RealMLP)."
        )
    return Choice(
        "scaling",
        value,
        reason,
        evidence={"numbers": n},
        alternatives=tuple(each for each in get_args(Scaling) if each != value),
        override='TabularOptions(scaling="quantile"), on the command line --scaling quantile',
    )


def _out_of_range(facts: TabularFacts, values: Values) -> Choice:
    kinds = Counter(each["kind"] for each in facts["columns"].values())
    n = kinds["number"] + kinds["date"]
    if facts.get("model_given"):
        value, reason = "keep", "Your module gets numbers beyond those of the train rows as others."
    else:
        value = "clip"
        reason = (
            f"{n:,} columns of numbers and dates: predictions for cells beyond the train rows are "
            "those for the nearest cell in train, as in trees; networks are wrong there. Of dates "
            "this limits the year and the elapsed time, which never recur."
        )
    return Choice(
        "out_of_range",
        value,
        reason,
        evidence={"numbers": kinds["number"], "dates": kinds["date"]},
        alternatives=tuple(each for each in get_args(OutOfRange) if each != value),
        override='choices={"out_of_range": "keep"}, on the command line --set out_of_range=keep',
    )


def _out_of_range_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    ways = get_args(OutOfRange)
    return None if value in ways else f"one of {', '.join(map(repr, ways))}."


def _min_count(facts: TabularFacts, values: Values) -> Choice:
    n = sum(each["kind"] == "category" for each in facts["columns"].values())
    return Choice(
        "min_count",
        1,
        f"{n:,} columns of categories: every category of the train rows has a code of its own.",
        evidence={"categories": n},
        alternatives=(5, 20),
        override="TabularOptions(min_count=5), on the command line --min-count 5",
        source="default",
    )


def _min_count_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    return None if type(value) is int and value >= 1 else "a whole number from 1 on."


def _scaling_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    ways = get_args(Scaling)
    return None if value in ways else f"one of {', '.join(map(repr, ways))}."


def _targets_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    if values["task"] == SEVERAL:
        return ways_accept(value, facts)
    scaled = values["task"] in ("regression", "quantile_regression")
    ways = ("as_is", "standard", *logs_of(facts)) if scaled else ("as_is",)
    return targets_accept(*ways)(value, facts, values)


def _targets(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    if values["task"] == SEVERAL and "task_given" not in facts:
        return with_readings(targets_of_several(facts), facts)
    if values["task"] not in ("regression", "quantile_regression") or "task_given" in facts:
        return base
    choice = Choice(
        "targets",
        "standard",
        f"Standardised to mean 0 and standard deviation 1 over {facts['n_train']:,} train rows; "
        "predictions and metrics are in the units of the target.",
        evidence={"n_train": facts["n_train"]},
        alternatives=("as_is", *logs_of(facts)),
        override='choices={"targets": "log"}, on the command line --set targets=log',
    )
    return with_readings(choice, facts)


def _metrics(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    if values["task"] != "classification" or "task_given" in facts:
        return base
    return replace(
        base,
        value=[*base.value, "auroc", "refined_log_loss"],
        reason=f"{base.reason} AUROC measures the ranking, and the refined log-loss the "
        "probabilities as they are after calibration.",
        alternatives=(base.value, *base.alternatives),
    )


def _keep_best(base: Choice, facts: TabularFacts, values: Values) -> Choice:
    n = facts.get("n_valid", 0)
    if facts.get("model_given") or not n:
        return base
    refined = "refined_log_loss" in values["metrics"]
    column = "valid_refined_log_loss" if refined else "valid_loss"
    why = ", which calibration after training cannot improve" if refined else ""
    return replace(
        base,
        value=column,
        reason=f"The model ends with the weights of its best epoch on {n:,} validation rows, by "
        f"{column.removeprefix('valid_').replace('_', ' ')}{why}. Networks overfit tables early.",
        evidence={"n_valid": n},
        alternatives=(None,),
        override='TrainingOptions(keep_best=…), or choices={"keep_best": None}',
        source="rule",
    )


DATA_RULES = (
    Rule("task", (), _task),
    *TARGET_RULES,
    Rule("csv", (), _csv, accepts=_csv_accept),
    Rule("columns", (), _columns, accepts=_columns_accept),
    Rule("scaling", (), _scaling, accepts=_scaling_accept, determines="preprocessor"),
    Rule(
        "out_of_range",
        (),
        _out_of_range,
        accepts=_out_of_range_accept,
        determines="preprocessor",
    ),
    Rule("min_count", (), _min_count, accepts=_min_count_accept, determines="preprocessor"),
    Rule.extending("targets", _targets, accepts=_targets_accept),
    Rule.extending("metrics", _metrics),
    Rule.extending("keep_best", _keep_best, needs=("metrics",)),
)
