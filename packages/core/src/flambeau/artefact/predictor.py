"""``Predictor``: predicts from raw inputs, with the preprocessor that training used."""

from __future__ import annotations

import copy
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Protocol, Self, cast, runtime_checkable

import torch
from torch import Tensor, nn

from flambeau.artefact.export_format import (
    MODEL_FILE,
    ExportRecord,
    export_folder,
)
from flambeau.checked_arguments import checked_count
from flambeau.data.batch import Batch
from flambeau.data.preprocess import PredictsTables, Preprocessor
from flambeau.device import best_device, is_out_of_memory
from flambeau.domain import get_domain
from flambeau.errors import (
    ArgumentError,
    ArtefactError,
    DomainError,
    InputError,
    OutOfMemoryError,
    explains_arguments,
)
from flambeau.task.task import StepContext, Task
from flambeau.wording import first_line

Errors = Literal["raise", "return"]
"""What ``predict`` does with the error of an invalid input."""

Coverage = float | None
"""Share of the targets that intervals contain; None for predictions without intervals."""


@runtime_checkable
class ReadsFrames(Protocol):
    """A preprocessor with its own method to convert the rows of a frame (pandas) to inputs."""

    def rows_of_frame(self, frame: Any) -> Sequence[Any]:
        """Return one input per row of a frame or series."""
        ...


@runtime_checkable
class SupportsIsSingle(Protocol):
    """A preprocessor that decides whether a value is one input: an input may be a list."""

    def is_single(self, item: Any) -> bool:
        """Return True if ``item`` is one input, False if it holds several along its first axis."""
        ...


@runtime_checkable
class SupportsExpand(Protocol):
    """A preprocessor that can replace an argument of ``predict``, such as a folder by its files."""

    def expand(self, item: Any) -> Sequence[Any] | None:
        """Return the inputs that replace ``item``; None if it is not replaced."""
        ...


