import random as python_random
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flambeau import random as keyed
from flambeau.data import Batch, LazyDataset, Loader, LoaderOptions, WorkerLoader
from flambeau.errors import InputError, SplitError, TrainingError

N = 22


class Noisy:
    """Samples whose values come from all three global generators."""

    def __len__(self) -> int:
        return N

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        indices = torch.tensor(positions)
        noise = torch.rand(len(positions), 2) + np.random.rand() + python_random.random()
        return Batch({"x": noise}, {"y": indices * 10 + epoch}, indices=indices)


class Broken(Noisy):
    def __init__(self, how: str) -> None:
        self.how = how

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        if 13 in positions:
            if self.how == "own":
                raise SplitError("photo 13.png is empty")
            if self.how == "foreign":
                raise OSError("disk on fire")
            import os

            os._exit(3)
        return super().batch(positions, epoch)


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_loader_contract_holds(checks: SimpleNamespace, shuffle: bool) -> None:
    options = LoaderOptions(4, shuffle=shuffle, seed=2)
    assert isinstance(Noisy(), LazyDataset)
    assert isinstance(WorkerLoader(Noisy(), options), Loader)
    checks.check_loader(lambda: WorkerLoader(Noisy(), options), N, shuffles=shuffle)


def test_batches_do_not_depend_on_num_workers(checks: SimpleNamespace) -> None:
    loaders = [WorkerLoader(Noisy(), LoaderOptions(4, True, num_workers=n)) for n in (0, 1, 2)]
    for epoch, start in ((0, 0), (1, 0), (1, 3), (0, 2)):
        found = [checks.flat(loader.batches(epoch, start)) for loader in loaders]
        assert len(found[0]) == 6 - start
        assert checks.same(found[0], found[1])
        assert checks.same(found[0], found[2])
    for loader in loaders:
        loader.close()


def test_an_interrupted_epoch_does_not_affect_the_next(checks: SimpleNamespace) -> None:
    loader = WorkerLoader(Noisy(), LoaderOptions(4, True, num_workers=2))
    wanted = checks.flat(WorkerLoader(Noisy(), LoaderOptions(4, True)).batches(1))
    for count in range(4):
        passing = loader.batches(0)
        for _ in range(count):
            next(passing)
        passing.close()
        assert checks.same(checks.flat(loader.batches(1)), wanted)
    # A pass inside a pass: the inner one reads in this process.
    outer = loader.batches(1)
    first = checks.flat([next(outer)])
    assert checks.same(checks.flat(loader.batches(1)), wanted)
    assert checks.same(first + checks.flat(outer), wanted)
    loader.close()


def test_workers_persist_over_epochs() -> None:
    class Who(Noisy):
        def batch(self, positions: Sequence[int], epoch: int) -> Batch:
            import os

            indices = torch.tensor(positions)
            return Batch({"pid": torch.full((len(positions),), os.getpid())}, indices=indices)

    loader = WorkerLoader(Who(), LoaderOptions(4, num_workers=1))
    pids = {int(batch.input[0]) for epoch in range(3) for batch in loader.batches(epoch)}
    loader.close()
    assert len(pids) == 1


def test_seeds_depend_on_epoch_and_step_and_are_restored() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), python_random.getstate()
    batch = list(WorkerLoader(Noisy(), LoaderOptions(4, seed=8)).batches(3))[2]
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), python_random.getstate()
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]
    number = keyed.key(8, "worker", 3, 2)
    noise = torch.rand(4, 2, generator=torch.Generator().manual_seed(number))
    noise = noise + np.random.RandomState(number & 0xFFFFFFFF).rand()
    assert torch.equal(batch.input, noise + python_random.Random(number).random())
    assert batch.epoch == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_names_the_samples_and_keeps_its_message(workers: int) -> None:
    options = LoaderOptions(4, num_workers=workers)
    with pytest.raises(
        InputError, match=r"samples at positions 12, 13, 14, 15 failed: OSError: disk on fire"
    ):
        list(WorkerLoader(Broken("foreign"), options).batches(0))
    with pytest.raises(SplitError, match=r"^photo 13\.png is empty") as caught:
        list(WorkerLoader(Broken("own"), options).batches(0))
    assert str(caught.value) == "photo 13.png is empty"
    if workers:
        assert "in batch" in caught.value.__notes__[0]


def test_a_dead_worker_is_explained() -> None:
    loader = WorkerLoader(Broken("dead"), LoaderOptions(4, num_workers=1))
    with pytest.raises(TrainingError, match=r"worker process died .* reduce num_workers"):
        list(loader.batches(0))
    loader.close()


def test_an_empty_data_set_raises() -> None:
    class Empty(Noisy):
        def __len__(self) -> int:
            return 0

    with pytest.raises(InputError, match="at least one sample"):
        WorkerLoader(Empty(), LoaderOptions(4))
