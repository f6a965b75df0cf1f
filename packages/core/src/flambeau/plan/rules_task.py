"""Core rules for the task (split, targets, loss, metrics) and for what ends and limits a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

from flambeau.data.facts import FEWEST_ROWS_PER_CLASS, IGNORED, Facts, class_totals
from flambeau.errors import PlanError, did_you_mean
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Accepts, Rule
from flambeau.plan.value_types import ValueType, is_number
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.named_losses import LOSSES
from flambeau.task.task import Task

_TARGET_FACTS = (
    "n_train",
    "target_dtype",
    "target_shape",
    "target_binary",
    "target_one_hot",
    "target_distinct",
    "target_min",
    "target_max",
    "target_ignored",
)
_TASKS = ("classification", "multi_label", "regression")

# Integer targets are class labels if there are at least this many rows per distinct value.
_ROWS_PER_CLASS = 10
# Float targets with at most this many distinct values, each repeated, may be class labels.
_MAX_FLOAT_LABELS = 20

_OTHER_METRICS: Mapping[str, tuple[list[str], ...]] = {
    "classification": (["accuracy", "macro_f1"], ["auroc", "average_precision", "log_loss"]),
    "multi_label": (["micro_f1", "macro_f1"], ["auroc", "average_precision", "log_loss"]),
    "regression": (["rmse"],),
}

_CORE_TASKS: Mapping[str, type[Task]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "regression": Regression,
}
_KNOWN_METRICS: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    name: task.known_metrics for name, task in _CORE_TASKS.items()
}

# With a larger share of one class, accuracy is high even for a constant prediction.
_IMBALANCED = 0.6


def with_readings(choice: Choice, facts: Facts) -> Choice:
    """Return the choice, with how the data were understood (``facts["readings"]``) in its reason.

    Confidence, alternatives and override are those of the least certain ``Reading``.
    """
    readings = [each for each in facts.get("readings", ()) if each["key"] == choice.key]
    if not readings:
        return choice
    doubtful = min(readings, key=lambda reading: reading["confidence"])
    evidence = {k: v for reading in readings for k, v in reading["evidence"].items()}
    return replace(
        choice,
        reason=" ".join([choice.reason, *(reading["what"] for reading in readings)]),
        evidence={**choice.evidence, **evidence},
        alternatives=tuple(doubtful["alternatives"]) or choice.alternatives,
        confidence=min(choice.confidence, doubtful["confidence"]),
        override=doubtful["override"] or choice.override,
    )


def _split(facts: Facts, values: Mapping[str, Any]) -> Choice:
    counts = {
        "train": facts["n_train"],
        "valid": facts.get("n_valid", 0),
        "test": facts.get("n_test", 0),
    }
    if n_calibration := facts.get("n_calibration", 0):
        counts["calibration"] = n_calibration
    about = dict.fromkeys(facts.get("estimated", ()), "about ")
    sizes = ", ".join(f"{about.get(part, '')}{count:,} {part}" for part, count in counts.items())
    choice = Choice(
        "split",
        facts["split"],
        f"The split was fixed when the data were built: {sizes}.",
        evidence=counts,
        override="Set valid=, test= or split= when you build the data.",
        source="default",
    )
    return with_readings(choice, facts)


def _task(facts: Facts, values: Mapping[str, Any]) -> Choice:
    if "target_dtype" not in facts:
        n = len(facts.get("targets", ()))
        raise PlanError(
            f"The data have {n} targets, but a task can only be chosen for exactly one. Pass a "
            "task with a loss, Learner(data, task=CustomLoss(…)); with a train_step that computes "
            "the losses, task=Task()."
        )
    dtype, shape = facts["target_dtype"], facts.get("target_shape", [])
    value, confidence, reason = _task_of(dtype, shape, facts)
    evidence = {name: value for name, value in facts.items() if name in _TARGET_FACTS}
    others = tuple(name for name in _TASKS if name != value)
    return with_readings(Choice("task", value, reason, evidence, others, confidence), facts)


def _refuse_ignored_labels(dtype: str, facts: Facts) -> None:
    """Raise an error for targets that look like class labels and contain torch's ignored label."""
    distinct = facts.get("target_distinct")
    if facts.get("target_min") != IGNORED or distinct is None or distinct > _MAX_FLOAT_LABELS:
        return
    n_read, convert = facts.get("n_read"), ""
    rows = "train targets" if n_read is None else f"targets of the first {n_read:,} train samples"
    if n_read is not None and "float" in dtype:
        convert = "convert them to integers in the data set (targets.long()) and "
    raise PlanError(
        f"The {rows} have {distinct} distinct values of {dtype}; the lowest is {IGNORED}, which "
        "torch's cross entropy ignores. If they are class numbers and it marks samples that do not "
        f"count, {convert}pass Learner(data, task=Classification(names, ignore_index={IGNORED})). "
        'If they are measurements, give the data task="regression".'
    )


