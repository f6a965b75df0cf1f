"""The doctor's checks of tags: copies across parts, and inputs that are constant."""

from __future__ import annotations

from dataclasses import replace

from flambeau.doctor import CORE_CHECKS, Check, Finding, TrainingSetup
from flambeau.doctor.batch_checks import constant_input
from flambeau_text.copies import CODE, copies_across_parts
from flambeau_text.tagging.data import TagData
from flambeau_text.tagging.preprocess import STARTS


def constant_tokens(setup: TrainingSetup) -> list[Finding]:
    """Find inputs with the same value in every sample.

    Sentences of equal lengths have their words at the same positions, which is no mistake.
    """
    return [each for each in constant_input(setup) if repr(STARTS) not in each.what]


def check_copies(setup: TrainingSetup) -> list[Finding]:
    """Return a finding for each held-out part with sentences that are also in train."""
    data = setup.data
    if not isinstance(data, TagData):
        return []
    sentences = [tuple(words) for words in data.samples["sentence"]]
    tags, locations = data.samples["tags"], data.samples["location"]
    return copies_across_parts(sentences, tags, locations, data.split, "sentences")


_CORE = next(check for check in CORE_CHECKS if check.code == "constant-input")
CHECKS = (
    replace(_CORE, run=constant_tokens),
    Check(
        CODE,
        "held-out sentences that are also in train",
        check_copies,
        reads="facts",
        runs="first fit",
        page="docs/text_classification.md#tags-of-words",
    ),
)
