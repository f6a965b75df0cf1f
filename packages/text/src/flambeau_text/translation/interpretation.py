"""The contents of a report for translations: values of each sentence, and sections of the page."""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.preview import Preview
from flambeau.data.split import PARTS
from flambeau.plotting import COLOURS, can_plot, draw_panels, style_axes
from flambeau.report import Section
from flambeau.report.blocks import Cards, Figures, Table, Text
from flambeau.task.batch_summary import Summary
from flambeau_text.tokenization import Tokenizer
from flambeau_text.tokenization.tokenizer import content_ids
from flambeau_text.translation.attention_plot import attention_panel
from flambeau_text.translation.dataset import REFERENCE, SOURCE
from flambeau_text.translation.predictions import DetailedTranslation
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.scores import corpus_score, sentence_bleu
from flambeau_text.vocab import END
from flambeau_text.word_count import count_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flambeau.report import Interpretation
    from flambeau.training.history import History

KIND = "translation"
_SHOWN = 6
_ATTENTION_PLOTS = 4
_MOST_TOKENS = 60  # of a side whose attention is kept; more tokens are not legible in the plot
_LENGTHS = (5, 10, 15, 20, 30, 10_000)


def translation_summary(
    outputs: dict[str, Tensor], batch: Batch, target: Tokenizer, bleu_tokenizer: str = "13a"
) -> Summary:
    """Return the values that a report has of each sentence of a batch.

    Of the reference: "loss" (the mean per token), "loss_sum", "likelihood_sum" (the loss without
    label smoothing), "n_tokens" and "target_text". Of the source: the number of tokens "n_source".
    Of the translation: "predicted_text"; "score", by which the search ranks it; "bleu", its
    smoothed BLEU; "tokens"; and "attention" ``(tokens, source)``, None if the model returns no
    attention or if a side is longer than 60 tokens.

    Args:
        outputs: Outputs of ``TranslationTask.predict``, called with ``context.for_report``.
        batch: The batch.
        target: The target tokenizer, which normalises the references.
        bleu_tokenizer: sacrebleu's tokenization for BLEU.
    """
    rows = [content_ids(row) for row in outputs["tokens"].tolist()]
    texts = [target.decode(row) for row in rows]
    references = [target.normalize(text) for text in batch.extras[REFERENCE]]
    n_source = batch.masks[SOURCE].sum(dim=1).cpu()
    sums = {name: outputs[name].double().cpu() for name in ("loss_sum", "likelihood_sum")}
    n_tokens = outputs["n_tokens"].cpu()
    bleu = [sentence_bleu(*pair, bleu_tokenizer) for pair in zip(texts, references, strict=True)]
    return Summary(
        KIND,
        {
            "loss": sums["loss_sum"] / n_tokens,
            **sums,
            "n_tokens": n_tokens,
            "target_text": references,
            "predicted_text": texts,
            "score": outputs["scores"].double().cpu(),
            "bleu": torch.tensor(bleu, dtype=torch.float64),
            "n_source": n_source,
            "tokens": [target.ids_to_tokens(row) for row in rows],
            "attention": _attention(outputs.get("attention"), rows, n_source.tolist()),
        },
    )


def _attention(
    attention: Tensor | None, rows: Sequence[Sequence[int]], n_source: Sequence[int]
) -> list[Tensor | None]:
    """Return the attention of each sentence, without padding but with a row for its end token."""
    if attention is None:
        return [None] * len(rows)
    sizes = [(len(row) + 1, n) for row, n in zip(rows, n_source, strict=True)]
    # Copied, so that the padded attention of the batch is not kept.
    return [
        attention[at, :height, :width].cpu().clone() if max(height, width) <= _MOST_TOKENS else None
        for at, (height, width) in enumerate(sizes)
    ]


def scores_by_length(summary: Summary, bleu_tokenizer: str = "13a") -> list[list[object]]:
    """Return a table with one row per range of source lengths.

    Its columns are the range of source tokens, the number of sentences, BLEU, and the ratio of the
    translations' words to the references' words.
    """
    lengths = np.array([int(each) for each in summary.entries("n_source")]) - 1
    both = [summary.entries(f"{side}_text") for side in ("predicted", "target")]
    rows: list[list[object]] = []
    low = 1
    for high in _LENGTHS:
        found = np.flatnonzero((lengths >= low) & (lengths <= high)).tolist()
        if found:
            texts, references = ([each[at] for at in found] for each in both)
            score = corpus_score(texts, references, tokenizer=bleu_tokenizer).value
            words = sum(map(count_words, texts))
            ratio = words / max(1, sum(map(count_words, references)))
            label = f"{low}–{high}" if high < 10_000 else f"{low} and more"
            rows.append([label, len(found), score, ratio])
        low = high + 1
    return rows


