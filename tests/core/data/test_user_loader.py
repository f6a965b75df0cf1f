import random as python_random
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from flambeau.data import BatchLayout, Loader, UserLoader
from flambeau.data.user_loader import check_order, count_samples, read_first_batches, runs_user_code
from flambeau.errors import ArgumentError, FlambeauWarning, InputError, ResumeError

N = 22


class Noisy(Dataset[Any]):
    """Random augmentation from all three global generators."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(2) + np.random.rand() + python_random.random(), index


class Stream(IterableDataset[Any]):
    def __init__(self, length: int | None) -> None:
        if length is not None:
            self.length = length
            Stream.__len__ = lambda self: self.length  # type: ignore[method-assign]
        elif hasattr(Stream, "__len__"):
            del Stream.__len__

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.zeros(2), 0)] * 8)


def noisy(**options: Any) -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, **options)


def states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state()
    return (
        torch.get_rng_state().tolist(),
        python_random.getstate(),
        (numpy_state[1].tolist(), numpy_state[2]),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": True},
        {"shuffle": True, "num_workers": 2},
        {"shuffle": True, "drop_last": True},
        {"sampler": WeightedRandomSampler([1.0] * N, N)},
    ],
    ids=["shuffled", "with workers", "without the last", "sampled"],
)
def test_a_resumed_run_gets_the_same_batches(
    checks: SimpleNamespace, options: dict[str, Any]
) -> None:
    loader = UserLoader(noisy(**options), seed=7)
    assert isinstance(loader, Loader)
    assert loader.can_resume
    for epoch in (0, 3):
        whole = checks.flat(loader.batches(epoch))
        assert len(whole) == loader.steps_per_epoch
        for start in (1, 3):
            torch.manual_seed(start)  # as in a new process, where the generators are elsewhere
            python_random.seed(start)
            resumed = UserLoader(noisy(**options), seed=7)
            assert checks.same(whole[start:], checks.flat(resumed.batches(epoch, start)))
    targets = [torch.cat([b.target for b in loader.batches(epoch)]).tolist() for epoch in (0, 1)]
    assert targets[0] != targets[1]
    if "sampler" not in options and "drop_last" not in options:
        assert sorted(targets[0]) == sorted(targets[1]) == list(range(N))


class SameRows(TensorDataset):
    """A class of the user's, which may draw."""


@pytest.mark.parametrize("sampler", [None, RandomSampler, WeightedRandomSampler])
def test_loaders_without_user_code_give_the_same_batches(
    checks: SimpleNamespace, sampler: Any
) -> None:
    x, y = torch.arange(N).float().unsqueeze(1), torch.arange(N)

    def epochs(kind: type[TensorDataset]) -> list[Any]:
        data = kind(x, y)
        options: dict[str, Any] = {"shuffle": True}
        if sampler is RandomSampler:
            options = {"sampler": RandomSampler(data, replacement=True, num_samples=70)}
        elif sampler is WeightedRandomSampler:
            options = {"sampler": WeightedRandomSampler([1.0] * N, N)}
        loader = DataLoader(data, batch_size=4, **options)
        assert runs_user_code(loader) is (kind is SameRows)
        found: list[Any] = []
        for epoch in (0, 1):
            for batch in UserLoader(loader, seed=3).batches(epoch):
                torch.rand(1)  # what a model draws between two batches must not matter
                found.append(batch)
        return checks.flat(found)

    assert checks.same(epochs(TensorDataset), epochs(SameRows))


def test_another_seed_gives_another_order() -> None:
    orders = [
        torch.cat([b.target for b in UserLoader(noisy(shuffle=True), seed=seed).batches(0)])
        for seed in (0, 1)
    ]
    assert not torch.equal(*orders)


def test_the_loaders_generator_is_seeded_and_restored(
    checks: SimpleNamespace,
) -> None:
    def make(seed: int) -> tuple[torch.Generator, UserLoader]:
        generator = torch.Generator().manual_seed(seed)
        return generator, UserLoader(noisy(shuffle=True, generator=generator), seed=0)

    generator, loader = make(42)
    before = generator.get_state()
    whole = checks.flat(loader.batches(2))
    assert torch.equal(generator.get_state(), before)
    assert generator.initial_seed() == 42
    assert checks.same(whole[2:], checks.flat(make(42)[1].batches(2, 2)))
    assert not checks.same(whole, checks.flat(make(43)[1].batches(2)))


def test_loading_does_not_change_the_global_generators() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    python_random.seed(1)
    before = states()
    batches = UserLoader(noisy(shuffle=True)).batches(0)
    next(batches)
    assert states() == before
    drawn = torch.rand(1), np.random.rand(), python_random.random()
    next(batches)
    read_first_batches(noisy(shuffle=True), BatchLayout())
    torch.manual_seed(1)
    np.random.seed(1)
    python_random.seed(1)
    assert drawn == (torch.rand(1), np.random.rand(), python_random.random())


