"""Explain the prediction of a learner for one sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flambeau.artefact.input_gradients import input_attributions
from flambeau.artefact.predictor import Predictor
from flambeau.data.attributions import Attributions
from flambeau.data.batch import Batch
from flambeau.data.preview import Preview
from flambeau.errors import ArgumentError, InputError
from flambeau.inspect.hooks import modules_by_name
from flambeau.inspect.nearest_samples import nearest_samples
from flambeau.inspect.sample_explanation import (
    ExplainedNeighbour,
    LayerOutput,
    SampleExplanation,
)
from flambeau.inspect.watch.watched_layer import float_tensors
from flambeau.learner.build import BuiltPlan
from flambeau.learner.sample_texts import SampleTexts
from flambeau.learner.setup import Setup
from flambeau.learner.single_steps import refuse_processes
from flambeau.task.task import StepContext, Task
from flambeau.wording import count_of

_PARTS = ("train", "valid", "test", "calibration")
_BACKGROUND = 100


def explain(
    setup: Setup, built: BuiltPlan, sample: Any, output: str | None, neighbours: int
) -> SampleExplanation:
    """Return why the model predicts what it does for a sample.

    Args:
        setup: The learner's setup.
        built: The objects of the learner.
        sample: As in ``Learner.explain``.
        output: As in ``Learner.explain``.
        neighbours: Number of train samples.

    Raises:
        ArgumentError: There is no such sample or output.
        InputError: The sample is more than one input, or several processes train together.
    """
    refuse_processes("explain reads the train samples")
    predictor = built.predictor()
    number, part, raw = _found(setup, sample)
    prediction = predictor.predict([raw])[0]
    notes: list[str] = []
    with predictor.eval_mode():
        batch = predictor.preprocessor.encode([raw]).to(predictor.device)
        ready = predictor.preprocessor.on_device(batch)
        if len(ready) != 1:
            raise InputError(f"explain takes one sample, but this is {len(ready)}. Select one.")
        layers = _layers(predictor, ready)
        found = _neighbours(setup, built, predictor, ready, number, neighbours, notes)
    attributions = _attributions(setup, predictor, raw, output, notes)
    preview = None if number is None else setup.data.preview(number)
    return SampleExplanation(
        "The sample" if number is None else f"sample {number} of {part}",
        prediction,
        str(getattr(prediction, "label", prediction)),
        "" if number is None else _target_of(setup, built, part, number),
        tuple(layers),
        tuple(found),
        attributions,
        tuple(notes),
        "" if preview is None else preview.caption,
        None if preview is None else preview.image,
        built.task.kind == "classification",
    )


def _found(setup: Setup, sample: Any) -> tuple[int | None, str, Any]:
    """Return number, part and raw input of a sample; a raw input has no number."""
    number = _number(sample)
    if number is None:
        return None, "", sample
    for part in _PARTS:
        rows = setup.data.split.part(part).tolist()
        if number in rows:
            return number, part, setup.data.raw(part)[rows.index(number)]
    raise ArgumentError(
        f"There is no sample {number} in train, valid, test or calibration. Give a number of "
        "data.split, such as data.split.valid[0], or a raw input as predict takes it."
    )


def _number(sample: Any) -> int | None:
    """Return the number of a sample, also of NumPy and torch; None for a raw input."""
    if isinstance(sample, Tensor | np.ndarray):
        if sample.ndim:
            return None
        sample = sample.tolist()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    is_number = isinstance(sample, int | np.integer) and not isinstance(sample, bool)
    return int(sample) if is_number else None  # pyright: ignore[reportUnknownArgumentType]


def _forward(predictor: Predictor, batch: Batch) -> Any:
    context = StepContext("predict", values=dict(predictor.task.values))
    return predictor.task.forward(predictor.model, batch, context)


def _layers(predictor: Predictor, batch: Batch) -> list[LayerOutput]:
    found: list[LayerOutput] = []
    calls: dict[str, int] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            first = next(float_tensors([output]), None)
            if first is None:
                return
            calls[name] = count = calls.get(name, 0) + 1
            shown = name if count == 1 else f"{name}, call {count}"
            found.append(_layer_output(shown, type(module).__name__, first.detach()))

        return keep

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in modules_by_name(predictor.model).items()
        if name and _is_shown(module)
    ]
    try:
        _forward(predictor, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_shown(module: nn.Module) -> bool:
    """Return whether a module has no children, or parameters that belong to none of them.

    Identity modules are left out: their output is that of the layer before.
    """
    if isinstance(module, nn.Identity):
        return False
    owns = any(True for _ in module.parameters(recurse=False))
    return owns or not any(True for _ in module.children())


def _layer_output(name: str, kind: str, output: Tensor) -> LayerOutput:
    values = output.float()
    shape = tuple(output.shape[1:]) if output.shape[:1] == (1,) else tuple(output.shape)
    return LayerOutput(
        name,
        kind,
        shape,
        float(values.mean()),
        float(values.square().mean().sqrt()),
        float(values.abs().max()),
        float((values == 0).float().mean()),
    )


def _neighbours(
    setup: Setup,
    built: BuiltPlan,
    predictor: Predictor,
    sample: Batch,
    number: int | None,
    n: int,
    notes: list[str],
) -> list[ExplainedNeighbour]:
    if n < 1:
        return []
    loader = built.loader("train", ordered=True)
    texts = SampleTexts(setup.data, loader)
    try:
        nearest, left_out = nearest_samples(
            predictor.model,
            lambda batch: _forward(predictor, batch),
            sample,
            built.batches("train", loader),
            n=n,
            exclude=None if texts.why_not else number,
        )
    except InputError as error:
        notes.append(f"The nearest train samples are not known: {error}")
        return []
    if left_out:
        notes.append(
            f"{count_of(left_out, 'train sample')} are not compared: their features are not finite."
            if left_out > 1
            else "1 train sample is not compared: its features are not finite."
        )
    is_numbered = texts.contains(each.number for each in nearest)
    if not is_numbered:
        why_not = texts.why_not or "the batches do not number their rows as the split does"
        notes.append(f"The nearest train samples have the numbers of their rows: {why_not}.")
    previews = [setup.data.preview(each.number) if is_numbered else None for each in nearest]
    return [
        ExplainedNeighbour(
            each.number,
            each.similarity,
            _target_text(built.task, each.target),
            *_content(preview),
        )
        for each, preview in zip(nearest, previews, strict=True)
    ]


def _content(preview: Preview | None) -> tuple[str, bytes | None]:
    return ("", None) if preview is None else (preview.caption, preview.image)


def _target_of(setup: Setup, built: BuiltPlan, part: str, number: int) -> str:
    """Return the target of a sample as text; empty if its batch cannot be found."""
    rows = setup.data.split.part(part).tolist()
    loader = built.loader(part, ordered=True)
    start = rows.index(number) // int(built.values["batch_size"])
    batch = next(iter(loader.batches(0, start)), None)
    if batch is None or batch.indices is None or len(batch.targets) != 1:
        return ""
    [places] = torch.nonzero(batch.indices == number, as_tuple=True)
    [target] = batch.targets.values()
    if len(places) != 1 or target.numel() != len(batch):
        return ""
    return _target_text(built.task, float(target.reshape(-1)[places[0]]))


def _target_text(task: Task, target: float | None) -> str:
    if target is None or math.isnan(target):
        return ""
    names = task.output_names
    if task.kind == "classification":
        index = int(target)
        return names[index] if 0 <= index < len(names) else ""
    return f"{target:g}"


def _attributions(
    setup: Setup, predictor: Predictor, raw: Any, output: str | None, notes: list[str]
) -> Attributions | None:
    function = setup.domain.attributions or input_attributions
    try:
        background = _background(setup.data.raw("train"))
        with predictor.eval_mode(), torch.enable_grad():
            return function(predictor, raw, output, background)
    except (ArgumentError, InputError) as error:
        if output is not None:
            raise
        notes.append(f"What moves the output is not known: {error}")
        return None


def _background(rows: Sequence[Any]) -> Sequence[Any]:
    """Return evenly spaced train samples."""
    return rows[:: max(1, len(rows) // _BACKGROUND)]
