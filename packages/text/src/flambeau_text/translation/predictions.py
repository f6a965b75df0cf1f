"""``Translation``: a prediction of a translation model, with its details if requested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from flambeau_text.tokenization import Tokenizer
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID, content_ids
from flambeau_text.translation.dataset import SOURCE_TOKENS
from flambeau_text.vocab import END

if TYPE_CHECKING:
    from flambeau_text.translation.prediction_options import Details


@dataclass(frozen=True)
class Translation:
    """A translated sentence; ``str()`` returns its text.

    Attributes:
        text: The sentence, joined from its tokens.
        score: The score by which the search ranked it; for beam search the log-probability divided
            by the length penalty.
    """

    text: str
    score: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class DetailedTranslation(Translation):
    """A translation with its tokens, its attention and its alternatives.

    Attributes:
        source_tokens: Tokens of the source, the end token included.
        tokens: Tokens of the translation, the end token included.
        attention: Attention weights ``(tokens, source_tokens)``; None if the model returns none.
        alternatives: The next best translations, if the strategy returns several.
    """

    source_tokens: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    attention: Tensor | None = field(default=None, repr=False)
    alternatives: tuple[Translation, ...] = ()


@dataclass(frozen=True)
class ListedTranslation(Translation):
    """A translation with the details of ``flambeau predict``, as plain values.

    Attributes:
        alternatives: Text and score of the next best translations.
        source_tokens: Tokens of the source, the end token included; empty unless attention is
            requested.
        tokens: Tokens of the translation, the end token included; empty unless attention is
            requested.
        attention: One row of weights per token; empty unless requested, or if the model returns no
            attention.
    """

    alternatives: tuple[tuple[str, float], ...] = ()
    source_tokens: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    attention: tuple[tuple[float, ...], ...] = ()


def detailed_translations(
    target: Tokenizer, outputs: Mapping[str, Any], details: Details
) -> Iterator[ListedTranslation]:
    """Yield the best translation of each source with its details.

    Args:
        target: The target tokenizer.
        outputs: Outputs of ``TranslationTask.predict`` with details.
        details: The requested details.
    """
    attention: Tensor | None = outputs["n_best_attention"]
    for row, source_tokens in enumerate(outputs[SOURCE_TOKENS]):
        source = [*source_tokens(), END] if attention is not None else []
        found: list[tuple[str, float]] = []
        best: tuple[list[str], Tensor | None] = ([], None)
        for rank, score in enumerate(outputs["n_best_scores"][row].tolist()):
            if score == float("-inf"):
                continue
            ids = content_ids(outputs["n_best"][row, rank].tolist())
            weights = None
            if attention is not None:
                weights = attention[row, rank, : len(ids) + 1, : len(source)].cpu()
            tokens = target.ids_to_tokens(ids)
            text = target.decode(ids)
            if details.replace_unknown and UNKNOWN_ID in ids:
                tokens = replace_unknown(tokens, ids, source, weights)
                text = target.join(tokens)
            best = best if found else ([*tokens, END], weights)
            found.append((text, score))
        tokens, weights = best
        shown: dict[str, Any] = {}
        if details.attention and weights is not None:
            rows = tuple(tuple(each) for each in weights.tolist())
            shown = {"source_tokens": tuple(source), "tokens": tuple(tokens), "attention": rows}
        yield ListedTranslation(*found[0], tuple(found[1:]), **shown)


def replace_unknown(
    tokens: Sequence[str], ids: Sequence[int], source: Sequence[str], attention: Tensor | None
) -> list[str]:
    """Return the tokens, each unknown token replaced by the source token with most attention.

    Args:
        tokens: The translation, without its end token.
        ids: Token ids of the translation.
        source: The source tokens, the end token last, which never replaces an unknown token.
        attention: Attention weights ``(tokens, source)``; with None no token is replaced.
    """
    if attention is None or len(source) < 2:
        return list(tokens)
    attended: list[int] = attention[:, : len(source) - 1].argmax(1).tolist()
    return [
        source[attended[at]] if token_id == UNKNOWN_ID else token
        for at, (token_id, token) in enumerate(zip(ids, tokens, strict=True))
    ]
