"""Read ``TensorData`` like an export: take its task and class names, and check the inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from flambeau.artefact.read_like import filled_like, output_names, read_record
from flambeau.data.facts import ColumnFacts
from flambeau.errors import InputError

_TASKS = (
    "classification",
    "multi_label",
    "regression",
    "quantile_regression",
    "poisson",
    "gamma",
    "tweedie",
)


def targets_like(
    like: str | os.PathLike[str], task: str, class_names: Sequence[str] | None
) -> tuple[str, Sequence[str] | None]:
    """Return task and class names; those that the user did not set are taken from ``like``.

    Raises:
        ArtefactError: The export is missing or damaged, or belongs to another domain.
        InputError: The user's task or class names differ from the export's.
    """
    saved = read_record(like, "tensors", "like").task
    has_names = saved.builder in _TASKS
    filled = filled_like(
        like,
        {
            "task": None if task == "auto" else task,
            "class_names": None if class_names is None else tuple(map(str, class_names)),
        },
        {
            "task": saved.builder if saved.builder in _TASKS else None,
            "class_names": output_names(saved.arguments) if has_names else None,
        },
    )
    return filled["task"] or "auto", filled["class_names"]


def check_inputs_like(like: str | os.PathLike[str], inputs: Mapping[str, ColumnFacts]) -> None:
    """Check that inputs have the names, shapes and dtypes that the export's preprocessor needs.

    Raises:
        InputError: They differ; the message describes both.
    """
    saved = read_record(like, "tensors", "like").preprocessor
    if saved.builder != "tensor_preprocessor":  # of a domain's subclass
        return
    wanted: Mapping[str, ColumnFacts] = saved.arguments["inputs"]
    if list(wanted.items()) != [(name, dict(each)) for name, each in inputs.items()]:
        raise InputError(
            f"The inputs are {_shown(inputs)}, but those of the export {os.fspath(like)} are "
            f"{_shown(wanted)}, and its preprocessor fits only these. Give the same inputs, or "
            "omit like=."
        )


def _shown(inputs: Mapping[str, ColumnFacts]) -> str:
    return ", ".join(
        f"{name} {tuple(each['shape'])} {each['dtype']}" for name, each in inputs.items()
    )