def test_an_error_in_the_data_set_restores_the_generators() -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int) -> Any:
            torch.rand(3)
            raise OSError("no such photo")

    before = states()
    with pytest.raises(InputError, match="no such photo") as error:
        next(UserLoader(DataLoader(Broken())).batches(0))
    assert isinstance(error.value.__cause__, OSError)
    assert states() == before


def test_set_epoch_of_a_sampler_is_called() -> None:
    class Counting(SequentialSampler):
        epochs: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    loader = UserLoader(noisy(sampler=Counting(Noisy())))
    for epoch in (0, 4):
        list(loader.batches(epoch))
    assert Counting.epochs == [0, 4]


def test_any_iterable_with_a_length_is_accepted(checks: SimpleNamespace) -> None:
    batches = [(torch.full((size, 1), float(size)), torch.arange(size)) for size in (3, 3, 1)]
    loader = UserLoader(batches)
    found = list(loader.batches(5))
    assert [b.indices.tolist() for b in found if b.indices is not None] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]
    assert [(b.weight, b.epoch) for b in found] == [(3.0, 5), (3.0, 5), (1.0, 5)]
    assert checks.same(checks.flat(found[1:]), checks.flat(loader.batches(5, 1)))
    assert loader.can_resume


def test_a_loader_that_cannot_resume_gives_the_reason() -> None:
    streaming = UserLoader(DataLoader(Stream(8), batch_size=2))
    assert len(list(streaming.batches(0))) == 4
    assert not streaming.can_resume
    with pytest.raises(ResumeError, match=r"cannot start at step 2 .* IterableDataset"):
        streaming.batches(0, 2)
    persistent = UserLoader(noisy(shuffle=True, num_workers=1, persistent_workers=True))
    assert not persistent.can_resume
    with pytest.raises(ResumeError, match=r"persistent_workers=False, or pass the data sets"):
        persistent.batches(0, 1)


def test_invalid_loaders_raise() -> None:
    with pytest.raises(InputError, match=r"no len\(\) .* Define __len__ on its data set"):
        UserLoader(DataLoader(Stream(None), batch_size=2), part="valid")
    train = UserLoader(DataLoader(Stream(None), batch_size=2))
    assert not train.has_length
    with pytest.raises(InputError, match=r"no len\(\) .* or train by steps"):
        _ = train.steps_per_epoch
    with pytest.raises(ResumeError, match=r"has no len\(\)"):
        train.batches(0, 2)
    with pytest.raises(ArgumentError, match="can be used for one epoch only"):
        UserLoader(iter([1]))
    with pytest.raises(ArgumentError, match="is a int, which cannot be iterated"):
        UserLoader(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="valid loader has no batches"):
        UserLoader([], part="valid")


def test_an_epoch_shorter_than_len_is_an_error() -> None:
    loader = UserLoader(DataLoader(Stream(20), batch_size=2))
    with (
        warnings.catch_warnings(),
        pytest.raises(InputError, match=r"ended after 4 batches in epoch 0, but its len\(\) is 10"),
    ):
        list(loader.batches(0))


# ---------------------------------------------------------------- layouts


def test_a_pair_is_input_and_target_by_default() -> None:
    inputs, targets = BatchLayout().inputs_and_targets((1, 2))
    assert (inputs, targets) == ({"input": 1}, {"target": 2})


def test_tuples_and_dicts_follow_the_layout() -> None:
    assert BatchLayout(n_inputs=2).inputs_and_targets([1, 2, 3]) == (
        {"input_0": 1, "input_1": 2},
        {"target": 3},
    )
    assert BatchLayout(n_inputs=1).inputs_and_targets([1, 2, 3]) == (
        {"input": 1},
        {"target_0": 2, "target_1": 3},
    )
    assert BatchLayout(n_inputs=2).inputs_and_targets((1, 2)) == ({"input_0": 1, "input_1": 2}, {})
    assert BatchLayout(n_inputs=1).inputs_and_targets(7) == ({"input": 7}, {})
    layout = BatchLayout(inputs=("b", "a"), targets=["y"])  # type: ignore[arg-type]
    inputs, targets = layout.inputs_and_targets({"y": 0, "a": 1, "b": 2, "extra": 3})
    assert list(inputs) == ["b", "a"]
    assert targets == {"y": 0}


