"""``TranslationTask``: a teacher-forced loss; free-running decoding for BLEU and predictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.task.metrics import Mode
from flambeau.task.task import StepContext, Task
from flambeau_text.decoding.content_keys import content_keys
from flambeau_text.decoding.search import search
from flambeau_text.decoding.strategy import (
    Beam,
    Greedy,
    Sampling,
    Strategy,
    strategy_from_json,
)
from flambeau_text.forcing.decoder_inputs import DrawKeys, required_embeddings
from flambeau_text.forcing.gap import (
    FREE_RUNNING,
    GAP,
    GAP_ERROR,
    TEACHER_FORCED,
    gap_scores,
)
from flambeau_text.forcing.teacher_forcing import TeacherForcing
from flambeau_text.forcing.unroll import decoder_features
from flambeau_text.models.seq2seq import Seq2Seq
from flambeau_text.token_loss import token_loss
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.tokenizer import END_ID, PADDING_ID, content_ids
from flambeau_text.translation.dataset import (
    RANK,
    REFERENCE,
    SOURCE,
    SOURCE_TOKENS,
    TARGET,
)
from flambeau_text.translation.prediction_options import Details, details_of, strategy_of
from flambeau_text.translation.predictions import Translation, detailed_translations
from flambeau_text.translation.scores import METRICS, corpus_scores

if TYPE_CHECKING:
    from flambeau.report import Interpretation, Section
    from flambeau.task.batch_summary import Summary

FORCING = "teacher_forcing"
"""Name of the probability of the reference token as decoder input, for schedules, controllers and
the history."""

_ALWAYS = TeacherForcing()
_BEAM = Beam()
_GREEDY = Greedy()


@dataclass(frozen=True)
class TeacherForcedOutput:
    """The output of a teacher-forced pass, from which the loss computes logits in chunks.

    Attributes:
        features: Inputs of the output layer, ``(batch, target, size)``.
        targets: The reference tokens, int64 ``(batch, target)``.
        output: The output layer.
    """

    features: Tensor
    targets: Tensor
    output: nn.Module

    def logits(self) -> Tensor:
        """Return the logits ``(batch, target, vocabulary)``, which the loss does not store."""
        return self.output(self.features)

    def rows(self, rows: Tensor) -> TeacherForcedOutput:
        """Return the output of the sentences at ``rows``, int64 indices ``(n,)``, of the batch."""
        at = rows.to(self.targets.device)
        return TeacherForcedOutput(self.features[at], self.targets[at], self.output)

    def flattened(self) -> tuple[Tensor, Tensor]:
        """Return features ``(tokens, size)`` and targets ``(tokens,)``; on a CPU without padding.

        On an accelerator padding is kept: removing it would synchronise with the device, and
        batches of similar lengths have little padding.
        """
        features, targets = self.features.flatten(0, 1), self.targets.flatten()
        if targets.device.type != "cpu":
            return features, targets
        kept = (targets != PADDING_ID).nonzero().squeeze(1)
        return features[kept], targets[kept]


class TranslationTask(Task):
    """Translation: token-level cross-entropy as the loss, BLEU and chrF in evaluation.

    The loss is a sum over target tokens (end token included, padding excluded), so the mean of a
    step is over the tokens of all its micro-batches and processes. Evaluation computes the loss
    teacher-forced, and BLEU from free-running translations.

    Args:
        target: The target tokenizer, or its JSON values.
        label_smoothing: Share of the target probability that is spread over all tokens.
        teacher_forcing: The decoder's inputs in training; None always uses the reference.
        decoding: The search for evaluation and prediction; None uses beam search with size 5.
            Evaluations during a run use greedy search.
        bleu_tokenizer: sacrebleu's tokenization for BLEU ("13a", "zh", "ja-mecab", "ko-mecab",
            "char", …), which depends on the target language.
        decode_every: During a run, only every ``decode_every``-th evaluation decodes sentences.
        max_decoded: Maximum number of sentences decoded per evaluation of a run: a random sample,
            the same in every evaluation and run.

    Attributes:
        teacher_forcing: The argument; may be set between fits, also with a user-defined schedule.
        decoding: The argument ``decoding``.
        signatures: sacrebleu's signature of each score of the last evaluation, and the search whose
            translations it scores.
    """

    builder = "translation"
    kind = "translation"
    loss_name = "cross-entropy of target tokens"

    def __init__(
        self,
        *,
        target: Tokenizer | Mapping[str, Any],
        label_smoothing: float = 0.1,
        teacher_forcing: TeacherForcing | Mapping[str, Any] | None = None,
        decoding: Strategy | Mapping[str, Any] | None = None,
        bleu_tokenizer: str = "13a",
        decode_every: int = 1,
        max_decoded: int = 1_000,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise InputError(
                f"label_smoothing must be at least 0 and below 1, not {label_smoothing!r}."
            )
        if decode_every < 1 or max_decoded < 1:
            raise InputError(
                f"decode_every and max_decoded must be at least 1, not {decode_every} and "
                f"{max_decoded}."
            )
        self.target = tokenizer_from_json(target) if isinstance(target, Mapping) else target
        self.label_smoothing = label_smoothing
        self.teacher_forcing = (
            TeacherForcing.from_json(teacher_forcing)
            if isinstance(teacher_forcing, Mapping)
            else teacher_forcing or _ALWAYS
        )
        self.decoding = (
            strategy_from_json(decoding) if isinstance(decoding, Mapping) else decoding or _BEAM
        )
        self.bleu_tokenizer = bleu_tokenizer
        self.decode_every = decode_every
        self.max_decoded = max_decoded
        self.signatures: dict[str, str] = {}
        self._details: Details | None = None

    # Training

    @property
    def values(self) -> Mapping[str, float]:
        return {FORCING: self.teacher_forcing.probability(0)}

    @property
    def step_values(self) -> Mapping[str, Callable[[int], float]]:
        return {FORCING: self.teacher_forcing.probability}

    @property
    def n_outputs(self) -> int:
        return len(self.target)

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return a `TeacherForcedOutput`, from which `loss` is computed.

        In training the decoder's inputs are chosen by ``teacher_forcing``; at any other stage they
        are the reference.
        """
        network = _as_seq2seq(model)
        probability = 1.0
        if context.stage == "train":
            # An unsupported feed fails in the first step, also at probability 1.
            required_embeddings(network, self.teacher_forcing)
            probability = context.values.get(FORCING, 1.0)
        source, target = batch.inputs[SOURCE], batch.targets[TARGET]
        memory = network.encode(source, batch.masks[SOURCE])
        samples = torch.arange(len(source)) if batch.indices is None else batch.indices
        keys = DrawKeys(context.seed, context.epoch, samples.to(source.device))
        features = decoder_features(
            network, memory, target[:, :-1], probability, self.teacher_forcing, keys
        )
        return TeacherForcedOutput(features, target[:, 1:], network.output)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss with label smoothing, and the number of target tokens.

        Raises:
            InputError: The outputs come from a search, which has no loss.
        """
        total, _, count = self._losses(outputs)
        return total, count

    def host_weight(self, batch: Batch) -> float | None:
        """Return the number of target tokens in the batch, which the loader has counted."""
        return batch.weight

    def _losses(self, outputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        if not isinstance(outputs, TeacherForcedOutput):
            raise InputError(
                "The outputs of a search have no loss: their tokens do not correspond to the "
                "tokens of the reference. Pass the outputs of forward, not those of predict."
            )
        features, targets = outputs.flattened()
        mask = targets != PADDING_ID  # never a target: flambeau's vocabularies have both tokens
        total, plain = token_loss(
            outputs.output,
            features,
            targets,
            mask,
            smoothing=self.label_smoothing,
            excluded=PADDING_ID,
        )
        return total, plain, mask.sum()

    def sample_losses(self, outputs: Any, batch: Batch) -> Tensor | None:
        """Return the mean loss per token of each sentence, ``(batch,)`` on the CPU.

        Returns:
            None for the outputs of a search, which have no loss.
        """
        if not isinstance(outputs, TeacherForcedOutput):
            return None
        found = self._sentence_losses(outputs)
        return (found["loss_sum"] / found["n_tokens"].clamp(min=1)).cpu()

    def _sentence_losses(self, forced: TeacherForcedOutput) -> dict[str, Tensor]:
        """Return the teacher-forced losses of each sentence, summed over its tokens."""
        rows = zip(forced.features.split(1), forced.targets.split(1), strict=True)
        losses = [self._losses(TeacherForcedOutput(*row, forced.output)) for row in rows]
        names = ("loss_sum", "likelihood_sum", "n_tokens")
        columns = (torch.stack(column) for column in zip(*losses, strict=True))
        return dict(zip(names, columns, strict=True))

    # Evaluation

    def for_prediction(self, options: Mapping[str, Any]) -> TranslationTask:
        """Return a copy with the search and the details requested from ``flambeau predict``.

        Args:
            options: "beam", "n_best", "length_penalty"; "temperature", "top_k", "top_p", "seed";
                "attention", "replace_unknown". Settings that are not given are kept.

        Raises:
            ArgumentError: Options of beam search and of sampling are combined.
            InputError: A value is invalid.
        """
        if not options:
            return self
        task = copy(self)
        task.decoding = strategy_of(options, self.decoding)
        task._details = details_of(options)
        return task

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], context: StepContext
    ) -> dict[str, float]:
        """Return teacher-forced loss and perplexity, and BLEU of free-running translations.

        The translations are those of `predict`. Outside of a run all sentences are translated, and
        case-insensitive BLEU and chrF are returned too. During a run (``context.stage`` "valid")
        only every ``decode_every``-th evaluation translates, and only ``max_decoded`` sentences, a
        random sample that is the same in every run. It also returns two scores that compare
        predictions with references by the F1 of their tokens: "teacher_forced_overlap", with each
        token predicted from the reference tokens before it, and "free_running_overlap", with the
        sentences that the search finds. "free_running_gap" is their relative difference, and
        "free_running_gap_error" the standard error of this difference.
        """
        in_run = context.stage == "valid"
        searches = not in_run or (context.epoch + 1) % self.decode_every == 0
        sums = [torch.zeros(()) for _ in range(3)]
        hypotheses: list[str] = []
        references: list[str] = []
        overlaps: list[tuple[float, float]] = []
        for batch in batches:
            forced = self.forward(model, batch, context)
            for index, value in enumerate(self._losses(forced)):
                sums[index] = sums[index].to(value.device) + value
            rows = self._searched_rows(batch, len(hypotheses)) if in_run else range(len(batch))
            if not searches or not len(rows):
                continue
            searched = batch
            if len(rows) < len(batch):
                at = torch.tensor(rows)
                searched, forced = batch.rows(at), forced.rows(at)
            found = self.predict(model, searched, context)
            hypotheses += [each.text for each in self.decode(found)]
            references += searched.extras[REFERENCE]
            overlaps += self._overlaps(forced, found["tokens"].tolist()) if in_run else []
        total, plain, count = (float(value) for value in sums)
        scores = {"loss": total / count}
        if hypotheses:
            scores |= self._scores(hypotheses, references, in_run)
            if overlaps:
                scores |= gap_scores(overlaps)
        return {**scores, "perplexity": math.exp(min(plain / count, 700.0))}

    def score_modes(self) -> Mapping[str, Mode]:
        """Return "min" for loss, perplexity and gap, "max" for the other scores of ``evaluate``."""
        modes: dict[str, Mode] = {"loss": "min", "perplexity": "min", GAP: "min", GAP_ERROR: "min"}
        for name in ("bleu", "bleu_lower", "chrf", TEACHER_FORCED, FREE_RUNNING):
            modes[name] = "max"
        return modes

    def score_notes(self, scores: Mapping[str, float]) -> Mapping[str, str]:
        """Return the search of a run's evaluations, which differs from ``decoding``."""
        return {"search": str(_GREEDY)} if "bleu" in scores else {}

    def _searched_rows(self, batch: Batch, n_searched: int) -> Sequence[int]:
        """Return the positions in a validation batch whose sentences are decoded during a run."""
        ranks = batch.extras.get(RANK)
        if ranks is None:  # a loader without ranks: the first ones
            return range(max(0, min(len(batch), self.max_decoded - n_searched)))
        return [at for at, rank in enumerate(ranks) if rank < self.max_decoded]

    def _scores(
        self, hypotheses: Sequence[str], references: Sequence[str], in_run: bool
    ) -> dict[str, float]:
        references = [self.target.normalize(text) for text in references]
        names = ("bleu",) if in_run else ("bleu", "bleu_lower", "chrf")
        return self._corpus_scores(hypotheses, references, names, _GREEDY if in_run else None)

    def _corpus_scores(
        self,
        hypotheses: Sequence[str],
        references: Sequence[str],
        names: Sequence[str],
        strategy: Strategy | None = None,
    ) -> dict[str, float]:
        found = corpus_scores(hypotheses, references, names, self.bleu_tokenizer)
        search = f"|search:{strategy or self.decoding}"
        self.signatures = {name: score.signature + search for name, score in found.items()}
        return {name: score.value for name, score in found.items()}

    def _overlaps(
        self, forced: TeacherForcedOutput, free: Sequence[Sequence[int]]
    ) -> list[tuple[float, float]]:
        """Return each prediction's F1 with its reference, teacher-forced and free-running."""
        predicted = forced.output(forced.features).argmax(-1)
        predicted = predicted.masked_fill(forced.targets == PADDING_ID, PADDING_ID).tolist()
        rows = zip(forced.targets.tolist(), predicted, free, strict=True)
        return [
            (token_overlap(reference, tokens), token_overlap(reference, decoded))
            for reference, tokens, decoded in rows
        ]

    # Reports

    def summarise(self, outputs: Any, batch: Batch) -> Summary:
        """Return a ``translation_summary`` of the decoded sentences."""
        from flambeau_text.translation.interpretation import translation_summary

        return translation_summary(outputs, batch, self.target, self.bleu_tokenizer)

    def summary_scores(self, summary: Summary) -> Mapping[str, float]:
        """Return TER and the scores that ``evaluate`` returns outside of a run, from a summary."""
        total, plain, count = (
            float(sum(summary.entries(name))) for name in ("loss_sum", "likelihood_sum", "n_tokens")
        )
        texts, references = (summary.entries(f"{side}_text") for side in ("predicted", "target"))
        scores = self._corpus_scores(texts, references, METRICS)
        return {"loss": total / count, **scores, "perplexity": math.exp(min(plain / count, 700.0))}

    def report_sections(self, found: Interpretation) -> Sequence[Section]:
        """Return the sections of a report on translations; see ``translation_sections``."""
        from flambeau_text.translation.interpretation import translation_sections

        return translation_sections(found, self.bleu_tokenizer)

    # Prediction

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the sentences found by a search: greedy during a run, else by ``decoding``.

        The result has tensors by name: "tokens" int64 ``(batch, longest)``, "scores" ``(batch,)``
        and, if the model returns it, "attention" ``(batch, longest, source)``. For a report it also
        has "loss_sum", "likelihood_sum" and "n_tokens" of the references, ``(batch,)``, from a
        teacher-forced pass.
        """
        strategy: Strategy = _GREEDY if context.stage == "valid" else self.decoding
        source, mask = batch.inputs[SOURCE], batch.masks[SOURCE]
        keys = batch.indices
        if keys is None and isinstance(strategy, Sampling):
            keys = content_keys(source, mask)
        found = search(_as_seq2seq(model), source, mask, strategy, keys)
        # A blank source, which only data to be scored can have, has a blank translation.
        blank = batch.inputs[SOURCE][:, 0] == END_ID
        tokens = found.tokens[:, 0].masked_fill(blank.unsqueeze(1), PADDING_ID)
        tokens[:, 0].masked_fill_(blank, END_ID)
        outputs = {"tokens": tokens, "scores": found.scores[:, 0].masked_fill(blank, 0.0)}
        if found.attention is not None:
            outputs["attention"] = found.attention[:, 0]
        if self._details is not None and SOURCE_TOKENS in batch.extras:
            outputs |= {
                "n_best": found.tokens,
                "n_best_scores": found.scores,
                "n_best_attention": found.attention,
                SOURCE_TOKENS: batch.extras[SOURCE_TOKENS],
            }
        if context.for_report:
            outputs |= self._sentence_losses(self.forward(model, batch, context))
        return outputs

    def decode(self, outputs: Any) -> list[Translation]:
        """Return one translation per source."""
        if self._details is not None and SOURCE_TOKENS in outputs:
            return list(detailed_translations(self.target, outputs, self._details))
        rows, scores = outputs["tokens"].tolist(), outputs["scores"].tolist()
        pairs = zip(rows, scores, strict=True)
        return [Translation(self.target.decode(row), float(score)) for row, score in pairs]

    def example_prediction(self) -> Translation:
        return Translation("", 0.0)

    def arguments(self) -> Mapping[str, Any]:
        """Return JSON values from which the constructor rebuilds the task.

        Teacher forcing with a user-defined schedule, which JSON cannot store, is omitted, because
        it is needed in training only.
        """
        can_save = hasattr(self.teacher_forcing.schedule, "kind")
        return {
            "target": self.target.as_json(),
            "label_smoothing": self.label_smoothing,
            "teacher_forcing": self.teacher_forcing.as_json() if can_save else None,
            "decoding": self.decoding.as_json(),
            "bleu_tokenizer": self.bleu_tokenizer,
            "decode_every": self.decode_every,
            "max_decoded": self.max_decoded,
        }


def token_overlap(reference: Sequence[int], prediction: Sequence[int]) -> float:
    """Return the F1 of two sentences as multisets of tokens: 1 for equal tokens in any order."""
    one, other = Counter(content_ids(reference)), Counter(content_ids(prediction))
    common = (one & other).total()
    if not common:
        return float(not one and not other)
    return 2.0 * common / (one.total() + other.total())


def _as_seq2seq(model: nn.Module) -> Seq2Seq:
    if not isinstance(model, Seq2Seq):
        raise InputError(
            f"Translation needs a model derived from flambeau_text.models.Seq2Seq, but "
            f"{type(model).__name__} is not. Derive it from Seq2Seq and define encode, init_state, "
            "advance and output."
        )
    return cast("Seq2Seq", model)