def translation_sections(found: Interpretation, bleu_tokenizer: str = "13a") -> list[Section]:
    """Return the sections of a report on translations.

    They are a table of scores by source length, the worst and the best translations, and, if
    matplotlib is installed, plots of the attention and of teacher forcing during the run.
    """
    bleu = found.predictions.figure("bleu").tolist()
    order = sorted(range(len(bleu)), key=lambda at: (bleu[at], at))
    columns = ["source tokens", "sentences", "BLEU", "length ratio"]
    note = (
        "Scores by the number of source tokens. The length ratio is the number of words in the "
        "translations divided by the number of words in the references."
    )
    by_length = Table(columns, scores_by_length(found.predictions.summary, bleu_tokenizer))
    worst, best = (
        Cards([_card(found, at) for at in rows[:_SHOWN]]) for rows in (order, order[::-1])
    )
    sections = [
        Section("Translation", (Text(note), by_length)),
        Section("Worst translations", (worst,)),
        Section("Best translations", (best,)),
    ]
    return [*sections, *_figures(found, order)] if can_plot() else sections


def _card(found: Interpretation, at: int) -> Preview:
    figures, data = found.predictions, found.details.data
    preview = None if data is None else data.preview(int(figures.ids[at]))
    samples = figures.summary.samples
    lines = [f"reference: {samples['target_text'][at]}"] if preview is None else [preview.caption]
    lines += [
        f"translation: {samples['predicted_text'][at]}",
        f"BLEU {float(samples['bleu'][at]):.1f}, score {float(samples['score'][at]):.2f}",
    ]
    return Preview("\n".join(lines))


def _figures(found: Interpretation, order: Sequence[int]) -> list[Section]:
    sections: list[Section] = []
    translations = _with_attention(found, order)
    if translations:
        drawn = [
            (draw_panels([attention_panel(each)], 4.2, 3.6, None), f"Attention of sentence {at}")
            for at, each in translations
        ]
        text = Text("Attention weights: one row per target token, one column per source token.")
        sections.append(Section("Attention", (text, Figures(drawn, min_width=300))))
    history = found.details.history
    if history is not None and "teacher_forcing" in history.names:
        figure = draw_panels([teacher_forcing_panel(history)], 4.2, 3.3, None)
        text = Text(
            "The probability that the decoder reads the reference token in training, and the "
            "overlap (F1 of the tokens) of predictions and references, teacher-forced and "
            "free-running."
        )
        figures = Figures([(figure, "Teacher forcing by epoch")], min_width=300)
        sections.append(Section("Teacher forcing", (text, figures)))
    return sections


def _with_attention(
    found: Interpretation, order: Sequence[int]
) -> list[tuple[int, DetailedTranslation]]:
    """Return positions and translations of medium BLEU whose attention is known."""
    data, preprocessor = found.details.data, found.details.preprocessor
    if data is None or not isinstance(preprocessor, TranslationPreprocessor):
        return []
    sources: dict[int, str] = {}
    for part in PARTS:
        rows = data.split.part(part)
        if len(rows):
            sources.update(zip(rows.tolist(), data.raw(part), strict=True))
    summary, ids = found.predictions.summary, found.predictions.ids
    texts, scores, tokens, attention = (
        summary.entries(name) for name in ("predicted_text", "score", "tokens", "attention")
    )
    known = [at for at in order if attention[at] is not None]
    chosen: list[tuple[int, DetailedTranslation]] = []
    for at in known[len(known) // 2 :][:_ATTENTION_PLOTS]:
        source = preprocessor.source.tokenize(sources[int(ids[at])])
        sides = (*source, END), (*tokens[at], END)
        translation = DetailedTranslation(texts[at], float(scores[at]), *sides, attention[at])
        chosen.append((at, translation))
    return chosen


def teacher_forcing_panel(history: History) -> Any:
    """Return a function that draws the teacher-forcing curves on the axes it is given."""

    def draw(axes: Axes) -> None:
        names = (
            ("teacher_forcing", "probability of the reference token"),
            ("valid_teacher_forced_overlap", "overlap, teacher-forced"),
            ("valid_free_running_overlap", "overlap, free-running"),
        )
        for colour, (name, label) in zip(COLOURS, names, strict=False):
            points = [
                (row["epoch"], row[name])
                for row in history.rows
                if name in row and not isinstance(row[name], str)
            ]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.4)
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        style_axes(axes)
        axes.legend(frameon=False, fontsize=8)

    return draw
