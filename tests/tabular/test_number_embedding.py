"""Number embeddings against the published equations, slow loops and the authors' package."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import KBinsDiscretizer
from torch import Tensor

from flambeau.errors import InputError
from flambeau_tabular.models.number_embedding import (
    BiasedPeriodicEmbedding,
    NumberLinear,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
    PiecewiseLinearEncoding,
    ple_edges,
)

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(9, 3, generator=DRAWS)


def doubles(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().double().numpy() for name, p in module.named_parameters()}


# ---------------------------------------------------------------- periodic


@pytest.mark.parametrize("lite", [False, True])
def test_plr_equals_the_published_equation(lite: bool) -> None:
    torch.manual_seed(1)
    module = PeriodicEmbedding(3, 4, n_frequencies=5, sigma=0.7, lite=lite)
    weights, found = doubles(module), module(X).detach().numpy()
    for row in range(len(X)):
        for j in range(3):
            angles = [2 * math.pi * c * float(X[row, j]) for c in weights["frequencies"][j]]
            v = np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
            if lite:  # nn.Linear stores (out, in)
                expected = weights["linear.weight"] @ v + weights["linear.bias"]
            else:
                expected = v @ weights["linear.weight"][j] + weights["linear.bias"][j]
            np.testing.assert_allclose(found[row, j], np.maximum(expected, 0), atol=1e-5)


def test_pbld_equals_the_published_equation() -> None:
    torch.manual_seed(2)
    module = BiasedPeriodicEmbedding(3, 4, n_frequencies=6, sigma=0.5)
    weights, found = doubles(module), module(X).detach().numpy()
    for row in range(len(X)):
        for j in range(3):
            x = float(X[row, j])
            v = np.cos(2 * math.pi * weights["frequencies"][j] * x + weights["phase_bias"][j])
            expected = v @ weights["linear.weight"][j] + weights["linear.bias"][j]
            np.testing.assert_allclose(found[row, j, :3], expected, atol=1e-5)
            assert found[row, j, 3] == np.float32(x)


def test_initial_frequencies_have_the_scale_sigma() -> None:
    torch.manual_seed(0)
    for sigma in (0.01, 5.0):
        plr = PeriodicEmbedding(50, n_frequencies=100, sigma=sigma).frequencies.detach()
        assert float(plr.std()) == pytest.approx(sigma, rel=0.05)
        assert float(plr.abs().max()) <= 3 * sigma
        pbld = BiasedPeriodicEmbedding(50, n_frequencies=100, sigma=sigma)
        assert float(pbld.frequencies.detach().std()) == pytest.approx(sigma, rel=0.05)
        assert float(pbld.phase_bias.detach().abs().max()) <= math.pi


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_sigma_that_is_no_scale_is_refused(sigma: float) -> None:
    for kind in (PeriodicEmbedding, BiasedPeriodicEmbedding):
        with pytest.raises(InputError, match="sigma of a periodic embedding"):
            kind(2, sigma=sigma)


def test_number_linear_is_a_layer_for_each_number() -> None:
    torch.manual_seed(3)
    module, values = NumberLinear(3, 4, 2), torch.randn(5, 3, 4)
    for j in range(3):
        expected = values[:, j] @ module.weight[j] + module.bias[j]
        torch.testing.assert_close(module(values)[:, j], expected)
    assert float(module.weight.detach().abs().max()) <= 0.5


# ---------------------------------------------------------------- edges


def test_edges_are_numpys_quantiles() -> None:
    numbers = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    for n_bins in (1, 4, 48):
        expected = np.quantile(numbers.astype(np.float64), np.linspace(0, 1, n_bins + 1), axis=0)
        found = np.array(ple_edges(numbers, n_bins)).T
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_edges_equal_those_of_kbinsdiscretizer() -> None:
    numbers = np.random.default_rng(1).exponential(size=(500, 2))
    reference = KBinsDiscretizer(
        8, encode="ordinal", strategy="quantile", quantile_method="linear"
    ).fit(numbers)
    for found, expected in zip(ple_edges(numbers, 8), reference.bin_edges_, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_equal_quantiles_count_once() -> None:
    numbers = np.array([[0.0, 5.0], [0.0, 5.0], [0.0, 5.0], [1.0, 5.0]])
    [few, constant] = ple_edges(numbers, 4)
    assert few == [0.0, 0.25, 1.0]
    assert constant == [5.0, 6.0]
    # Distinct as float64 but not as float32: a bin would have the width 0.
    assert ple_edges(np.array([[1.0], [1.0 + 1e-12]]), 2) == [[1.0, 2.0]]
    # 1e9 + 1 is 1e9 in float32.
    assert ple_edges(np.array([[1e9], [1e9]]), 2) == [[1e9, 1e9 + 1000]]


@pytest.mark.parametrize(
    ("numbers", "n_bins", "message"),
    [
        (np.zeros((0, 2)), 4, "at least one row"),
        (np.zeros(3), 4, "shape \\(3,\\)"),
        (np.zeros((3, 1)), 0, "n_bins=0"),
        (np.array([[0.0, np.nan]]), 4, "Column 1 of the numbers has NaN"),
        (np.array([[np.inf]]), 4, "Column 0"),
    ],
)
def test_edges_of_invalid_numbers_are_refused(
    numbers: np.ndarray, n_bins: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ple_edges(numbers, n_bins)


# ---------------------------------------------------------------- piecewise linear

EDGES = [[-1.0, 0.0, 0.5, 2.0], [0.0, 1.0], [-2.0, -1.5, 3.0]]
# Beyond the edges, at edges, and between them.
POINTS = torch.tensor(
    [
        [-3.0, -1.0, -5.0],
        [-1.0, 0.0, -2.0],
        [-0.5, 0.3, -1.7],
        [0.0, 1.0, -1.5],
        [0.2, 2.0, 0.0],
        [2.0, 0.9, 3.0],
        [7.0, 9.0, 4.5],
    ]
)


def encoded(x: float, edges: list[float], width: int) -> list[float]:
    """Equation 1 of the paper, element by element."""
    n = len(edges) - 1
    values = []
    for t in range(1, n + 1):
        low, high = edges[t - 1], edges[t]
        if x < low and t > 1:
            values.append(0.0)
        elif x >= high and t < n:
            values.append(1.0)
        else:
            values.append((x - low) / (high - low))
    return values + [0.0] * (width - n)


def test_the_encoding_equals_the_published_equation() -> None:
    found = PiecewiseLinearEncoding(EDGES)(POINTS)
    expected = [[encoded(float(row[j]), EDGES[j], 3) for j in range(3)] for row in POINTS]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("version", ["A", "B"])
def test_the_embedding_equals_a_slow_loop(version: Any, relu: bool) -> None:
    torch.manual_seed(4)
    module = PiecewiseLinearEmbedding(EDGES, 4, version=version, relu=relu)
    with torch.no_grad():  # the pieces of version B are 0 at first
        module.linear.weight.normal_()
    weights, found = doubles(module), module(POINTS).detach().numpy()
    for row in range(len(POINTS)):
        for j in range(3):
            x = float(POINTS[row, j])
            pieces = np.array(encoded(x, EDGES[j], 3)) @ weights["linear.weight"][j]
            if version == "A":
                expected = pieces + weights["linear.bias"][j]
                expected = np.maximum(expected, 0) if relu else expected
            else:
                pieces = np.maximum(pieces, 0) if relu else pieces
                expected = weights["slope"][j] * x + weights["bias"][j] + pieces
            np.testing.assert_allclose(found[row, j], expected, rtol=1e-5, atol=1e-5)


def test_version_b_is_linear_at_first() -> None:
    module = PiecewiseLinearEmbedding(EDGES, 4)
    middle = module((POINTS[:1] + POINTS[1:2]) / 2)
    torch.testing.assert_close(middle, (module(POINTS[:1]) + module(POINTS[1:2])) / 2)


def test_edges_are_not_stored_twice() -> None:
    module = PiecewiseLinearEmbedding(EDGES, 4)
    assert set(module.state_dict()) == {"linear.weight", "slope", "bias"}


@pytest.mark.parametrize("edges", [[[0.0]], [[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 1.0 + 1e-12]]])
def test_edges_that_do_not_increase_are_refused(edges: list[list[float]]) -> None:
    with pytest.raises(InputError, match="The bin edges of number 0"):
        PiecewiseLinearEncoding(edges)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(InputError, match="'A' or 'B'"):
        PiecewiseLinearEmbedding(EDGES, 4, version="C")  # type: ignore[arg-type]


# ---------------------------------------------------------------- the authors' package


def theirs() -> Any:
    return pytest.importorskip(
        "rtdl_num_embeddings", reason="needs the authors' package rtdl_num_embeddings"
    )


@pytest.mark.parametrize("lite", [False, True])
def test_plr_equals_the_authors_module(lite: bool) -> None:
    mine = PeriodicEmbedding(3, 4, n_frequencies=5, sigma=0.7, lite=lite)
    reference = theirs().PeriodicEmbeddings(
        3, 4, n_frequencies=5, frequency_init_scale=0.7, lite=lite
    )
    with torch.no_grad():
        reference.periodic.weight.copy_(mine.frequencies)
        reference.linear.load_state_dict(mine.linear.state_dict())
    torch.testing.assert_close(mine(X), reference(X))


def in_their_order(weight: Tensor) -> Tensor:
    """The authors put the last bin of each number at the end, and the zeros before it."""
    return torch.stack(
        [
            torch.cat([w[: len(e) - 2], w[len(e) - 1 :], w[len(e) - 2 : len(e) - 1]])
            for w, e in zip(weight, EDGES, strict=True)
        ]
    )


@pytest.mark.filterwarnings("ignore:The .*feature has just two bin edges")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("version", ["A", "B"])
def test_ple_equals_the_authors_module(version: Any, relu: bool) -> None:
    mine = PiecewiseLinearEmbedding(EDGES, 4, version=version, relu=relu)
    reference = theirs().PiecewiseLinearEmbeddings(
        [torch.tensor(e) for e in EDGES], 4, activation=relu, version=version
    )
    with torch.no_grad():
        mine.linear.weight.normal_()
        reference.linear.weight.copy_(in_their_order(mine.linear.weight))
        if version == "A":
            reference.linear.bias.copy_(mine.linear.bias)
        else:
            reference.linear0.weight.copy_(mine.slope)
            reference.linear0.bias.copy_(mine.bias)
    torch.testing.assert_close(mine(POINTS), reference(POINTS))


def test_edges_equal_those_of_the_authors() -> None:
    numbers = torch.randn(300, 3, generator=DRAWS)
    numbers[:, 2] = numbers[:, 2].round()
    for mine, reference in zip(
        ple_edges(numbers.numpy(), 16), theirs().compute_bins(numbers, 16), strict=True
    ):
        torch.testing.assert_close(torch.tensor(mine), reference, rtol=1e-5, atol=1e-6)