def _task_of(dtype: str, shape: Sequence[int], facts: Facts) -> tuple[str, float, str]:
    """Return the task's name, the confidence in it, and the reason."""
    rows = f"{facts['n_train']:,} rows"
    if (n_read := facts.get("n_read", facts["n_train"])) < facts["n_train"]:
        rows = f"first {n_read:,} train samples"
    if facts.get("target_one_hot", False):
        return (
            "classification",
            0.85,
            f"Each of the {rows} has exactly one 1 in {shape[0]} columns.",
        )
    if ignored := facts.get("target_ignored"):
        return (
            "classification",
            0.8,
            f"The {rows} have {_distinct(facts, 'integer')}. Those with {ignored['label']} "
            f"({ignored['rows']:,}) have no label and do not count in loss and metrics: torch's "
            "cross entropy ignores it.",
        )
    if not shape and facts.get("class_names_given", False):
        names = facts.get("class_names", ())
        return "classification", 0.95, f"The {rows} have targets of {len(names)} given classes."
    _refuse_ignored_labels(dtype, facts)
    if len(shape) == 1 and shape[0] > 1 and facts.get("target_binary", False):
        return "multi_label", 0.8, f"Each of the {rows} has {shape[0]} targets that are 0 or 1."
    if "float" in dtype:
        return _task_of_floats(facts, f"The {rows} have {_distinct(facts, dtype)}")
    if shape and list(shape) != [1]:
        return (
            "regression",
            0.4,
            f"Each of the {rows} has a target of shape {tuple(shape)} and type {dtype}.",
        )
    if dtype.startswith(("int", "uint")):
        return _task_of_integers(facts, f"The {rows} have {_distinct(facts, 'integer')}")
    return (
        "classification",
        0.95,
        f"The {rows} have {_distinct(facts, dtype)}, which can only be labels.",
    )


def _task_of_floats(facts: Facts, seen: str) -> tuple[str, float, str]:
    distinct = facts.get("target_distinct")
    if (
        distinct is None
        or distinct > _MAX_FLOAT_LABELS
        or distinct * _ROWS_PER_CLASS > facts["n_train"]
    ):
        return "regression", 0.95, f"{seen}."
    return "regression", 0.45, f"{seen}. If they are class labels, convert them to int64."


def _task_of_integers(facts: Facts, seen: str) -> tuple[str, float, str]:
    distinct, low = facts.get("target_distinct"), facts.get("target_min", 0)
    if distinct is None:
        return "classification", 0.8, f"{seen}."
    if low < -1:  # -1 marks the second class, or a missing label
        return (
            "regression",
            0.7,
            f"{seen} as targets. The lowest is {low:,}, so they are not class labels.",
        )
    if distinct * _ROWS_PER_CLASS <= facts["n_train"]:
        return "classification", 0.95, f"{seen}: each occurs often, as class labels do."
    if distinct * FEWEST_ROWS_PER_CLASS <= facts["n_train"]:
        return (
            "classification",
            0.45,
            f"{seen}: few rows each, so the target could also be a quantity.",
        )
    return "regression", 0.45, f"{seen}: few values repeat, so they are probably not labels."


def _split_accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    made: str = facts["split"]
    if value == made:
        return None
    return f"the split of the data, {made!r}. Set valid=, test= or split= when you build the data."


def _targets(facts: Facts, values: Mapping[str, Any]) -> Choice:
    task = values["task"]
    labels = task in ("classification", "multi_label")
    reason = "The targets are class labels, used unchanged."
    if not labels:
        reason = f"The task {task!r} uses the targets unchanged, in their own units."
    choice = Choice(
        "targets",
        "labels" if labels else "as_is",
        reason,
        evidence={"task": task},
        override="Build the data with other targets.",
        source="default",
    )
    return with_readings(choice, facts)


