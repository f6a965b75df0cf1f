"""The doctor's checks of tags: core's check of constant inputs, without the positions of words."""

from __future__ import annotations

from dataclasses import replace

from flambeau.doctor import CORE_CHECKS, Finding, TrainingSetup
from flambeau.doctor.batch_checks import constant_input
from flambeau_text.tagging.preprocess import STARTS


def constant_tokens(setup: TrainingSetup) -> list[Finding]:
    """Find inputs with the same value in every sample.

    Sentences of equal lengths have their words at the same positions, which is no mistake.
    """
    return [each for each in constant_input(setup) if repr(STARTS) not in each.what]


_CORE = next(check for check in CORE_CHECKS if check.code == "constant-input")
CHECKS = (replace(_CORE, run=constant_tokens),)
