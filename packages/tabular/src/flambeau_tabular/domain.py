"""Describe the tabular domain, so that flambeau can find this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flambeau.domain import DATA_COMMANDS, CliOption, Domain
from flambeau.errors import ArgumentError
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.combined import CombinedTask
from flambeau.task.log_link import Gamma, Poisson, Tweedie
from flambeau.task.quantiles import QuantileRegression
from flambeau_tabular.checks import CHECKS
from flambeau_tabular.collab_data import CollabData
from flambeau_tabular.collab_preprocess import CollabPreprocessor
from flambeau_tabular.data import TabularData
from flambeau_tabular.demo import demo_data
from flambeau_tabular.models import MODELS
from flambeau_tabular.out_of_scope import REFUSED
from flambeau_tabular.preprocess import TabularPreprocessor
from flambeau_tabular.recognise import parse_character, recognise
from flambeau_tabular.rules import DATA_RULES
from flambeau_tabular.rules_model import MODEL_RULES

if TYPE_CHECKING:
    from flambeau.data.attributions import Attributions


def parse_kinds(text: str) -> dict[str, str | list[str]]:
    """Return kinds by column: ``zip=category,size=small<medium<large``.

    Raises:
        ArgumentError: A part is not COLUMN=KIND.
    """
    kinds: dict[str, str | list[str]] = {}
    for part in text.split(","):
        name, separator, kind = part.rpartition("=")
        if not separator or not kind.strip():  # the name may be empty, as that of pandas' index
            raise ArgumentError(
                f"{part!r} is not COLUMN=KIND. Write --kinds zip=category,size=small<medium<large."
            )
        levels = [level.strip() for level in kind.split("<")]
        kinds[name.strip()] = levels if len(levels) > 1 else levels[0]
    return kinds


def parse_tasks(text: str) -> dict[str, str]:
    """Return tasks by target: ``price=gamma,rooms=regression``.

    Raises:
        ArgumentError: A part is not COLUMN=TASK.
    """
    tasks: dict[str, str] = {}
    for part in text.split(","):
        name, separator, task = part.rpartition("=")
        if not separator or not name.strip() or not task.strip():
            raise ArgumentError(
                f"{part!r} is not COLUMN=TASK. Write --target-tasks price=gamma,rooms=regression."
            )
        tasks[name.strip()] = task.strip()
    return tasks


def parse_costs(text: str) -> dict[str, float]:
    """Return costs by name: ``false_positive=1,false_negative=5``.

    Raises:
        ArgumentError: A part is not NAME=NUMBER.
    """
    costs: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            costs[name.strip()] = float(number)
        except ValueError as error:
            raise ArgumentError(
                f"{part!r} is not NAME=NUMBER. Write --costs false_positive=1,false_negative=5."
            ) from error
    return costs


def parse_names(text: str) -> list[str]:
    """Return names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_missing(text: str) -> list[str]:
    """Return texts of missing cells separated by commas, and the empty text."""
    return list(dict.fromkeys(["", *(each.strip() for each in text.split(","))]))


CSV_OPTIONS = (
    CliOption(
        "delimiter",
        parse_character,
        "Separator of the cells of a text file: --delimiter ';' or tab.",
        "delimiter",
    ),
    CliOption("decimal", str, "Decimal separator of a text file: . or ,.", "decimal"),
    CliOption(
        "thousands",
        parse_character,
        "Separator of thousands of a text file: --thousands . or none.",
        "thousands",
    ),
    CliOption("encoding", str, "Encoding of a text file: utf-8, latin-1, utf-16.", "encoding"),
    CliOption(
        "quote", parse_character, "Character around cells with separators, or none.", "quote"
    ),
    CliOption(
        "missing", parse_missing, "Texts of missing cells: --missing NA,-,unknown.", "missing"
    ),
)

DATA_OPTIONS = (
    *CSV_OPTIONS,
    CliOption("valid", float, "Share of the rows for validation.", "valid"),
    CliOption("test", float, "Share of the rows for the final test.", "test"),
    CliOption(
        "calibration", float, "Share of the rows for calibration after training.", "calibration"
    ),
    CliOption(
        "split",
        str,
        "Column with train, valid, test …; none for a random split.",
        "split",
    ),
    CliOption("time", str, "Column with the time of each row: the parts follow in time.", "time"),
    CliOption("group", str, "Column with the group of each row: in one part only.", "group"),
    CliOption("weight", str, "Column with the weight of each row.", "weight"),
    CliOption(
        "exposure",
        str,
        "Column with the time or population of each count (--task poisson, gamma, tweedie).",
        "exposure",
    ),
    CliOption("offset", str, "Column with the logarithm of the exposure.", "offset"),
    CliOption(
        "costs",
        parse_costs,
        "Costs of mistakes of two classes: --costs false_positive=1,false_negative=5.",
        "costs",
    ),
    CliOption(
        "kinds",
        parse_kinds,
        "Kinds of columns: --kinds zip=category,size=small<medium<large,code=id.",
        "kinds",
    ),
    CliOption(
        "target-tasks",
        parse_tasks,
        "Tasks of some of several targets: --target-tasks price=gamma,rooms=regression.",
        "target_tasks",
    ),
    CliOption("drop", parse_names, "Columns that are not inputs: --drop name,id.", "drop"),
    CliOption("scaling", str, "How numbers are scaled: robust, standard, quantile.", "scaling"),
    CliOption("min-count", int, "Train rows that a category needs for its own code.", "min_count"),
    CliOption("sep", str, "Separator between several labels in a cell of the target.", "sep"),
    CliOption(
        "classes", parse_names, "The classes in their order, separated by commas.", "classes"
    ),
)

# Classes and costs are those of the model.
EVALUATE_OPTIONS = tuple(
    option for option in DATA_OPTIONS if option.name not in ("classes", "costs", "target-tasks")
)

PREDICT_OPTIONS = (
    CliOption(
        "interval",
        float,
        "Coverage of intervals or sets of classes beside each prediction: --interval 0.9.",
        "interval",
    ),
)


def _attributions(
    predictor: Any, item: Any, output: str | None, background: Sequence[Any]
) -> Attributions:
    """Return how much each column of a row moves an output."""
    from flambeau_tabular.attributions import column_attributions  # needed by explain alone

    return column_attributions(predictor, item, output, background)


DOMAIN = Domain(
    name="tabular",
    data_classes={"TabularData": TabularData, "CollabData": CollabData},
    models=MODELS,
    tasks={
        "classification": Classification,
        "multi_label": MultiLabel,
        "regression": Regression,
        "quantile_regression": QuantileRegression,
        "poisson": Poisson,
        "gamma": Gamma,
        "tweedie": Tweedie,
        "combined": CombinedTask,
    },
    rules=(*DATA_RULES, *MODEL_RULES),
    checks=CHECKS,
    preprocessors={
        "tabular_preprocessor": TabularPreprocessor.build,
        "collab_preprocessor": CollabPreprocessor.build,
    },
    recognise=recognise,
    cli_options={
        **dict.fromkeys(DATA_COMMANDS, DATA_OPTIONS),
        "evaluate": EVALUATE_OPTIONS,
        "predict": PREDICT_OPTIONS,
    },
    refused_options=REFUSED,
    demo=demo_data,
    attributions=_attributions,
)