def targets_accept(*known: str) -> Accepts:
    """Return ``accepts`` for "targets": the values ``known``, or "labels" for class labels."""

    def accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
        if values["task"] in ("classification", "multi_label"):
            return None if value == "labels" else "'labels': class labels cannot be scaled."
        return None if value in known else f"one of {', '.join(map(repr, known))} for these data."

    return accepts


def _loss(facts: Facts, values: Mapping[str, Any]) -> Choice:
    task, given = values["task"], facts.get("task_given")
    if given is not None or task not in LOSSES:
        value = given["loss"] if given else "of the task"
        return Choice(
            "loss",
            value,
            f"The task {task!r} defines its loss.",
            override="Pass another task: Learner(data, task=...).",
            source="default",
        )
    known = {
        name: description
        for name, description in LOSSES[task].items()
        if _is_available(name, facts)
    }
    value, *others = known
    return Choice(
        "loss",
        value,
        known[value],
        evidence={"task": task},
        alternatives=tuple(others),
        override="" if others else "Pass a task with another loss: Learner(data, task=...).",
    )


def _is_available(loss: str, facts: Facts) -> bool:
    return loss != "balanced_cross_entropy" or bool(facts.get("class_counts"))


def _loss_accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    task = values["task"]
    if "task_given" in facts or task not in LOSSES:
        return _of_the_task(value, _loss(facts, values).value, task)
    known = [name for name in LOSSES[task] if _is_available(name, facts)]
    if value in known:
        return None
    return (
        f"one of {', '.join(known)} for the task {task!r}. For another loss, pass a custom task: "
        "Learner(data, task=...)."
    )


def _metrics(facts: Facts, values: Mapping[str, Any], kinds: Mapping[str, str]) -> Choice:
    name, given = values["task"], facts.get("task_given")
    if given is not None or name not in kinds:
        return Choice(
            "metrics",
            given["metrics"] if given else [],
            f"The task {name!r} defines its metrics.",
            override="Pass another task: Learner(data, task=...).",
            source="default",
        )
    task = kinds[name]
    evidence: dict[str, Any] = {"task": name}
    if task == "classification":
        share = _largest_share(class_totals(facts))
        counted = "sample weights" if "class_weight_sums" in facts else "rows"
        value, reason = ["accuracy"], "The share of correct predictions."
        if share is not None:
            evidence["largest_share"] = round(share, 4)
            reason = (
                f"The largest class has {share:.0%} of the {counted}, so accuracy is informative."
            )
            if share > _IMBALANCED:
                value = ["accuracy", "balanced_accuracy", "macro_f1"]
                reason = (
                    f"The largest class has {share:.0%} of the {counted}, so a constant prediction "
                    "would reach that accuracy."
                )
    elif task == "multi_label":
        value = ["micro_f1", "exact_match"]
        reason = "F1 over all labels, and the share of samples with every label correct."
    else:
        value, reason = (
            ["mae", "rmse", "r2"],
            "Errors in the target's unit, and the share of variance explained.",
        )
    return Choice(
        "metrics",
        value,
        reason,
        evidence=evidence,
        alternatives=_OTHER_METRICS.get(task, ()),
    )