@explains_arguments()
class Predictor:
    """A predictor for raw inputs: it encodes them, runs the model in fp32, and decodes the outputs.

    Args:
        preprocessor: Encodes raw inputs to a batch.
        model: Moved to ``device``. It predicts in eval mode; afterwards the mode of every module is
            restored.
        task: Predicts a batch with the model, and decodes the result.
        device: Device of the computation; None uses the device of the model.
        batch_size: Inputs per forward pass; it changes the outputs by at most 1e-6. None is 64, or
            1,024 rows of tables.

    Attributes:
        record: The record of the export (plan, notes, versions); None if the predictor was not
            loaded from an export.

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
        batch_size: int | None = None,
    ) -> None:
        if batch_size is None:
            batch_size = 1024 if isinstance(preprocessor, PredictsTables) else 64
        batch_size = checked_count(batch_size, "batch_size", unit="samples")
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
        batch_size: int | None = None,
        base: str | Path | None = None,
    ) -> Self:
        """Load the predictor of an export; no code from the folder is run.

        Args:
            path: The folder that ``export`` wrote, or the folder of a run of ``flambeau fit``.
            model: A module into which the weights are loaded, in place; it is set to eval mode.
                Required if the export has no builder for the model; otherwise it is used instead
                of the model that the builder would build.
            task: Required if the export has no builder for the task; otherwise it is used instead
                of the export's task.
            device: Device of the computation; None uses the first accelerator, else the CPU.
            batch_size: Inputs per forward pass; None is 64, or 1,024 rows of tables.
            base: If the export stores only the difference from another export, the folder of that
                other export; None uses the folder in the record.

        Raises:
            ArtefactError: The folder is missing or damaged, or a name, field, shape or version in
                it is unknown; the message says which.
        """
        from flambeau.artefact.difference import read_weights
        from flambeau.artefact.ensemble_builders import with_ensembles
        from flambeau.artefact.model_tensors import load_weights
        from flambeau.artefact.rebuild import rebuild_model, rebuild_preprocessor
        from flambeau.artefact.task_spec import rebuild_task, with_calibration

        folder = export_folder(path)
        record = ExportRecord.read(folder)
        try:
            domain = with_ensembles(get_domain(record.domain))
        except DomainError as error:
            raise ArtefactError(f"Cannot load {folder}: {error}") from error
        preprocessor = rebuild_preprocessor(folder, record, domain)
        _refuse_missing(folder, record, {"model": model, "task": task})
        if task is None:
            task = rebuild_task(record.task, domain)
        else:
            task = with_calibration(task, record.task)
        file = folder / MODEL_FILE
        if model is not None and not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] users err
            raise ArgumentError(
                f"model must be an nn.Module, not {model!r:.60}. If it is a class, call it."
            )
        weights = read_weights(folder, record, base, takes_base=True)
        if model is None:
            model = rebuild_model(record.model, domain.models, weights, str(file))
        load_weights(model, weights, str(file))
        loaded = cls(
            preprocessor,
            model.eval(),
            task,
            device=best_device() if device is None else device,
            batch_size=batch_size,
        )
        loaded.record = record
        return loaded

    def __call__(self, items: Any) -> Any:
        """Return the result of ``predict``."""
        return self.predict(items)

    def predict(
        self,
        items: Any,
        *,
        errors: Errors = "raise",
        interval: Coverage = None,
    ) -> Any:
        """Return the decoded prediction for one input, or a list of predictions for several.

        Args:
            items: One input or several. A list, a tuple, an iterator, a folder of images, and a
                pandas series or frame are several inputs; anything else is one input, unless the
                preprocessor decides otherwise (an array). Each row of a frame is an input: a dict
                with the column names as keys or, if the model takes one vector per sample, the
                vector of its numeric columns. The predictions are then a frame with the same index.
            errors: "raise" raises the InputError of an invalid input; "return" returns the error in
                the place of that input's prediction, and predicts the other inputs.
            interval: Coverage of intervals, or of sets of classes, that predictions contain in
                addition, such as 0.9; ``learner.calibrate(intervals=True)`` prepares them.

        Raises:
            InputError: The intervals were not calibrated; or, with errors="raise": an input is
                invalid, or the model's output for it is nan; the message gives its index.
        """
        _check_errors(errors)
        if interval is not None:
            predictor = copy.copy(self)
            predictor.task = self.task.for_prediction({"interval": interval})
            return predictor.predict(items, errors=errors)
        if errors == "raise" and isinstance(self.preprocessor, PredictsTables):
            rows = self.preprocessor.table_rows(items)
            if rows is not None:
                return self._predict_table(self.preprocessor, items, rows)
        single, inputs = self._inputs(items)
        predictions = list(self._predictions(inputs, numbered=not single, errors=errors))
        if single:
            return predictions[0]
        if isinstance(items, Iterator):  # it has no more items
            return predictions
        return self._collected(items, predictions)

    def stream(self, items: Iterable[Any], *, errors: Errors = "return") -> Iterator[Any]:
        """Yield the prediction for each input in its order, as the inputs arrive.

        ``batch_size`` inputs are read before their predictions are yielded; with
        ``predictor.batch_size = 1`` each is predicted before the next one is read. Memory does not
        grow with the number of inputs.

        Args:
            items: Several inputs: an open text file, a generator, a list.
            errors: "return" yields the InputError of an invalid input in the place of its
                prediction and continues; "raise" raises it.

        Raises:
            ArgumentError: ``items`` is a single text.
            InputError: An input is invalid and ``errors`` is "raise"; the message has its index.
        """
        _check_errors(errors)
        if isinstance(items, str | bytes):
            raise ArgumentError("items is a single text. Pass a list of texts, or an open file.")
        return self._predictions(iter(items), numbered=True, errors=errors)

    def _predictions(self, inputs: Any, *, numbered: bool, errors: str) -> Iterator[Any]:
        """Yield a prediction or an error for each input; ``numbered`` names it by its index."""
        count = 0
        for chunk in _chunks(inputs, self.batch_size):
            start = count if numbered else None
            try:
                found = self._predict_chunk(chunk, start)
            except InputError:
                if errors == "raise":
                    raise
                found = self._predict_or_error(chunk, start)
            count += len(chunk)
            yield from found

    def _predict_table(self, tables: PredictsTables, items: Any, rows: Sequence[Any]) -> Any:
        """Return the predictions for a table; warn if its cells differ much from training."""
        from flambeau.artefact.predict_table import predict_table

        columns = predict_table(self, rows)
        if rows is not items:  # rows of a file are checked for all of the file
            tables.warn_of_rows(rows)
        return tables.collect_columns(items, columns)

    def _collected(self, items: Any, predictions: list[Any]) -> Any:
        """Return the predictions as a frame if ``items`` is a frame, even one without rows."""
        if not predictions and hasattr(items, "iloc"):
            from flambeau.data.prediction_columns import is_frame, without_rows

            example = self.task.example_prediction()
            if is_frame(items) and example is not None:
                return without_rows(items, example)
        return self.preprocessor.collect(items, predictions)

    def _predict_chunk(self, chunk: Sequence[Any], start: int | None) -> Sequence[Any]:
        """Return the predictions for one batch of inputs; ``start`` is the index of the first."""
        batch = self._encode(chunk, start)
        outputs = self.checked_outputs(batch, start or 0)
        decoded = self.task.decode(outputs)
        if len(decoded) != len(batch):
            raise InputError(
                f"{type(self.task).__name__}.decode returned {len(decoded)} predictions for "
                f"{len(batch)} inputs. It must return one for each input."
            )
        return decoded

    def _predict_or_error(self, chunk: Sequence[Any], start: int | None) -> list[Any]:
        """Predict each input of a batch alone; return its prediction or its InputError."""
        found: list[Any] = []
        for offset in range(len(chunk)):
            try:
                number = None if start is None else start + offset
                found.extend(self._predict_chunk(chunk[offset : offset + 1], number))
            except InputError as error:
                found.append(error)
        return found

    def outputs(self, items: Any) -> Tensor:
        """Return the task's predictions before decoding, ``(inputs, ...)``, on the CPU.

        Raises:
            InputError: There are no inputs, or the predictions are not one tensor with a row for
                each input.
        """
        single, inputs = self._inputs(items)
        parts: list[Tensor] = []
        for batch in self._batches(inputs, number=not single):
            output = _to_cpu(self.predict_batch(batch))
            if not isinstance(output, Tensor):
                raise InputError(
                    f"The task predicts a {type(output).__name__} instead of one tensor. Use "
                    "predict, or predict_batch with an encoded batch."
                )
            if not output.ndim or len(output) != len(batch):
                raise InputError(
                    f"The task predicts a tensor {tuple(output.shape)} for {len(batch)} inputs; "
                    "it must have one row for each. If the rows do not correspond to inputs, use "
                    "predict_batch with an encoded batch."
                )
            parts.append(output)
        if not parts:
            raise InputError("Nothing to predict: there are no inputs.")
        return torch.cat(parts)

    def checked_outputs(self, batch: Batch, start: int = 0) -> Any:
        """Return the predictions for an encoded batch, not decoded, on the CPU.

        Raises:
            InputError: The output for an input is nan; the message has its index plus ``start``.
        """
        outputs = _to_cpu(self.predict_batch(batch))
        _refuse_nan(outputs, start, len(batch))
        return outputs

    def predict_batch(self, batch: Batch) -> Any:
        """Return the predictions for an encoded batch, not decoded, on the predictor's device."""
        with self.eval_mode():
            ready = self.preprocessor.on_device(batch.to(self.device))
            context = StepContext("predict", values=dict(self.task.values))
            try:
                return self.task.predict(self.model, ready, context)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"Out of memory on {self.device} with {len(batch)} inputs per batch: "
                    f"{first_line(error)} Use smaller batches: "
                    f"predictor.batch_size = {max(1, len(batch) // 2)}."
                ) from error

    @contextmanager
    def eval_mode(self) -> Generator[None]:
        """Set the model to eval mode without gradients, in fp32; restore the modes afterwards."""
        training = [module for module in self.model.modules() if module.training]
        for module in training:
            module.training = False
        try:
            with (
                # Not inference_mode: tensors that a model caches there cannot be used in training.
                torch.no_grad(),
                torch.autocast(self.device.type, enabled=False),
            ):
                yield
        finally:
            for module in training:
                module.training = True

    def _inputs(self, items: Any) -> tuple[bool, Any]:
        """Return whether ``items`` is one input, and a sequence or iterator of the inputs."""
        if hasattr(items, "iloc"):
            from flambeau.data.prediction_columns import is_frame, rows_of

            if is_frame(items):
                if isinstance(self.preprocessor, ReadsFrames):
                    return False, self.preprocessor.rows_of_frame(items)
                return False, rows_of(items)
        if isinstance(self.preprocessor, SupportsExpand):
            inputs = self.preprocessor.expand(items)
            if inputs is not None:
                return False, inputs
        single = self._is_single(items)
        return single, [items] if single else items

    def _is_single(self, items: Any) -> bool:
        # An open file is an iterator too, which a preprocessor may know as one input.
        is_file = isinstance(self.preprocessor, SupportsIsSingle) and hasattr(items, "read")
        if isinstance(items, Iterator) and not is_file:
            return False
        if isinstance(self.preprocessor, SupportsIsSingle):
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
                except Exception as fault:  # noqa: BLE001 - whatever it is, it must name the input
                    # It was encoded alone, so the preprocessor called it item 0.
                    message = re.sub(r"^Item 0(?: of 1)?:? ", "", str(fault))
                    raise InputError(f"Item {start + offset}: {message}") from error
            raise  # each input alone is valid: they cannot be batched, as the message says


