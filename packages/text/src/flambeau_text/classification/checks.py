"""The doctor's checks of texts, in addition to the checks of flambeau itself."""

from __future__ import annotations

from flambeau.doctor import Check, Finding, TrainingSetup
from flambeau_text.classification.assemble import texts_of
from flambeau_text.classification.data import TextData
from flambeau_text.classification.dataset import EncodedTexts
from flambeau_text.copies import copies_across_parts

_LEAST_CUT = 0.01


def check_truncated(setup: TrainingSetup) -> Finding | None:
    """Return a finding if more than 1% of the train texts are cut."""
    train = setup.dataset("train")
    if not isinstance(train, EncodedTexts) or train.truncated < _LEAST_CUT * len(train):
        return None
    limit = setup.values["max_length"]
    return Finding(
        "truncated-texts",
        f"{train.truncated:,} of {len(train):,} train texts have more than {limit:,} tokens, of "
        "which the rest is not read.",
        {"texts": train.truncated, "share": train.truncated / len(train), "max_length": limit},
        "Raise the limit: TextOptions(max_length=…), --max-length; or keep both ends of such "
        'texts: TextOptions(truncation="head_tail"), --truncation head_tail.',
    )


def check_copies(setup: TrainingSetup) -> list[Finding]:
    """Return a finding for each held-out part with texts that are also in train."""
    data = setup.data
    if not isinstance(data, TextData):
        return []
    rows = range(len(data.samples))
    texts = [texts_of(data.samples, row) for row in rows]
    labels = [data.targets.text(row) for row in rows]
    return copies_across_parts(texts, labels, data.samples["location"], data.split)


CHECKS = (
    Check(
        "truncated-texts",
        "texts of which a part is not read",
        check_truncated,
        reads="data",
        runs="first fit",
        page="docs/text_classification.md#tokens",
    ),
    Check(
        "duplicates-across-parts",
        "held-out texts that are also in train",
        check_copies,
        reads="facts",
        runs="first fit",
        page="docs/text_classification.md#reading-texts",
    ),
)
