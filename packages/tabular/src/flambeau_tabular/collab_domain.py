"""``COLLAB``: the record of the tabular domain as ``CollabData`` uses it."""

from __future__ import annotations

from dataclasses import replace

from flambeau_tabular.collab_rules import COLLAB_RULES
from flambeau_tabular.domain import DOMAIN

COLLAB = replace(DOMAIN, rules=COLLAB_RULES, checks=())
"""The same domain with the rules of ratings; exports have the name of the domain."""
