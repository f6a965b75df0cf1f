"""``LanguageModelTask``: predicts the next token, with the state carried from batch to batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.distributed.metric_sync import make_syncable, synced_scores
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.task.metrics import MeanLoss, Mode, score
from flambeau.task.task import StepContext, Task
from flambeau_text.decoding.content_keys import content_keys
from flambeau_text.decoding.strategy import Greedy, Sampling, Strategy, strategy_from_json
from flambeau_text.language.generate import StopRule, generate, generate_steps
from flambeau_text.language.stream import BYTES, NEXT, TOKENS, WORDS
from flambeau_text.models.language_model import LanguageModel
from flambeau_text.models.packing import DOCUMENTS
from flambeau_text.token_loss import token_loss
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.tokenizer import END_ID

_LN_2 = math.log(2.0)
_MOST = 700.0  # the exponent of a larger perplexity overflows


@dataclass(frozen=True)
class LanguageOutput:
    """The output for a batch of tokens, from which the loss computes logits in chunks.

    Attributes:
        features: Inputs of the output layer, ``(batch, positions, size)``.
        raw: ``features`` before the last dropout; None without one.
        output: The output layer.
        in_training: Whether the loss includes the regularisation of activations.
    """

    features: Tensor
    raw: Tensor | None
    output: nn.Module
    in_training: bool

    def logits(self) -> Tensor:
        """Return the logits ``(batch, positions, vocabulary)``, which the loss does not store."""
        return self.output(self.features)


@dataclass(frozen=True)
class Continuation:
    """The text that a model generated after a prompt; ``str()`` returns it.

    Attributes:
        text: The generated text, without the prompt.
        log_prob: Mean log-probability of its tokens.
    """

    text: str
    log_prob: float

    def __str__(self) -> str:
        return self.text


class LanguageModelTask(Task):
    """Language modelling: cross-entropy of the next token; predictions continue a prompt.

    The loss of a step is the mean over its tokens. In training the activations of the last layer
    are regularised as in AWD-LSTM, if the model returns them; the history's "train_nll" is
    the loss without it. Evaluation also returns "perplexity" (per token), and "bits_per_byte" and
    "word_perplexity", which do not depend on the tokenizer: bytes and words include one for each
    line end, as usual for WikiText.

    Args:
        tokenizer: The tokenizer, or its JSON values.
        alpha: Factor of the mean square of the activations.
        beta: Factor of the mean square of the difference of activations at adjacent positions.
        decoding: How tokens are chosen in predictions; None samples with temperature 0.8 and top-p
            0.9.
        max_tokens: Maximum number of tokens that a prediction generates.
        stop: Texts before which a prediction ends.

    Source:
        Merity, McCann and Socher, "Revisiting Activation Regularization for Language RNNs"
        (arXiv 1708.01009).
    """

    builder = "language_model"
    kind = "language_model"
    sample_name = "chunk"
    loss_name = "cross-entropy of the next token"

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | Mapping[str, Any],
        alpha: float = 2.0,
        beta: float = 1.0,
        decoding: Strategy | Mapping[str, Any] | None = None,
        max_tokens: int = 50,
        stop: Sequence[str] = (),
    ) -> None:
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be a number of at least 0, not {value!r}.")
        self.tokenizer = (
            tokenizer_from_json(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
        )
        self.alpha, self.beta = alpha, beta
        given = strategy_from_json(decoding) if isinstance(decoding, Mapping) else decoding
        given = Sampling(temperature=0.8, top_p=0.9) if given is None else given
        if not isinstance(given, Greedy | Sampling):
            raise InputError(f"decoding is {given}; a language model needs Greedy or Sampling.")
        self.decoding = given
        self.max_tokens, self.stop = _checked_most(max_tokens), _checked_stop(stop)

    @property
    def n_outputs(self) -> int:
        return len(self.tokenizer)

    # Training

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> LanguageOutput:
        """Return the features of each position; rows of a stream carry the state to the next batch.

        Raises:
            ArgumentError: The model is no ``LanguageModel``, or rows are packed and it has no
                attention.
        """
        network = _as_language_model(model)
        network.check_tokenizer(self.tokenizer)
        tokens, documents = batch.inputs[TOKENS], batch.task_inputs.get(DOCUMENTS)
        if documents is None:
            found = network.features(tokens, context.carry)
            context.carry = found.state
        else:
            found = network.packed_features(tokens, documents)
        return LanguageOutput(found.features, found.raw, network.output, context.stage == "train")

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss, and the number of tokens that are predicted."""
        total, count = self.likelihood(outputs, batch)
        if outputs.in_training:
            self.log(batch, nll=total.detach() / count.clamp(min=1))
            total = total + count * self._regularisation(outputs, batch.masks[TOKENS])
        return total, count

    def host_weight(self, batch: Batch) -> float | None:
        """Return the number of tokens, which the loader has counted."""
        return batch.weight

    def likelihood(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed negative log-likelihood of the tokens, and their number.

        Training and evaluation use it; override it for another loss over the vocabulary.

        Raises:
            InputError: ``outputs`` are not those of ``forward``.
        """
        if not isinstance(outputs, LanguageOutput):
            raise InputError("Generated tokens have no loss. Pass the outputs of forward.")
        targets, mask = batch.targets[NEXT].flatten(), batch.masks[TOKENS].flatten()
        total, _ = token_loss(outputs.output, outputs.features.flatten(0, 1), targets, mask)
        return total, mask.sum()

    def _regularisation(self, outputs: LanguageOutput, mask: Tensor) -> Tensor:
        """Return ``alpha`` times AR (after dropout) plus ``beta`` times TAR (before it)."""
        found = outputs.features.new_zeros((), dtype=torch.float32)
        if outputs.raw is None:
            return found
        if self.alpha:
            found = found + self.alpha * _mean_square(outputs.features, mask)
        if self.beta and mask.shape[1] > 1:
            steps = outputs.raw[:, 1:] - outputs.raw[:, :-1]
            found = found + self.beta * _mean_square(steps, mask[:, 1:])
        return found

    # Evaluation

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], context: StepContext
    ) -> dict[str, float]:
        """Return loss and perplexity per token, and both scores that do not depend on tokens."""
        metrics: dict[str, Any] = {name: MeanLoss() for name in ("loss", BYTES, WORDS)}
        if context.sharded:
            metrics = make_syncable(metrics)
        for batch in batches:
            total, count = self.likelihood(self.forward(model, batch, context), batch)
            metrics["loss"].update(total, count)
            for name in (BYTES, WORDS):
                metrics[name].update(total, float(sum(batch.extras.get(name, ()))))
        if context.sharded:
            means = synced_scores(metrics, score)
        else:
            means = {name: score(metric) for name, metric in metrics.items()}
        found = {"loss": means["loss"], "perplexity": math.exp(min(means["loss"], _MOST))}
        if math.isfinite(means[BYTES]):  # a custom loader may not count them
            found["bits_per_byte"] = means[BYTES] / _LN_2
            found["word_perplexity"] = math.exp(min(means[WORDS], _MOST))
        return found

    def score_modes(self) -> Mapping[str, Mode]:
        """Return "min" for all scores."""
        names = ("loss", "perplexity", "bits_per_byte", "word_perplexity")
        return dict.fromkeys(names, "min")

    # Prediction

    def for_prediction(self, options: Mapping[str, Any]) -> LanguageModelTask:
        """Return a copy with the sampling requested from ``flambeau predict``.

        Args:
            options: "max_tokens"; "stop", a text or several; "temperature" (0 is greedy), "top_k",
                "top_p", "min_p", "seed".

        Raises:
            ArgumentError: There is no such option.
            InputError: A value is invalid.
        """
        if not options:
            return self
        for name in options:
            if name not in _OPTIONS:
                raise ArgumentError(
                    f"Language models have no option {name!r} for predict. "
                    f"{did_you_mean(name, _OPTIONS)}"
                )
        task = copy(self)
        given = {name: value for name, value in options.items() if value is not None}
        task.max_tokens = _checked_most(given.pop("max_tokens", self.max_tokens))
        stop = given.pop("stop", self.stop)
        task.stop = _checked_stop([stop] if isinstance(stop, str) else stop)
        if given.get("temperature") == 0:
            task.decoding = Greedy()
        elif given:
            base = self.decoding if isinstance(self.decoding, Sampling) else Sampling()
            kept = {name: getattr(base, name) for name in _SAMPLING}
            task.decoding = Sampling(**{**kept, **given})
        return task

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the generated "tokens" and their "log_probs", ``(batch, max_tokens)``.

        "before" has the last token of each prompt, ``(batch,)``, which decides on the space after
        it.
        """
        prompts, mask = batch.inputs[TOKENS], batch.masks[TOKENS]
        network = _as_language_model(model)
        network.check_tokenizer(self.tokenizer)
        found = generate(
            network,
            prompts,
            mask,
            self.max_tokens,
            self.decoding,
            content_keys(prompts, mask),
            special=self.tokenizer.special,
            stop=self.stop_rule,
        )
        last = (mask.sum(1, keepdim=True) - 1).to(torch.int64)
        return {
            "before": prompts.gather(1, last).squeeze(1),
            "tokens": found.tokens,
            "log_probs": found.log_probs,
            "lengths": found.lengths,
        }

    def stream(self, model: nn.Module, batch: Batch, context: StepContext) -> Iterator[str]:
        """Yield the continuation of the only prompt of a batch in pieces, as it is generated.

        A piece is held back while it may still change: the first bytes of a character, or what may
        be the start of a text in ``stop``.
        """
        prompts, mask = batch.inputs[TOKENS], batch.masks[TOKENS]
        if len(prompts) != 1:
            raise InputError(f"Only one prompt can be streamed, not {len(prompts)}.")
        steps = generate_steps(
            _as_language_model(model),
            prompts,
            mask,
            self.max_tokens,
            self.decoding,
            content_keys(prompts, mask),
            special=self.tokenizer.special,
            stop=self.stop_rule,
        )
        before, tokens, shown = int(prompts[0, -1]), list[int](), ""
        held = max((len(each) - 1 for each in self.stop), default=0)
        for token, _, _ in steps:
            tokens.append(int(token))
            text = self.continuation(before, tokens).rstrip("\ufffd")
            text = text[: max(0, len(text) - held)]
            if text.startswith(shown) and text != shown:
                yield text[len(shown) :]
                shown = text
        whole = self.continuation(before, tokens)
        # A decoder may change what it returned for fewer tokens: then the text is repeated.
        yield whole[len(shown) :] if whole.startswith(shown) else f"\n{whole}"

    @property
    def stop_rule(self) -> StopRule:
        """When a continuation ends before ``max_tokens``."""
        if not self.stop:
            return StopRule(self.tokenizer.stop)
        return StopRule(self.tokenizer.stop, lambda tokens: self._end_of(self._text(tokens)) >= 0)

    def _end_of(self, text: str) -> int:
        """Return where the first of the texts in ``stop`` begins; -1 if there is none."""
        return min((at for each in self.stop if (at := text.find(each)) >= 0), default=-1)

    def decode(self, outputs: Any) -> list[Continuation]:
        """Return one continuation per prompt."""
        rows = zip(
            outputs["before"].tolist(),
            outputs["tokens"].tolist(),
            outputs["lengths"].tolist(),
            outputs["log_probs"].sum(1).tolist(),
            strict=True,
        )
        return [
            Continuation(self.continuation(before, tokens[:n]), total / max(1, n))
            for before, tokens, n, total in rows
        ]

    def continuation(self, before: int, tokens: Sequence[int]) -> str:
        """Return the text of the tokens as it continues a token, with the space between."""
        last, whole = self._text([before]), self._text([before, *tokens])
        text = whole[len(last) :] if whole.startswith(last) else self._text(tokens)
        end = self._end_of(text)
        return text if end < 0 else text[:end]

    def _text(self, tokens: Sequence[int]) -> str:
        if self.tokenizer.keeps_lines:
            return self.tokenizer.decode(tokens)
        lines: list[list[int]] = [[]]
        for token in tokens:
            if token == END_ID:
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(self.tokenizer.decode(line) for line in lines)

    def example_prediction(self) -> Continuation:
        return Continuation("", 0.0)

    def arguments(self) -> Mapping[str, Any]:
        return {
            "tokenizer": self.tokenizer.as_json(),
            "alpha": self.alpha,
            "beta": self.beta,
            "decoding": self.decoding.as_json(),
            "max_tokens": self.max_tokens,
            "stop": list(self.stop),
        }


_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
_OPTIONS = ("max_tokens", "stop", *_SAMPLING)


def _checked_most(max_tokens: Any) -> int:
    if type(max_tokens) is not int or max_tokens < 1:
        raise InputError(f"max_tokens must be a number of at least 1, not {max_tokens!r}.")
    return max_tokens


def _checked_stop(stop: Any) -> tuple[str, ...]:
    is_list = isinstance(stop, Sequence) and not isinstance(stop, str)
    if not is_list or not all(isinstance(each, str) and each for each in stop):
        raise InputError(f"stop must be a list of texts that are not empty, not {stop!r}.")
    return tuple(cast("Sequence[str]", stop))


def _mean_square(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean square of ``(batch, positions, size)`` over the positions of the mask."""
    squares = values.float().square().mean(-1) * mask
    return squares.sum() / mask.sum().clamp(min=1)


def _as_language_model(model: nn.Module) -> LanguageModel:
    if not isinstance(model, LanguageModel):
        raise ArgumentError(
            "Language modelling needs a model derived from flambeau_text.models.LanguageModel, but "
            f"{type(model).__name__} is not. Derive it from LanguageModel and define output and "
            "features(tokens, state)."
        )
    return cast("LanguageModel", model)
