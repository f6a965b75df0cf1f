"""Arguments of the model builders, from the fitted columns and the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flambeau.data.data import head_arguments, select_values
from flambeau_tabular.options import LOG_LINK_TASKS
from flambeau_tabular.rules_embedding import PLE_BINS, sigma_of

if TYPE_CHECKING:
    from flambeau_tabular.columns import TableSpec


# Kinds of outputs by the tasks that are not named like them.
_KINDS = {"quantile_regression": "regression", **dict.fromkeys(LOG_LINK_TASKS, "log_link")}


def model_arguments(
    spec: TableSpec, outputs: Sequence[tuple[str, int]], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments that every builder of `flambeau_tabular.models` takes.

    Args:
        spec: The fitted columns.
        outputs: Task and number of outputs of each target.
        values: The plan's values.
    """
    inputs: dict[str, Any] = {
        "n_numbers": len(spec.number_names),
        "n_flags": len(spec.flag_names),
        "cardinalities": list(spec.cardinalities),
        "n_text": len(spec.text_names),
        "text_width": spec.text_width,
        "n_tokens": spec.text_buckets,
        **select_values(values, "number_embedding"),
    }
    if values.get("number_embedding") == "ple":
        inputs["ple_edges"] = spec.quantile_edges(values.get("ple_bins") or PLE_BINS, distinct=True)
    if (sigma := sigma_of(values.get("plr_sigma"))) is not None:
        inputs["plr_sigma"] = sigma
    kinds = [[_KINDS.get(task, task), n] for task, n in outputs]
    arguments: dict[str, Any] = {
        "inputs": inputs,
        "n_outputs": sum(n for _, n in kinds),
        "kind": kinds[0][0] if len(kinds) == 1 else kinds,
        **select_values(values, "hidden"),
        "dropout": head_arguments(values).get("dropout", 0.0),
    }
    if values.get("architecture") == "tabm":
        arguments |= select_values(values, "k")
    return arguments
