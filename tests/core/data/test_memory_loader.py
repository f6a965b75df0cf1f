from types import SimpleNamespace

import pytest
import torch

from flambeau.data import Loader, LoaderOptions, MemoryDataset
from flambeau.data.loader import Dataset, epoch_order
from flambeau.errors import InputError

N = 23
X = torch.arange(N * 3, dtype=torch.float32).reshape(N, 3)
Y = torch.arange(N)


def dataset(ids: torch.Tensor | None = None) -> MemoryDataset:
    return MemoryDataset({"x": X, "mask": Y.to(torch.uint8)}, {"y": Y}, ids)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_the_loader_contract_holds(checks: SimpleNamespace, shuffle: bool, batch_size: int) -> None:
    options = LoaderOptions(batch_size, shuffle=shuffle, seed=5)
    loader = dataset().loader(options)
    assert isinstance(loader, Loader)
    assert isinstance(dataset(), Dataset)
    checks.check_loader(lambda: dataset().loader(options), N, shuffles=shuffle)


def test_rows_keep_their_sample_numbers() -> None:
    ids = torch.arange(N) * 10 + 7
    for shuffle in (False, True):
        for batch in dataset(ids).loader(LoaderOptions(4, shuffle=shuffle)).batches(epoch=3):
            rows = batch.target
            assert batch.indices is not None
            assert torch.equal(batch.indices, ids[rows])
            assert torch.equal(batch.inputs["x"], X[rows])
            assert torch.equal(batch.inputs["mask"], rows.to(torch.uint8))
            assert batch.epoch == 3
            assert batch.weight == len(rows)


def test_shuffled_order_is_randperm_of_the_key() -> None:
    # The hand-written loop that the speed and parity tests compare with must be able to do this.
    from flambeau import random

    found = [b.target for b in dataset().loader(LoaderOptions(5, True, seed=9)).batches(2)]
    expected = torch.randperm(N, generator=random.generator(9, "shuffle", 2))
    assert torch.equal(torch.cat(found), expected)


@pytest.mark.parametrize("shuffle", [False, True])
def test_drop_last(shuffle: bool) -> None:
    loader = dataset().loader(LoaderOptions(4, shuffle=shuffle, drop_last=True))
    assert loader.steps_per_epoch == 5
    assert [len(batch) for batch in loader.batches(0)] == [4] * 5
    assert [len(batch) for batch in loader.batches(0, start_step=4)] == [4]


def test_only_unshuffled_batches_are_views() -> None:
    shuffled = list(dataset().loader(LoaderOptions(4, shuffle=True)).batches(0))
    before = X.clone()
    for batch in shuffled:
        batch.inputs["x"].zero_()
    assert torch.equal(X, before)
    first = next(dataset().loader(LoaderOptions(4)).batches(0))
    assert first.inputs["x"].data_ptr() == X.data_ptr()


def test_more_batches_than_a_chunk_of_index_views(
    checks: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = LoaderOptions(2, shuffle=True)
    whole = checks.flat(dataset().loader(options).batches(0))
    monkeypatch.setattr("flambeau.data.memory_loader._CHUNK", 3)
    for start in range(12):
        assert checks.same(whole[start:], checks.flat(dataset().loader(options).batches(0, start)))


def test_an_epoch_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    list(dataset().loader(LoaderOptions(4, shuffle=True)).batches(0))
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_costs_as_many_torch_calls_as_it_has_tensors() -> None:
    from torch.overrides import TorchFunctionMode

    class Count(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Count.calls += 1
            return func(*args, **(kwargs or {}))

    def calls(n: int) -> int:
        Count.calls = 0
        x = torch.zeros(n, 3)
        with Count():
            for _ in MemoryDataset({"x": x}, {"y": x}).loader(LoaderOptions(1, True)).batches(0):
                pass
        return Count.calls

    # Two gathers and the length of the batch: no per-sample work, nothing else per batch.
    assert calls(500) - calls(300) == 200 * 3


def test_errors() -> None:
    with pytest.raises(InputError, match="at least one input tensor"):
        MemoryDataset({}, {"y": Y})
    with pytest.raises(InputError, match="'x' has 23, 'y' has 22"):
        MemoryDataset({"x": X}, {"y": Y[1:]})
    with pytest.raises(InputError, match="'ids' has 2"):
        MemoryDataset({"x": X}, ids=torch.arange(2))
    with pytest.raises(InputError, match="at least one sample"):
        MemoryDataset({"x": X[:0]})
    with pytest.raises(InputError, match="'y' is a scalar tensor"):
        MemoryDataset({"x": X}, {"y": torch.tensor(1)})


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.25, 0.0])
@pytest.mark.parametrize("shuffle", [False, True])
def test_on_a_gpu_it_gives_the_same_batches(
    checks: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, share: float, shuffle: bool
) -> None:
    # share 0: nothing may stay on the device, so batches go through the pinned buffers.
    monkeypatch.setattr("flambeau.data.memory_loader.DEVICE_SHARE", share)
    device = torch.device("cuda", 0)
    x = torch.randn(5_000, 64)
    data = MemoryDataset({"x": x}, {"y": torch.arange(5_000)})
    on_cpu = data.loader(LoaderOptions(64, shuffle=shuffle)).batches(1)
    options = LoaderOptions(64, shuffle=shuffle, device=device)
    weights = torch.randn(64, 64, device=device)
    kept = []
    for batch in data.loader(options).batches(1):
        assert batch.input.device == device
        # Work that keeps the device busy while the next batches are on their way.
        for _ in range(20):
            weights = torch.tanh(weights @ weights)
        kept.append((batch.indices, batch.input * 1, batch.target * 1))
        del batch
    for batch, (indices, inputs, targets) in zip(on_cpu, kept, strict=True):
        assert torch.equal(batch.indices, indices)
        assert torch.equal(batch.input, inputs.cpu())
        assert torch.equal(batch.target, targets.cpu())


@pytest.mark.parametrize("shuffle", [False, True])
def test_targets_that_are_stored_small_are_wide_in_batches(shuffle: bool) -> None:
    small = MemoryDataset({"x": X}, {"y": Y.to(torch.int8)}, batch_dtypes={"y": torch.int64})
    wide = MemoryDataset({"x": X}, {"y": Y})
    options = LoaderOptions(4, shuffle=shuffle)
    for part in (small, small.with_columns(inputs={"x": X}), small.rows(torch.arange(N))):
        assert part.targets["y"].dtype == torch.int8
        pairs = zip(part.loader(options).batches(1), wide.loader(options).batches(1), strict=True)
        for batch, expected in pairs:
            assert batch.target.dtype == torch.int64
            assert torch.equal(batch.target, expected.target)
            assert batch.indices is not None
            assert batch.indices.dtype == torch.int64
    assert small.memory_bytes == wide.memory_bytes - 7 * N


def test_the_type_of_the_order_does_not_change_it() -> None:
    options = LoaderOptions(4, shuffle=True, seed=3)
    for n in (1, 1_000, 70_000):
        small = epoch_order(n, options, 2, dtype=torch.int32)
        assert small.dtype == torch.int32
        assert torch.equal(small.long(), epoch_order(n, options, 2))
