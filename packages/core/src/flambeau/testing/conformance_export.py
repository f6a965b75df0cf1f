"""Conformance checks of exports and predictions: they must equal those of the model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.artefact.export import export
from flambeau.artefact.predictor import Predictor
from flambeau.data.loader import is_stream
from flambeau.errors import FlambeauError
from flambeau.testing.conformance_report import conformance_error
from flambeau.testing.domain_under_test import DomainUnderTest

TOLERANCE = 1e-6
"""Largest allowed difference of outputs in other batches; relative for values above 1."""


def check_export_gives_equal_outputs(tested: DomainUnderTest) -> None:
    """Check that a loaded export gives bitwise equal outputs and predictions."""
    raw = list(tested.data.raw("valid"))
    for name in tested.models:
        original = tested.predictor(_briefly_trained(tested, name))
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = export(
                    Path(folder) / "export",
                    domain=tested.domain.name,
                    model=original.model,
                    model_spec=tested.model_spec(name),
                    task=tested.task,
                    preprocessor=tested.preprocessor,
                )
                loaded = Predictor.load(path, device="cpu", batch_size=tested.batch_size)
            except FlambeauError as error:
                raise conformance_error(
                    f"{name}: the export cannot be written or loaded: {error}",
                    "a trained model could not be used in another process",
                    "register every builder in the record, with JSON arguments",
                ) from error
            before, after = _outputs(original, raw), _outputs(loaded, raw)
            if len(before) != len(after) or not all(map(torch.equal, before, after)):
                raise conformance_error(
                    f"{name}: the outputs of the loaded export differ from the model's outputs.",
                    "users would get other predictions than the evaluated ones",
                    "keep all state in parameters, buffers, arguments() and tensors(), and return "
                    "the constructor's arguments unchanged",
                )
            if repr(original.predict(raw)) != repr(loaded.predict(raw)):
                raise conformance_error(
                    f"{name}: the loaded export decodes equal outputs to other predictions.",
                    "users would get other predictions than the evaluated ones",
                    "return everything that decode needs from the task's arguments()",
                )
            if list(tested.task.metrics()) != list(loaded.task.metrics()):
                raise conformance_error(
                    f"{name}: the task has the metrics {list(tested.task.metrics())}, but that of "
                    f"the loaded export {list(loaded.task.metrics())}.",
                    "`flambeau evaluate` would lack scores",
                    "register the metrics in Domain(metrics=...) and return them from the task's "
                    "arguments()",
                )


def check_predictor_equals_valid_loader(tested: DomainUnderTest) -> None:
    """Check that raw inputs give the same outputs as the validation loader.

    They must be equal bitwise in the same batches, and within 1e-6 for one input at a time.
    """
    raw = list(tested.data.raw("valid"))
    name = tested.models[0]
    predictor = tested.predictor(tested.build(name))
    loader = tested.loader("valid")
    same_grouping = [
        _parts(predictor.predict_batch(tested.preprocessor.encode(chunk)))
        for chunk in _chunks(raw, tested.batch_size)
    ]
    # A row of a stream has parts of several inputs; its inputs are compared with one another only.
    validated = (
        same_grouping
        if is_stream(loader)
        else [_parts(predictor.predict_batch(batch)) for batch in loader.batches(0)]
    )
    for step, (expected, found) in enumerate(zip(validated, same_grouping, strict=True)):
        if len(expected) != len(found) or not all(map(torch.equal, expected, found)):
            raise conformance_error(
                f"{name}: the outputs for the raw inputs of validation batch {step} differ from "
                "the outputs for the batch of the validation loader.",
                "validation scores would not apply to predictions",
                "use the same code in encode and in the data set, and put the rest in on_device",
            )
    rows = [[part[row] for part in batch] for batch in validated for row in range(len(batch[0]))]
    for index, (item, expected) in enumerate(zip(raw, rows, strict=True)):
        single = _parts(predictor.predict_batch(tested.preprocessor.encode([item])))
        error = max(_difference(part[0], row) for part, row in zip(single, expected, strict=True))
        if not error <= TOLERANCE:
            raise conformance_error(
                f"{name}: the outputs for input {index} of the validation part, predicted alone, "
                f"differ by {error:.1e} from its outputs in a batch.",
                "a prediction must not depend on the other inputs of its batch",
                "use no batch statistics in encode, on_device or the model in eval mode; mask "
                "padding",
            )


def _briefly_trained(tested: DomainUnderTest, name: str) -> nn.Module:
    """Return a model whose weights and buffers differ from their initial values."""
    model = tested.build(name).train()
    for batch in tested.training_batches(2):
        total, weight = tested.training_loss(model, batch)
        (total / weight).backward()
        with torch.no_grad():
            for value in model.parameters():
                if value.grad is not None:
                    value.sub_(0.01 * value.grad)
                    value.grad = None
    return model


def _outputs(predictor: Predictor, raw: list[Any]) -> list[Tensor]:
    return [
        part
        for chunk in _chunks(raw, predictor.batch_size)
        for part in _parts(predictor.predict_batch(predictor.preprocessor.encode(chunk)))
    ]


def _chunks(raw: list[Any], size: int) -> list[list[Any]]:
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def _parts(outputs: Any) -> list[Tensor]:
    """Return all tensors in a model's output, which may be nested."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        values = list(cast("Mapping[str, Any]", outputs).values())
    elif isinstance(outputs, list | tuple):
        values = list(cast("list[Any]", outputs))
    else:
        return []
    return [part for value in values for part in _parts(value)]


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference (relative for values above 1), ignoring padding at the ends."""
    common = tuple(slice(0, min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
    one, other = one[common].double(), other[common].double()
    if one.numel() == 0:
        return 0.0
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0))
