"""Artefacts: checkpoints of a run, exports of a model, and the predictor that loads an export.

Import from the submodules (``from flambeau.artefact.predictor import Predictor``): training uses
only checkpoints, and importing this package does not import the predictor.
"""

__all__: list[str] = []
