"""``translate``: translations with attention, alternatives and required phrases."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from flambeau.artefact.predictor import Predictor
from flambeau.checked_arguments import checked_flag
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau_text.decoding.constrained_beam import constrained_search
from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.search import search
from flambeau_text.decoding.strategy import Beam, Strategy
from flambeau_text.decoding.token_scores import length_limits
from flambeau_text.models.seq2seq import Seq2Seq
from flambeau_text.tokenization import Tokenizer
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID, content_ids
from flambeau_text.translation.dataset import SOURCE
from flambeau_text.translation.predictions import (
    DetailedTranslation,
    Translation,
    replace_unknown,
)
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.task import TranslationTask
from flambeau_text.vocab import END


def translate(
    predictor: Predictor,
    texts: Sequence[str],
    strategy: Strategy | None = None,
    *,
    replace_unknown: bool = False,
    phrases: Mapping[int, Sequence[str]] | None = None,
    errors: Literal["raise", "return"] = "raise",
) -> list[Any]:
    """Translate texts; the result does not depend on how they are batched.

    Args:
        predictor: A translation predictor: ``learner.predictor()`` or ``Predictor.load(path)``.
        texts: The sources.
        strategy: The decoding strategy; None uses the task's ``decoding``.
        replace_unknown: Replace each unknown token by the source token with the highest attention,
            which suits names and numbers. It has no effect for a model that returns no attention.
        phrases: Phrases that a translation must contain, by the index of its text. The strategy
            must be a `Beam`.
        errors: "return" puts the InputError of a text that cannot be translated in its place, and
            translates the others; with "raise" there are no translations then.

    Returns:
        A `DetailedTranslation` for each text, or an InputError.

    Raises:
        ArgumentError: The predictor is not one of a translation model, phrases are given with a
            strategy that is not a `Beam`, or ``replace_unknown`` is no flag.
        InputError: A text cannot be translated; the message has its index.
    """
    preprocessor, task, model = _components(predictor)
    replace_unknown = checked_flag(replace_unknown, "replace_unknown")
    strategy = strategy or task.decoding
    if phrases and not isinstance(strategy, Beam):
        raise ArgumentError(
            f"Phrases need beam search, but the strategy is {type(strategy).__name__}. Pass "
            "strategy=Beam(…)."
        )
    if isinstance(texts, str):
        raise ArgumentError("texts is a single text. Pass a list: [text].")
    _check_phrases(phrases, len(texts))
    # Similar lengths together: less padding, and a batch takes as long as its longest sentence.
    found: dict[int, Any] = _invalid(preprocessor, texts, errors)
    valid = (row for row in range(len(texts)) if row not in found)
    order = sorted(valid, key=lambda row: len(str(texts[row])))
    plain = [row for row in order if not (phrases or {}).get(row)]
    for begin in range(0, len(plain), predictor.batch_size):
        rows = plain[begin : begin + predictor.batch_size]
        batch = _encode(preprocessor, texts, rows).to(predictor.device)
        with _eval_mode(model):
            result = search(
                model, batch.inputs[SOURCE], batch.masks[SOURCE], strategy, torch.tensor(rows)
            )
        for index, row in enumerate(rows):
            decoded = _DecodedText(preprocessor, texts[row], result, index)
            found[row] = decoded.detailed(replace_unknown)
    for row, given in (phrases or {}).items():
        if not given or row in found:
            continue
        batch = _encode(preprocessor, texts, [row]).to(predictor.device)
        ids = [_phrase_ids(preprocessor.target, phrase) for phrase in given]
        beam = cast(Beam, strategy)  # checked above
        with _eval_mode(model):
            result = _search_with_phrases(model, batch, beam, ids)
        decoded = _DecodedText(preprocessor, texts[row], result, 0)
        found[row] = decoded.detailed(replace_unknown)
    return [found[row] for row in range(len(texts))]


def _search_with_phrases(
    model: Seq2Seq, batch: Batch, beam: Beam, phrases: list[list[int]]
) -> SearchResult:
    source, mask = batch.inputs[SOURCE], batch.masks[SOURCE]
    limit = length_limits(mask, beam)
    return constrained_search(model, model.encode(source, mask), int(limit), beam, phrases)


@dataclass(frozen=True)
class _DecodedText:
    """One text, and the row of a search result that has its translations."""

    preprocessor: TranslationPreprocessor
    text: str
    result: SearchResult
    row: int

    def detailed(self, replace_unknown: bool) -> DetailedTranslation:
        source = [*self.preprocessor.source.tokenize(self.text), END]
        best, *others = [
            self._sentence(rank, source, replace_unknown)
            for rank in range(self.result.tokens.shape[1])
            if float(self.result.scores[self.row, rank]) > -torch.inf
        ]
        text, score, tokens, attention = best
        return DetailedTranslation(
            text,
            score,
            tuple(source),
            tuple(tokens),
            attention,
            tuple(Translation(text, score) for text, score, _, _ in others),
        )

    def _sentence(
        self, rank: int, source: list[str], replaces: bool
    ) -> tuple[str, float, list[str], Tensor | None]:
        target, result = self.preprocessor.target, self.result
        ids = content_ids(result.tokens[self.row, rank].tolist())
        tokens = target.ids_to_tokens(ids)
        attention = None
        if result.attention is not None:
            attention = result.attention[self.row, rank, : len(tokens) + 1, : len(source)].cpu()
        text = target.decode(ids)
        if replaces and UNKNOWN_ID in ids:
            tokens = replace_unknown(tokens, ids, source, attention)
            text = target.join(tokens)
        score = float(result.scores[self.row, rank])
        return text, score, [*tokens, END], attention


def _components(predictor: Predictor) -> tuple[TranslationPreprocessor, TranslationTask, Seq2Seq]:
    if not isinstance(predictor, Predictor):
        raise ArgumentError(
            f"translate needs a Predictor, not a {type(predictor).__name__}. Pass "
            "learner.predictor() or Predictor.load(path)."
        )
    parts = predictor.preprocessor, predictor.task, predictor.model
    for part, kind in zip(parts, (TranslationPreprocessor, TranslationTask, Seq2Seq), strict=True):
        if not isinstance(part, kind):
            raise ArgumentError(
                f"translate needs the predictor of a translation model, but this one has a "
                f"{type(part).__name__} in place of a {kind.__name__}."
            )
    return parts  # type: ignore[return-value]  # each was checked


def _encode(preprocessor: TranslationPreprocessor, texts: Sequence[str], rows: list[int]) -> Batch:
    try:
        return preprocessor.encode([texts[row] for row in rows])
    except InputError:
        # Encoded one by one, so that the message has the index of the text.
        for row in rows:
            try:
                preprocessor.encode([texts[row]])
            except InputError as error:
                message = str(error).removeprefix("Item 0")
                raise InputError(f"Item {row}{message}") from error
        raise


def _invalid(
    preprocessor: TranslationPreprocessor, texts: Sequence[str], errors: str
) -> dict[int, InputError]:
    """Return the error of each text that cannot be encoded; none if errors are to be raised."""
    if errors not in ("raise", "return"):
        raise ArgumentError(f"errors is {errors!r}, but it must be 'raise' or 'return'.")
    found: dict[int, InputError] = {}
    for row in range(len(texts)) if errors == "return" else ():
        try:
            _encode(preprocessor, texts, [row])
        except InputError as error:
            found[row] = error
    return found


def _phrase_ids(target: Tokenizer, phrase: str) -> list[int]:
    ids = target.encode(phrase)
    if not ids or UNKNOWN_ID in ids:
        raise InputError(
            f"The phrase {phrase!r} cannot be generated: it is empty or has tokens that are not in "
            "the target vocabulary. Give another phrase."
        )
    return ids


def _check_phrases(phrases: Mapping[int, Sequence[str]] | None, n: int) -> None:
    if phrases is not None and not isinstance(phrases, Mapping):
        raise ArgumentError(
            f"phrases is a {type(phrases).__name__}. Pass a mapping from the index of a text to "
            'its phrases: {0: ["a phrase"]}.'
        )
    for row, given in (phrases or {}).items():
        if not 0 <= row < n:
            raise InputError(
                f"phrases has the index {row}, but texts has the indices 0 to {n - 1}."
            )
        if isinstance(given, str):
            raise ArgumentError(
                f"The phrases of text {row} are a single text. Pass a list: [{given!r}]."
            )


@contextmanager
def _eval_mode(model: Seq2Seq) -> Generator[None]:
    """Run in eval mode without gradients, and restore each module's mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
