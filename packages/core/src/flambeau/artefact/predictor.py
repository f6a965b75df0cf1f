"""``Predictor``: raw items to answers, through the same preprocessor as training."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

import torch
from torch import Tensor, nn

from flambeau import domain as domains
from flambeau.artefact.checkpoint import read_tensors
from flambeau.artefact.rebuild import load_weights, rebuild, rebuild_model
from flambeau.artefact.record import MODEL_FILE, PREPROCESSOR_FILE, ExportRecord, Spec
from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.data.rows import Rows
from flambeau.device import best_device, is_out_of_memory
from flambeau.errors import (
    ArgumentError,
    ArtefactError,
    DomainError,
    InputError,
    OutOfMemoryError,
)
from flambeau.task.task import StepContext, Task


@runtime_checkable
class KnowsSingle(Protocol):
    """A preprocessor that can tell one item from many, because an item may itself be a list."""

    def is_single(self, item: Any) -> bool:
        """Whether ``item`` is one item; else it is many along its first axis."""
        ...


class Predictor:
    """Answers raw items: encode, move, normalise, forward, decode; always in eval mode and fp32.

    Args:
        preprocessor: Raw items to a batch.
        model: Moved to ``device``. While it predicts it is in eval mode; afterwards every module
            has the mode back that it had.
        task: How a batch reaches the model and how its outputs are read.
        device: Where to compute; None stays where the model is.
        batch_size: Items in a forward pass. Other values change answers by at most 1e-6.

    Attributes:
        record: What the export says of itself (plan, notes, versions); None where the predictor
            was not loaded.

    Example:
        >>> predictor = Predictor.load("pets")  # doctest: +SKIP
        >>> predictor.predict("cat.jpg").label  # doctest: +SKIP
        'cat'
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        model: nn.Module,
        task: Task,
        *,
        device: torch.device | str | None = None,
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}.")
        self.preprocessor = preprocessor
        self.task = task
        self.batch_size = batch_size
        self.device = _device_of(model) if device is None else torch.device(device)
        self.model = model.to(self.device)
        self.record: ExportRecord | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: nn.Module | None = None,
        task: Task | None = None,
        device: torch.device | str | None = None,
        batch_size: int = 64,
    ) -> Self:
        """The predictor of an export; runs no code from the folder.

        Args:
            path: The folder that ``export`` wrote.
            model: A module that takes the weights (in place, and eval mode), where the export is
                that of a bare module; given for another export, it replaces the builder's.
            task: Likewise for a task that no builder makes.
            device: Where to compute; None takes the first accelerator, else the CPU.
            batch_size: Items in a forward pass.

        Raises:
            ArtefactError: The folder is missing or damaged, or a name, field, shape or version in
                it is unknown here; the message says which.
        """
        folder = Path(path)
        record = ExportRecord.read(folder)
        try:
            domain = domains.get(record.domain)
        except DomainError as error:
            raise ArtefactError(f"{folder} was exported from another domain: {error}") from error
        tensors = {}
        if PREPROCESSOR_FILE in record.sha256:
            tensors = read_tensors(folder / PREPROCESSOR_FILE, record.sha256[PREPROCESSOR_FILE])
        preprocessor = rebuild("preprocessor", record.preprocessor, domain.builders, tensors)
        if task is None:
            _refuse_missing(folder, "task", record.task)
            task = rebuild("task", record.task, domain.tasks)
        file = folder / MODEL_FILE
        if model is None:
            _refuse_missing(folder, "model", record.model)
        elif not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] users err
            raise ArgumentError(f"model is {model!r:.60}, not an nn.Module. Make one: model().")
        weights = read_tensors(file, str(record.sha256.get(MODEL_FILE)))
        if model is None:
            model = rebuild_model(record.model, domain.models, weights, record.aliases, str(file))
        load_weights(model, weights, record.aliases, str(file))
        loaded = cls(
            preprocessor,
            model.eval(),
            cast(Task, task),
            device=best_device() if device is None else device,
            batch_size=batch_size,
        )
        loaded.record = record
        return loaded

    def __call__(self, items: Any) -> Any:
        """The same as ``predict``."""
        return self.predict(items)

    def predict(self, items: Any) -> Any:
        """One answer for one item, or a list of answers for many.

        Args:
            items: A list, a tuple or an iterator is many items. Anything else is one, unless the
                preprocessor says otherwise (an array of images, a table).

        Raises:
            InputError: An item cannot be used; the message has its index.
        """
        single = self._is_single(items)
        answers: list[Any] = []
        for batch in self._batches([items] if single else items, number=not single):
            found = self.task.decode(_to_cpu(self.forward_batch(batch)))
            if len(found) != len(batch):
                raise InputError(
                    f"{type(self.task).__name__}.decode gave {len(found)} answers for "
                    f"{len(batch)} items. It must give one for each."
                )
            answers.extend(found)
        return answers[0] if single else answers

    def outputs(self, items: Any) -> Tensor:
        """What the model answers before decoding, ``(items, ...)`` on the CPU.

        Raises:
            InputError: There is no item, or the model answers with something else than a tensor.
        """
        single = self._is_single(items)
        parts: list[Tensor] = []
        for batch in self._batches([items] if single else items, number=not single):
            output = _to_cpu(self.forward_batch(batch))
            if not isinstance(output, Tensor):
                raise InputError(
                    f"The model answers with a {type(output).__name__}, not with one tensor. Use "
                    "predict, or forward_batch for a batch of your own."
                )
            parts.append(output)
        if not parts:
            raise InputError("There is no item to predict: the list is empty.")
        return torch.cat(parts)

    def forward_batch(self, batch: Batch) -> Any:
        """The model's answer to an encoded batch, on the device, without gradients."""
        with self._evaluating():
            ready = self.preprocessor.on_device(batch.to(self.device))
            context = StepContext(training=False, values=dict(self.task.values))
            try:
                return self.task.forward(self.model, ready, context)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"Memory ran out on {self.device} for {len(batch)} items at a time: "
                    f"{str(error).strip().splitlines()[0]} Take fewer: "
                    f"predictor.batch_size = {max(1, len(batch) // 2)}."
                ) from error

    @contextmanager
    def _evaluating(self) -> Generator[None]:
        training = [module for module in self.model.modules() if module.training]
        for module in training:
            module.training = False
        try:
            with (
                # Not inference_mode: what a model caches then could not be trained with later.
                torch.no_grad(),
                torch.autocast(self.device.type, enabled=False),
            ):
                yield
        finally:
            for module in training:
                module.training = True

    def _is_single(self, items: Any) -> bool:
        if isinstance(items, Iterator):
            return False
        if isinstance(self.preprocessor, KnowsSingle):
            return self.preprocessor.is_single(items)
        return not isinstance(items, list | tuple)

    def _batches(self, items: Any, number: bool) -> Iterator[Batch]:
        start = 0
        for chunk in _chunks(items, self.batch_size):
            yield self._encode(chunk, start if number else None)
            start += len(chunk)

    def _encode(self, chunk: Sequence[Any], start: int | None) -> Batch:
        try:
            return self.preprocessor.encode(chunk)
        except Exception as error:
            if start is None:
                raise
            for offset in range(len(chunk)):
                try:
                    self.preprocessor.encode(chunk[offset : offset + 1])
                except Exception as fault:  # noqa: BLE001 - whatever it is, it must name the item
                    # It was encoded alone, so to the preprocessor it was item 0.
                    said = re.sub(r"^Item 0(?: of 1)?:? ", "", str(fault))
                    raise InputError(f"Item {start + offset}: {said}") from error
            raise  # each alone is fine: they do not fit together, and the message says how


