"""A small table for ``flambeau demo tabular`` and the conformance kit."""

from __future__ import annotations

import numpy as np

from flambeau_tabular.data import TabularData


def demo_data(n_samples: int, seed: int) -> TabularData:
    """Return made-up loans of ``n_samples`` rows: numbers, categories, dates and missing cells.

    Whether a loan is repaid depends on income, amount, the kind of work and their combination, so
    that a linear model does not reach the best accuracy.
    """
    draws = np.random.default_rng(seed)
    income = np.exp(draws.normal(10.3, 0.5, n_samples))
    amount = np.exp(draws.normal(9.0, 0.8, n_samples))
    age = draws.integers(19, 75, n_samples).astype(np.float64)
    work = draws.choice(["employed", "self-employed", "retired", "student"], n_samples)
    days = draws.integers(0, 1_000, n_samples)
    burden = np.log(amount / income) + 0.8 * (work == "student") - 0.6 * (work == "employed")
    burden += 0.9 * np.sin(2 * np.pi * days / 365) * (age < 35)
    repaid = burden + draws.logistic(0, 0.25, n_samples) < np.median(burden)
    age[draws.random(n_samples) < 0.05] = np.nan
    table = {
        "age": age,
        "income": income.round(2),
        "amount": amount.round(2),
        "work": work,
        "day": np.datetime64("2022-01-01", "D") + days,
        "repaid": np.where(repaid, "yes", "no"),
    }
    return TabularData.from_df(table, "repaid", valid=0.2, test=0.2, seed=seed)
