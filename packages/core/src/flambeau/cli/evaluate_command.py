"""``flambeau evaluate MODEL PATH``: evaluate an exported model on labelled data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from flambeau.artefact.export_format import EXPORT_OF_RUN, export_folder
from flambeau.artefact.predictor import Predictor
from flambeau.callbacks.history_writer import read_history
from flambeau.cli.data_arguments import TargetName, open_data
from flambeau.cli.threshold_option import Threshold, with_threshold
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.joint_preprocessor import encoded_batches
from flambeau.data.loader import LoaderOptions
from flambeau.data.split import PARTS, Split
from flambeau.domain import Domain, get_domain
from flambeau.errors import ArgumentError, InputError
from flambeau.plan import Plan
from flambeau.report import ReportDetails, interpret, text_table
from flambeau.runs.saved_run import is_run
from flambeau.task.model_ensemble import EnsembleTask
from flambeau.task.task import StepContext, Task
from flambeau.training.logged_values import evaluate as evaluate_task


class Part(StrEnum):
    """The part of the data that is evaluated; auto is test, else valid, else all."""

    auto = "auto"
    all = "all"
    train = "train"
    valid = "valid"
    test = "test"
    calibration = "calibration"


_WHOLE = (Part.auto, Part.all)

SavesPredictions = Annotated[
    bool,
    typer.Option(
        "--save", help="Store the predictions beside the model, for `flambeau runs compare`."
    ),
]
"""The option ``--save``."""


def evaluate(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="A folder that `flambeau fit` exported.")],
    path: Annotated[Path, typer.Argument(help="Labelled data, in the layout of `flambeau fit`.")],
    target: TargetName = None,
    part: Annotated[
        Part, typer.Option(help="Part to evaluate; auto is test, else valid, else all samples.")
    ] = Part.auto,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a report with the largest errors: .html, .md or .json."),
    ] = None,
    save: SavesPredictions = False,
    threshold: Threshold = None,
) -> None:
    """Evaluate an exported model on labelled data.

    The scores are the loss and the metrics of training.
    """
    _refuse_like(context.args, model)
    predictor = Predictor.load(model)
    predictor.task = with_threshold(predictor.task, threshold)
    record = predictor.record
    has_classes = predictor.task.kind in ("classification", "multi_label")
    classes = predictor.task.output_names if has_classes else ()
    options: dict[str, Any] = {"evaluate": part.value, "target": target, "like": model}
    if classes:
        options["classes"] = list(classes)
    if record is not None:
        options["task"] = _name_of_task(get_domain(record.domain), predictor.task)
    _, data = open_data("evaluate", path, record.domain if record else None, context.args, options)
    for reading in data.readings:
        typer.echo(f"note: {reading}", err=True)
    chosen = parts_to_score(data.split, part)
    if not chosen:
        raise InputError(f"{path} has no {part.value} samples. Evaluate another --part, or all.")
    run_folder = _run_folder(model, chosen) if save else None
    whole = not _has_parts(data.split)
    if report is None and run_folder is None:
        batches = _batches(predictor, data, chosen)
        step_context = StepContext("evaluate", values=dict(predictor.task.values))
        scores = evaluate_task(predictor.task, predictor.model, batches, step_context)
    else:
        found = interpret(
            predictor.model,
            predictor.task,
            lambda: _batches(predictor, data, chosen),
            part="labelled" if whole and part in _WHOLE and not save else ", ".join(chosen),
            details=_report_details(predictor, data, model, path),
        )
        scores = found.predictions.scores
        if report is not None:
            typer.echo(f"The report is in {found.report(report)}.", err=True)
        if run_folder is not None:
            typer.echo(f"The predictions are in {found.save(run_folder)}.", err=True)
    count = sum(len(data.split.part(name)) for name in chosen)
    if as_json:
        typer.echo(json.dumps({"samples": count, "parts": chosen, **scores}, indent=2))
        return
    names = "" if whole and part in _WHOLE else ", ".join(chosen)
    scored = ": ".join(filter(None, ("all" if part is Part.all or not names else "", names)))
    typer.echo(f"{count:,} samples ({scored})\n" + _score_table(predictor.task, scores))


def _refuse_like(words: list[str], model: Path) -> None:
    """Raise an ArgumentError for the option ``--like``."""
    if any(word.partition("=")[0] == "--like" for word in words):
        raise ArgumentError(
            "--like has no meaning here: the data are always read with the options of the export "
            f"{model}. Omit --like."
        )


def _run_folder(model: Path, chosen: list[str]) -> Path:
    """Return the folder of the run that exported the model, for ``--save``.

    Raises:
        ArgumentError: The export is not in the folder of a run, or more than one part is evaluated.
    """
    export = export_folder(model).resolve()
    if export.name != EXPORT_OF_RUN or not is_run(export.parent):
        raise ArgumentError(
            f"--save stores the predictions in the folder of the run, but {export} is not in one. "
            "Give the model in the folder of a run: runs/…/model."
        )
    if chosen not in (["valid"], ["test"]):
        raise ArgumentError(
            f"--save stores the predictions for one part, valid or test, but the parts are "
            f"{', '.join(chosen)}. Add --part valid or --part test."
        )
    return export.parent


def _score_table(task: Task, scores: Mapping[str, float]) -> str:
    """Return the scores as a table; with the settings of a metric (its signature), if known."""
    signatures: dict[str, str] = getattr(task, "signatures", {})
    rows = [[name, f"{value:.4f}", signatures.get(name, "")] for name, value in scores.items()]
    if not signatures:
        return text_table(["score", "value"], [row[:2] for row in rows])
    return text_table(["score", "value", ""], rows)


def parts_to_score(split: Split, part: Part) -> list[str]:
    """Return the names of the parts to evaluate.

    ``auto`` selects test, or else valid, if the data themselves define these parts. If the parts
    were drawn at random, ``auto`` selects all samples.
    """
    present = [name for name in PARTS if len(split.part(name))]
    if part is Part.auto:
        wanted = [name for name in ("test", "valid") if name in present and _has_parts(split)]
        return wanted[:1] or present
    return present if part is Part.all else [name for name in present if name == part.value]


def _has_parts(split: Split) -> bool:
    """Return whether the data define their parts, as opposed to parts drawn at random."""
    return not split.method.startswith(("random", "by group", "all rows"))


def _report_details(predictor: Predictor, data: Data, model: Path, path: Path) -> ReportDetails:
    """Return what the report on an export shows: its plan, the data, the history of its run."""
    record, export = predictor.record, export_folder(model).resolve()
    plan = record.plan if record is not None else None
    history = read_history(export.parent) if export.name == EXPORT_OF_RUN else None
    name = (export if history is None else export.parent).name
    architecture = record.model.builder if record is not None else None
    kind = architecture or type(predictor.model).__name__
    return ReportDetails(
        title=f"{kind} ({name}) on {path.resolve().name}",
        data=data,
        plan=None if plan is None else Plan.from_json(plan),
        history=history,
        notes={"export": str(model), "data": str(path), "device": str(predictor.device)},
        preprocessor=predictor.preprocessor,
    )


def _name_of_task(domain: Domain, task: object) -> str | None:
    """Return the name of the model's task, which decides how targets are read; None if unknown."""
    if isinstance(task, EnsembleTask):
        task = task.of_mean
    return next((name for name, kind in domain.tasks.items() if type(task) is kind), None)


def _batches(predictor: Predictor, data: Data, parts: list[str]) -> Iterator[Batch]:
    """Yield the batches of the parts, encoded by the preprocessor of the export."""
    predictor.model.eval()
    plan = None if predictor.record is None else predictor.record.plan
    # As in training, but files are read as needed: for one pass it does not pay to keep them all.
    values = {**({} if plan is None else Plan.from_json(plan).values), "cache": "files"}
    # Train images are presized for the augmentation; scores are those of predictions.
    values.pop("presize", None)
    options = LoaderOptions(batch_size=predictor.batch_size, device=predictor.device)
    with torch.no_grad():
        for part in parts:
            for batch in encoded_batches(data, part, predictor.preprocessor, values, options):
                yield predictor.preprocessor.on_device(batch.to(predictor.device))
