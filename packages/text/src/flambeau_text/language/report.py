"""What language models add to a report's page: an n-gram model beside them, and generated text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flambeau.artefact.predictor import Predictor
from flambeau.errors import FlambeauError
from flambeau.report.blocks import Table, Text
from flambeau.report.interpretation import Interpretation
from flambeau.report.page import Section
from flambeau.wording import first_line
from flambeau_text.language.kneser_ney import KneserNey
from flambeau_text.language.preprocess import LanguagePreprocessor
from flambeau_text.word_count import is_unspaced

_ORDER = 5
_MOST_TOKENS = 3_000_000  # about 10 s
_MOST = 700.0  # the exponent of a larger perplexity overflows
_PROMPTS, _WORDS, _LETTERS, _TOKENS = 4, 5, 10, 40
_SHOWN = 200  # characters of a prompt


def ngram_scores(
    train: Sequence[str], texts: Sequence[str], found: Interpretation
) -> dict[str, dict[str, float]]:
    """Return the scores of an n-gram model on the tokens of a report's part, by its name.

    Args:
        train: The train documents, from which it counts.
        texts: The documents of the part.
        found: The interpretation of a language model on the part.

    Returns:
        Nothing without train documents, or with more than 3,000,000 tokens.
    """
    preprocessor = found.details.preprocessor
    if not isinstance(preprocessor, LanguagePreprocessor) or not train or not texts:
        return {}
    if found.part == "train" or sum(map(len, train)) > 10 * _MOST_TOKENS:
        return {}
    counted, scored = preprocessor.stream(train), preprocessor.stream(texts)
    if not _ORDER < len(counted.tokens) <= _MOST_TOKENS:
        return {}
    model = KneserNey(_ORDER).fit(counted.tokens.numpy(), len(preprocessor.tokenizer))
    loss = -model.log_probs(scored.tokens.numpy())
    total = float(loss.sum())
    n_bytes, n_words = int(scored.line_bytes.sum()), int(scored.line_words.sum())
    scores = {
        "loss": float(loss.mean()),
        "perplexity": math.exp(min(float(loss.mean()), _MOST)),
        "bits_per_byte": total / math.log(2.0) / n_bytes,
        "word_perplexity": math.exp(min(total / n_words, _MOST)),
    }
    return {f"{_ORDER}-gram (Kneser-Ney)": scores}


def generated_section(found: Interpretation, prompts: Sequence[Any]) -> Section | None:
    """Return the section with texts that the model generated after some prompts.

    Args:
        found: The interpretation of a language model.
        prompts: The prompts, as ``predict`` takes them.
    """
    preprocessor, model = found.details.preprocessor, found.model
    if preprocessor is None or model is None or not prompts:
        return None
    try:
        task = found.task.for_prediction({"max_tokens": _TOKENS})
        texts = [str(each) for each in Predictor(preprocessor, model, task).predict([*prompts])]
    except FlambeauError as error:
        return Section("Generated text", (Text(f"Not generated: {first_line(error)}"),))
    rows: list[list[object]] = [
        [_shown(prompt), text] for prompt, text in zip(prompts, texts, strict=True)
    ]
    table = Table(["prompt", "generated"], rows, prose=(0, 1))
    return Section("Generated text", (Text(f"At most {_TOKENS} tokens after a prompt."), table))


def first_words(texts: Sequence[str]) -> list[str]:
    """Return the first words of some texts, as prompts."""
    found: list[str] = []
    for text in texts:
        line = next((each for each in text.split("\n") if each.strip()), "")
        start = line[:_LETTERS] if is_unspaced(line) else " ".join(line.split()[:_WORDS])
        if start and start not in found:
            found.append(start)
        if len(found) == _PROMPTS:
            break
    return found


def _shown(prompt: Any) -> str:
    text = prompt if isinstance(prompt, str) else prompt["messages"][-1]["content"]
    return text if len(text) <= _SHOWN else f"…{text[1 - _SHOWN :]}"
