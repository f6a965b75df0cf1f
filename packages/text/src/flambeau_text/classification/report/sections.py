"""``report_sections``: the sections that texts add to a report's page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError
from flambeau.report.blocks import Block, Table, Text
from flambeau.report.interpretation import Interpretation
from flambeau.report.page import Section
from flambeau.wording import first_line
from flambeau_text.classification.assemble import TEXT
from flambeau_text.classification.preprocess import TextPreprocessor
from flambeau_text.classification.report.attribution import attributions_of
from flambeau_text.classification.report.baselines import joined_text
from flambeau_text.tokenization.tokenizer import END_ID
from flambeau_text.word_count import count_words

if TYPE_CHECKING:
    from flambeau_text.classification.data import TextData

_BINS = 5
_FEWEST_TEXTS = 10
_SINGLE, _COUNTED = 6, 60  # texts whose tokens are shown, and from which the tokens are counted
_MOST_OUTPUTS = 8
_SHOWN = 80  # characters of a text


def report_sections(data: TextData, found: Interpretation) -> list[Section]:
    """Return the sections of texts: scores by length, and the tokens that matter.

    Args:
        data: The data of the report.
        found: The interpretation of a model on a part of them.
    """
    sections = [section for section in (length_section(data, found),) if section is not None]
    return [*sections, *tokens_section(data, found)]


def length_section(data: TextData, found: Interpretation) -> Section | None:
    """Return loss and accuracy of the shortest to the longest fifth of the texts."""
    losses = found.predictions.losses
    if losses is None or len(found) < _FEWEST_TEXTS:
        return None
    words = np.array([count_words(joined_text(data, row)) for row in found.ids.tolist()])
    order = np.argsort(words, kind="stable")
    is_classes = found.predictions.kind == "classification"
    rows: list[list[object]] = []
    for part in np.array_split(order, min(_BINS, len(order))):
        at = torch.from_numpy(part)
        row: list[object] = [f"{words[part].min():,} to {words[part].max():,}", len(part)]
        row.append(float(losses[at].mean()))
        if is_classes:
            target = found.predictions.figure("target")[at]
            row.append(float((found.predicted[at] == target).double().mean()))
        rows.append(row)
    headers = ["words", "texts", "loss", *(["accuracy"] if is_classes else [])]
    return Section("By length", (Table(headers, rows),))


def tokens_section(data: TextData, found: Interpretation) -> Iterator[Section]:
    """Yield the tokens that move the outputs most, in single texts and on average."""
    preprocessor, model = found.details.preprocessor, found.model
    if model is None or not isinstance(preprocessor, TextPreprocessor) or not len(found):
        return
    if preprocessor.n_texts > 1:
        return  # attributions are those of one text
    chosen = _rows_of(found)
    sums: dict[tuple[int, str], list[float]] = defaultdict(list)
    rows: list[list[object]] = []
    try:
        for place, row in enumerate(chosen):
            batch = preprocessor.encode([data.samples[TEXT][row]])
            values, output = attributions_of(model.eval(), batch, None)
            tokens = _tokens(preprocessor, batch)
            for token, value in zip(tokens, values, strict=True):
                sums[output, token].append(value)
            if place < _SINGLE:
                rows.append(_row(data, found, row, output, list(zip(tokens, values, strict=True))))
    except ArgumentError as error:
        yield Section("Words", (Text(f"Not examined: {first_line(error)}"),))
        return
    lead = (
        "Gradient × input: how much each token raises (above 0) or lowers (below 0) the predicted "
        "output. The first texts are those with the highest loss."
    )
    blocks: list[Block] = [
        Text(lead),
        Table(["text", "target", "predicted", "tokens"], rows, prose=(0, 3)),
        Text(f"Tokens with the highest mean over {len(chosen)} texts, by predicted output:"),
        Table(["output", "tokens"], _means(found, sums), prose=(1,)),
    ]
    yield Section("Words", tuple(blocks))


def _rows_of(found: Interpretation) -> list[int]:
    """Return the rows of the highest losses, then others spread over the part."""
    first: list[int] = []
    if found.predictions.losses is not None:
        first = [each.id for each in found.top_losses(_SINGLE // 2)]
    every: list[int] = found.ids.tolist()
    others = [row for row in every[:: max(1, len(every) // _COUNTED)] if row not in first]
    return [*first, *others][:_COUNTED]


def _tokens(preprocessor: TextPreprocessor, batch: Batch) -> list[str]:
    ids: list[int] = batch.inputs["tokens"][0].tolist()
    tokens = preprocessor.tokenizer.ids_to_tokens(ids)
    return ["(end)" if each == END_ID else token for each, token in zip(ids, tokens, strict=True)]


def _row(
    data: TextData, found: Interpretation, row: int, output: int, pairs: list[tuple[str, float]]
) -> list[object]:
    text: Any = data.samples[TEXT][row]
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    strongest = sorted(pairs, key=lambda pair: -abs(pair[1]))[:8]
    return [shown, data.targets.text(row), found.names[output], _shown(strongest)]


def _means(found: Interpretation, sums: dict[tuple[int, str], list[float]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for output, name in enumerate(found.names[:_MOST_OUTPUTS]):
        means = [
            (token, sum(values) / len(values))
            for (at, token), values in sums.items()
            if at == output and token != "(end)"
        ]
        if means:
            best = sorted(means, key=lambda pair: -pair[1])[:10]
            rows.append([name, _shown(best)])
    return rows


def _shown(pairs: list[tuple[str, float]]) -> str:
    return ", ".join(f"{token} {value:+.2f}" for token, value in pairs)
