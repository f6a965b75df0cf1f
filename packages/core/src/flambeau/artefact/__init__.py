"""Artefacts: checkpoints of a run, exports of a model, and the predictor that loads an export.

Import from the modules (``from flambeau.artefact.predictor import Predictor``): training needs only
the checkpoints and must not import the predictor with them.
"""

__all__: list[str] = []
