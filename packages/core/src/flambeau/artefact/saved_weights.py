"""``read_saved_weights``: the tensors of a model from any folder or file that has them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from flambeau.artefact.checkpoint_files import checkpoints_of, load_checkpoint
from flambeau.artefact.difference import read_weights
from flambeau.artefact.export_format import RECORD_FILE, ExportRecord
from flambeau.artefact.verified_files import file_sha256, read_tensors
from flambeau.errors import ArtefactError

_CHECKPOINT = "state.json"


def read_saved_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a model by name, from files without code.

    Args:
        path: A file of ``learner.save``, the folder of an export, a checkpoint, or the folder of a
            run, whose newest checkpoint is read. Of a checkpoint these are the weights of its step,
            also if the run keeps averaged weights or those of its best epoch.

    Raises:
        ArtefactError: There are no weights, or a file is damaged.
    """
    source = Path(path)
    if (source / RECORD_FILE).is_file():
        return read_weights(source, ExportRecord.read(source))
    if source.is_dir():
        if not (source / _CHECKPOINT).is_file():
            found = checkpoints_of(source)
            if not found:
                raise ArtefactError(
                    f"There are no weights in {source}. Give an export, a checkpoint, the folder "
                    "of a run with checkpoints, or a file *.safetensors."
                )
            source = found[0]
        return dict(load_checkpoint(source)["model"])
    file = source if source.suffix else source.with_suffix(".safetensors")
    return read_tensors(file, file_sha256(file) if file.exists() else "")
