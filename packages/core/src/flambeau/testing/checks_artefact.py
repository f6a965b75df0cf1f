"""Checks of what lasts: an export answers as the model did, from raw items as in validation."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.artefact.export import export
from flambeau.artefact.predictor import Predictor
from flambeau.errors import FlambeauError
from flambeau.testing.report import broken
from flambeau.testing.subject import Subject

TOLERANCE = 1e-6
"""How much another grouping of samples may change an output, where outputs are of size 1."""


def check_export_answers_the_same(subject: Subject) -> None:
    """Save, load, predict: the same outputs and the same answers, bit for bit."""
    raw = list(subject.data.raw("valid"))
    for name in subject.models:
        here = subject.predictor(_trained_a_little(subject, name))
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = export(
                    Path(folder) / "export",
                    domain=subject.domain.name,
                    model=here.model,
                    model_spec=subject.model_spec(name),
                    task=subject.task,
                    preprocessor=subject.preprocessor,
                )
                there = Predictor.load(path, device="cpu", batch_size=subject.batch_size)
            except FlambeauError as error:
                raise broken(
                    f"{name}: the export cannot be written or loaded: {error}",
                    "what was trained could not be used anywhere else",
                    "register every builder in the record, with JSON arguments",
                ) from error
            before, after = _outputs(here, raw), _outputs(there, raw)
            if len(before) != len(after) or not all(map(torch.equal, before, after)):
                raise broken(
                    f"{name}: the loaded export gives other outputs than the model did.",
                    "users would get other answers than those that were evaluated",
                    "keep all state in parameters, buffers, arguments() and tensors(), and give "
                    "the same arguments back",
                )
            if repr(here.predict(raw)) != repr(there.predict(raw)):
                raise broken(
                    f"{name}: the loaded export decodes the same outputs to other answers.",
                    "users would get other answers than those that were evaluated",
                    "let the task's arguments() hold all that decode needs",
                )


def check_predicting_equals_validating(subject: Subject) -> None:
    """Raw items give the outputs of the valid loader: bitwise in its grouping, else to 1e-6."""
    raw = list(subject.data.raw("valid"))
    name = subject.models[0]
    predictor = subject.predictor(subject.build(name))
    validated = [
        _parts(predictor.forward_batch(batch)) for batch in subject.loader("valid").batches(0)
    ]
    same_grouping = [
        _parts(predictor.forward_batch(subject.preprocessor.encode(chunk)))
        for chunk in _chunks(raw, subject.batch_size)
    ]
    for step, (wanted, found) in enumerate(zip(validated, same_grouping, strict=True)):
        if len(wanted) != len(found) or not all(map(torch.equal, wanted, found)):
            raise broken(
                f"{name}: predicting the raw items of valid batch {step} gives other outputs than "
                "the valid loader.",
                "the validation score would say nothing about predictions",
                "let encode and the data set use the same code, and put the rest in on_device",
            )
    rows = [[part[row] for part in batch] for batch in validated for row in range(len(batch[0]))]
    for index, (item, wanted) in enumerate(zip(raw, rows, strict=True)):
        single = _parts(predictor.forward_batch(subject.preprocessor.encode([item])))
        error = max(_difference(part[0], row) for part, row in zip(single, wanted, strict=True))
        if not error <= TOLERANCE:
            raise broken(
                f"{name}: alone, valid item {index} gives outputs that differ by {error:.1e} from "
                "those it gives in a batch.",
                "an answer must not depend on what else is asked at the same time",
                "use no statistics of the batch in encode, on_device or the model in eval mode; "
                "mask padding",
            )


def _trained_a_little(subject: Subject, name: str) -> nn.Module:
    """A model whose weights and buffers are not those that its builder makes."""
    model = subject.build(name).train()
    for batch in subject.training_batches(2):
        total, weight = subject.training_loss(model, batch)
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
        for part in _parts(predictor.forward_batch(predictor.preprocessor.encode(chunk)))
    ]


def _chunks(raw: list[Any], size: int) -> list[list[Any]]:
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def _parts(outputs: Any) -> list[Tensor]:
    """The tensors in a model's answer, whatever holds them."""
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
    """Largest difference, relative where outputs are larger than 1; padding at ends is cut off."""
    common = tuple(slice(0, min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
    one, other = one[common].double(), other[common].double()
    if one.numel() == 0:
        return 0.0
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0))