@pytest.mark.parametrize(
    ("layout", "sample", "message"),
    [
        (BatchLayout(), (1, 2, 3), r"tuples of 3, .* Write n_inputs="),
        (
            BatchLayout(),
            {"image": 1, "label": 2},
            r"Write inputs=\['image'\], targets=\['label'\]",
        ),
        (BatchLayout(), torch.zeros(4, 2), r"one tensor of shape \(4, 2\),.* write n_inputs=1"),
        (BatchLayout(n_inputs=3), (1, 2), "n_inputs is 3, but the data return tuples of 2"),
        (BatchLayout(inputs=("imag",)), {"image": 1}, r"no field 'imag'. Did you mean 'image'"),
        (
            BatchLayout(inputs=("x",)),
            (1, 2),
            "is for samples that are dicts, but the data return a tuple",
        ),
    ],
)
def test_a_missing_layout_names_the_argument_to_give(
    layout: BatchLayout, sample: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        layout.inputs_and_targets(sample)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "image"}, r"write inputs=\('image',\)"),
        ({"n_inputs": 1, "inputs": ("a",)}, "for tuples and inputs for dicts"),
        ({"targets": ("y",)}, "needs inputs="),
        ({"inputs": ()}, "at least one input"),
        ({"n_inputs": 0}, "at least 1"),
    ],
)
def test_invalid_layouts_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ArgumentError, InputError), match=message):
        BatchLayout(**options)


def test_batches_must_be_tensors_of_one_length() -> None:
    with pytest.raises(InputError, match="'target' of a batch is a list, not a tensor"):
        BatchLayout().batch((torch.zeros(2), ["a", "b"]))
    with pytest.raises(InputError, match="'input' has 2, 'target' has 3"):
        BatchLayout().batch((torch.zeros(2), torch.zeros(3)))
    with pytest.raises(InputError, match="'target' of a batch is a scalar tensor"):
        BatchLayout().batch((torch.zeros(2), torch.tensor(1)))
    assert BatchLayout().batch((np.zeros((2, 3), np.float32), torch.zeros(2))).input.shape == (2, 3)


# ---------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("options", "part", "code"),
    [
        ({}, "train", "train-not-shuffled"),
        ({"sampler": SequentialSampler(Noisy())}, "train", "train-not-shuffled"),
        ({"shuffle": True}, "valid", "valid-shuffled"),
        ({"sampler": WeightedRandomSampler([1.0] * N, N)}, "test", "test-shuffled"),
    ],
)
def test_an_unexpected_order_warns(options: dict[str, Any], part: str, code: str) -> None:
    with pytest.warns(FlambeauWarning, match=rf"^\[{code}\]"):
        check_order(noisy(**options), part)


def test_an_expected_or_unknown_order_does_not_warn() -> None:
    random_batches = BatchSampler(RandomSampler(Noisy()), 4, False)
    check_order(noisy(shuffle=True), "train")
    check_order(noisy(), "valid")
    check_order(DataLoader(Noisy(), batch_sampler=random_batches), "train")
    # A batch sampler of the user's own: nobody knows its order.
    check_order(DataLoader(Noisy(), batch_sampler=[[0, 1], [2, 3]]), "train")
    check_order([1, 2], "train")
    check_order(DataLoader(Stream(8)), "train")


def test_samplers_inside_torch_batch_samplers_are_found() -> None:
    sequential = BatchSampler(SequentialSampler(Noisy()), 4, False)
    with pytest.warns(FlambeauWarning, match="train-not-shuffled"):
        check_order(DataLoader(Noisy(), batch_sampler=sequential), "train")


def test_count_samples() -> None:
    data = TensorDataset(torch.zeros(10))
    assert count_samples(DataLoader(data, batch_size=4)) == 10
    assert count_samples(DataLoader(data, batch_size=4, drop_last=True)) == 8
    assert count_samples(DataLoader(Stream(8), batch_size=4)) == 8
    assert count_samples(DataLoader(Stream(None), batch_size=4)) == 0
    assert count_samples([1, 2]) == 0


class Growing:
    """A loader whose length depends on the epoch, as that of batches by number of tokens may."""

    def __init__(self, *lengths: int) -> None:
        self.lengths, self.epoch = lengths, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.lengths[self.epoch]

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(2, 3), torch.zeros(2)) for _ in range(len(self))])


def test_a_loader_that_grows_warns_with_both_lengths() -> None:
    loader = UserLoader(Growing(3, 5, 5, 2))
    assert len(list(loader.batches(0))) == 3
    message = r"loader-length\] .* has 5 batches in epoch 1, but had 3 .* the last 2 are not used"
    with pytest.warns(FlambeauWarning, match=message):
        assert len(list(loader.batches(1))) == 3
    assert len(list(loader.batches(2))) == 3  # once
    with pytest.raises(InputError, match=r"ended after 2 batches in epoch 3, but its len\(\) is 3"):
        list(loader.batches(3))


def test_a_list_that_grows_warns() -> None:
    batches = [(torch.ones(2, 3), torch.zeros(2))] * 3
    loader = UserLoader(batches)
    batches.append(batches[0])
    with pytest.warns(FlambeauWarning, match="has 4 batches in epoch 0, but had 3"):
        assert len(list(loader.batches(0))) == 3
    valid = UserLoader(batches[:3], part="valid")
    assert len(list(valid.batches(0))) == 3
