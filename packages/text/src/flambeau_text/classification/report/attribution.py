"""``token_attributions``: how much each token of a text moves an output of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.artefact.predictor import Predictor
from flambeau.data.attributions import Attributions
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError
from flambeau.task.model_call import call_model
from flambeau_text.classification.dataset import LENGTHS, TOKENS
from flambeau_text.classification.preprocess import TextPreprocessor
from flambeau_text.models.bag import BagEncoder
from flambeau_text.models.text_classifier import TextClassifier


@dataclass(frozen=True)
class TokenAttributions:
    """How much each token of a text moves one output of the model.

    Attributes:
        tokens: The tokens, as the model reads them.
        values: For each token the gradient of the output times the token's embedding: positive if
            the token raises the output. For the network "bag" they add up to the output without
            its bias.
        output: Name of the output: a class, a label or a value.
    """

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    output: str

    def strongest(self, n: int = 5) -> list[tuple[str, float]]:
        """Return the tokens with the largest absolute values, the largest first."""
        pairs = zip(self.tokens, self.values, strict=True)
        return sorted(pairs, key=lambda pair: -abs(pair[1]))[:n]


def token_attributions(
    predictor: Predictor, text: Any, output: str | None = None
) -> TokenAttributions:
    """Return how much each token of a text moves an output: gradient × input.

    Args:
        predictor: A predictor of texts: ``Predictor.load(folder)``.
        text: A text, or a mapping with the field of the text.
        output: Name of the output; None is the one with the highest value.

    Raises:
        ArgumentError: The predictor is not one of texts, the task has no such output, or the model
            has no embedding.

    Source:
        Shrikumar et al., "Not Just a Black Box: Learning Important Features Through Propagating
        Activation Differences" (arXiv 1605.01713), section 3 for gradient × input.
    """
    given: object = predictor
    if not isinstance(given, Predictor):
        raise ArgumentError(
            f"predictor is {given!r:.60}. Pass learner.predictor() or Predictor.load(path)."
        )
    preprocessor, names = predictor.preprocessor, list(predictor.task.output_names)
    if not isinstance(preprocessor, TextPreprocessor):
        raise ArgumentError(
            f"The predictor reads inputs with a {type(preprocessor).__name__}. Give one whose "
            "model was trained on TextData."
        )
    if preprocessor.n_texts > 1:
        raise ArgumentError("The model reads pairs of texts; attributions are those of one text.")
    if output is not None and output not in names:
        raise ArgumentError(f"The task has no output {output!r}; it has {', '.join(names)}.")
    index = None if output is None else names.index(output)
    batch = preprocessor.encode([text])
    values, found = attributions_of(predictor.model, batch, index)
    ids: list[int] = batch.inputs[TOKENS][0].tolist()
    tokens = preprocessor.tokenizer.ids_to_tokens(ids)
    return TokenAttributions(tuple(tokens), tuple(values), names[found])


def word_attributions(
    predictor: Predictor, item: Any, output: str | None, background: Sequence[Any]
) -> Attributions:
    """Return the attributions of the tokens of a text without special tokens and padding.

    Args:
        predictor: A predictor of texts.
        item: A text, as ``predict`` takes it.
        output: Name of an output; None is the highest one.
        background: Not used.

    Raises:
        ArgumentError: As for ``token_attributions``.
    """
    found = token_attributions(predictor, item, output)
    preprocessor = cast("TextPreprocessor", predictor.preprocessor)
    ids: list[int] = preprocessor.encode([item]).inputs[TOKENS][0].tolist()
    special = preprocessor.tokenizer.special
    left_out = {special.start, special.end, special.padding}
    kept = [
        (token, value)
        for each, token, value in zip(ids, found.tokens, found.values, strict=True)
        if each not in left_out
    ]
    return Attributions(
        found.output,
        "gradient × input",
        tuple(token for token, _ in kept),
        tuple(value for _, value in kept),
    )


def attributions_of(
    model: nn.Module, batch: Batch, index: int | None
) -> tuple[Sequence[float], int]:
    """Return the value of each token of a batch with one text, and the index of the output.

    Args:
        model: The model, in eval mode.
        batch: One encoded text.
        index: Index of the output; None is the highest one.

    Raises:
        ArgumentError: The model has no embedding of tokens.
    """
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    if isinstance(model, TextClassifier) and isinstance(model.encoder, BagEncoder):
        return _of_bag(model, model.encoder, inputs, index)
    recorded: list[Tensor] = []

    def keep(module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
        if not embedded.requires_grad and torch.is_grad_enabled():
            embedded = embedded.detach().requires_grad_()
        recorded.append(embedded)
        return embedded

    of_tokens = model.encoder.token_embedding if isinstance(model, TextClassifier) else None
    embeddings = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    hooks = [
        module.register_forward_hook(keep)
        for module in (embeddings if of_tokens is None else [of_tokens])
    ]
    try:
        with torch.enable_grad():
            outputs: Tensor = call_model(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    at = _index(outputs, index)
    parts = [each for each in recorded if each.ndim == 3 and each.shape[0] == 1]
    if sum(each.shape[1] for each in parts) != inputs[TOKENS].shape[1]:
        raise ArgumentError(
            f"{type(model).__name__} does not embed each token once with nn.Embedding, so its "
            "attributions are not known."
        )
    live = [each for each in parts if each.requires_grad]
    found = iter(torch.autograd.grad(outputs[0, at], live, allow_unused=True))
    values: list[float] = []
    for each in parts:
        gradient = next(found) if each.requires_grad else None
        product = torch.zeros(each.shape[1]) if gradient is None else (gradient * each)[0].sum(-1)
        values += cast("list[float]", product.detach().cpu().tolist())
    return values, at


def _of_bag(
    model: TextClassifier, encoder: BagEncoder, inputs: dict[str, Tensor], index: int | None
) -> tuple[Sequence[float], int]:
    with torch.enable_grad():
        parts = encoder.contributions(inputs[TOKENS], inputs[LENGTHS]).detach()
        vector = parts.sum(1).requires_grad_()
        outputs: Tensor = model.head(vector)
    at = _index(outputs, index)
    (gradient,) = torch.autograd.grad(outputs[0, at], vector)
    return cast("list[float]", (parts[0] @ gradient[0]).cpu().tolist()), at


def _index(outputs: Tensor, index: int | None) -> int:
    return int(outputs[0].argmax()) if index is None else index
