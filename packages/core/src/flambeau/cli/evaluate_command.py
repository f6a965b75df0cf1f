"""``flambeau evaluate MODEL PATH``: evaluate an exported model on labelled data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from flambeau.artefact.predictor import Predictor
from flambeau.cli.data_arguments import TargetName, open_data
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import LoaderOptions
from flambeau.data.split import PARTS
from flambeau.domain import Domain, get_domain
from flambeau.errors import InputError
from flambeau.plan import Plan
from flambeau.report import ReportDetails, interpret, text_table
from flambeau.task.task import StepContext


class Part(StrEnum):
    """The part of the data that is evaluated."""

    all = "all"
    train = "train"
    valid = "valid"
    test = "test"
    calibration = "calibration"


def evaluate(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="A folder that `flambeau fit` exported.")],
    path: Annotated[Path, typer.Argument(help="Labelled data, in the layout of `flambeau fit`.")],
    target: TargetName = None,
    part: Annotated[Part, typer.Option(help="Part of the data to evaluate.")] = Part.all,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report with the largest errors to this file.")
    ] = None,
) -> None:
    """Evaluate an exported model on labelled data.

    The scores are the loss and the metrics of training.
    """
    predictor = Predictor.load(model)
    record = predictor.record
    has_classes = predictor.task.kind in ("classification", "multi_label")
    classes = predictor.task.output_names if has_classes else ()
    options: dict[str, Any] = {"classes": list(classes)} if classes else {}
    options["target"] = target
    if record is not None:
        options["task"] = _name_of_task(get_domain(record.domain), predictor.task)
    _, data = open_data("evaluate", path, record.domain if record else None, context.args, options)
    chosen = [p for p in (PARTS if part is Part.all else (part.value,)) if len(data.split.part(p))]
    if not chosen:
        raise InputError(f"{path} has no {part.value} samples. Evaluate another --part, or all.")
    if report is None:
        batches = _batches(predictor, data, chosen)
        step_context = StepContext("evaluate", values=dict(predictor.task.values))
        scores = predictor.task.evaluate(predictor.model, batches, step_context)
    else:
        found = interpret(
            predictor.model,
            predictor.task,
            lambda: _batches(predictor, data, chosen),
            part=" and ".join(chosen),
            details=_report_details(predictor, data, model),
        )
        scores = found.predictions.scores
        typer.echo(f"The report is in {found.report(report)}.", err=True)
    count = sum(len(data.split.part(name)) for name in chosen)
    if as_json:
        typer.echo(json.dumps({"samples": count, **scores}, indent=2))
        return
    signatures: dict[str, str] = getattr(predictor.task, "signatures", {})
    rows = [[name, f"{value:.4f}", signatures.get(name, "")] for name, value in scores.items()]
    typer.echo(
        f"{count:,} samples ({', '.join(chosen)})\n"
        + text_table(
            ["score", "value", *([""] if signatures else [])],
            [row[: 2 + bool(signatures)] for row in rows],
        )
    )


def _report_details(predictor: Predictor, data: Data, model: Path) -> ReportDetails:
    """Return the content of the report on an export: its plan and the data, no history."""
    plan = predictor.record.plan if predictor.record is not None else None
    return ReportDetails(
        title=f"{model.name} on labelled data",
        data=data,
        plan=None if plan is None else Plan.from_json(plan),
        notes={"export": str(model), "device": str(predictor.device)},
        preprocessor=predictor.preprocessor,
    )


def _name_of_task(domain: Domain, task: object) -> str | None:
    """Return the name of the model's task, so that the targets are read for it."""
    return next((name for name, kind in domain.tasks.items() if type(task) is kind), None)


def _batches(predictor: Predictor, data: Data, parts: list[str]) -> Iterator[Batch]:
    """Yield the batches of the parts, encoded by the preprocessor of the export."""
    predictor.model.eval()
    # Read files as needed: for one pass it does not pay to keep them all in memory.
    values: dict[str, Any] = {"cache": "files"}
    options = LoaderOptions(batch_size=predictor.batch_size, device=predictor.device)
    with torch.no_grad():
        for part in parts:
            loader = data.dataset(part, predictor.preprocessor, values).loader(options)
            for batch in loader.batches(0):
                yield predictor.preprocessor.on_device(batch.to(predictor.device))
