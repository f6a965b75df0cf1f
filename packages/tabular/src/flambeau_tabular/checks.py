"""The doctor's checks of tables, in addition to the checks of flambeau itself."""

from __future__ import annotations

from flambeau.doctor import Check

CHECKS: tuple[Check, ...] = ()
