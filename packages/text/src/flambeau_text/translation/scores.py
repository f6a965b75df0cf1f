"""BLEU, chrF and TER by sacrebleu, each with the signature that makes it comparable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.errors import ArgumentError, InputError, nearest

METRICS = ("bleu", "bleu_lower", "chrf", "ter")


@dataclass(frozen=True)
class Score:
    """A score of a whole set of translations.

    Attributes:
        name: "bleu", "bleu_lower" (both sides lower-cased first), "chrf" or "ter".
        value: 0 to 100; of TER less is better, and it may be above 100.
        signature: How it was computed, in sacrebleu's words: two scores can be compared where
            theirs are equal.
    """

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f} ({self.signature})"


def corpus_score(hypotheses: Sequence[str], references: Sequence[str], name: str = "bleu") -> Score:
    """The score of translations against one reference each, as sacrebleu's command gives it.

    Args:
        hypotheses: Detokenised, in the order of the references; an empty one counts as such.
        references: As they stand in the file.
        name: "bleu" (13a tokens, as they are), "bleu_lower", "chrf" or "ter".

    Raises:
        ArgumentError: There is no such score.
        InputError: The lists have different lengths, or are empty.

    Example:
        >>> corpus_score(["a dog runs"], ["a dog runs"], "chrf").value
        100.0

    Source:
        Post, "A Call for Clarity in Reporting BLEU Scores" (arXiv 1804.08771).
    """
    if len(hypotheses) != len(references) or not references:
        raise InputError(
            f"{len(hypotheses):,} translations for {len(references):,} references: give one for "
            "each, and an empty text where there is none."
        )
    metric: Any = _metric(name)
    found = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(name, float(found.score), str(metric.get_signature()))


def corpus_scores(
    hypotheses: Sequence[str], references: Sequence[str], names: Sequence[str] = METRICS
) -> dict[str, Score]:
    """Several scores by name; see `corpus_score`."""
    return {name: corpus_score(hypotheses, references, name) for name in names}


def sentence_bleu(hypothesis: str, reference: str) -> float:
    """BLEU of one sentence, 0 to 100, smoothed so that a missing 4-gram is not all.

    For ordering sentences in a report: the score of a set is not the mean of these.
    """
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU(effective_order=True).sentence_score(hypothesis, [reference]).score)


def _metric(name: str) -> Any:
    # Here and not above: sacrebleu takes 0.1 s and is needed by evaluations alone.
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    if name == "bleu":
        return BLEU()
    if name == "bleu_lower":
        return BLEU(lowercase=True)
    if name == "chrf":
        return CHRF()
    if name == "ter":
        return TER()
    raise ArgumentError(f"There is no score {name!r}. {nearest(name, METRICS)}")


def read_references(path: str | os.PathLike[str]) -> list[str]:
    """The references of a file, a line each."""
    from flambeau_text.translation.lines import read_lines

    return read_lines(path)
