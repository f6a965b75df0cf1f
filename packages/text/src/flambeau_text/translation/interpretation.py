"""``interpret_translations``: translations of a part, their scores, and a report of the errors."""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flambeau.data.preview import Preview
from flambeau.errors import ArgumentError
from flambeau.learner import Learner
from flambeau.plotting import COLOURS, can_plot, draw_panels, style_axes
from flambeau.report import Page
from flambeau.report.blocks import Block, Cards, Figures, Table, Text
from flambeau.report.text_table import text_table
from flambeau_text.decoding.strategy import Strategy
from flambeau_text.translation.attention_plot import attention_panel
from flambeau_text.translation.data import TranslationData
from flambeau_text.translation.scores import METRICS, Score, corpus_scores, sentence_bleu
from flambeau_text.translation.translate import DetailedTranslation, translate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flambeau.training.history import History

_SHOWN = 6
_ATTENTION_PLOTS = 4
_LENGTHS = (5, 10, 15, 20, 30, 10_000)


@dataclass(frozen=True)
class TranslationInterpretation:
    """Free-running translations of a part and their references.

    ``print(interpretation)`` shows the scores with their signatures;
    ``interpretation.report("report.html")`` writes a page with scores by length, the best and the
    worst translations, attention, the teacher-forcing curve, data and plan.

    Attributes:
        part: "valid" or "test".
        translations: One per sentence, in the order of the part.
        references: The references, lower-cased if the target side was.
        learner: The learner whose model made the translations.
    """

    part: str
    translations: Sequence[DetailedTranslation]
    references: Sequence[str]
    learner: Learner

    @cached_property
    def scores(self) -> Mapping[str, Score]:
        """BLEU, BLEU in lower case, chrF and TER, each with its signature."""
        return corpus_scores([each.text for each in self.translations], self.references, METRICS)

    @cached_property
    def sentence_scores(self) -> Sequence[float]:
        """Smoothed BLEU of each sentence, to rank the sentences."""
        pairs = zip(self.translations, self.references, strict=True)
        return [sentence_bleu(each.text, reference) for each, reference in pairs]

    def scores_by_length(self) -> list[list[object]]:
        """Return a table with one row per range of source lengths.

        Its columns are the range of source tokens, the number of sentences, BLEU, and the ratio of
        the translations' words to the references' words.
        """
        lengths = np.array([len(each.source_tokens) - 1 for each in self.translations])
        rows: list[list[object]] = []
        low = 1
        for high in _LENGTHS:
            found = np.flatnonzero((lengths >= low) & (lengths <= high)).tolist()
            if found:
                texts = [self.translations[index].text for index in found]
                references = [self.references[index] for index in found]
                score = corpus_scores(texts, references, ("bleu",))["bleu"].value
                words = sum(len(text.split()) for text in texts)
                ratio = words / max(1, sum(len(text.split()) for text in references))
                label = f"{low}–{high}" if high < 10_000 else f"{low} and more"
                rows.append([label, len(found), score, ratio])
            low = high + 1
        return rows

    def __str__(self) -> str:
        rows = [[s.name.replace("_", " "), s.value, s.signature] for s in self.scores.values()]
        head = f"{len(self.references):,} {self.part} sentences"
        return f"{head}\n{text_table(['score', 'value', 'signature'], rows)}"

    def page(self) -> Page:
        """Return the report as a ``Page``, to which sections can be added."""
        page = self.learner.interpret(self.part).page()
        rows = [[s.name.replace("_", " "), s.value, s.signature] for s in self.scores.values()]
        columns = ["source tokens", "sentences", "BLEU", "length ratio"]
        blocks: list[Block] = [
            Text("Scores of the model's translations against the references."),
            Table(["score", "value", "signature"], rows),
            Text(
                "Scores by the number of source tokens. The length ratio is the number of words in "
                "the translations divided by the number of words in the references."
            ),
            Table(columns, self.scores_by_length()),
        ]
        page.add("Translation", *blocks)
        scores = self.sentence_scores
        order = sorted(range(len(self.references)), key=lambda at: (scores[at], at))
        page.add("Worst translations", Cards([self._card(at) for at in order[:_SHOWN]]))
        page.add("Best translations", Cards([self._card(at) for at in order[::-1][:_SHOWN]]))
        if can_plot():
            self._add_figures(page, order)
        return page

    def _add_figures(self, page: Page, order: Sequence[int]) -> None:
        with_attention = [at for at in order if self.translations[at].attention is not None]
        if with_attention:
            middle = with_attention[len(with_attention) // 2 :][:_ATTENTION_PLOTS]
            page.add(
                "Attention",
                Text("Attention weights: target tokens down, source tokens across."),
                Figures(
                    [
                        (
                            draw_panels([attention_panel(self.translations[at])], 4.2, 3.6, None),
                            f"Attention of sentence {at}",
                        )
                        for at in middle
                    ],
                    min_width=300,
                ),
            )
        if self.learner.history.column("teacher_forcing"):
            figure = draw_panels([teacher_forcing_panel(self.learner.history)], 4.2, 3.3, None)
            page.add(
                "Teacher forcing",
                Text(
                    "The probability of the reference token as decoder input, and the overlap (F1 "
                    "of the tokens) of predictions and references, teacher-forced and free-running."
                ),
                Figures([(figure, "Teacher forcing by epoch")], min_width=300),
            )

    def report(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Write the report as one HTML file that needs no network; return its path.

        Raises:
            StorageError: The file cannot be written.
        """
        return self.page().save(path)

    def _card(self, at: int) -> Preview:
        each = self.translations[at]
        source = self.learner.data.raw(self.part)[at]
        lines = [
            f"{source}",
            f"translation: {each.text}",
            f"reference: {self.references[at]}",
            f"BLEU {self.sentence_scores[at]:.1f}, score {each.score:.2f}",
        ]
        return Preview("\n".join(lines))


def interpret_translations(
    learner: Learner, part: str = "valid", strategy: Strategy | None = None
) -> TranslationInterpretation:
    """Translate a part and compare the translations with their references.

    Make choices on the validation part, and use the test part once, at the end.

    Args:
        learner: A learner on ``TranslationData``.
        part: "valid" or "test".
        strategy: The decoding strategy; None uses the plan's ``decoding``.

    Raises:
        ArgumentError: The learner's data are not ``TranslationData``.
    """
    data = learner.data
    if not isinstance(data, TranslationData):
        raise ArgumentError(
            f"interpret_translations needs a learner on TranslationData, not on "
            f"{type(data).__name__}. For other data use learner.interpret()."
        )
    found = translate(learner.predictor(), data.raw(part), strategy)
    references = data.references(part)
    if data.options.lowercase:
        references = [text.lower() for text in references]
    return TranslationInterpretation(part, found, references, learner)


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