def _chunks(items: Any, size: int) -> Iterator[Sequence[Any]]:
    if isinstance(items, Iterator):
        iterator = cast("Iterator[Any]", items)
        for first in iterator:
            yield list(chain([first], islice(iterator, size - 1)))
        return
    if isinstance(items, Mapping):
        items = Rows(cast("Mapping[str, Any]", items))
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise InputError(
            f"There is nothing to predict in a {type(items).__name__}. Give one item as in the "
            "data, or a list of them."
        )
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _refuse_missing(folder: Path, kind: str, spec: Spec) -> None:
    if spec.builder is None:
        raise ArtefactError(
            f"{folder} holds no builder of the {kind}, so it cannot be rebuilt from the folder "
            f"alone. {spec.note}"
        )


def _device_of(model: nn.Module) -> torch.device:
    tensors: Iterable[Tensor] = chain(model.parameters(), model.buffers())
    first = next(iter(tensors), None)
    return torch.device("cpu") if first is None else first.device


def _to_cpu(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.cpu()
    if isinstance(outputs, dict):
        entries = cast("dict[Any, Any]", outputs)
        return {name: _to_cpu(value) for name, value in entries.items()}
    if isinstance(outputs, list | tuple):
        parts = cast("list[Any]", outputs)
        moved = [_to_cpu(part) for part in parts]
        return moved if isinstance(outputs, list) else tuple(moved)
    return outputs
