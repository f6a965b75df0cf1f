"""What lasts: checkpoints of a run, exports of a model, and the predictor that needs only these.

Import from the modules (``from flambeau.artefact.predictor import Predictor``): training needs
the checkpoints alone, and should not load the rest with them.
"""
