"""``score_texts`` and ``embed_texts``: what a language model computes for given texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from flambeau.artefact.predictor import Predictor
from flambeau.errors import ArgumentError
from flambeau_text.checked_text import checked_text, refuse_names
from flambeau_text.language.preprocess import LanguagePreprocessor
from flambeau_text.models.language_model import LanguageModel
from flambeau_text.tokenization import Tokenizer

Pooling = Literal["mean", "last"]
"""How the features of the tokens of a text become one vector."""

_CHUNK = 256
"""Tokens whose logits are in memory at once, for models that carry a state."""


@dataclass(frozen=True)
class TokenScores:
    """The probabilities that a language model gives to the tokens of a text.

    Attributes:
        tokens: The tokens, end tokens included.
        log_probs: Natural logarithm of the probability of each token, given those before it.
    """

    tokens: tuple[str, ...]
    log_probs: tuple[float, ...]

    @property
    def log_prob(self) -> float:
        """The log-probability of the whole text."""
        return sum(self.log_probs)


def score_texts(predictor: Predictor, texts: Sequence[str]) -> list[TokenScores]:
    """Return the log-probability of each token of some texts.

    Each text is a document: it begins after the start token and ends with an end token.

    Args:
        predictor: That of a language model: ``learner.predictor()`` or ``Predictor.load(path)``.
        texts: The texts.

    Raises:
        ArgumentError: The predictor is not one of a language model, or a single text is given.
        InputError: A text is invalid or longer than the positions of the model, or ``texts`` is a
            frame or a mapping.
    """
    model, tokenizer = _components(predictor, texts)
    found: list[TokenScores] = []
    with predictor.eval_mode():
        for tokens in _encoded(tokenizer, texts):
            scores: list[Tensor] = []
            for part, features in _features(model, tokenizer, tokens.to(predictor.device)):
                log_probs = model.output(features).float().log_softmax(-1)[0]
                scores.append(log_probs.gather(1, part.unsqueeze(1)).squeeze(1))
            names = tokenizer.ids_to_tokens(tokens.tolist())
            found.append(TokenScores(tuple(names), tuple(torch.cat(scores).tolist())))
    return found


def embed_texts(predictor: Predictor, texts: Sequence[str], pooling: Pooling = "mean") -> Tensor:
    """Return a vector for each text, float32 ``(texts, size)``, on the CPU.

    Args:
        predictor: As for `score_texts`.
        texts: The texts.
        pooling: "mean" is the mean of the last layer's features over the tokens that are read,
            "last" those from which the end of the text is predicted.

    Raises:
        ArgumentError: As for `score_texts`; or ``pooling`` is unknown.
        InputError: As for `score_texts`.
    """
    if pooling not in get_args(Pooling):
        raise ArgumentError(f'pooling={pooling!r} is invalid. Use "mean" or "last".')
    model, tokenizer = _components(predictor, texts)
    rows: list[Tensor] = []
    with predictor.eval_mode():
        for tokens in _encoded(tokenizer, texts):
            parts = _features(model, tokenizer, tokens.to(predictor.device))
            found = torch.cat([features[0].float() for _, features in parts])
            rows.append((found.mean(0) if pooling == "mean" else found[-1]).cpu())
    return torch.stack(rows) if rows else torch.zeros(0, 0)


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Tensor]:
    """Yield the tokens of each text, with its end tokens, int64 ``(n,)``."""
    preprocessor = LanguagePreprocessor(tokenizer=tokenizer)
    for index, text in enumerate(texts):
        checked = checked_text(text, f"Text {index}")
        yield preprocessor.stream([checked]).tokens.to(torch.int64)


def _features(
    model: LanguageModel, tokenizer: Tokenizer, tokens: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield tokens and the features from which they are predicted, ``(1, n, size)``."""
    read = torch.cat([tokens.new_tensor([tokenizer.special.start]), tokens[:-1]])
    state: Any = None
    for part, wanted in zip(read.split(_CHUNK), tokens.split(_CHUNK), strict=True):
        found = model.features(part.unsqueeze(0), state)
        state = found.state
        yield wanted, found.features


def _components(predictor: Predictor, texts: Any) -> tuple[LanguageModel, Tokenizer]:
    given: object = predictor
    if not isinstance(given, Predictor):
        raise ArgumentError(
            f"predictor is {given!r:.60}. Pass learner.predictor() or Predictor.load(path)."
        )
    model = predictor.model
    tokenizer = getattr(predictor.preprocessor, "tokenizer", None)
    if not isinstance(model, LanguageModel) or not isinstance(tokenizer, Tokenizer):
        raise ArgumentError(
            f"Scores of tokens need the predictor of a language model, but this one has a "
            f"{type(model).__name__}."
        )
    if isinstance(texts, str):
        raise ArgumentError("texts is a single text. Pass a list: [text].")
    refuse_names(texts, "texts", "frame[column]")
    return model, tokenizer
