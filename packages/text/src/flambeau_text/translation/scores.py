"""BLEU, chrF and TER by sacrebleu, each with its signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.errors import ArgumentError, InputError, did_you_mean

METRICS = ("bleu", "bleu_lower", "chrf", "ter")


@dataclass(frozen=True)
class Score:
    """The score of a set of translations.

    Attributes:
        name: "bleu", "bleu_lower" (both sides lower-cased first), "chrf" or "ter".
        value: 0 to 100; for TER lower is better, and it can exceed 100.
        signature: sacrebleu's description of the computation; two scores are comparable if their
            signatures are equal.
    """

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f} ({self.signature})"


def corpus_score(hypotheses: Sequence[str], references: Sequence[str], name: str = "bleu") -> Score:
    """Score translations against one reference each, as sacrebleu's command does.

    Args:
        hypotheses: Detokenized translations, in the order of the references; "" for a missing one.
        references: The references as they are in the file.
        name: "bleu" (13a tokenization, case-sensitive), "bleu_lower", "chrf" or "ter".

    Raises:
        ArgumentError: The score is unknown.
        InputError: The lists have different lengths, or are empty.

    Example:
        >>> corpus_score(["a dog runs"], ["a dog runs"], "chrf").value
        100.0

    Source:
        Post, "A Call for Clarity in Reporting BLEU Scores" (arXiv 1804.08771).
    """
    if len(hypotheses) != len(references) or not references:
        raise InputError(
            f"There are {len(hypotheses):,} translations for {len(references):,} references. Give "
            "one translation per reference, and an empty text for a missing one."
        )
    metric: Any = _metric(name)
    found = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(name, float(found.score), str(metric.get_signature()))


def corpus_scores(
    hypotheses: Sequence[str], references: Sequence[str], names: Sequence[str] = METRICS
) -> dict[str, Score]:
    """Return several scores by name; see `corpus_score`."""
    return {name: corpus_score(hypotheses, references, name) for name in names}


def sentence_bleu(hypothesis: str, reference: str) -> float:
    """Return the smoothed BLEU of one sentence, 0 to 100.

    Use it to rank sentences; the BLEU of a corpus is not the mean of its sentences' BLEU.
    """
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU(effective_order=True).sentence_score(hypothesis, [reference]).score)


def _metric(name: str) -> Any:
    # Imported here: sacrebleu takes 0.1 s to import, and only evaluation needs it.
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
    raise ArgumentError(f"Unknown score {name!r}. {did_you_mean(name, METRICS)}")
