"""``review``: what a model writes on a part, how good that is, and where it errs; on one page."""

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
from flambeau.figures import COLOURS, can_plot, panels, plain_axes
from flambeau.learner import Learner
from flambeau.report import Page
from flambeau.report.blocks import Block, Cards, Figures, Table, Text
from flambeau.report.tables import text_table
from flambeau_text.decoding.strategy import Strategy
from flambeau_text.translation.data import TranslationData
from flambeau_text.translation.heatmap import attention_panel
from flambeau_text.translation.scores import METRICS, Score, corpus_scores, sentence_bleu
from flambeau_text.translation.translate import DetailedTranslation, translate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flambeau.training.history import History

_SHOWN = 6
_MAPS = 4
_BUCKETS = (5, 10, 15, 20, 30, 10_000)


@dataclass(frozen=True)
class Review:
    """Free translations of a part beside its references.

    ``print(review)`` shows the scores with their signatures; ``review.report("report.html")``
    writes scores by length, the best and the worst, attention, the curve of teacher forcing, data
    and plan to one page.

    Attributes:
        part: "valid" or "test".
        translations: One a sentence, in the order of the part.
        references: Likewise, as they stand in the data (lower-cased where the target side was).
        learner: Whose they are.
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
    def by_sentence(self) -> Sequence[float]:
        """Smoothed BLEU of each sentence: for ordering them."""
        pairs = zip(self.translations, self.references, strict=True)
        return [sentence_bleu(each.text, reference) for each, reference in pairs]

    def by_length(self) -> list[list[object]]:
        """Source words, sentences, BLEU and words written per word of the reference."""
        words = np.array([len(each.source_tokens) - 1 for each in self.translations])
        rows: list[list[object]] = []
        low = 1
        for high in _BUCKETS:
            places = np.flatnonzero((words >= low) & (words <= high)).tolist()
            if places:
                texts = [self.translations[place].text for place in places]
                truths = [self.references[place] for place in places]
                score = corpus_scores(texts, truths, ("bleu",))["bleu"].value
                written = sum(len(text.split()) for text in texts)
                ratio = written / max(1, sum(len(text.split()) for text in truths))
                label = f"{low}–{high}" if high < 10_000 else f"{low} and more"
                rows.append([label, len(places), score, ratio])
            low = high + 1
        return rows

    def __str__(self) -> str:
        rows = [[s.name.replace("_", " "), s.value, s.signature] for s in self.scores.values()]
        head = f"{len(self.references):,} {self.part} sentences"
        return f"{head}\n{text_table(['score', 'value', 'signature'], rows)}"

    def page(self) -> Page:
        """The report as a ``Page``, to which sections can be added."""
        page = self.learner.interpret(self.part).page()
        rows = [[s.name.replace("_", " "), s.value, s.signature] for s in self.scores.values()]
        blocks: list[Block] = [
            Text("Sentences that the model wrote by itself, against the references as they stand."),
            Table(["score", "value", "signature"], rows),
            Text("By the length of the source, in its tokens:"),
            Table(["source tokens", "sentences", "BLEU", "words per true word"], self.by_length()),
        ]
        page.add("Translation", *blocks)
        order = sorted(range(len(self.references)), key=lambda at: (self.by_sentence[at], at))
        page.add("Worst translations", Cards([self._card(at) for at in order[:_SHOWN]]))
        page.add("Best translations", Cards([self._card(at) for at in order[::-1][:_SHOWN]]))
        if can_plot():
            self._add_pictures(page, order)
        return page

    def _add_pictures(self, page: Page, order: Sequence[int]) -> None:
        drawn = [at for at in order if self.translations[at].attention is not None]
        if drawn:
            middle = drawn[len(drawn) // 2 :][:_MAPS]
            page.add(
                "Attention",
                Text("What each word written (down) looked at (across), darker for more."),
                Figures(
                    [
                        (
                            panels([attention_panel(self.translations[at])], 4.2, 3.6, None),
                            f"Attention of sentence {at}",
                        )
                        for at in middle
                    ],
                    least_width=300,
                ),
            )
        if self.learner.history.column("teacher_forcing"):
            figure = panels([forcing_panel(self.learner.history)], 4.2, 3.3, None)
            page.add(
                "Teacher forcing",
                Text(
                    "How probable the true word was as the next one read, and how many of the "
                    "reference's words were found with the true words before them and without."
                ),
                Figures([(figure, "Teacher forcing by epoch")], least_width=300),
            )

    def report(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Writes the report: one HTML file that needs no network. Returns where it is.

        Raises:
            StorageError: It cannot be written there.
        """
        return self.page().save(path)

    def _card(self, at: int) -> Preview:
        each = self.translations[at]
        source = self.learner.data.raw(self.part)[at]
        lines = [
            f"{source}",
            f"written: {each.text}",
            f"true: {self.references[at]}",
            f"BLEU {self.by_sentence[at]:.1f}, score {each.score:.2f}",
        ]
        return Preview("\n".join(lines))


def review(learner: Learner, part: str = "valid", strategy: Strategy | None = None) -> Review:
    """Free translations of a part and all that can be told of them.

    Choices are made on valid; test is looked at once, at the end.

    Args:
        learner: On ``TranslationData``.
        part: "valid" or "test".
        strategy: How to search; None takes the plan's.

    Raises:
        ArgumentError: The learner's data are of another kind.
    """
    data = learner.data
    if not isinstance(data, TranslationData):
        raise ArgumentError(
            f"review is of translations, but the learner's data are {type(data).__name__}. For "
            "other data there is learner.interpret()."
        )
    found = translate(learner.predictor(), data.raw(part), strategy)
    references = data.references(part)
    if data.options.lowercase:
        references = [text.lower() for text in references]
    return Review(part, found, references, learner)


def forcing_panel(history: History) -> Any:
    """A function that draws the curves of teacher forcing on the axes it gets."""

    def draw(axes: Axes) -> None:
        names = (
            ("teacher_forcing", "probability of the true word"),
            ("valid_forced_overlap", "words found, true ones before"),
            ("valid_free_overlap", "words found, own ones before"),
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
        plain_axes(axes)
        axes.legend(frameon=False, fontsize=8)

    return draw
