"""``COLLAB``: the record of the tabular domain as ``CollabData`` uses it."""

from __future__ import annotations

from dataclasses import replace

from flambeau_tabular.collab_rules import COLLAB_RULES, MODEL_NAMES
from flambeau_tabular.domain import DOMAIN
from flambeau_tabular.models import MODELS

COLLAB = replace(
    DOMAIN,
    models={name: MODELS[name] for name in MODEL_NAMES},
    rules=COLLAB_RULES,
    checks=(),
)
"""The same domain with the models and rules of ratings; exports have the name of the domain."""
