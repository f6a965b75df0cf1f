"""``combine``: one export that predicts the mean of several exported models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flambeau.artefact.ensemble_builders import ensemble_spec, with_ensembles
from flambeau.artefact.export import export
from flambeau.artefact.export_format import ExportRecord, export_folder
from flambeau.artefact.predictor import Predictor
from flambeau.artefact.read_like import refuse_ensemble
from flambeau.data.joint_preprocessor import JointPreprocessor
from flambeau.domain import get_domain
from flambeau.errors import ArgumentError, check_path
from flambeau.task.model_ensemble import EnsembleTask, ModelEnsemble


def combine(exports: Sequence[str | Path], folder: str | Path) -> Path:
    """Write one export that predicts the mean of several models, and return its folder.

    Each model keeps its own preprocessor: a classifier that reads texts forwards can be combined
    with one that reads them backwards, as in ULMFiT. Class probabilities are averaged, and numbers
    in the units of their targets.

    Args:
        exports: The folders of at least two exports of the same kind of data, with the same classes
            or targets.
        folder: The folder of the new export, for ``Predictor.load`` and ``flambeau predict``.

    Raises:
        ArgumentError: There are fewer than two exports, or their predictions cannot be averaged.
        ArtefactError: An export is missing or damaged, or is an ensemble itself.
    """
    if not _is_list(exports) or len(exports) < 2:
        raise ArgumentError(f"exports is {exports!r:.80}; give a list of at least two folders.")
    for index, each in enumerate(exports):
        check_path(each, f"exports[{index}]")
    check_path(folder, "folder")
    folders = [export_folder(each) for each in exports]
    for each in folders:
        refuse_ensemble(each, "exports")
    records = [ExportRecord.read(each) for each in folders]
    first = records[0]
    for path, record in zip(folders, records, strict=True):
        if record.domain != first.domain:
            raise ArgumentError(
                f"{folders[0]} is an export of the domain {first.domain!r}, but {path} of "
                f"{record.domain!r}. Combine models of the same kind of data."
            )
        if record.model.builder is None:
            raise ArgumentError(
                f"{path} has only the weights of a user-defined module, so a combined export "
                f"could not be loaded. {record.model.note}"
            )
    found = [Predictor.load(each, device="cpu") for each in folders]
    numbers = range(len(found))
    tasks = {f"model {at}": each.task for at, each in enumerate(found)}
    specs = [
        {"builder": record.model.builder, "arguments": record.model.arguments} for record in records
    ]
    return export(
        folder,
        domain=with_ensembles(get_domain(first.domain)),
        model=ModelEnsemble(each.model for each in found),
        model_spec=ensemble_spec(specs),
        task=EnsembleTask(tasks, numbers, numbers),
        preprocessor=JointPreprocessor([each.preprocessor for each in found]),
        plan=first.plan,
        notes=first.notes,
    )


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
