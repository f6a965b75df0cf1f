"""Assemble samples, targets and split from texts and labels, with all checks before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.label_scalars import class_name, is_missing, to_python
from flambeau.data.match_classes import match_classes
from flambeau.data.reading import Reading
from flambeau.data.samples import Problem, Samples
from flambeau.data.split import PARTS, Rows, Split
from flambeau.data.split_request import SplitRequest
from flambeau.data.targets import Targets, read_labels
from flambeau.errors import InputError, SplitError
from flambeau_text.checked_text import checked_text, is_missing_text
from flambeau_text.classification.options import TextOptions

TextDataArguments: TypeAlias = tuple[
    Samples, Targets, Split, TextOptions, tuple[str, ...], tuple[Reading, ...]
]
"""The arguments of ``TextData``."""

TEXT, SECOND_TEXT, LOCATION = "text", "second_text", "location"
"""Columns of ``Samples``: the texts, the second texts of pairs, and where each was found."""

WEIGHT, GROUP = "sample_weight", "group"
"""Columns of ``Samples`` with the weight and the group of each text, if they are given."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with their labels as they were found, before they are checked and split.

    Attributes:
        texts: The texts, or pairs of texts; a cell without a text is None or NaN.
        labels: One label per text.
        locations: Where each text was found, for messages.
        given: Rows of each part, if folders or a column define the parts.
        weights: Weight of each text in loss and metrics, ``(n,)``.
        groups: Group of each text; drawn parts keep each group in one part.
        notes: Lines of the report on how the input was read.
        readings: How columns and folders were interpreted.
    """

    texts: Sequence[Any]
    labels: Sequence[Any]
    locations: Sequence[str]
    given: Mapping[str, Rows] = field(default_factory=dict[str, Rows])
    weights: Tensor | None = None
    groups: Sequence[Any] | None = None
    notes: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> LabelledTexts:
        """Return these rows, with the parts in their numbers."""
        kept = np.asarray(rows, np.int64)
        return replace(
            self,
            texts=[self.texts[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            locations=[self.locations[row] for row in rows],
            given={part: np.flatnonzero(np.isin(kept, each)) for part, each in self.given.items()},
            weights=None if self.weights is None else self.weights[kept],
            groups=None if self.groups is None else [self.groups[row] for row in rows],
        )


def assemble(
    found: LabelledTexts, request: SplitRequest, options: TextOptions
) -> TextDataArguments:
    """Return the arguments of ``TextData``.

    Texts without a visible character are left out of data for training; data that are only scored
    keep them, as empty texts.

    Raises:
        InputError: There are no texts, a cell is not a text, or a label is missing or unknown; the
            message names the row.
        SplitError: The parts cannot be formed.
    """
    if len(found.labels) != len(found.texts):
        raise InputError(
            f"There are {len(found.texts):,} texts, but {len(found.labels):,} labels. Give one "
            "label per text."
        )
    if not request.for_training and (match := match_classes(found.labels, options)) is not None:
        found = replace(
            found.select(match.rows),
            labels=match.labels,
            readings=(*found.readings, *match.readings),
        )
    n = len(found)
    texts, problems = _read_texts(found, keep_blank=not request.for_training)
    kept = [row for row in range(n) if row in texts]
    if not kept:
        raise InputError("There are no texts: every cell is empty. Give texts with their labels.")
    part = found if len(kept) == n else found.select(kept)
    _check_labels(part, options)
    targets = read_labels(
        part.labels,
        task=options.task,
        classes=options.classes,
        sep=options.sep,
        sources=part.locations,
    )
    samples = Samples(
        {
            **_text_columns([texts[row] for row in kept]),
            LOCATION: list(part.locations),
            **({} if part.weights is None else {WEIGHT: cast("Sequence[Any]", part.weights)}),
            **({} if part.groups is None else {GROUP: _group_names(part)}),
        },
        tuple(problems),
    )
    split = _split(samples, targets, request, found, np.array(kept, np.int64))
    return samples, targets, split, options, found.notes, found.readings


def _read_texts(
    found: LabelledTexts, *, keep_blank: bool
) -> tuple[dict[int, tuple[str, ...]], list[Problem]]:
    """Return the text, or both texts, of each row that has one, and the rows without."""
    texts: dict[int, tuple[str, ...]] = {}
    problems: list[Problem] = []
    width = 0
    for row, value in enumerate(found.texts):
        is_pair = isinstance(value, tuple | list) and len(cast("Sequence[Any]", value)) == 2
        values = cast("Sequence[Any]", value if is_pair else (value,))
        where = found.locations[row]
        own = tuple("" if is_missing_text(each) else checked_text(each, where) for each in values)
        width = width or len(own)
        if len(own) != width or len(own) > 2:
            raise InputError(
                f"{where} has {len(own)} texts, and the first row {width}. Give one text in every "
                "row, or two in every row."
            )
        if keep_blank or all(text.strip() for text in own):
            texts[row] = own
        else:
            problems.append(Problem(where, "no text"))
    return texts, problems


def _text_columns(texts: Sequence[tuple[str, ...]]) -> dict[str, Sequence[Any]]:
    columns = [list(column) for column in zip(*texts, strict=True)]
    return dict(zip((TEXT, SECOND_TEXT), columns, strict=False))


def texts_of(samples: Samples, row: int) -> str | tuple[str, str]:
    """Return the text of a row, or both texts of a pair."""
    first = samples[TEXT][row]
    return (first, samples[SECOND_TEXT][row]) if SECOND_TEXT in samples.columns else first


def _check_labels(found: LabelledTexts, options: TextOptions) -> None:
    """Raise an InputError that names the first text without a label."""
    for location, label in zip(found.locations, found.labels, strict=True):
        value = to_python(label)
        if is_missing(value) and not (options.sep is not None and value == ""):
            n = sum(is_missing(to_python(each)) for each in found.labels)
            raise InputError(
                f"{location} has no label ({value!r}); {n:,} of {len(found):,} texts have none. "
                "Add the labels, or remove these texts."
            )


def _group_names(found: LabelledTexts) -> list[str]:
    names: list[str] = []
    for location, group in zip(found.locations, found.groups or (), strict=True):
        value = to_python(group)
        if is_missing(value):
            raise InputError(
                f"{location} has no group ({value!r}). Give every text a group; a text that "
                "belongs to no other has a group of its own."
            )
        names.append(class_name(value))
    return names


# ---------------------------------------------------------------- split


def _split(
    samples: Samples,
    targets: Targets,
    request: SplitRequest,
    found: LabelledTexts,
    kept: Rows,
) -> Split:
    """Return the split; drawn parts are stratified by class, and copies of a text stay together."""
    given = dict(found.given)
    classes = targets.values.numpy() if targets.kind == "classification" else None
    is_drawn = request.for_training and bool(request.to_draw(given)) and request.split is None
    if is_drawn and classes is not None and len(np.unique(classes)) == len(classes):
        raise SplitError(
            f"All {len(classes):,} texts have different labels, so no class can be both in train "
            "and in validation. Give several texts per class; if the labels are numbers to "
            'predict, pass TextOptions(task="regression"), on the command line --task regression.'
        )
    groups = np.array(samples[GROUP]) if GROUP in samples.columns else None
    numbers = text_numbers([texts_of(samples, row) for row in range(len(samples))])
    n_distinct = int(numbers.max()) + 1
    if is_drawn and not given and groups is None and n_distinct < len(numbers):
        split = _draw_without_copies(request, numbers, classes, targets.names)
    else:
        split = request.resolve(
            len(found),
            kept=None if len(kept) == len(found) else kept,
            given=given or None,
            classes=classes,
            class_names=targets.names,
            groups=groups,
        )
    if request.for_training:
        targets.check_split(split, "texts")
    return split


def _draw_without_copies(
    request: SplitRequest,
    numbers: NDArray[np.int64],
    classes: NDArray[Any] | None,
    names: Sequence[str],
) -> Split:
    """Draw from the distinct texts; the copies of a text are in its part."""
    _, first = np.unique(numbers, return_index=True)
    try:
        drawn = request.resolve(
            len(first),
            classes=None if classes is None else classes[first],
            class_names=names,
        )
    except SplitError as error:
        raise SplitError(
            f"{error} Of the {len(numbers):,} texts only {len(first):,} are distinct, and all "
            "copies of a text are in one part, so that no score is computed on texts that were "
            "trained on. Give a column with the parts (split=…), or a Split."
        ) from error
    parts = {part: np.flatnonzero(np.isin(numbers, drawn.part(part))) for part in PARTS}
    note = f"{len(numbers) - len(first):,} texts repeat an earlier one and are in its part"
    return Split(**cast("dict[str, Any]", parts), method=drawn.method, notes=(*drawn.notes, note))


def text_numbers(texts: Sequence[Any]) -> NDArray[np.int64]:
    """Return a number for each text, equal for equal texts, in the order of their first rows."""
    known: dict[Any, int] = {}
    return np.array([known.setdefault(text, len(known)) for text in texts], np.int64)
