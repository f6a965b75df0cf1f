"""``UserLoader``: wraps a user-defined loader (torch's ``DataLoader``, a list of batches)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import count
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
from flambeau.data.loader import Loader
from flambeau.data.own_generators import LoaderGenerators
from flambeau.errors import (
    ArgumentError,
    FlambeauError,
    FlambeauWarning,
    InputError,
    ResumeError,
    TrainingError,
)
from flambeau.global_rng import TemporarySeed
from flambeau.torch_internals import is_dead_worker, shut_down_workers

_PURPOSE = "foreign-loader"
RANDOM_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""torch's samplers with a random order."""

_UNSEEDED: AbstractContextManager[None] = nullcontext()


class UserLoader(Loader):
    """Wraps a user-defined loader and makes its order repeatable, so that a run can be resumed.

    While the loader's iterator is created and each batch is fetched, the global generators of
    torch, NumPy and Python are seeded by (seed, epoch, step); their state is restored afterwards.
    Shuffling and augmentation then depend on nothing else. A resumed run reads and drops the
    batches before its start step, and gets the same batches after it. Generators that the loader,
    its samplers or its data set keep as attributes are seeded once per epoch, too, by their own
    state and the epoch. If loader, sampler or data set have a method ``set_epoch``, it is called.

    Cost per batch: 36 µs (2-core EPYC). A ``DataLoader`` that runs no user code in this process
    draws random numbers only before its first batch, so the generators are seeded only there. A
    list or tuple of batches costs 2 µs per batch.

    The ``indices`` of a batch number the samples of the epoch consecutively, because the loader
    does not report which samples they are, unless it yields ``Batch`` objects with ``indices``.

    Args:
        loader: An iterable that can be iterated again in every epoch, with ``len()``. A train
            loader without ``len()`` allows only training by steps, and cannot be resumed.
        layout: Which fields of its batches are inputs and targets.
        seed: Seed of order and augmentation.
        part: "train", "valid", "test" or "calibration".
        rank: Rank of this process.
        world_size: Number of processes. With a ``DistributedSampler`` the loader already yields
            this rank's batches; otherwise each rank uses every ``world_size``-th batch, which is
            not allowed for a train loader.

    Raises:
        ArgumentError: ``loader`` is not an iterable, or is an iterator that can be used only once.
        InputError: A loader that is not for training has no length, or several ranks would use the
            same sample.
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
        self._steps = known_batches(loader, part)
        self.rank, self.world_size = rank, world_size
        self._takes_turns = world_size > 1 and not is_sharded(loader, part, world_size)
        self._length_warned = False
        self._converted: list[tuple[object, Batch]] = []
        self.is_stream = bool(getattr(loader, "is_stream", False))
        self.loader = loader
        self.layout = layout or BatchLayout()
        self.seed = seed
        self.part = part

    @property
    def steps_per_epoch(self) -> int:
        return count_batches(self.loader, self.part) if self._steps is None else self._steps

    @property
    def has_length(self) -> bool:
        """Whether the number of batches in an epoch is known."""
        return self._steps is not None

    @property
    def can_resume(self) -> bool:
        """Whether ``batches`` can repeat its batches from any step in a new process."""
        return not self.not_resumable_reason

    @property
    def not_resumable_reason(self) -> str:
        """Why the loader cannot be resumed, and the fix; empty if it can be resumed."""
        if not self.has_length:
            return (
                "it has no len(), so the batch of a step is not known before it is read. Define "
                "__len__ (batches in an epoch) on a loader that repeats its batches."
            )
        loader = _torch_loader(self.loader)
        if loader is None:
            return ""
        if isinstance(loader.dataset, IterableDataset):
            return (
                "its data set is an IterableDataset, whose samples may differ in the next pass. "
                "Use a map-style data set (with __getitem__) to resume inside an epoch."
            )
        if loader.persistent_workers:
            return (
                "its persistent workers keep the state of their random generators from one epoch "
                "to the next. Use persistent_workers=False, or pass the data sets to "
                "TensorData.from_datasets, whose persistent workers can be resumed."
            )
        return ""

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` from ``start_step`` on.

        A train epoch has ``len()`` batches; for the other parts every batch is used.

        Warns:
            FlambeauWarning: [loader-length] The loader yields another number of batches than its
                ``len()``.

        Raises:
            ResumeError: ``start_step`` is not 0 and the loader cannot be resumed.
            InputError: A batch does not match the layout, or a train epoch is too short.
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
        """Yield the batches that this rank reads."""
        for turn, batch in enumerate(batches):
            if not self._takes_turns or turn % self.world_size == self.rank:
                yield batch

    def _number(self, batch: Batch, first: int) -> None:
        """Set ``batch.indices``, unless the loader has set it; ``first`` samples precede the batch.

        Each rank uses different numbers, because the random numbers for a sample depend on them.
        """
        if batch.indices is None:
            batch.indices = torch.arange(first, first + len(batch))
            if self.world_size > 1 and not self._takes_turns:
                batch.indices = batch.indices * self.world_size + self.rank

    def _ready_batches(
        self, ready: Sequence[object], epoch: int, start_step: int
    ) -> Iterator[Batch]:
        """Yield the batches of a list or tuple; no user code runs, so no generator is seeded."""
        steps = self.steps_per_epoch if self.part == "train" else len(ready)
        if len(ready) < steps:
            raise self._ended_early(len(ready), epoch)
        self._warn_if_longer(epoch)
        n_samples = 0
        for step in range(steps):
            raw = ready[step]
            if step >= len(self._converted) or self._converted[step][0] is not raw:
                del self._converted[step:]  # the numbers of later samples depend on this batch
                batch = self.layout.batch(raw)
                self._number(batch, n_samples)
                self._converted.append((raw, batch))
            converted = self._converted[step][1]
            n_samples += len(converted)
            if step >= start_step:
                # New dicts, so that a transform cannot change the stored ones.
                yield replace(
                    converted,
                    inputs=dict(converted.inputs),
                    targets=dict(converted.targets),
                    masks=dict(converted.masks),
                    task_inputs=dict(converted.task_inputs),
                    extras=dict(converted.extras),
                    epoch=epoch,
                )

    def _batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        temporary_seed, seed, purpose = TemporarySeed(), self.seed, f"{_PURPOSE}/{self.part}"
        generators = LoaderGenerators(self.loader)
        always_keyed = runs_user_code(self.loader)
        n_samples = 0
        try:
            with temporary_seed.at(keyed.key(seed, purpose, epoch)):
                generators.start(epoch)
                batches = iter(self.loader)
            self._warn_if_longer(epoch)
            for step in count():
                if step == self._steps and self._is_complete(epoch):
                    break
                is_keyed = always_keyed or not step
                key = keyed.key(seed, purpose, epoch, step) if is_keyed else None
                with _UNSEEDED if key is None else temporary_seed.at(key):
                    try:
                        raw = next(batches)
                    except StopIteration:
                        self._check_count(step, epoch)
                        break
                    except FlambeauError:
                        raise
                    except Exception as error:
                        reading_error = self._reading_error(step, epoch, error, batches)
                        del batches  # see shut_down_workers
                        raise reading_error from error
                if step == self._steps and self.part == "train":
                    self._warn_of_length(f"at least {step + 1}")
                    break
                batch = self.layout.batch(raw)
                first, n_samples = n_samples, n_samples + len(batch)
                if step < start_step:
                    continue
                self._number(batch, first)
                batch.epoch = epoch
                yield batch
        finally:
            generators.restore()

    def _is_complete(self, epoch: int) -> bool:
        """Return whether the epoch ends after ``len()`` batches, without requesting another one."""
        if self.part != "train":
            return False
        if self.is_stream or epoch > 0:  # a stream may be endless
            return True
        # torch's samplers report the right number.
        sampler = None if type(self.loader) is not DataLoader else sampler_of(self.loader)
        return type(sampler) in (SequentialSampler, *RANDOM_SAMPLERS)

    def _check_count(self, n: int, epoch: int) -> None:
        """Check the number of batches of an epoch that has ended.

        Raises:
            InputError: A train epoch is too short.
        """
        if not n and self.part != "train":
            expected = "" if self._steps is None else f", but its len() is {self._steps}"
            raise InputError(
                f"The {self.part} loader yields no batches{expected}. An iterator that can be read "
                "only once is empty at its second pass: __iter__ must return a new one each time."
            )
        if self._steps is None:
            if not n:
                raise InputError(f"The {self.part} loader has no batches in epoch {epoch}.")
            return
        if n < self._steps and self.part == "train":
            raise self._ended_early(n, epoch)
        if n != self._steps:
            self._warn_of_length(str(n))

    def _warn_of_length(self, found: str) -> None:
        use = "all of them are used"
        if self.part == "train":
            use = "an epoch ends after len() batches, so the others are never used"
        warnings.warn(
            f"[loader-length] The {self.part} loader yields {found} batches, but its len() is "
            f"{self._steps}; {use}. A stream that divides its samples among the workers often has "
            "more batches, because each worker has an incomplete last batch: return the right "
            "number from __len__ (samples of all workers for a data set, batches for a loader).",
            FlambeauWarning,
            stacklevel=3,
        )

    def _reading_error(
        self, step: int, epoch: int, error: Exception, batches: object
    ) -> FlambeauError:
        where = f"The {self.part} loader failed at batch {step} of epoch {epoch}"
        # For an error in a worker, torch's message is its traceback; the last line is the error.
        last_line = (str(error).strip().splitlines() or [""])[-1]
        died = isinstance(error, ConnectionError | EOFError) and "Caught " not in str(error)
        if died or is_dead_worker(error):
            shut_down_workers(batches, error)
            return TrainingError(
                f"{where}: a worker process died ({last_line.rstrip('.')}). A common cause is too "
                "little memory: reduce num_workers, or set num_workers=0 to see the cause."
            )
        kind = type(error).__name__
        reason = last_line if last_line.startswith(kind) else f"{kind}: {last_line}"
        return InputError(
            f"{where}: {reason}. Check the samples of that batch. To see which sample it is, pass "
            "the data sets to TensorData.from_datasets."
        )

    def _warn_if_longer(self, epoch: int) -> None:
        """Warn once if ``len()`` has grown: epochs and schedules keep the first value."""
        if self.part != "train" or self._steps is None or self._length_warned:
            return
        now = len(cast("Sequence[Any]", self.loader))
        if now <= self._steps:
            return
        self._length_warned = True
        warnings.warn(
            f"[loader-length] The train loader has {now} batches in epoch {epoch}, but had "
            f"{self._steps} when the learner was created. The schedule keeps that number, so the "
            f"last {now - self._steps} are not used. len() must be the same in every epoch.",
            FlambeauWarning,
            stacklevel=2,
        )

    def _ended_early(self, step: int, epoch: int) -> InputError:
        return InputError(
            f"The {self.part} loader ended after {step} batches in epoch {epoch}, but its len() "
            f"is {self._steps}. len() must be the number of batches in every epoch."
        )


def known_batches(loader: Iterable[Any], part: str) -> int | None:
    """Return ``count_batches(loader, part)``; None for a train loader without length."""
    has_length = not isinstance(loader, Iterator) and hasattr(loader, "__iter__")
    if part == "train" and has_length:
        try:
            len(cast(Sequence[Any], loader))
        except TypeError:
            return None
    return count_batches(loader, part)


def count_batches(loader: Iterable[Any], part: str) -> int:
    """Return the number of batches in an epoch of ``loader``.

    Raises:
        ArgumentError: It is not an iterable, or is an iterator that can be used only once.
        InputError: It has no length or no batches.
    """
    if not hasattr(loader, "__iter__"):
        raise ArgumentError(
            f"The {part} loader is a {type(loader).__name__}, which cannot be iterated. Pass a "
            "DataLoader, or a list of batches."
        )
    if isinstance(loader, Iterator):
        raise ArgumentError(
            f"The {part} loader is a {type(loader).__name__}, an iterator that can be used for "
            "one epoch only. Pass the DataLoader itself, or a list of batches."
        )
    try:
        steps = len(cast(Sequence[Any], loader))
    except TypeError as error:
        by_steps = ", or train by steps: learner.fit(steps=10_000)" if part == "train" else ""
        raise InputError(
            f"The {part} loader has no len() ({error}), which epochs need. Define __len__ on its "
            "data set (samples in an epoch), or wrap the loader in a class with __iter__ and "
            f"__len__ (batches in an epoch){by_steps}."
        ) from error
    if not steps:
        raise InputError(f"The {part} loader has no batches. It needs at least one.")
    return steps


def is_sharded(loader: Iterable[Any], part: str, world_size: int) -> bool:
    """Return whether the loader yields different samples on each rank (``DistributedSampler``).

    Raises:
        InputError: A train loader is not sharded, the sampler's ``num_replicas`` is not
            ``world_size``, or the sampler of a validation or test loader repeats samples, which
            would count twice.
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None))
    candidates = (*owners, batch_sampler, loader)
    sampler: Any = next((s for s in candidates if hasattr(s, "num_replicas")), None)
    if sampler is None:
        if part == "train":
            raise InputError(
                f"The train loader yields the same samples on all {world_size} processes. Give its "
                "DataLoader a torch.utils.data.DistributedSampler, or pass the data sets to "
                "TensorData.from_datasets, which divides every batch among the processes."
            )
        return False
    if sampler.num_replicas != world_size:
        raise InputError(
            f"The sampler of the {part} loader has num_replicas={sampler.num_replicas}, but the "
            f"run has {world_size} processes. Omit num_replicas: its default is correct."
        )
    repeated = getattr(sampler, "total_size", 0) - len(getattr(sampler, "dataset", ()))
    if part != "train" and repeated > 0:
        raise InputError(
            f"The sampler of the {part} loader repeats {repeated} samples to give every process "
            "the same number, and they would count twice in the scores. Create the loader without "
            "a DistributedSampler: the processes divide its batches."
        )
    return True