def metrics_rule(
    of_domain: Collection[str] = (), tasks: Mapping[str, Callable[..., Task]] = MappingProxyType({})
) -> Rule:
    """Return the rule for ``metrics``, which accepts the names of core's and a domain's metrics.

    Args:
        of_domain: The names in ``Domain.metrics``.
        tasks: ``Domain.tasks``. A subclass of one of core's tasks gets the metrics of that task.
    """
    derived = {name: task for name, task in tasks.items() if name not in _KNOWN_METRICS}
    known_metrics: dict[str, Callable[[], Mapping[str, Any]]] = dict(_KNOWN_METRICS)
    defaults: dict[str, list[str]] = {}
    kinds = {name: name for name in _KNOWN_METRICS}
    for name, task in derived.items():
        made = cast("type[Task]", task)
        if isinstance(task, type) and (kind := _inherited_metrics(made)) is not None:
            kinds[name], known_metrics[name] = kind, made.known_metrics
            defaults[name] = list(made.default_metrics)

    def decide(facts: Facts, values: Mapping[str, Any]) -> Choice:
        found = _metrics(facts, values, kinds)
        own = defaults.get(values["task"])
        if not own or "task_given" in facts:
            return found
        reason = f"The metrics that fit the loss of the task {values['task']!r}."
        return Choice("metrics", own, reason, {"task": values["task"]}, (found.value,))

    def accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
        task = values["task"]
        if "task_given" in facts or task not in kinds:
            return _of_the_task(value, decide(facts, values).value, task)
        known = sorted({*known_metrics[task](), *of_domain})
        names = cast("list[object]", value) if isinstance(value, list) else [value]
        unknown = [name for name in names if name not in known]
        if isinstance(value, list) and not unknown:
            return None
        hint = did_you_mean(str(unknown[0]), known) if unknown else ""
        hint = hint if hint.startswith("Did") else ""  # else it lists the names once more
        return f"a list of {', '.join(known)} for the task {task!r}. {hint}".rstrip()

    return Rule("metrics", ("task",), decide, accepts)


def _inherited_metrics(task: type[Task]) -> str | None:
    """Return the name of core's task from which a class inherits ``metrics``, or None."""
    for name, core in _CORE_TASKS.items():
        if issubclass(task, core) and (task.metrics is core.metrics or task.default_metrics):
            arguments = inspect.signature(task).parameters.values()
            is_taken = any(a.name == "metrics" or a.kind is a.VAR_KEYWORD for a in arguments)
            return name if is_taken else None
    return None


def _of_the_task(value: Any, own: Any, task: str) -> str | None:
    """Accept only ``own``, the value that the task defines; the plan cannot change it."""
    if value == own:
        return None
    return f"{own!r}, as the task {task!r} defines. Pass another task: Learner(data, task=...)."


def _distinct(facts: Facts, noun: str) -> str:
    count = facts.get("target_distinct")
    if count is None:
        return f"targets of type {facts.get('target_dtype')}"
    return f"{count:,} distinct {noun}{'' if count == 1 else 's'}"


def _largest_share(counts: Sequence[float]) -> float | None:
    return max(counts) / sum(counts) if sum(counts) else None


def _keep_best(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "keep_best",
        None,
        "The model ends with the weights of the last epoch. Set a column of the history to end "
        "with those of its best epoch.",
        override='Learner(data, choices={"keep_best": "valid_loss"})',
        source="default",
    )


def _keep_best_accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    is_name = value is None or (isinstance(value, str) and bool(value))
    return None if is_name else 'a column of the history, such as "valid_loss", or None.'


def _patience(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "patience",
        None,
        "The run has its full length, since its schedule ends with it.",
        alternatives=(16,),
        override='Learner(data, choices={"patience": 16})',
        source="default",
    )


def patience_accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    """Accept a number of evaluations if there are validation rows to evaluate."""
    if value is not None and values["keep_best"] is None and not facts.get("n_valid", 0):
        return "None, because there are no validation rows on which a run could stop early."
    return None


def _clip_norm(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "clip_norm",
        None,
        "Gradients are not clipped; steps that are not finite are found by the guard.",
        alternatives=(1.0,),
        override='TrainingOptions(clip_norm=1.0), or choices={"clip_norm": 1.0}',
        source="default",
    )


_PATIENCE = ValueType(
    "None or a whole number of evaluations without improvement after which the run ends, at "
    "least 1.",
    lambda value: value is None or (type(value) is int and value >= 1),
)
_CLIP_NORM = ValueType(
    "None or a finite norm above 0.",
    lambda value: value is None or (is_number(value) and value > 0),
)

TASK_RULES = (
    Rule("split", (), _split, _split_accepts),
    Rule("task", (), _task),
    Rule("targets", ("task",), _targets, targets_accept("as_is")),
    Rule("loss", ("task",), _loss, _loss_accepts),
    Rule("keep_best", (), _keep_best, _keep_best_accepts, changes="fit"),
    Rule("patience", ("keep_best",), _patience, patience_accepts, type=_PATIENCE, changes="fit"),
    Rule("clip_norm", (), _clip_norm, type=_CLIP_NORM, changes="fit"),
    metrics_rule(),
)
