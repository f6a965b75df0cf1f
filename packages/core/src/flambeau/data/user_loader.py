"""A loader of the user's own (torch's ``DataLoader``, a list of batches) as one of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,  # pyright: ignore[reportUnknownVariableType] torch's is untyped
)

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.collate import BatchLayout
from flambeau.data.loader import Loader, LoaderOptions
from flambeau.errors import (
    ArgumentError,
    FlambeauError,
    FlambeauWarning,
    InputError,
    ResumeError,
    TrainingError,
)
from flambeau.global_rng import TemporarySeed
from flambeau.torch_internals import shut_down_workers

_PURPOSE = "foreign-loader"
RANDOM_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers of torch that draw."""

_NOT_KEYED: AbstractContextManager[None] = nullcontext()


class UserLoader(Loader):
    """Batches of a loader that the user made, in an order that can be resumed.

    The loader's iterator is made, and each batch fetched, with the global generators of torch,
    NumPy and Python keyed by (seed, epoch, step); they are put back afterwards. Shuffling and
    augmentation then depend on nothing else, and a resumed run gets the same batches by skipping
    those that it has had (they are read and dropped). A ``generator`` of the loader or of its
    sampler is keyed too, by its own ``initial_seed()``. It costs 36 µs a batch in all (2-core
    EPYC); a ``DataLoader`` that runs no user code in this process draws before its first batch
    alone and is keyed there; a list or tuple of batches costs 2 µs.

    A batch's ``indices`` count the samples of the epoch as they come: the loader does not say
    which samples they are.

    Args:
        loader: Anything with ``len()`` that can be iterated again every epoch.
        layout: Which parts of its batches are inputs and targets.
        seed: Keys order and augmentation.
        part: "train", "valid" or "test": whether it should shuffle.
        rank: Which of the run's processes this is.
        world_size: How many there are. Where the loader has a ``DistributedSampler`` its batches
            are this process's own; else the processes take turns, a batch each, which train
            loaders cannot do.

    Raises:
        ArgumentError: ``loader`` is no iterable, or an iterator that can be used only once.
        InputError: It has no length, or the processes would see a sample twice.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        layout: BatchLayout | None = None,
        *,
        seed: int = 0,
        part: str = "train",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._steps = count_batches(loader, part)
        self.rank, self.world_size = rank, world_size
        self._takes_turns = world_size > 1 and not is_sharded(loader, part, world_size)
        self._read: list[tuple[object, Batch]] = []
        self.loader = loader
        self.layout = layout or BatchLayout()
        self.seed = seed
        self.part = part

    @property
    def steps_per_epoch(self) -> int:
        return self._steps

    @property
    def can_resume(self) -> bool:
        """Whether ``batches`` can start at a later step or epoch in a new process."""
        return not self.not_resumable_reason

    @property
    def not_resumable_reason(self) -> str:
        """Why it cannot be resumed and what to do; empty where it can."""
        loader = _torch_loader(self.loader)
        if loader is None:
            return ""
        if isinstance(loader.dataset, IterableDataset):
            return (
                "its data set is an IterableDataset, which need not give the same stream again. "
                "Use a map-style data set (with __getitem__) to resume inside an epoch."
            )
        if loader.persistent_workers:
            return (
                "its persistent workers carry their random numbers from one epoch to the next. "
                "Use persistent_workers=False, or hand over the data sets themselves with "
                "TensorData.from_datasets, whose workers persist and resume."
            )
        return ""

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches from ``start_step`` on.

        Raises:
            ResumeError: ``start_step`` is not 0 and the loader cannot be resumed.
            InputError: A batch is not as declared, or the epoch is shorter than ``len()`` said.
        """
        if start_step and self.not_resumable_reason:
            raise ResumeError(
                f"The {self.part} loader cannot start at step {start_step} of an epoch: "
                + self.not_resumable_reason
            )
        if isinstance(self.loader, list | tuple):
            ready = cast("Sequence[object]", self.loader)
            batches = self._ready_batches(ready, epoch, start_step)
        else:
            batches = self._batches(epoch, start_step)
        return batches if self.world_size == 1 else self._share_of(batches)

    def _share_of(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """What this process uses of them."""
        for turn, batch in enumerate(batches):
            if not self._takes_turns:
                # Numbers that no other process has: they key the draws of a sample.
                indices = cast(torch.Tensor, batch.indices)
                batch.indices = indices * self.world_size + self.rank
            elif turn % self.world_size != self.rank:
                continue
            yield batch

    def _ready_batches(
        self, ready: Sequence[object], epoch: int, start_step: int
    ) -> Iterator[Batch]:
        """Batches that lie there already: no code of the user's runs, so no generator is keyed."""
        if len(ready) < self._steps:
            raise self._too_short(len(ready), epoch)
        seen = 0
        for step in range(self._steps):
            raw = ready[step]
            if step >= len(self._read) or self._read[step][0] is not raw:
                del self._read[step:]  # those after it count on from its samples
                batch = self.layout.batch(raw)
                batch.indices = torch.arange(seen, seen + len(batch))
                self._read.append((raw, batch))
            known = self._read[step][1]
            seen += len(known)
            if step >= start_step:
                # New dictionaries: what a transform puts into them must not stay.
                yield Batch(
                    dict(known.inputs),
                    dict(known.targets),
                    weight=known.weight,
                    indices=known.indices,
                    epoch=epoch,
                )

    def _batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        borrowed, seed, purpose = TemporarySeed(), self.seed, f"{_PURPOSE}/{self.part}"
        own = _Generators(self.loader)
        keyed_steps = self._steps if runs_user_code(self.loader) else 1
        seen = 0
        try:
            with borrowed.at(keyed.key(seed, purpose, epoch)):
                own.start(epoch)
                batches = iter(self.loader)
            for step in range(self._steps):
                draws = step < keyed_steps
                with borrowed.at(keyed.key(seed, purpose, epoch, step)) if draws else _NOT_KEYED:
                    try:
                        raw = next(batches)
                    except StopIteration:
                        raise self._too_short(step, epoch) from None
                    except FlambeauError:
                        raise
                    except Exception as error:
                        unreadable = self._unreadable(step, epoch, error, batches)
                        del batches  # see shut_down_workers
                        raise unreadable from error
                batch = self.layout.batch(raw)
                first, seen = seen, seen + len(batch)
                if step < start_step:
                    continue
                batch.indices = torch.arange(first, seen)
                batch.epoch = epoch
                yield batch
        finally:
            own.restore()

    def _unreadable(
        self, step: int, epoch: int, error: Exception, batches: object
    ) -> FlambeauError:
        where = f"The {self.part} loader failed at batch {step} of epoch {epoch}"
        # Of an error in a worker process torch gives the whole traceback; its last line says what.
        said = str(error).strip().splitlines()[-1:] or [""]
        died = isinstance(error, ConnectionError | EOFError) and "Caught " not in str(error)
        if died or "exited unexpectedly" in str(error):
            shut_down_workers(batches, error)
            return TrainingError(
                f"{where}: a worker process died ({said[0].rstrip('.')}). Often "
                "memory ran out: use fewer workers (num_workers), or num_workers=0 to see why."
            )
        kind = type(error).__name__
        words = said[0] if said[0].startswith(kind) else f"{kind}: {said[0]}"
        return InputError(
            f"{where}: {words}. Look at the samples of that batch; TensorData.from_datasets with the "
            "data sets themselves names the sample."
        )

    def _too_short(self, step: int, epoch: int) -> InputError:
        return InputError(
            f"The {self.part} loader ended after {step} batches in epoch {epoch}, but its len() "
            f"is {self._steps}. Make len() the number of batches that every epoch gives."
        )


class UserLoaderDataset:
    """A user's loader where a data set is expected: its batch size and order stay its own."""

    def __init__(
        self, loader: Iterable[Any], layout: BatchLayout, part: str, first: Batch | None = None
    ) -> None:
        self.user_loader = loader
        self.layout = layout
        self.part = part
        self.first = first  # a first batch, where one was read to see what the data are

    def __len__(self) -> int:
        """Samples where the loader knows them, else batches."""
        return count_samples(self.user_loader) or count_batches(self.user_loader, self.part)

    def loader(self, options: LoaderOptions) -> UserLoader:
        """The user's loader, keyed by ``options.seed``."""
        return UserLoader(
            self.user_loader,
            self.layout,
            seed=options.seed,
            part=self.part,
            rank=options.rank,
            world_size=options.world_size,
        )


def count_batches(loader: Iterable[Any], part: str) -> int:
    """Batches in an epoch of ``loader``, which must be iterable again and again.

    Raises:
        ArgumentError: It is no iterable, or an iterator that can be used only once.
        InputError: It has no length, or no batch.
    """
    if not hasattr(loader, "__iter__"):
        raise ArgumentError(
            f"The {part} loader is a {type(loader).__name__}, which cannot be iterated. Pass a "
            "DataLoader, or a list of batches."
        )
    if isinstance(loader, Iterator):
        raise ArgumentError(
            f"The {part} loader is a {type(loader).__name__}, an iterator that is used up after "
            "one epoch. Pass the DataLoader itself, or a list of batches."
        )
    try:
        steps = len(cast(Sequence[Any], loader))
    except TypeError as error:
        raise InputError(
            f"The {part} loader has no len() ({error}), so epochs and schedules cannot be laid "
            "out. Define __len__ on its data set (samples in an epoch), or wrap the loader in a "
            "class with __iter__ and __len__ (batches in an epoch)."
        ) from error
    if not steps:
        raise InputError(f"The {part} loader has no batches.")
    return steps


def is_sharded(loader: Iterable[Any], part: str, world_size: int) -> bool:
    """Whether the loader gives each process its own samples, as ``DistributedSampler`` does.

    Raises:
        InputError: It does not and is the train loader; it shares with another number of
            processes; or it fills up a last batch with samples that would be counted twice.
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None))
    candidates = (*owners, batch_sampler, loader)
    sampler: Any = next((s for s in candidates if hasattr(s, "num_replicas")), None)
    if sampler is None:
        if part == "train":
            raise InputError(
                f"The train loader gives every one of the {world_size} processes the same samples. "
                "Give its DataLoader a torch.utils.data.DistributedSampler, or hand over the data "
                "sets themselves with TensorData.from_datasets, whose batches are shared out."
            )
        return False
    if sampler.num_replicas != world_size:
        raise InputError(
            f"The {part} loader's sampler shares with {sampler.num_replicas} processes, but the "
            f"run has {world_size}. Leave num_replicas out: the sampler asks torch.distributed."
        )
    doubled = getattr(sampler, "total_size", 0) - len(getattr(sampler, "dataset", ()))
    if part != "train" and doubled > 0:
        raise InputError(
            f"The {part} loader's sampler repeats {doubled} samples so that every process has as "
            "many, and they would count twice in the scores. Build the loader without a "
            "DistributedSampler: its batches are shared out among the processes."
        )
    return True


def count_samples(loader: Iterable[Any]) -> int:
    """Samples in an epoch where a ``DataLoader`` tells, else 0."""
    torch_loader = _torch_loader(loader)
    if torch_loader is None:
        return 0
    batch_size = torch_loader.batch_size
    streams = isinstance(torch_loader.dataset, IterableDataset)
    by_sampler = batch_size is not None and not streams
    try:
        n = len(torch_loader.sampler) if by_sampler else len(torch_loader.dataset)
    except TypeError:
        return 0
    if torch_loader.drop_last and batch_size is not None:
        return n // batch_size * batch_size
    return n


def peek(loader: Iterable[Any], layout: BatchLayout, count: int = 2) -> list[Batch]:
    """The first batches, with every generator put back as it was."""
    own = _Generators(loader)
    try:
        with TemporarySeed().at(keyed.key(0, f"{_PURPOSE}/peek")):
            own.start(0)
            return [layout.batch(raw) for raw, _ in zip(loader, range(count), strict=False)]
    finally:
        own.restore()


def check_order(loader: Iterable[Any], part: str) -> None:
    """Warns where a train loader does not shuffle or a valid or test loader does."""
    sampler = sampler_of(loader)
    if part == "train" and type(sampler) is SequentialSampler:
        warnings.warn(
            "[train-not-shuffled] The train loader gives the samples in the same order every "
            "epoch, which usually trains worse. Build it with shuffle=True.",
            FlambeauWarning,
            stacklevel=3,
        )
    if part != "train" and isinstance(sampler, RANDOM_SAMPLERS):
        warnings.warn(
            f"[{part}-shuffled] The {part} loader draws its samples at random "
            f"({type(sampler).__name__}): predictions cannot be matched with samples, and a "
            "sampler with replacement changes the scores. Build it with shuffle=False.",
            FlambeauWarning,
            stacklevel=3,
        )


def _torch_loader(loader: object) -> Any:
    """The same loader where it is torch's, else None; untyped, because torch's own types are."""
    return cast(Any, loader) if isinstance(loader, DataLoader) else None


def sampler_of(loader: Iterable[Any]) -> object:
    """What orders the samples, or None where that is not torch's own."""
    torch_loader = _torch_loader(loader)
    if torch_loader is None or isinstance(torch_loader.dataset, IterableDataset):
        return None
    batches = torch_loader.batch_sampler
    if torch_loader.batch_size is not None or batches is None:
        return torch_loader.sampler
    # batch_sampler=… leaves a SequentialSampler in .sampler that nobody uses.
    return batches.sampler if type(batches) is BatchSampler else None


def runs_user_code(loader: Iterable[Any]) -> bool:
    """Whether user code runs in this process while batches are fetched.

    It may draw from the global generators at every batch. torch's own samplers draw when the first
    index is requested, its ``TensorDataset`` and default collation never.
    """
    torch_loader = _torch_loader(loader)
    if torch_loader is None or type(loader) is not DataLoader:
        return True
    sampler = sampler_of(loader)
    if type(sampler) not in (SequentialSampler, *RANDOM_SAMPLERS):
        return True
    if torch_loader.num_workers:  # data set and collation run in the workers
        return False
    return (
        type(torch_loader.dataset) is not TensorDataset
        or torch_loader.collate_fn is not default_collate
    )


class _Generators:
    """Generators that belong to the loader or its sampler, started anew at each epoch."""

    def __init__(self, loader: Iterable[Any]) -> None:
        batch_sampler = getattr(loader, "batch_sampler", None)
        self._samplers: list[Any] = [
            getattr(loader, "sampler", None),
            getattr(batch_sampler, "sampler", None),
            batch_sampler,
        ]
        found = (getattr(owner, "generator", None) for owner in (loader, *self._samplers))
        generators = {id(g): g for g in found if isinstance(g, torch.Generator)}
        self._states: Mapping[torch.Generator, torch.Tensor] = {
            g: g.get_state() for g in generators.values()
        }

    def start(self, epoch: int) -> None:
        for generator in self._states:
            generator.manual_seed(keyed.key(generator.initial_seed(), _PURPOSE, epoch))
        for sampler in self._samplers:
            if hasattr(sampler, "set_epoch"):  # torch's DistributedSampler, and those like it
                sampler.set_epoch(epoch)
                break

    def restore(self) -> None:
        for generator, state in self._states.items():
            generator.set_state(state)