def _check_errors(errors: str) -> None:
    if errors not in ("raise", "return"):
        raise ArgumentError(f"errors is {errors!r}, but it must be 'raise' or 'return'.")


def _chunks(items: Any, size: int) -> Iterator[Sequence[Any]]:
    if isinstance(items, Iterator):
        iterator = cast("Iterator[Any]", items)
        for first in iterator:
            yield list(chain([first], islice(iterator, size - 1)))
        return
    if isinstance(items, Mapping):
        from flambeau.data.tensor_sequence import TensorSequence

        items = TensorSequence(cast("Mapping[str, Any]", items))
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise InputError(
            f"Cannot predict from a {type(items).__name__}. Give one input as in the data, or a "
            "list of inputs."
        )
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _refuse_missing(folder: Path, record: ExportRecord, given: Mapping[str, object]) -> None:
    """Raise an error if the export has no builder for model or task and the user passed none."""
    specs = {"model": record.model, "task": record.task}
    missing = [name for name, spec in specs.items() if spec.builder is None and given[name] is None]
    if not missing:
        return
    subject = " and ".join(missing)
    notes = [specs[name].note for name in missing]
    if len(missing) > 1:
        notes.append("Pass both: Predictor.load(path, model=..., task=...).")
    raise ArtefactError(
        f"{folder} has no builder for its {subject}, so the {subject} cannot be rebuilt from the "
        f"export. {' '.join(notes)} The command line cannot load such an export."
    )


def _refuse_nan(outputs: Any, start: int, n: int) -> None:
    """Raise an InputError if the output for an input is nan, which is no prediction."""
    if isinstance(outputs, Mapping):
        for each in cast("Mapping[Any, Any]", outputs).values():
            _refuse_nan(each, start, n)
        return
    if not isinstance(outputs, Tensor) or not outputs.ndim or len(outputs) != n:
        return
    wrong = outputs.isnan().flatten(start_dim=1).any(dim=1) if outputs.ndim > 1 else outputs.isnan()
    if bool(wrong.any()):
        row = start + int(wrong.nonzero()[0])
        raise InputError(
            f"Item {row}: the model's output is nan ({int(wrong.sum())} of {n} inputs of the "
            "batch), so there is no prediction. Check this input for nan or huge values. If all "
            "outputs are nan, the weights are damaged: train again with a lower learning rate."
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
