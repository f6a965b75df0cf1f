"""BLEU, chrF and TER by sacrebleu, each with its signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

from flambeau.errors import ArgumentError, InputError, MissingDependencyError, did_you_mean

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


BLEU_TOKENIZERS = (
    "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores101", "flores200", "spm", "none"
)  # fmt: skip
"""sacrebleu's tokenizations of both sides for BLEU."""

_BY_LANGUAGE = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"} | dict.fromkeys(
    ("th", "lo", "km", "my", "bo", "dz"), "char"
)
_NEEDS = {
    "ja-mecab": ("MeCab", "sacrebleu[ja]"),
    "ko-mecab": ("mecab_ko", "sacrebleu[ko]"),
    **dict.fromkeys(("flores101", "flores200", "spm"), ("sentencepiece", "sentencepiece")),
}


def bleu_tokenizer(language: str | None) -> str:
    """Return sacrebleu's tokenization for BLEU in a target language; "13a" for most languages.

    Chinese, Japanese and Korean have their own tokenizations. Thai, Lao, Khmer, Burmese and
    Tibetan, which have no spaces between words and for which sacrebleu needs a download, are scored
    by characters.

    Raises:
        MissingDependencyError: A package for this language is not installed.
    """
    name = _BY_LANGUAGE.get(language or "", "13a")
    if missing_bleu_tokenizer(name) is not None:
        raise MissingDependencyError(
            f"BLEU for the target language {language!r} needs the tokenization {name!r}, which is "
            f"not installed: pip install '{_NEEDS[name][1]}'. Or score by characters: "
            'choices={"bleu_tokenizer": "char"}, or --set bleu_tokenizer=char.'
        )
    return name


def missing_bleu_tokenizer(name: str) -> str | None:
    """Return what to install for a tokenization, as the end of a sentence; None if it works."""
    module, package = _NEEDS.get(name, ("", ""))
    if not module or find_spec(module) is not None:
        return None
    return f"a tokenization that is installed: pip install '{package}'."


def corpus_score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    name: str = "bleu",
    tokenizer: str | None = None,
) -> Score:
    """Score translations against one reference each, as sacrebleu's command does.

    Args:
        hypotheses: Detokenized translations, in the order of the references; "" for a missing one.
        references: The references as they are in the file.
        name: "bleu" (case-sensitive), "bleu_lower", "chrf" or "ter".
        tokenizer: sacrebleu's tokenization for BLEU, see `bleu_tokenizer`; None is "13a".

    Raises:
        ArgumentError: The score or the tokenization is unknown.
        InputError: The lists have different lengths, are empty, or contain something else than
            texts.

    Example:
        >>> corpus_score(["a dog runs"], ["a dog runs"], "chrf").value
        100.0

    Source:
        Post, "A Call for Clarity in Reporting BLEU Scores" (arXiv 1804.08771).
    """
    for what, texts in (("translations", hypotheses), ("references", references)):
        _check_texts(what, texts)
    if len(hypotheses) != len(references) or not references:
        raise InputError(
            f"There are {len(hypotheses):,} translations for {len(references):,} references. Give "
            "one translation per reference, and an empty text for a missing one."
        )
    metric: Any = _metric(name, tokenizer)
    found = metric.corpus_score(list(hypotheses), [list(references)])
    value = float(found.score)
    if name != "ter":
        value = min(value, 100.0)  # of equal texts sacrebleu's sum may be 100.00000000000004
    return Score(name, value, str(metric.get_signature()))


def _check_texts(what: str, texts: Sequence[str]) -> None:
    """Check that translations or references are a sequence of texts.

    Raises:
        InputError: They are one text, or one of them is not a text.
    """
    if isinstance(texts, str):
        raise InputError(f"The {what} are one text, {texts!r:.40}. Give a list of texts.")
    for index, text in enumerate(cast("Sequence[object]", texts)):
        if not isinstance(text, str):
            raise InputError(
                f"Entry {index} of the {what} is {text!r:.40}, of type {type(text).__name__}. Give "
                "one text for each sentence, and an empty text for a missing one; several "
                "references for a sentence are not supported."
            )


def corpus_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    names: Sequence[str] = METRICS,
    tokenizer: str | None = None,
) -> dict[str, Score]:
    """Return several scores by name; see `corpus_score`."""
    return {name: corpus_score(hypotheses, references, name, tokenizer) for name in names}


def sentence_bleu(hypothesis: str, reference: str, tokenizer: str | None = None) -> float:
    """Return the smoothed BLEU of one sentence, 0 to 100.

    Use it to rank sentences; the BLEU of a corpus is not the mean of its sentences' BLEU.
    """
    from sacrebleu.metrics.bleu import BLEU

    return float(
        BLEU(effective_order=True, tokenize=tokenizer).sentence_score(hypothesis, [reference]).score
    )


def _metric(name: str, tokenizer: str | None) -> Any:
    if tokenizer is not None and tokenizer not in BLEU_TOKENIZERS:
        raise ArgumentError(
            f"Unknown tokenization {tokenizer!r}. {did_you_mean(tokenizer, BLEU_TOKENIZERS)}"
        )
    # Imported here: sacrebleu takes 0.1 s to import, and only evaluation needs it.
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    if name == "bleu":
        return BLEU(tokenize=tokenizer)
    if name == "bleu_lower":
        return BLEU(lowercase=True, tokenize=tokenizer)
    if name == "chrf":
        return CHRF()
    if name == "ter":
        return TER()
    raise ArgumentError(f"Unknown score {name!r}. {did_you_mean(name, METRICS)}")
