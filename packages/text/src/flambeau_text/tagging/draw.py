"""``draw_parts``: divides tagged sentences into parts; train has each tag."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flambeau.data.split import HELD_OUT, PARTS, Split
from flambeau.data.split_request import SplitRequest
from flambeau.errors import SplitError
from flambeau_text.classification.assemble import text_numbers
from flambeau_text.tagging.sources import TaggedSentences


def draw_parts(found: TaggedSentences, request: SplitRequest) -> Split:
    """Return the parts that are given, or drawn at random.

    In a draw the copies of a sentence are in one part. If a tag is in no train sentence, the first
    sentence with it is moved to train with its copies: rare tags would make the draw fail for some
    seeds.

    Raises:
        SplitError: The parts cannot be formed.
    """
    groups = text_numbers([tuple(own) for own in found.words])
    repeated = len(np.unique(groups)) < len(found)
    given = found.given or None
    split = request.resolve(len(found), given=given, groups=groups if repeated else None)
    if "by group" in split.method:
        split = replace(split, notes=(*split.notes, "a group is all copies of one sentence"))
    is_drawn = request.for_training and bool(request.to_draw()) and given is None
    return _with_all_tags(found, split, groups) if is_drawn else split


def _with_all_tags(found: TaggedSentences, split: Split, groups: NDArray[np.int64]) -> Split:
    known = {tag for row in split.train.tolist() for tag in found.tags[row]}
    counts = Counter(tag for tags in found.tags for tag in set(tags))
    moved = np.zeros(len(found), bool)
    # A sentence with a rare tag may have less rare ones, too.
    for tag in sorted(counts, key=lambda each: (counts[each], each)):
        if tag not in known:
            row = next(row for row, tags in enumerate(found.tags) if tag in tags)
            for copy in np.flatnonzero(groups == groups[row]):
                known |= set(found.tags[copy])
                moved[copy] = True
    if not moved.any():
        return split
    parts = {part: split.part(part) for part in PARTS}
    kept = {part: rows[~moved[rows]] for part, rows in parts.items()}
    for part in HELD_OUT:
        if len(parts[part]) and not len(kept[part]):
            raise SplitError(
                f"All sentences drawn for {part} are the only ones with some tag, and are needed "
                f"in train. Give more sentences, or a larger {part} part."
            )
    parts = kept
    parts["train"] = np.sort(np.concatenate([parts["train"], np.flatnonzero(moved)]))
    note = f"{int(moved.sum()):,} drawn sentences were moved to train: only they had some tag"
    return replace(split, **cast("dict[str, Any]", parts), notes=(*split.notes, note))
