"""Negatives of implicit feedback: never a known positive, uniform, the same for every loader."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flambeau.data.loader import LoaderOptions
from flambeau.data.memory_loader import MemoryDataset
from flambeau.errors import InputError
from flambeau_tabular import CollabData
from flambeau_tabular.collab_sampling import SampledDataset, UnseenItems

N_USERS, N_ITEMS = 12, 9
VALUES = {"n_negatives": 3, "min_count": 1}


def pairs(seed: int = 0, share: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    users, items = np.nonzero(draws.random((N_USERS, N_ITEMS)) < share)
    order = draws.permutation(len(users))
    return users[order], items[order]


def made(**more: object) -> CollabData:
    users, items = pairs()
    return CollabData.from_df({"u": users, "i": items}, user="u", item="i", **more)


def known(data: CollabData, *parts: str) -> set[tuple[int, int]]:
    rows = np.concatenate([data.split.part(part) for part in parts])
    frame = data.interactions.frame.take(rows)
    return set(zip(frame.column("u").to_pylist(), frame.column("i").to_pylist(), strict=True))


def decoded(data: CollabData, samples: MemoryDataset) -> list[tuple[int, int, float]]:
    """Return user, item and target of each sample."""
    fitted = data.preprocessor(VALUES)
    users, items = map(int, fitted.users.values), fitted.item_values()
    names = dict(enumerate(users, start=2))
    return [
        (names[int(u)], items[int(i) - 2], float(t))
        for u, i, t in zip(*samples.inputs.values(), samples.targets["target"], strict=True)
    ]


# ---------------------------------------------------------------- one draw


def test_each_rank_gives_the_item_that_a_slow_loop_gives() -> None:
    users, items = pairs()
    unseen = UnseenItems(np.r_[users, users], np.r_[items, items], N_ITEMS)
    for user in range(N_USERS + 1):  # the last one has seen nothing
        free = [i for i in range(N_ITEMS) if i not in set(items[users == user])]
        repeated = np.full(len(free), user)
        assert unseen.count(repeated).tolist() == [len(free)] * len(free)
        ranks = (np.arange(len(free)) + 0.5) / max(len(free), 1)
        assert unseen.draw(repeated, ranks).tolist() == free


def test_draws_of_all_users_together_equal_draws_of_each() -> None:
    users, items = pairs(3, 0.7)
    unseen = UnseenItems(users, items, N_ITEMS)
    asked = np.array([user for user in users if unseen.count(np.array([user]))[0]])
    uniform = np.random.default_rng(1).random(len(asked))
    together = unseen.draw(asked, uniform)
    alone = [unseen.draw(asked[at : at + 1], uniform[at : at + 1])[0] for at in range(len(asked))]
    assert together.tolist() == alone
    assert not set(zip(asked, together, strict=True)) & set(zip(users, items, strict=True))


# ---------------------------------------------------------------- an epoch


def test_negatives_are_never_known_positives_and_differ_between_epochs() -> None:
    data = made(valid=0.2)
    dataset = data.dataset("train", data.preprocessor(VALUES), VALUES)
    assert isinstance(dataset, SampledDataset)
    train, n = known(data, "train"), len(data.split.train)
    epochs = [decoded(data, dataset.choices.samples(5, epoch)) for epoch in (0, 1, 0)]
    for samples in epochs:
        assert len(samples) == len(dataset) == 4 * n
        positives = [(u, i) for u, i, target in samples if target == 1]
        negatives = [(u, i) for u, i, target in samples if target == 0]
        assert sorted(positives) == sorted(train)
        assert len(negatives) == 3 * n
        assert not set(negatives) & train
    assert epochs[0] == epochs[2] != epochs[1]
    assert decoded(data, dataset.choices.samples(6, 0)) != epochs[0]


def test_unseen_items_are_drawn_equally_often() -> None:
    data = made(valid=0)
    choices = data.dataset("train", data.preprocessor(VALUES), VALUES).choices
    counts: dict[tuple[int, int], int] = {}
    for epoch in range(200):
        for user, item, target in decoded(data, choices.samples(0, epoch)):
            if not target:
                counts[user, item] = counts.get((user, item), 0) + 1
    users, items = pairs()
    for user in np.unique(users):
        n_seen = int((users == user).sum())
        free = [counts.get((user, i), 0) for i in range(N_ITEMS) if i not in items[users == user]]
        expected = 200 * 3 * n_seen / len(free)
        # Chi-squared with at most 8 degrees of freedom exceeds 30 once in 5,000 cases.
        assert sum((count - expected) ** 2 / expected for count in free) < 30


def test_negatives_of_valid_are_fixed_and_leave_out_its_choices() -> None:
    data = made(valid=0.3)
    fitted = data.preprocessor(VALUES)
    first, second = (data.dataset("valid", fitted, VALUES) for _ in range(2))
    assert isinstance(first, MemoryDataset)
    assert isinstance(second, MemoryDataset)
    assert torch.equal(first.inputs["items"], second.inputs["items"])
    negatives = {(u, i) for u, i, target in decoded(data, first) if not target}
    assert not negatives & known(data, "train", "valid")


def test_ranks_and_resumed_runs_get_the_same_samples() -> None:
    data = made(valid=0.2)
    dataset = data.dataset("train", data.preprocessor(VALUES), VALUES)

    def batches(start: int = 0, **more: int) -> list[list[list[float]]]:
        options = LoaderOptions(batch_size=16, shuffle=True, seed=3, **more)
        loader = dataset.loader(options)
        assert loader.steps_per_epoch == -(-len(dataset) // 16)
        return [
            torch.stack([*b.inputs.values(), b.targets["target"][:, 0]], 1).tolist()
            for b in loader.batches(2, start)
        ]

    whole = batches()
    assert batches(2) == whole[2:]
    shards = [batches(rank=rank, world_size=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shards, strict=True)] == whole
    ids = torch.cat([b.indices for b in dataset.loader(LoaderOptions(16)).batches(0)])
    assert len(ids.unique()) == len(dataset)


def test_users_who_chose_everything_have_no_negatives() -> None:
    rows = {"u": ["all"] * 3 + ["one"], "i": [1, 2, 3, 1]}
    data = CollabData.from_df(rows, user="u", item="i", valid=0)
    choices = data.dataset("train", data.preprocessor(VALUES), VALUES).choices
    samples = choices.samples(0, 0)
    assert len(choices) == len(samples) == 4 + 3
    drawn = samples.inputs["users"][samples.targets["target"][:, 0] == 0]
    assert drawn.tolist() == [3, 3, 3]  # "one"
    full = {"u": [1, 1, 2, 2], "i": ["a", "b", "a", "b"]}
    data = CollabData.from_df(full, user="u", item="i", valid=0)
    with pytest.raises(InputError, match=r"Every user chose all 2 items.*rating="):
        data.dataset("train", data.preprocessor(VALUES), VALUES)


def test_rare_users_share_a_code_but_not_what_they_chose() -> None:
    rows = {"u": ["a", "a", "b", "c"], "i": [1, 2, 1, 2]}
    data = CollabData.from_df(rows, user="u", item="i", valid=0)
    values = {"n_negatives": 2, "min_count": 2}
    fitted = data.preprocessor(values)
    samples = data.dataset("train", fitted, values).choices.samples(0, 0)
    assert fitted.users.values == ("a",)
    negative = samples.targets["target"][:, 0] == 0
    # a chose both items; b and c, which are unknown, get the item that they did not choose.
    assert samples.inputs["users"][negative].tolist() == [1, 1, 1, 1]
    assert samples.inputs["items"][negative].tolist() == [3, 3, 2, 2]
