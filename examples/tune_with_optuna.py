"""Search for the settings of a network with Optuna, and repeat the best trial from its plan.

    uv run --with optuna python examples/tune_with_optuna.py

The table comes with scikit-learn (569 rows, 30 numbers). Trials that are worse than the median of
the others are ended early. The search sees the train and the validation part; the test part is
scored once, at the end. 20 trials take about two minutes of one core.
"""

from __future__ import annotations

from typing import Any

import optuna  # pyright: ignore[reportMissingImports] installed for this script only
import torch
from sklearn.datasets import load_breast_cancer

from flambeau import Callback, Learner, Plan, TrainState
from flambeau_tabular import TabularData

SCORE = "valid_refined_log_loss"


class Report(Callback):
    """Reports the score of each epoch to a trial, and ends the run if the trial is pruned."""

    def __init__(self, trial: Any) -> None:
        self.trial = trial

    def on_epoch_end(self, state: TrainState) -> None:
        """Report the newest score."""
        self.trial.report(state.history.rows[-1][SCORE], state.position.epoch)
        if self.trial.should_prune():
            state.stop_reason = "pruned"


def table() -> TabularData:
    """Return the data: train, validation and test rows."""
    bunch: Any = load_breast_cancer(as_frame=True)
    return TabularData.from_df(bunch.frame, "target", valid=0.2, test=0.2)


def search(data: TabularData, trials: int, epochs: int) -> Any:
    """Return the study after these trials."""

    def objective(trial: Any) -> float:
        choices = {
            "lr": trial.suggest_float("lr", 1e-3, 0.1, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.1, log=True),
            "head": {"dropout": trial.suggest_float("dropout", 0.0, 0.4)},
            "hidden": [trial.suggest_categorical("width", [64, 128, 256])] * 3,
        }
        torch.manual_seed(0)  # of dropout; the rest is decided by the learner's seed
        learner = Learner(data, choices=choices, callbacks=[Report(trial)], quiet=True)
        learner.fit(epochs)
        trial.set_user_attr("plan", learner.plan.to_json())
        rows: Any = learner.history.rows
        if rows[-1]["epoch"] < epochs:
            raise optuna.TrialPruned
        return min(row[SCORE] for row in rows)  # that of the epoch that is kept

    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, n_trials=trials)
    return study


def main(trials: int = 20, epochs: int = 30) -> None:
    """Search, train the best plan again, and print its scores."""
    data = table()
    study = search(data, trials, epochs)
    pruned = sum(each.state == optuna.trial.TrialState.PRUNED for each in study.trials)
    print(f"{len(study.trials)} trials, {pruned} of them pruned; best {study.best_value:.4f}")
    print(study.best_params)
    torch.manual_seed(0)
    learner = Learner(data, plan=Plan.from_json(study.best_trial.user_attrs["plan"]), quiet=True)
    learner.fit()
    print("valid", learner.evaluate("valid"))
    print("test", learner.evaluate("test"))


if __name__ == "__main__":
    main()
