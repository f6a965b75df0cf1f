"""The doctor's checks of texts, in addition to the checks of flambeau itself."""

from __future__ import annotations

from typing import Any

from flambeau.data.split import HELD_OUT
from flambeau.doctor import Check, Finding, TrainingSetup
from flambeau_text.classification.assemble import texts_of
from flambeau_text.classification.data import TextData
from flambeau_text.classification.dataset import EncodedTexts

_LEAST_CUT = 0.01
_LEAST_COPIES, _LEAST_SHARE = 2, 0.01


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
    label_of: dict[Any, str] = {}
    texts = [texts_of(data.samples, row) for row in range(len(data.samples))]
    for row in data.split.train.tolist():
        label_of.setdefault(texts[row], data.targets.text(row))
    found: list[Finding] = []
    for part in HELD_OUT:
        rows = data.split.part(part).tolist()
        copies = [row for row in rows if texts[row] in label_of]
        if len(copies) < max(_LEAST_COPIES, _LEAST_SHARE * len(rows)):
            continue
        differ = sum(label_of[texts[row]] != data.targets.text(row) for row in copies)
        where = data.samples["location"][copies[0]]
        found.append(
            Finding(
                "duplicates-across-parts",
                f"{len(copies):,} of {len(rows):,} {part} texts are also in train (the first is "
                f"{where}), {differ:,} of them with another label, so the scores are too high.",
                {"copies": len(copies), "compared": len(rows), "with another label": differ},
                "Drop the copies, or let flambeau draw the parts (valid=0.2), which keeps all "
                "copies of a text in one part.",
                severity="error" if len(copies) > len(rows) / 2 else "warning",
            )
        )
    return found


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