def count_samples(loader: Iterable[Any]) -> int:
    """Return the samples in an epoch of a ``DataLoader``; 0 if the number is unknown."""
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


def read_first_batches(loader: Iterable[Any], layout: BatchLayout, count: int = 2) -> list[Batch]:
    """Return the first ``count`` batches; the states of all generators are restored."""
    generators = LoaderGenerators(loader)
    try:
        with TemporarySeed().at(keyed.key(0, f"{_PURPOSE}/peek")):
            generators.start(0)
            return [layout.batch(raw) for raw, _ in zip(loader, range(count), strict=False)]
    finally:
        generators.restore()


def check_order(loader: Iterable[Any], part: str) -> None:
    """Warn if a train loader does not shuffle, or if a validation or test loader does."""
    sampler = sampler_of(loader)
    if part == "train" and type(sampler) is SequentialSampler:
        warnings.warn(
            "[train-not-shuffled] The train loader yields the samples in the same order in every "
            "epoch, which usually gives a worse model. Create it with shuffle=True.",
            FlambeauWarning,
            stacklevel=3,
        )
    if part != "train" and isinstance(sampler, RANDOM_SAMPLERS):
        warnings.warn(
            f"[{part}-shuffled] The {part} loader yields its samples in random order "
            f"({type(sampler).__name__}): predictions cannot be matched with samples, and a "
            "sampler with replacement changes the scores. Create it with shuffle=False.",
            FlambeauWarning,
            stacklevel=3,
        )


def _torch_loader(loader: object) -> Any:
    """Return the loader if it is a ``DataLoader``, else None."""
    return cast(Any, loader) if isinstance(loader, DataLoader) else None


def sampler_of(loader: Iterable[Any]) -> object:
    """Return the sampler that orders the samples, or None if it cannot be determined."""
    torch_loader = _torch_loader(loader)
    if torch_loader is None or isinstance(torch_loader.dataset, IterableDataset):
        return None
    batches = torch_loader.batch_sampler
    if torch_loader.batch_size is not None or batches is None:
        return torch_loader.sampler
    # With batch_sampler=… the loader's .sampler is a SequentialSampler that is not used.
    return batches.sampler if type(batches) is BatchSampler else None


def runs_user_code(loader: Iterable[Any]) -> bool:
    """Return whether user code runs in this process while batches are fetched.

    Such code may draw from the global generators at every batch. torch's samplers draw only when
    the first index is requested; its ``TensorDataset`` and default collation never draw.
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
