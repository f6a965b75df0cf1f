"""Load weights into a model: from a file, an export, a checkpoint or the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.artefact.weights_file import load_model
from flambeau.artefact.weights_meaning import Meaning
from flambeau.errors import ArtefactError
from flambeau.learner.run_folder import is_checkpoint, resume_point
from flambeau.training.run_state.checkpoint_content import load_final_weights
from flambeau.training.run_state.module_state import copied_state, load_state
from flambeau.training.run_state.resume import check_tree
from flambeau.wording import type_and_first_line


def load_any(model: nn.Module, path: str | Path, meaning: Meaning) -> dict[str, Any]:
    """Load the weights in ``path`` into the model, which is unchanged after an error.

    Args:
        model: The model.
        path: A file of ``save``, an export's folder, a checkpoint, or the folder of a run, whose
            newest complete checkpoint is used.
        meaning: The learner's preprocessor and task; those of a file or export must match them.

    Returns:
        The calibration stored in the file (temperature, thresholds), empty if there is none.

    Raises:
        ArtefactError: The file is missing or damaged, or belongs to another model, other outputs
            or another preprocessor.
    """
    folder = Path(path)
    if not is_checkpoint(folder) and latest_checkpoint(folder) is None:
        return load_model(model, path, meaning)
    _, checkpoint, found = resume_point(folder)
    tree, before = check_tree(found, checkpoint), copied_state(model)
    meaning.check_settings(tree.get("meaning") or {}, checkpoint)
    try:
        load_final_weights(model, tree)
    except Exception as error:
        load_state(model, before)
        raise ArtefactError(
            f"{checkpoint} does not fit the model: {type_and_first_line(error)}. Load a "
            "checkpoint of the same model, or another checkpoint if this one is damaged."
        ) from error
    return {}
