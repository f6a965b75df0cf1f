"""Score frozen recipes on the test rows of three tables, beside gradient boosting.

    python examples/tables_benchmark.py adult_defaults            # looks at the test rows
    python examples/tables_benchmark.py adult_best --valid        # validation rows only
    python examples/tables_benchmark.py --report                  # writes the page

A recipe is a file in ``examples/table_recipes``: the set, options of the table, the model, choices
of the plan, and "folds" for the ensemble of ``fit_folds``. Its choices are made on validation rows,
which are drawn from the train rows (``--valid``; with folds, on the rows that each of them holds
out). The test score is refused unless the recipe, this script and the reader of the set are as they
were committed, and every look is appended to ``looks.jsonl`` before the score is printed. A look
that is in the log is not repeated, so an interrupted run continues. Data are read from
``$FLAMBEAU_DATA``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adult_income
import bike_sharing
import california_housing
import numpy as np
import pandas as pd
from frozen_recipe import frozen_commit, logged_look, version_of
from sklearn import ensemble, metrics

from flambeau import Learner, Split
from flambeau_tabular import TabularData, TabularOptions

EXAMPLES = Path(__file__).resolve().parent
RECIPES = EXAMPLES / "table_recipes"
RESULTS = EXAMPLES.parent / "docs" / "benchmarks" / "2026-11-tables"


@dataclass(frozen=True)
class Case:
    """A set of data with its split.

    Attributes:
        reader: The example that reads the set.
        target: Name of the target column.
        read: Return all rows, and the part of each: "train", "valid" or "test".
        runs: Number of runs: seeds, or splits.
        boosting: Settings of HistGradientBoosting by name; "drop" names columns that it lacks.
        options: How the table is read, besides the recipe.
    """

    reader: Any
    target: str
    read: Callable[[Path, int], tuple[pd.DataFrame, np.ndarray]]
    runs: int
    boosting: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]


def read_adult(folder: Path, run: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the train file, a tenth of it for validation, and the test file."""
    train, test = adult_income.read(folder / "adult")
    order = np.random.default_rng(run).permutation(len(train))
    part = np.full(len(train) + len(test), "test", object)
    part[order] = np.where(np.arange(len(train)) < len(train) // 10, "valid", "train")
    return pd.concat([train, test], ignore_index=True), part


def read_california(folder: Path, run: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the districts, in random order a tenth for the test and a tenth for validation."""
    frame = california_housing.read(folder / "california_housing")
    order = np.random.default_rng(run).permutation(len(frame))
    tenth, part = len(frame) // 10, np.full(len(frame), "train", object)
    part[order[:tenth]], part[order[tenth : 2 * tenth]] = "test", "valid"
    return frame, part


def read_bike(folder: Path, run: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the hours in the order of time: train, validation, then the last fifth."""
    frame = bike_sharing.read(folder / "bike_sharing")
    split, part = bike_sharing.split_of(len(frame)), np.full(len(frame), "train", object)
    for name in ("valid", "test"):
        part[split.part(name)] = name
    return frame, part


ROUNDS = {"max_iter": 400, "early_stopping": False}
CASES = {
    "adult": Case(adult_income, adult_income.TARGET, read_adult, 3, {"defaults": {}}, {}),
    "california": Case(
        california_housing,
        california_housing.TARGET,
        read_california,
        5,
        {"400 rounds": ROUNDS, "defaults": {}},
        {},
    ),
    "bike": Case(
        bike_sharing,
        bike_sharing.TARGET,
        read_bike,
        3,
        {"defaults": {}, "400 rounds": ROUNDS, "without the date": {"drop": [bike_sharing.TIME]}},
        {"time": bike_sharing.TIME},
    ),
}


# ---------------------------------------------------------------- scores


def train_recipe(
    recipe: Mapping[str, Any], run: int, folder: Path, part: str
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the scores of a recipe on a part, and what its training took."""
    case = CASES[recipe["set"]]
    frame, parts = case.read(folder, run)
    split = Split.from_parts({name: np.flatnonzero(parts == name) for name in np.unique(parts)})
    options = TabularOptions(**{**case.options, **recipe.get("options", {})})
    data = TabularData.from_df(frame, case.target, split=split, options=options)
    learner = Learner(data, recipe.get("model"), choices=recipe.get("choices", {}), seed=run)
    started, cpu = time.perf_counter(), time.process_time()
    folds, members = recipe.get("folds"), None
    if folds is None:
        learner.fit()
        predict, epochs = learner.predict, len(learner.history.rows)
    else:
        members = learner.fit_folds(folds, [run])
        predict, epochs = members.predict, learner.plan["epochs"].value
    notes = {
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.perf_counter() - started, 1),
        "threads": learner.plan["num_threads"].value,
        "epochs": epochs,
    }
    if members is not None and part == "valid":
        return dict(members.scores), notes
    chosen = frame[parts == part]
    found = predict(chosen)
    if case.target in found:
        return scores_of(chosen[case.target], found[case.target]), notes
    classes = sorted(frame[case.target].unique())
    return scores_of(chosen[case.target], found[classes].to_numpy(), classes), notes


def train_boosting(
    name: str, settings: Mapping[str, Any], run: int, folder: Path, part: str
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the same for HistGradientBoosting, which also trains on the validation rows.

    For a validation score it trains on the train rows only.
    """
    case = CASES[name]
    frame, parts = case.read(folder, run)
    is_train = parts != "test" if part == "test" else parts == "train"
    settings = dict(settings)
    inputs = frame.drop(columns=[case.target, *settings.pop("drop", [])])
    for date in inputs.select_dtypes("datetime").columns:
        inputs[date] = (inputs[date] - inputs[date].min()).dt.days
    texts = inputs.select_dtypes(["object", "string"]).columns
    inputs = inputs.astype(dict.fromkeys(texts, "category"))
    y = frame[case.target]
    is_number = pd.api.types.is_numeric_dtype(y)
    kind: Any = ensemble.HistGradientBoostingRegressor
    if not is_number:
        kind = ensemble.HistGradientBoostingClassifier
    cpu = time.process_time()
    model = kind(categorical_features="from_dtype", random_state=run, **settings)
    model.fit(inputs[is_train], y[is_train])
    notes = {"cpu_s": round(time.process_time() - cpu, 1)}
    rows, chosen = inputs[parts == part], y[parts == part]
    if is_number:
        return scores_of(chosen, model.predict(rows)), notes
    return scores_of(chosen, model.predict_proba(rows), list(model.classes_)), notes


def scores_of(target: Any, found: Any, classes: list[str] | None = None) -> dict[str, float]:
    """Return the scores of numbers, or of the probabilities ``(n, 2)`` of the sorted classes."""
    if classes is None:
        return {
            "rmse": float(metrics.root_mean_squared_error(target, found)),
            "mae": float(metrics.mean_absolute_error(target, found)),
        }
    positive = (target == classes[1]).to_numpy()
    return {
        "accuracy": float((np.asarray(classes)[found.argmax(1)] == target).mean()),
        "auroc": float(metrics.roc_auc_score(positive, found[:, 1])),
        "log_loss": float(metrics.log_loss(positive, found[:, 1])),
    }


# ---------------------------------------------------------------- looks at the test rows


def look(name: str, run: int, folder: Path, log: Path) -> dict[str, Any]:
    """Return the entry of the log for a recipe and a run; trains it if there is none.

    ``SET:hgb:SETTING`` names gradient boosting instead of a recipe.
    """
    case_name, _, setting = name.partition(":hgb:")
    if setting:
        version = json.dumps(CASES[case_name].boosting[setting], sort_keys=True)
        commit = frozen_commit(Path(__file__).resolve())
    else:
        path = RECIPES / f"{name}.json"
        recipe = json.loads(path.read_text())
        case_name = recipe["set"]
        reader = Path(CASES[case_name].reader.__file__)
        commit = frozen_commit(path, (Path(__file__).resolve(), reader))
        version = version_of(path, Path(__file__).resolve())

    def score() -> dict[str, Any]:
        if setting:
            settings = CASES[case_name].boosting[setting]
            scores, notes = train_boosting(case_name, settings, run, folder, "test")
        else:
            scores, notes = train_recipe(recipe, run, folder, "test")
        return {**scores, **notes}

    key = {"recipe": name, "run": run, "version": version}
    return logged_look(log, key, commit, EXAMPLES, score)


def main() -> None:
    """Score recipes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="recipes, or SET:hgb:SETTING")
    parser.add_argument("--valid", action="store_true", help="score the validation rows")
    parser.add_argument("--runs", type=int, help="number of runs; by default those of the set")
    parser.add_argument("--report", action="store_true", help="write the page")
    given = parser.parse_args()
    folder = Path(os.environ.get("FLAMBEAU_DATA", "."))
    for name in given.names:
        case_name, _, setting = name.partition(":hgb:")
        recipe = {} if setting else json.loads((RECIPES / f"{name}.json").read_text())
        case = CASES[recipe.get("set", case_name)]
        for run in range(given.runs or case.runs):
            if not given.valid:
                print(json.dumps(look(name, run, folder, RESULTS / "looks.jsonl")), flush=True)
            elif setting:
                settings = case.boosting[setting]
                print(name, run, *train_boosting(case_name, settings, run, folder, "valid"))
            else:
                print(name, run, *train_recipe(recipe, run, folder, "valid"), flush=True)
    if given.report:
        from tables_report import write_report

        write_report(RESULTS)


if __name__ == "__main__":
    main()
