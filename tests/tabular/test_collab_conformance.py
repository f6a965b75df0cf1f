"""Ratings and choices pass the checks of the conformance kit, with both models."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from flambeau.data.data import Data
from flambeau.testing import CHECKS, ConformanceCheck, DomainUnderTest, check_name
from flambeau_tabular import CollabData
from flambeau_tabular.collab_domain import COLLAB

# The record is that of the package, which has its own test.
OF_RECORD = {"check_data_classes_refer_to_the_record", "check_import_is_light"}
# The samples of choices are the rows of the split and the items that are drawn for them, so they
# are not the rows alone; test_collab_sampling.py tests their order, shards and resumption.
OF_ROWS = {
    "check_batches_are_valid",
    "check_order_of_batches",
    "check_predictor_equals_valid_loader",
}
OF_DATA = [check for check in CHECKS if check_name(check) not in OF_RECORD]


def made(n_samples: int, seed: int, *, rated: bool) -> Data:
    """Return ratings or choices that depend on latent factors of users and items."""
    draws = np.random.default_rng(seed)
    liked = draws.normal(size=(40, 3)) @ draws.normal(size=(3, 40))
    n = min(n_samples, 800)
    cells = draws.permutation(liked.size)[:n]
    if not rated:
        cells = np.argsort(-(liked + draws.gumbel(size=liked.shape)), axis=None)[:n]
        cells = draws.permutation(cells)
    rows = {"u": cells // 40, "i": cells % 40}
    if rated:
        rows["r"] = (3 + liked.reshape(-1)[cells]).clip(1, 5)
    rating = "r" if rated else None
    return CollabData.from_df(rows, user="u", item="i", rating=rating, test=0.2, seed=seed)


@cache
def under_test(*, rated: bool) -> DomainUnderTest:
    demo = partial(made, rated=rated)
    return DomainUnderTest(replace(COLLAB, demo=demo), models=["collab_dot", "collab_net"])


@pytest.mark.parametrize("check", OF_DATA, ids=check_name)
def test_ratings(check: ConformanceCheck) -> None:
    check(under_test(rated=True))


@pytest.mark.parametrize(
    "check", [each for each in OF_DATA if check_name(each) not in OF_ROWS], ids=check_name
)
def test_choices(check: ConformanceCheck) -> None:
    check(under_test(rated=False))
