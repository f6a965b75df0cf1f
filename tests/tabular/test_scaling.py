"""Scaled and filled numbers against scikit-learn and NumPy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    KBinsDiscretizer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from flambeau.errors import FlambeauWarning, InputError
from flambeau_tabular.columns import ColumnKind, SpecOptions, TableSpec
from flambeau_tabular.columns.scaling import sorted_quantiles

# float32 has 7 digits, and the scaled numbers are below 10.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
NUMBER = {"x": ColumnKind("number")}


def skewed(n: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).lognormal(3.0, 1.0, n)


def encoded(train: np.ndarray, new: np.ndarray, scaling: str) -> np.ndarray:
    options = SpecOptions(scaling=scaling, out_of_range="keep")
    spec = TableSpec.fit(pa.table({"x": train}), None, NUMBER, options)
    return spec.encode(pa.table({"x": new})).numbers[:, 0].numpy()


def test_standard_scaling() -> None:
    train, new = skewed(), np.array([-50.0, 0.0, 20.0, 1e4])
    scaler = StandardScaler().fit(train[:, None])
    np.testing.assert_allclose(
        encoded(train, new, "standard"), scaler.transform(new[:, None])[:, 0], **TOLERANCE
    )
    # ddof 0: the standard deviation of 1, 2, 4 is 1.247, not 1.528.
    assert encoded(np.array([1.0, 2, 4]), np.array([4.0]), "standard") == pytest.approx(
        (4 - 7 / 3) / 1.247219
    )


def test_robust_scaling_and_smooth_clip() -> None:
    train, new = skewed(), np.array([-50.0, 0.0, 20.0, 1e4, 1e140])
    scaled = RobustScaler().fit(train[:, None]).transform(new[:, None])[:, 0]
    wanted = scaled / np.sqrt(1 + (scaled / 3) ** 2)
    np.testing.assert_allclose(encoded(train, new, "robust"), wanted, **TOLERANCE)
    assert encoded(train, new, "robust")[-1] == 3.0


def test_robust_scaling_where_the_quartiles_are_equal() -> None:
    """RealMLP divides by half of the range then."""
    train = np.array([0.0] * 99 + [10.0])
    scaled = np.array([0.0, 10.0, -5.0]) / (0.5 * 10.0)
    wanted = scaled / np.sqrt(1 + (scaled / 3) ** 2)
    np.testing.assert_allclose(
        encoded(train, np.array([0.0, 10.0, -5.0]), "robust"), wanted, **TOLERANCE
    )


def test_quantile_scaling() -> None:
    train = np.round(skewed(), 0)  # values repeat
    new = np.concatenate([train[:200], [-50.0, 1e4, 20.5]])
    noise = np.random.default_rng(0).standard_normal(1000) * 1e-5 * train.std()
    reference = QuantileTransformer(n_quantiles=33, output_distribution="normal", subsample=None)
    reference.fit((np.sort(train) + noise)[:, None])
    wanted = reference.transform(new[:, None])[:, 0]
    np.testing.assert_allclose(encoded(train, new, "quantile"), wanted, rtol=1e-5, atol=1e-5)
    assert wanted[-2] == pytest.approx(5.1993, abs=1e-4)  # beyond train


@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile", "none"])
def test_numbers_beyond_train_are_those_at_its_ends(scaling: str) -> None:
    train = skewed()
    spec = TableSpec.fit(pa.table({"x": train}), None, NUMBER, SpecOptions(scaling=scaling))
    new = np.array([-np.inf, -50.0, 20.0, 1e4, 1e140, np.nan])
    ends = np.array([np.median(train), train.min(), 20.0, train.max(), train.max(), np.nan])
    with pytest.warns(FlambeauWarning, match="missing in columns that had no missing cells"):
        found = spec.encode(pa.table({"x": new})).numbers
    assert torch.equal(found, spec.encode(pa.table({"x": ends})).numbers)
    assert spec.check(pa.table({"x": new}))["x"].outside == 0.5  # counted all the same
    np.testing.assert_allclose(
        spec.encode(pa.table({"x": train})).numbers[:, 0].numpy(), encoded(train, train, scaling)
    )
    restored = TableSpec.from_parts(spec.arguments(), spec.tensors())
    np.testing.assert_array_equal(restored.encode(pa.table({"x": ends[1:5]})).numbers, found[1:5])


def test_no_scaling() -> None:
    assert encoded(skewed(), np.array([1.5, 1e140]), "none").tolist() == [
        1.5,
        np.finfo(np.float32).max,
    ]
    with pytest.raises(InputError, match=r"Unknown scaling='minmax'\. Choose 'robust', 'standard'"):
        encoded(skewed(), skewed(), "minmax")


@pytest.mark.parametrize("scaling", ["robust", "standard", "quantile"])
def test_a_constant_column_is_zero(scaling: str) -> None:
    new = np.array([7.3, 8.0, -1e30])
    assert encoded(np.full(50, 7.3), new, scaling).tolist() == [0.0, 0.0, 0.0]


def test_missing_numbers_are_filled_with_the_median_and_flagged() -> None:
    train = skewed()
    train[::7] = np.nan
    train[3], train[5] = np.inf, -np.inf  # infinity is missing
    as_missing = np.where(np.isinf(train), np.nan, train)
    wanted = SimpleImputer(strategy="median", add_indicator=True).fit_transform(as_missing[:, None])
    table = pa.table({"x": train})
    spec = TableSpec.fit(table, None, NUMBER, SpecOptions(scaling="none"))
    found = spec.encode(table)
    np.testing.assert_allclose(found.numbers[:, 0], wanted[:, 0], **TOLERANCE)
    np.testing.assert_array_equal(found.flags[:, 0], wanted[:, 1])
    assert spec.flag_names == ("x is missing",)
    robust = TableSpec.fit(table, None, NUMBER).encode(table).numbers[:, 0]
    assert robust[0] == 0.0


def test_missing_only_at_prediction_is_filled_with_one_warning() -> None:
    spec = TableSpec.fit(pa.table({"x": [1.0, 2.0, 9.0]}), None, NUMBER)
    new = pa.table({"x": [None, np.inf, 2.0]})
    with pytest.warns(FlambeauWarning, match="no missing cells in train: 'x'"):
        found = spec.encode(new)
    assert found.numbers[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert spec.encode(new).flags.shape == (3, 0)


def test_statistics_use_train_rows_only() -> None:
    values = skewed()
    rows = np.arange(0, 1000, 3)
    spec = TableSpec.fit(pa.table({"x": values}), rows, NUMBER)
    others = values.copy()
    others[np.setdiff1d(np.arange(1000), rows)] = np.nan
    assert TableSpec.fit(pa.table({"x": others}), rows, NUMBER).hash() == spec.hash()
    assert TableSpec.fit(pa.table({"x": values[rows]}), None, NUMBER).hash() == spec.hash()
    assert TableSpec.fit(pa.table({"x": values}), None, NUMBER).hash() != spec.hash()


@pytest.mark.parametrize("n_bins", [1, 5, 48])
def test_edges_are_quantiles_of_the_train_rows(n_bins: int) -> None:
    values = np.round(skewed(), 0)
    spec = TableSpec.fit(pa.table({"x": values}), None, NUMBER, SpecOptions(scaling="none"))
    [edges] = spec.quantile_edges(n_bins)
    wanted = np.unique(np.quantile(values, np.linspace(0, 1, n_bins + 1)).astype(np.float32))
    np.testing.assert_array_equal(np.float32(edges), wanted)
    if 1 < n_bins < 48:
        bins = KBinsDiscretizer(n_bins, strategy="quantile")
        if "quantile_method" in bins.get_params():  # before 1.7 it was always linear
            bins.set_params(quantile_method="linear")
        np.testing.assert_allclose(edges, bins.fit(values[:, None]).bin_edges_[0], rtol=1e-6)
    scaled = TableSpec.fit(pa.table({"x": values}), None, NUMBER)
    numbers = scaled.encode(pa.table({"x": values})).numbers[:, 0].double().numpy()
    wanted = np.unique(np.quantile(numbers, np.linspace(0, 1, n_bins + 1)).astype(np.float32))
    np.testing.assert_allclose(scaled.quantile_edges(n_bins)[0], wanted, rtol=1e-6)


def test_edges_of_distinct_values_are_added() -> None:
    """Of 48 bins of rows two are left here for values that are not 0."""
    draws = np.random.default_rng(0)
    gain = np.where(draws.random(4000) < 0.02, np.round(draws.lognormal(8, 1, 4000), -2), 0.0)
    spec = TableSpec.fit(pa.table({"x": gain}), None, NUMBER, SpecOptions(scaling="none"))
    [rows], [both] = spec.quantile_edges(48), spec.quantile_edges(48, distinct=True)
    assert len(rows) == 3
    quantiles = np.quantile(np.unique(gain), np.linspace(0, 1, 49)).astype(np.float32)
    assert set(both) <= {*quantiles.tolist(), *rows}
    assert len(both) > 30
    assert np.diff(both).min() >= 1e-3 * (both[-1] - both[0])
    # Where all values differ, both quantiles are the same.
    even = TableSpec.fit(pa.table({"x": skewed()}), None, NUMBER)
    assert even.quantile_edges(48) == even.quantile_edges(48, distinct=True)
    assert even.quantile_edges(7) == even.quantile_edges(7, distinct=True)


def test_the_number_of_bins_is_checked() -> None:
    spec = TableSpec.fit(pa.table({"x": skewed()}), None, NUMBER)
    assert len(spec.quantile_edges(7)[0]) == 8  # between stored quantiles
    with pytest.raises(InputError, match="from 1 to 240, got 0"):
        spec.quantile_edges(0)


def test_quantiles_of_sorted_numbers_are_those_of_numpy() -> None:
    for n in (1, 2, 3, 10, 1000):
        values = np.sort(skewed(n))
        levels = np.linspace(0, 1, 241)
        np.testing.assert_array_equal(sorted_quantiles(values, levels), np.quantile(values, levels))
