"""What lasts: checkpoints of a run, exports of a model, and the predictor that needs only these.

Import from the modules (``from flambeau.artefact.predictor import Predictor``): training needs
the checkpoints alone, and must not load what stands above it with them.
"""

__all__: list[str] = []
