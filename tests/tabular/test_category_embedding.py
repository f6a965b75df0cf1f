"""Category vectors, unknown values and text bags against scikit-learn, loops and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder

from flambeau.errors import InputError
from flambeau_tabular.models.category_embedding import (
    CategoryEmbedding,
    category_widths,
    embedding_width,
)
from flambeau_tabular.models.text_bag import TextBag

CODES = torch.tensor([[0, 0, 0], [1, 1, 1], [2, 2, 2], [5, 3, 2], [3, 2, 0], [4, 3, 1]])


@pytest.mark.parametrize(
    ("n", "width"), [(2, 2), (10, 6), (18, 8), (1_000, 77), (2_000, 100), (10**6, 100)]
)
def test_the_width_follows_the_rule(n: int, width: int) -> None:
    assert embedding_width(n) == min(100, round(1.6 * n**0.56)) == width


def test_small_columns_are_one_hot() -> None:
    """Up to eight values, besides missing and unknown."""
    assert category_widths([2, 10, 11, 1_000]) == [0, 0, 6, 77]


def test_one_hot_equals_scikit_learns_with_columns_for_unknown() -> None:
    """Values: as OneHotEncoder(handle_unknown="ignore"); before them the element of unknown."""
    module = CategoryEmbedding([6, 5]).eval()
    codes = torch.cartesian_prod(torch.arange(6), torch.arange(5))
    reference = OneHotEncoder(
        categories=[[2, 3, 4, 5], [2, 3, 4]], handle_unknown="ignore", sparse_output=False
    ).fit(np.array([[2, 2]]))
    found = module(codes.to(torch.uint8)).numpy()
    values = np.concatenate([found[:, 1:5], found[:, 6:9]], axis=1)
    np.testing.assert_array_equal(values, reference.transform(codes.numpy()))
    np.testing.assert_array_equal(found[:, 0], codes[:, 0] == 1)
    np.testing.assert_array_equal(found[:, 5], codes[:, 1] == 1)
    assert module.chunks == [5, 4]


def test_two_values_share_an_element() -> None:
    module = CategoryEmbedding([4, 3, 2]).eval()
    found = module(torch.tensor([[0, 0, 0], [1, 1, 1], [2, 2, 0], [3, 2, 0]]))
    assert found.tolist() == [
        [0, 0, 0, 0, 0],
        [1, 0, 1, 0, 1],
        [0, -1, 0, 1, 0],
        [0, 1, 0, 1, 0],
    ]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_learned_vectors_are_rows_of_the_tables(dtype: torch.dtype) -> None:
    module = CategoryEmbedding([6, 4, 3], [2, 0, 3]).eval()
    found = module(CODES.to(dtype))
    assert module.chunks == [2, 2, 3]  # one-hot columns first
    torch.testing.assert_close(found[:, 2:4], module.tables[0].weight[CODES[:, 0]])
    torch.testing.assert_close(found[:, 4:], module.tables[1].weight[CODES[:, 2]])


def test_missing_is_zero_and_learned_vectors_are_standard_normal() -> None:
    torch.manual_seed(0)
    module = CategoryEmbedding([2_000]).eval()
    assert not module(torch.tensor([[0]])).any()
    vectors = module.tables[0].weight.detach()[1:]
    assert float(vectors.mean()) == pytest.approx(0, abs=0.01)
    assert float(vectors.std()) == pytest.approx(1, abs=0.01)


# ---------------------------------------------------------------- unknown values


def test_known_values_become_unknown_in_train_mode_only() -> None:
    module = CategoryEmbedding([6], unknown_dropout=0.25)
    codes = torch.arange(6).repeat(4_000).unsqueeze(1)
    torch.manual_seed(0)
    dropped = module(codes)[:, 0].bool()  # the element of unknown
    known = codes[:, 0] >= 2
    assert float(dropped[known].float().mean()) == pytest.approx(0.25, abs=0.01)
    assert bool(dropped[codes[:, 0] == 1].all())
    assert not dropped[codes[:, 0] == 0].any()
    assert torch.equal(module.eval()(codes)[:, 0].bool(), codes[:, 0] == 1)


def test_draws_are_those_of_the_global_generator() -> None:
    module = CategoryEmbedding([6, 30], unknown_dropout=0.3)
    codes = torch.randint(2, 6, (50, 2), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    first = module(codes)
    torch.manual_seed(7)
    drawn = torch.rand(50, 2) < 0.3
    expected = module.eval()(torch.where(drawn, 1, codes))
    assert torch.equal(first, expected)
    assert not torch.equal(module.train()(codes), module(codes))  # drawn anew in each call


def test_the_unknown_row_learns() -> None:
    """Gradients reach the vector of unknown, although no train row has the code 1."""
    torch.manual_seed(0)
    module = CategoryEmbedding([40], unknown_dropout=0.02)
    codes = torch.randint(2, 40, (2_000, 1))
    module(codes).sum().backward()
    gradient = module.tables[0].weight.grad
    assert bool(gradient[1].any())
    assert not gradient[0].any()  # no row is missing


def test_the_unknown_row_of_a_one_hot_column_learns() -> None:
    torch.manual_seed(0)
    module, layer = CategoryEmbedding([5], unknown_dropout=0.02), torch.nn.Linear(4, 1)
    layer(module(torch.randint(2, 5, (2_000, 1)))).sum().backward()
    assert bool(layer.weight.grad[0, 0])
    module.unknown_dropout = 0.0
    layer.zero_grad()
    layer(module(torch.randint(2, 5, (2_000, 1)))).sum().backward()
    assert not layer.weight.grad[0, 0]


def test_no_columns_give_no_elements() -> None:
    module = CategoryEmbedding([])
    assert module(torch.zeros(3, 0, dtype=torch.uint8)).shape == (3, 0)
    assert module.width == 0


@pytest.mark.parametrize(
    ("cardinalities", "widths", "share", "message"),
    [
        ([1], None, 0.0, "cardinality of category column 0 is 1"),
        ([3, 4], [2], 0.0, "category_width is \\[2\\], but there are 2"),
        ([3], [-1], 0.0, "category_width is \\[-1\\]"),
        ([3], None, 1.0, "unknown_dropout is 1.0"),
    ],
)
def test_invalid_arguments_are_refused(
    cardinalities: list[int], widths: list[int] | None, share: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CategoryEmbedding(cardinalities, widths, unknown_dropout=share)


# ---------------------------------------------------------------- text


def test_a_text_is_the_mean_of_its_tokens() -> None:
    module = TextBag(2, 4, 20, width=3)
    tokens = torch.tensor([[5, 7, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 9, 9, 9, 2]], dtype=torch.int32)
    table = module.bag.weight.detach()
    expected = torch.stack(
        [
            torch.cat([(table[5] + table[7]) / 2, table[1]]),
            torch.cat([torch.zeros(3), (3 * table[9] + table[2]) / 4]),
        ]
    )
    torch.testing.assert_close(module(tokens).detach(), expected)
    torch.testing.assert_close(module(tokens.long()).detach(), expected)
    assert module.chunks == [3, 3]


def test_padding_does_not_learn() -> None:
    module = TextBag(1, 3, 6, width=2)
    module(torch.tensor([[4, 0, 0]])).sum().backward()
    assert module.bag.weight.grad.any(dim=1).tolist() == [False] * 4 + [True, False]


@pytest.mark.parametrize("arguments", [(0, 4, 9), (1, 0, 9), (1, 4, 1)])
def test_an_impossible_bag_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="impossible"):
        TextBag(*arguments)
