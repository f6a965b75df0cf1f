"""``translate``: sentences with their attention, several answers each, and given phrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.artefact.predictor import Predictor
from flambeau.errors import ArgumentError, InputError
from flambeau_text.decoding.constraints import constrained_search
from flambeau_text.decoding.decoded import Decoded, limits
from flambeau_text.decoding.search import search
from flambeau_text.decoding.strategy import Beam, Strategy
from flambeau_text.models.seq2seq import Seq2Seq
from flambeau_text.tokenization import Tokenizer
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID, spoken
from flambeau_text.translation.answers import Translation
from flambeau_text.translation.encoded import SOURCE
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.task import TranslationTask
from flambeau_text.vocab import SPECIALS


@dataclass(frozen=True, eq=False)
class DetailedTranslation(Translation):
    """A translation with all that the search has found.

    Attributes:
        source_tokens: Of the source, its end included.
        tokens: Of the translation, its end included.
        attention: What each token looked at, ``(tokens, source_tokens)``; None where the model
            does not tell.
        alternatives: The next best answers, where the strategy returns several.
    """

    source_tokens: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    attention: Tensor | None = field(default=None, repr=False)
    alternatives: tuple[Translation, ...] = ()


def translate(
    predictor: Predictor,
    texts: Sequence[str],
    strategy: Strategy | None = None,
    *,
    replace_unknown: bool = False,
    phrases: Mapping[int, Sequence[str]] | None = None,
) -> list[DetailedTranslation]:
    """Translations of texts, in their order, however they are grouped inside.

    Args:
        predictor: Of a translation model: ``learner.predictor()`` or ``Predictor.load(path)``.
        texts: Sources.
        strategy: How to search; None takes the model's own.
        replace_unknown: Write, in the place of an unknown word, the source word that it looked at
            most: right for names and numbers.
        phrases: By a text's number, what its translation must hold; the strategy is a `Beam` then.

    Raises:
        ArgumentError: The predictor is of another kind of model, or phrases go with a strategy
            that is no beam.
        InputError: A text cannot be translated; the message has its number.
    """
    preprocessor, task, model = _parts(predictor)
    strategy = strategy or task.decoding
    if phrases and not isinstance(strategy, Beam):
        raise ArgumentError(
            f"Phrases are looked for by a beam, not by {type(strategy).__name__}. Give Beam(…)."
        )
    if isinstance(texts, str):
        raise ArgumentError("texts is one text; give a list of them: [text].")
    # Like lengths together: less padding, and a batch is as slow as its longest sentence.
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    found: dict[int, DetailedTranslation] = {}
    _check_phrases(phrases, len(texts))
    plain = [row for row in order if not (phrases or {}).get(row)]
    for begin in range(0, len(plain), predictor.batch_size):
        rows = plain[begin : begin + predictor.batch_size]
        batch = _encoded(preprocessor, texts, rows).to(predictor.device)
        numbers = torch.tensor(rows)
        decoded = _quiet(
            model,
            lambda batch=batch, numbers=numbers: search(
                model, batch.inputs[SOURCE], batch.masks[SOURCE], strategy, numbers
            ),
        )
        for place, row in enumerate(rows):
            parts = _Parts(preprocessor, texts[row], decoded, place)
            found[row] = parts.detailed(replace_unknown)
    beam = cast(Beam, strategy)  # where there are phrases it is one: checked above
    for row, given in (phrases or {}).items():
        if not given:
            continue
        batch = _encoded(preprocessor, texts, [row]).to(predictor.device)
        wanted = [_numbers(preprocessor.target, phrase) for phrase in given]

        def forced(batch: Any = batch, wanted: Any = wanted) -> Decoded:
            memory = model.encode(batch.inputs[SOURCE], batch.masks[SOURCE])
            limit = limits(batch.masks[SOURCE], beam.max_factor, beam.max_extra)
            return constrained_search(model, memory, int(limit), beam, wanted)

        parts = _Parts(preprocessor, texts[row], _quiet(model, forced), 0)
        found[row] = parts.detailed(replace_unknown)
    return [found[row] for row in range(len(texts))]


@dataclass(frozen=True)
class _Parts:
    """One row of what was decoded."""

    preprocessor: TranslationPreprocessor
    text: str
    decoded: Decoded
    place: int

    def detailed(self, replace_unknown: bool) -> DetailedTranslation:
        source = [*self.preprocessor.source.split(self.text), SPECIALS[3]]
        best, *others = [
            self._answer(rank, source, replace_unknown)
            for rank in range(self.decoded.tokens.shape[1])
            if float(self.decoded.scores[self.place, rank]) > -torch.inf
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

    def _answer(
        self, rank: int, source: list[str], replace_unknown: bool
    ) -> tuple[str, float, list[str], Tensor | None]:
        target, decoded = self.preprocessor.target, self.decoded
        numbers = spoken(decoded.tokens[self.place, rank].tolist())
        tokens = target.tokens(numbers)
        attention = None
        if decoded.attention is not None:
            attention = decoded.attention[self.place, rank, : len(tokens) + 1, : len(source)].cpu()
        if replace_unknown and attention is not None:
            # The end of the source is no word.
            looked = attention[:, : len(source) - 1].argmax(1).tolist()
            tokens = [
                source[looked[at]] if number == UNKNOWN_ID else token
                for at, (number, token) in enumerate(zip(numbers, tokens, strict=True))
            ]
        score = float(decoded.scores[self.place, rank])
        return target.join(tokens), score, [*tokens, SPECIALS[3]], attention


def _parts(predictor: Predictor) -> tuple[TranslationPreprocessor, TranslationTask, Seq2Seq]:
    if not isinstance(predictor, Predictor):
        raise ArgumentError(
            f"translate needs a Predictor, not a {type(predictor).__name__}. Give "
            "learner.predictor() or Predictor.load(path)."
        )
    parts = predictor.preprocessor, predictor.task, predictor.model
    for part, kind in zip(parts, (TranslationPreprocessor, TranslationTask, Seq2Seq), strict=True):
        if not isinstance(part, kind):
            raise ArgumentError(
                f"translate needs the predictor of a translation model, but its "
                f"{type(part).__name__} is no {kind.__name__}."
            )
    return parts  # type: ignore[return-value]  # each was checked


def _encoded(preprocessor: TranslationPreprocessor, texts: Sequence[str], rows: list[int]) -> Any:
    try:
        return preprocessor.encode([texts[row] for row in rows])
    except InputError:
        # Each alone, so that the message has the text's own number.
        for row in rows:
            try:
                preprocessor.encode([texts[row]])
            except InputError as error:
                said = str(error).removeprefix("Item 0")
                raise InputError(f"Item {row}{said}") from error
        raise


def _numbers(target: Tokenizer, phrase: str) -> list[int]:
    numbers = target.encode(phrase)
    if not numbers or UNKNOWN_ID in numbers:
        raise InputError(
            f"The phrase {phrase!r} cannot be said: the target side does not know all of it."
        )
    return numbers


def _check_phrases(phrases: Mapping[int, Sequence[str]] | None, n: int) -> None:
    if phrases is not None and not isinstance(phrases, Mapping):
        raise ArgumentError(
            f"phrases is a {type(phrases).__name__}; give the phrases by the number of their text: "
            '{0: ["a phrase"]}.'
        )
    for row, given in (phrases or {}).items():
        if not 0 <= row < n:
            raise InputError(f"phrases names the text {row}, but there are 0 to {n - 1}.")
        if isinstance(given, str):
            raise ArgumentError(f"The phrases of text {row} are one text; give [{given!r}].")


def _quiet(model: Seq2Seq, work: Any) -> Any:
    """``work()`` in eval mode and without gradients; the modes are put back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            return work()
    finally:
        for module in training:
            module.training = True
