"""Statistics of outputs, gradients and attention, compared with slow definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau.inspect.watch.attention_statistics import (
    ATTENTION_COLUMNS,
    attention_row,
    of_multi_head,
    of_sdpa,
    of_weights,
)
from flambeau.inspect.watch.layer_statistics import (
    GRADIENT_COLUMNS,
    OUTPUT_COLUMNS,
    active_units,
    gradient_statistics,
    norm_of,
    output_statistics,
)
from flambeau.inspect.watch.log_bins import GRADIENT_BINS, N_BINS, OUTPUT_BINS, LogBins
from flambeau.inspect.watch.unit_axis import UnitAxis


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def row(values: Tensor, axis: int = 1, **options: tuple[float, float]) -> dict[str, float]:
    return dict(
        zip(OUTPUT_COLUMNS, output_statistics(values, axis, **options)[0].tolist(), strict=True)
    )


def test_statistics_of_a_small_output_are_those_of_its_values() -> None:
    values = drawn(40, 6) * torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0, 1.0]) + 0.3
    values[:10, 0] = 0.0
    found = row(values)
    assert found["mean"] == pytest.approx(values.mean().item(), rel=1e-5)
    assert found["rms"] == pytest.approx(values.square().mean().sqrt().item(), rel=1e-5)
    assert found["largest"] == pytest.approx(values.abs().max().item())
    assert found["zeros"] == pytest.approx(10 / 240)
    eigenvalues = torch.linalg.eigvalsh(values.double().T.cov())
    rank = eigenvalues.sum() ** 2 / eigenvalues.square().sum()
    assert found["rank"] == pytest.approx(rank.item(), rel=1e-4)
    between = values.var(0, correction=0).mean() / values.square().mean()
    assert found["differs"] == pytest.approx(between.item(), rel=1e-5)
    assert math.isnan(found["saturated"])
    assert math.isnan(found["input_rms"])


def test_an_output_that_does_not_depend_on_the_sample() -> None:
    assert row(drawn(1, 6).expand(40, 6) + 1e-4 * drawn(40, 6))["differs"] < 1e-6
    # The same for all samples, but not for all positions.
    assert row(drawn(1, 5, 6).expand(40, 5, 6), axis=2)["differs"] == 0.0


def test_equal_units_are_twins_but_scaled_and_rare_ones_are_not() -> None:
    values = drawn(100, 600)
    assert row(values)["twins"] == 0
    values[:, 3] = values[:, 1] * 2.0
    values[:, 9] = values[:, 11] = 0.0
    values[7, 9] = values[7, 11] = 1.0  # active for one sample in 100
    assert row(values)["twins"] == 0
    values = values[:, :100].clone()
    values[:, 40] = values[:, 60]
    found = row(values)
    assert (found["twins"], found["twin_a"], found["twin_b"]) == (2, 40, 60)
    large = drawn(100, 1024)
    large[:, 801] = large[:, 301]  # every second unit is compared: 1, 3, …
    assert (row(large)["twin_a"], row(large)["twin_b"]) == (301, 801)


def test_saturated_units_are_near_a_bound_for_almost_all_samples() -> None:
    values = torch.sigmoid(drawn(100, 4) * torch.tensor([0.1, 1.0, 1.0, 1.0]))
    values[:, 2] = 0.999
    values[:50, 3], values[50:, 3] = 0.001, 0.999
    assert row(values, bounds=(0.0, 1.0))["saturated"] == 0.5


def test_nonfinite_values_are_counted() -> None:
    values = drawn(10, 4)
    values[0, 0], values[1, 1] = torch.inf, torch.nan
    assert row(values)["nonfinite"] == pytest.approx(2 / 40)


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (1, 9, 4), (2, 3, 8, 8), (2, 3, 4, 4, 4)])
def test_any_shape_has_statistics(shape: tuple[int, ...]) -> None:
    axis = min(1, len(shape) - 1) if shape else 0
    assert math.isfinite(row(torch.ones(shape), axis=max(axis, 0))["rms"])
    assert gradient_statistics(torch.ones(shape), max(axis, 0))[0][0] == 1.0


def test_a_gradient_has_its_size_and_its_zeros() -> None:
    values = drawn(20, 5)
    values[:, 0] = 0.0
    found = dict(zip(GRADIENT_COLUMNS, gradient_statistics(values, 1)[0].tolist(), strict=True))
    assert found["gradient_rms"] == pytest.approx(values.square().mean().sqrt().item(), rel=1e-5)
    assert found["gradient_zeros"] == pytest.approx(0.2)


def test_a_gradient_of_one_position_alone_has_its_size() -> None:
    """The last position of a recurrent network, or the class token, may not be in the part."""
    for position in (0, -1):
        values = torch.zeros(8, 65, 4)
        values[:, position] = 1.0
        assert gradient_statistics(values, 2)[0][0] == pytest.approx(65**-0.5)


@pytest.mark.parametrize("size", [1, 2])
def test_random_units_of_few_inputs_are_no_twins(size: int) -> None:
    for seed in range(10):
        draws = torch.Generator().manual_seed(seed)
        x, weight = (torch.randn(256, size, generator=draws) for _ in range(2))
        bias = torch.randn(256, generator=draws)
        values = x @ weight.T + bias
        assert row(values)["twins"] == 0
        values[:, 200] = values[:, 30]
        found = row(values)
        assert (found["twins"], found["twin_a"], found["twin_b"]) == (2, 30, 200)


def test_a_unit_is_active_if_any_value_of_the_whole_output_is_not_zero() -> None:
    values = torch.zeros(500, 3, 20, 20)
    values[499, 1, 19, 19] = 1e-6
    assert active_units(values, 1).tolist() == [False, True, False]
    assert active_units(-values, 1).tolist() == [False, True, False]
    assert active_units(values, 1, never_negative=True).tolist() == [False, True, False]
    assert active_units(values * math.nan, 1).tolist() == [True, True, True]
    assert active_units(values.to(torch.complex64), 1).tolist() == [False, True, False]
    assert active_units(values[:0], 1).tolist() == [False, False, False]


@pytest.mark.parametrize("bins", [OUTPUT_BINS, GRADIENT_BINS, LogBins(-3, 1)])
def test_each_value_is_in_the_bin_between_its_edges(bins: LogBins) -> None:
    edges = bins.edges()
    assert len(edges) == N_BINS + 1
    assert edges == sorted(edges)
    for value in (0.0, 0.26, -0.26, 3.0, -5.0, 2.0**-9, 1.0):
        shares = bins.shares(torch.tensor([value]))
        [index] = shares.nonzero().flatten().tolist()
        low, high = edges[index], edges[index + 1]
        if abs(value) < edges[-1]:
            assert min(abs(low), abs(high)) <= abs(value) or low < 0 < high
            assert low <= value <= high
    many = bins.shares(drawn(50_000))
    assert many.sum().item() == pytest.approx(1.0, abs=1e-5)
    ends = bins.shares(torch.tensor([torch.inf, -torch.inf, 1e30, torch.nan]))
    assert (ends[-1], ends[0], ends[N_BINS // 2]) == (0.5, 0.25, 0.25)


# ---------------------------------------------------------------- attention


def attention(found: Tensor | None) -> dict[str, float]:
    assert found is not None
    return dict(zip(ATTENTION_COLUMNS, found.tolist(), strict=True))


def test_equal_weights_have_entropy_one_and_one_position_has_its_share() -> None:
    found = attention(of_weights(torch.full((2, 3, 5, 8), 1 / 8)))
    assert found["entropy"] == pytest.approx(1.0)
    assert found["one_position"] == pytest.approx(1 / 8)


def test_a_mask_that_leaves_one_position_to_all_queries() -> None:
    allowed = torch.zeros(6, 6, dtype=torch.bool)
    allowed[:, 2] = True
    weights = allowed.float().expand(2, 3, 6, 6)
    entropy, share = attention_row(weights, allowed).tolist()
    assert math.isnan(entropy)
    assert share == 1.0
    narrow = torch.eye(6, dtype=torch.bool)  # each query attends to itself
    assert attention_row(narrow.float().expand(2, 3, 6, 6), narrow)[1] == pytest.approx(1 / 6)


def test_attention_on_one_position() -> None:
    same = torch.zeros(2, 3, 5, 8)
    same[..., 4] = 1.0
    found = attention(of_weights(same))
    assert (found["entropy"], found["one_position"]) == (0.0, 1.0)
    each_its_own = torch.eye(8).expand(2, 3, 8, 8)
    found = attention(of_weights(each_its_own))
    assert (found["entropy"], found["one_position"]) == (0.0, pytest.approx(1 / 8))
    one_head = torch.full((2, 3, 5, 8), 1 / 8)
    one_head[:, 0] = same[:, 0]
    assert attention(of_weights(one_head))["one_position"] == pytest.approx(1 / 8)


@pytest.mark.parametrize("masked", ["", "bool", "float", "causal"])
def test_weights_are_computed_anew_from_queries_and_keys(masked: str) -> None:
    query, key, value = (drawn(3, 2, 6, 4, seed=i) * 2 for i in range(3))
    options: dict[str, object] = {}
    if masked == "causal":
        options["is_causal"] = True
    elif masked:
        mask = torch.ones(3, 1, 1, 6, dtype=torch.bool)
        mask[0, ..., 5:] = False
        mask[1, ..., 3:] = False  # fewer than 4 positions: left out
        options["attn_mask"] = mask if masked == "bool" else torch.where(mask, 0.0, -1e9)
    # The identity as values returns the weights.
    weights = F.scaled_dot_product_attention(query, key, torch.eye(6).expand(3, 2, 6, 6), **options)
    counts = {"": [6] * 18, "causal": [1, 2, 3, 4, 5, 6] * 3}.get(
        masked, [5] * 6 + [3] * 6 + [6] * 6
    )
    entropies = []
    for index in range(18):
        if counts[index] >= 4:
            for head in range(2):
                p = weights[index // 6, head, index % 6].double()
                entropies.append(-(p * p.clamp(min=1e-30).log()).sum() / math.log(counts[index]))
    found = attention(of_sdpa((query, key, value), options))
    assert found["entropy"] == pytest.approx(torch.stack(entropies).mean().item(), rel=1e-4)


@pytest.mark.parametrize("separate", [False, True])
def test_weights_of_multihead_attention_are_those_of_the_module(separate: bool) -> None:
    torch.manual_seed(1)
    size = {"kdim": 6, "vdim": 6} if separate else {}
    module = nn.MultiheadAttention(8, 2, batch_first=True, **size)
    query, key = drawn(3, 5, 8) * 3, drawn(3, 7, 6 if separate else 8, seed=1) * 3
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 5:] = True
    seen: list[Tensor | None] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.multi_head_attention_forward:
                seen.append(of_multi_head(args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Watch():
        _, weights = module(query, key, key, key_padding_mask=padding, average_attn_weights=False)
    allowed = ~padding[:, None, None, :]
    count = allowed.expand_as(weights).sum(-1).float()
    entropy = torch.special.entr(weights).sum(-1) / count.log()
    assert attention(seen[0])["entropy"] == pytest.approx(entropy.mean().item(), rel=1e-4)


# ---------------------------------------------------------------- the axis of units


def test_layers_without_units_have_those_of_the_layer_before() -> None:
    axis = UnitAxis()
    axis.start()
    image, sequence = torch.zeros(2, 8, 4, 4), torch.zeros(2, 16, 8)
    assert axis.after(nn.Conv2d(1, 8, 3), image) == 1
    assert axis.after(nn.ReLU(), image) == 1
    assert axis.after(nn.ReLU(), sequence) == 2  # flattened and transposed in between
    assert axis.after(nn.Conv1d(1, 8, 3), sequence) == 1
    assert axis.after(None, sequence) == 1
    assert axis.after(nn.Linear(8, 8), sequence) == 2
    assert axis.after(nn.Linear(8, 8), image) == 3  # channels last
    assert axis.after(nn.GELU(), image) == 3
    assert axis.after(nn.ReLU(), torch.zeros(3, 4)) == 1
    assert axis.after(nn.ReLU(), torch.zeros(3)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_the_norm_of_any_precision_is_float32(dtype: torch.dtype) -> None:
    values = torch.full((300, 300), 3.0).to(dtype)
    found = norm_of(values)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(900.0, rel=1e-6)  # 65,504 is the largest square in half
