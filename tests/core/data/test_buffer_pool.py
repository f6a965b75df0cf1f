from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from flambeau.data import Batch, LoaderOptions, MemoryDataset
from flambeau.data.buffer_pool import MIN_POOLED_BYTES, BufferPool

SHAPE, N = (512, 16), 5_000


def empty(pool: BufferPool) -> Tensor:
    return pool.empty(SHAPE, torch.float32)


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool(512 * 16 * 4)


def test_a_buffer_is_reused_once_unreferenced(pool: BufferPool) -> None:
    first = empty(pool)
    address = first.data_ptr()
    assert empty(pool).data_ptr() != address
    del first
    # torch's own allocator would give this memory to the tensor in between.
    between = torch.empty(SHAPE)
    assert between.data_ptr() != address
    assert empty(pool).data_ptr() == address


SHARED: dict[str, Callable[[Tensor], object]] = {
    "view": lambda x: x[3:5],
    "numpy": Tensor.numpy,
    "storage": Tensor.untyped_storage,
    "other dtype": lambda x: x.view(torch.int32),
    "detached": Tensor.detach,
}


@pytest.mark.parametrize("how", SHARED)
def test_a_shared_buffer_is_not_reused(pool: BufferPool, how: str) -> None:
    first = empty(pool)
    address = first.data_ptr()
    shared = SHARED[how](first)
    del first
    # More than are pool, and all of them kept.
    others = [empty(pool).zero_() for _ in range(8)]
    addresses = {other.data_ptr() for other in others}
    assert address not in addresses
    assert len(addresses) == 8
    del shared, others
    assert address in {tensor.data_ptr() for tensor in [empty(pool) for _ in range(4)]}


def test_a_buffer_saved_by_autograd_is_not_reused(pool: BufferPool) -> None:
    weight = torch.ones(SHAPE, requires_grad=True)
    loss = (weight * empty(pool).fill_(2.0)).sum()
    empty(pool).fill_(7.0)
    loss.backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full(SHAPE, 2.0))


def test_the_pool_has_at_most_four_buffers(pool: BufferPool) -> None:
    kept = [empty(pool) for _ in range(6)]
    # torch's own memory can be resized, an array's cannot.
    own = [tensor.untyped_storage().resizable() for tensor in kept]
    assert own == [False] * 4 + [True] * 2


def test_autograd_does_not_see_a_view(pool: BufferPool) -> None:
    weight = torch.full((16,), 2.0, requires_grad=True)
    with torch.no_grad():
        batch = empty(pool).fill_(3.0)
    # What autograd refuses of a view that was made without it.
    batch.mul_(weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full((16,), 3.0 * 512))
    assert empty(pool).requires_grad_().detach_().is_leaf


def test_a_short_batch_has_only_its_own_values(pool: BufferPool) -> None:
    assert pool.empty((3, 16), torch.float32).untyped_storage().nbytes() == 3 * 16 * 4


def test_buffers_have_torchs_alignment(pool: BufferPool) -> None:
    assert empty(pool).data_ptr() % 64 == 0


DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int64,
    torch.float8_e4m3fn,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.complex64,
]


def batches(x: Tensor, size: int = 512, device: str = "cpu") -> Iterator[Batch]:
    options = LoaderOptions(
        size, shuffle=True, seed=1, device=torch.device(device), keep_on_device=False
    )
    return MemoryDataset({"x": x}, {"y": torch.arange(len(x))}).loader(options).batches(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_batches_are_not_overwritten(dtype: torch.dtype) -> None:
    x = torch.randint(200, (N, 512), generator=torch.Generator().manual_seed(0)).to(dtype)
    assert 512 * x[:1].nbytes >= MIN_POOLED_BYTES
    kept = list(batches(x))
    assert sum(map(len, kept)) == N
    for batch in kept:
        assert batch.inputs["x"].dtype == dtype
        assert torch.equal(batch.inputs["x"], x[batch.target])


def test_an_epoch_of_large_batches_uses_two_buffers() -> None:
    x = torch.zeros(N, 512)
    # One is in use while the next is gathered.
    assert len({batch.inputs["x"].data_ptr() for batch in batches(x)}) <= 2


def test_a_buffer_is_never_larger_than_the_data() -> None:
    (batch,) = batches(torch.ones(N, 64), size=10**12)
    assert torch.equal(batch.inputs["x"], torch.ones(N, 64))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_columns_stay_quantised() -> None:
    x = torch.quantize_per_tensor(torch.randn(N, 512), 0.1, 3, torch.quint8)
    for batch in batches(x):
        assert torch.equal(batch.inputs["x"].dequantize(), x.dequantize()[batch.target])


@pytest.mark.parametrize("world_size", [3, 5])
def test_batches_of_each_rank_are_pooled(world_size: int) -> None:
    x = torch.arange(N * 512.0).reshape(N, 512)
    seen: list[Tensor] = []
    for rank in range(world_size):
        options = LoaderOptions(512, shuffle=True, rank=rank, world_size=world_size)
        loader = MemoryDataset({"x": x}, {"y": torch.arange(N)}).loader(options)
        for batch in loader.batches(0):
            assert torch.equal(batch.inputs["x"], x[batch.target])
            assert not batch.inputs["x"].untyped_storage().resizable()
            seen.append(batch.target)
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(N))


def test_columns_with_gradients_are_not_pooled() -> None:
    x = torch.ones(N, 64, requires_grad=True)
    sum(batch.inputs["x"].sum() for batch in batches(x)).backward()  # pyright: ignore
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(N, 64))


def test_batches_for_another_device_are_not_pooled() -> None:
    # The copy may still be under way when the next batch is gathered.
    for batch in batches(torch.zeros(N, 512), device="mps"):
        assert batch.inputs["x"].untyped_storage().resizable()
